use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use dayfly_guest::runner_app::JobResult;
use proptest::prelude::*;

use super::*;
use crate::RunnerId;
use crate::fact::tests::one_of_each;
use crate::fact::{Fact, FactRecord, OverHow, RunnerRef};
use crate::job_end::tests::failed_on;

/// Returns the facts of a run that ended at this second with this result.
fn run(pool: &str, repository: &str, at_s: u64, result: JobResult) -> Vec<FactRecord> {
    let id = RunnerId::random(1);
    let scope = dayfly_forge::RunnerScope::Repository { owner: "o".to_owned(), name: repository.to_owned() };
    let facts = [
        crate::journal::begun("/e".into(), "http://f/".to_owned(), scope),
        Fact::JobStarted { job: format!("build-{repository}") },
        Fact::JobFinished { result },
        Fact::Over { how: OverHow::JobDone, why: None, kind: None },
    ];
    facts
        .into_iter()
        .map(|fact| FactRecord {
            at: Moment::of_ms(Moment::now().ms() - 1_000_000 + at_s * 1000),
            pool: Some(pool.to_owned()),
            loop_index: 1,
            runner: Some(RunnerRef { id: id.clone(), name: id.name("p") }),
            fact,
        })
        .collect()
}

fn id_of(run: &[FactRecord]) -> String {
    run[0].runner.as_ref().expect("a runner").id.to_string()
}

fn all() -> RunQuestion {
    RunQuestion { limit: 1000, ..RunQuestion::default() }
}

fn ids(index: &Index, question: &RunQuestion) -> Vec<String> {
    index.runs(question).expect("answered").into_iter().map(|run| run.runner).collect()
}

/// Returns a history of six runs, of which the last one is the newest, and their ids.
fn six(state: &Path) -> (History, Vec<String>) {
    let history = History::of(state);
    let runs = [
        run("a", "x", 1, JobResult::Succeeded),
        run("a", "y", 2, JobResult::Failed),
        run("b", "x", 3, JobResult::Failed),
        run("b", "Y", 4, JobResult::Succeeded),
        run("a", "x", 5, JobResult::Canceled),
        run("a", "x", 6, JobResult::Failed),
    ];
    runs.iter().for_each(|run| history.keep(run).expect("kept"));
    (history, runs.iter().map(|run| id_of(run)).collect())
}

#[test]
fn a_question_gets_the_newest_runs_that_fit_all_of_its_words() {
    let state = tempfile::tempdir().expect("folder");
    let (history, id) = six(state.path());
    let index = Index::open(&history).expect("opened");
    let of = |numbers: &[usize]| numbers.iter().map(|&number| id[number].clone()).collect::<Vec<_>>();
    let text = |text: &str| Some(text.to_owned());
    for (question, expected) in [
        (all(), of(&[5, 4, 3, 2, 1, 0])),
        (RunQuestion { limit: 2, ..all() }, of(&[5, 4])),
        (RunQuestion { pool: text("b"), ..all() }, of(&[3, 2])),
        (RunQuestion { repository: text("O/y"), ..all() }, of(&[3, 1])),
        (RunQuestion { outcome: Some(Outcome::Failure), ..all() }, of(&[5, 2, 1])),
        (RunQuestion { pool: text("a"), outcome: Some(Outcome::Failure), ..all() }, of(&[5, 1])),
        (RunQuestion { pool: text("none"), ..all() }, of(&[])),
    ] {
        assert_eq!(ids(&index, &question), expected, "{question:?}");
    }
    let since = index.runs(&all()).expect("answered")[2].times.over;
    assert_eq!(ids(&index, &RunQuestion { since_ms: since, ..all() }), of(&[5, 4, 3]));
    assert_eq!(ids(&index, &RunQuestion { before_ms: since, ..all() }), of(&[2, 1, 0]));
    assert_eq!(index.find(&id[3], 9).expect("found").len(), 1);
    assert_eq!(index.find(&format!("p-{}", id[3]), 9).expect("found").len(), 1);
    assert_eq!(index.find("build-x", 3).expect("found").len(), 3);
}

#[test]
fn what_comes_later_is_added_and_what_the_forge_says_changes_the_run() {
    let state = tempfile::tempdir().expect("folder");
    let (history, id) = six(state.path());
    let mut index = Index::open(&history).expect("opened");
    let mut late = run("a", "x", 7, JobResult::Succeeded)[0].clone();
    late.runner = Some(RunnerRef { id: id[0].parse().expect("an id"), name: format!("p-{}", id[0]) });
    late.fact = failed_on("r", 0).fact();
    history.add(&late).expect("kept");
    let seventh = run("c", "z", 8, JobResult::Succeeded);
    history.keep(&seventh).expect("kept");
    index.catch_up().expect("read");
    assert_eq!(index.count().expect("counted"), 7);
    assert_eq!(ids(&index, &all())[..2], [id_of(&seventh), id[0].clone()]);
    let first = &index.find(&id[0], 1).expect("found")[0];
    assert_eq!((first.outcome(), first.repository.as_deref()), (Outcome::Failure, Some("o/x")));
}

#[test]
fn losing_the_index_loses_nothing() {
    let state = tempfile::tempdir().expect("folder");
    let (history, _) = six(state.path());
    let before = Index::open(&history).expect("opened").runs(&all()).expect("answered");
    for name in [FILE, "index.sqlite-wal", "index.sqlite-shm"] {
        remove_if_there(&history.folder().join(name)).expect("removed");
    }
    let index = Index::open(&history).expect("opened");
    assert_eq!((index.runs(&all()).expect("answered"), index.rebuilt()), (before, None));
}

#[test]
fn a_damaged_index_is_set_aside_and_built_anew_with_a_word() {
    let state = tempfile::tempdir().expect("folder");
    let (history, _) = six(state.path());
    let before = Index::open(&history).expect("opened").runs(&all()).expect("answered");
    let file = history.folder().join(FILE);
    let damage: [&dyn Fn(); 3] = [
        &|| {
            fs::write(&file, "this is no index, but it is long enough to be taken for one ".repeat(100))
                .expect("written")
        },
        &|| {
            let mut file = OpenOptions::new().read(true).write(true).open(&file).expect("open");
            let mut header = [0; 100];
            file.read_exact(&mut header).expect("a header");
            file.seek(SeekFrom::Start(100)).expect("seek");
            file.write_all(&[0xa5; 8000]).expect("written");
        },
        &|| {
            let length = fs::metadata(&file).expect("there").len();
            OpenOptions::new().write(true).open(&file).expect("open").set_len(length / 2).expect("cut");
        },
    ];
    for (number, damage) in damage.iter().enumerate() {
        damage();
        let index = Index::open(&history).expect("opened");
        let word = index.rebuilt().unwrap_or_else(|| panic!("no word about damage {number}"));
        assert!(word.contains("set aside") && word.contains(DAMAGED), "{word}");
        assert_eq!(index.runs(&all()).expect("answered"), before);
        assert!(history.folder().join(DAMAGED).exists());
        drop(index);
        assert_eq!(Index::open(&history).expect("opened").rebuilt(), None);
    }
}

#[test]
fn an_index_of_another_version_is_built_anew() {
    let state = tempfile::tempdir().expect("folder");
    let (history, _) = six(state.path());
    let index = Index::open(&history).expect("opened");
    let before = index.runs(&all()).expect("answered");
    index.connection.execute_batch("PRAGMA user_version = 99; DELETE FROM runs;").expect("changed");
    drop(index);
    assert_eq!(Index::open(&history).expect("opened").runs(&all()).expect("answered"), before);
}

#[test]
fn runs_that_are_too_old_and_those_of_segments_that_are_gone_are_forgotten() {
    let state = tempfile::tempdir().expect("folder");
    let (history, id) = six(state.path());
    let mut index = Index::open(&history).expect("opened");
    let mut old = run("a", "x", 1, JobResult::Succeeded);
    old.iter_mut().for_each(|record| record.at = Moment::of_ms(1000));
    history.keep(&old).expect("kept");
    index.catch_up().expect("read");
    assert_eq!(ids(&index, &all()).len(), id.len());
    let next = run("a", "x", 9, JobResult::Succeeded);
    fs::write(history.path(2), Entry::of(&next).expect("an entry").line().expect("json")).expect("written");
    fs::remove_file(history.path(1)).expect("removed");
    index.catch_up().expect("read");
    assert_eq!(ids(&index, &all()), [id_of(&next)]);
}

#[test]
fn several_processes_read_and_write_at_once() {
    let state = tempfile::tempdir().expect("folder");
    let history = History::of(state.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..25 {
                    history.keep(&run("a", "x", number, JobResult::Succeeded)).expect("kept");
                    let index = Index::open(&history).expect("opened");
                    assert!(!index.runs(&all()).expect("answered").is_empty());
                    assert_eq!(index.rebuilt(), None);
                }
            });
        }
    });
    assert_eq!(Index::open(&history).expect("opened").count().expect("counted"), 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// The index is read in any number of steps, as entries come.
    #[test]
    fn an_index_that_grew_with_the_history_is_the_one_that_is_built_from_it(
        entries in proptest::collection::vec((0usize..4, proptest::collection::vec(any::<prop::sample::Index>(), 1..8), any::<bool>()), 1..20),
    ) {
        let state = tempfile::tempdir().expect("folder");
        let history = History::of(state.path());
        let mut grown = Index::open(&history).expect("opened");
        let runners: Vec<RunnerId> = (0..4).map(|_| RunnerId::random(1)).collect();
        let all_facts = one_of_each();
        let now = Moment::now().ms();
        for (step, (runner, picks, is_read)) in entries.iter().enumerate() {
            let id = runners[*runner].clone();
            let record = |(at, pick): (usize, &prop::sample::Index)| FactRecord {
                at: Moment::of_ms(now + (step * 10 + at) as u64),
                pool: None,
                loop_index: 1,
                runner: Some(RunnerRef { name: id.name("p"), id: id.clone() }),
                fact: pick.get(&all_facts).clone(),
            };
            let records: Vec<FactRecord> = picks.iter().enumerate().map(record).collect();
            history.keep(&records).expect("kept");
            if *is_read {
                grown.catch_up().expect("read");
            }
        }
        grown.catch_up().expect("read");
        let by_runner = |index: &Index| {
            let mut runs = index.runs(&all()).expect("answered");
            runs.sort_by(|one, other| one.runner.cmp(&other.runner));
            runs
        };
        let other = tempfile::tempdir().expect("folder");
        fs::create_dir(History::of(other.path()).folder()).expect("folder");
        fs::copy(history.path(1), History::of(other.path()).path(1)).expect("copied");
        let built = Index::open(&History::of(other.path())).expect("opened");
        prop_assert_eq!(by_runner(&grown), by_runner(&built));
    }
}

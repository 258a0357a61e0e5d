//! Measures the history of many runs: its size, and the time of each kind of question.

use std::path::Path;
use std::time::Instant;

use dayfly_fleet::RunnerId;
use dayfly_fleet::fact::{Fact, FactRecord, Moment, OverHow, RegistrationEnd, RunnerRef, StartKind};
use dayfly_fleet::history::{History, Index, Outcome, RunQuestion};
use dayfly_forge::RunnerScope;
use dayfly_guest::runner_app::JobResult;

use crate::Error;
use crate::figures::{Figure, milliseconds};

/// Runs of the measurement, of one job each.
const RUNS: u64 = 100_000;
const MIB: f64 = (1 << 20) as f64;

/// Measures the files of the history, and questions of each kind, each with opening the index.
pub(crate) fn measure(samples: u32) -> Result<Vec<Figure>, Error> {
    let state = tempfile::tempdir()?;
    let history = fill(state.path(), RUNS)?;
    let began = Instant::now();
    drop(Index::open(&history)?);
    let built = began.elapsed().as_secs_f64();
    let mut index = 0_u64;
    for file in std::fs::read_dir(history.folder())?.flatten() {
        if file.file_name().to_string_lossy().starts_with("index") {
            index += file.metadata()?.len();
        }
    }
    let mut figures = vec![
        Figure::of("history of 100,000 runs: index built", "s", "-", vec![built]),
        Figure::of("history of 100,000 runs: the index", "MiB", "200 MiB", vec![index as f64 / MIB]),
        Figure::of("history of 100,000 runs: the records", "MiB", "-", vec![history.bytes()? as f64 / MIB]),
    ];
    for (name, question) in questions() {
        let ask = || Ok(Index::open(&history)?.runs(&question)?.len());
        figures.push(times(name, samples, ask)?);
    }
    let lost = RunQuestion { outcome: Some(Outcome::Lost), limit: 1, ..RunQuestion::default() };
    let id = Index::open(&history)?.runs(&lost)?.first().ok_or("no run was lost")?.runner.clone();
    figures.push(times("one run by its id", samples, || Ok(Index::open(&history)?.find(&id, 1)?.len()))?);
    Ok(figures)
}

/// Returns questions of each kind, with their names.
fn questions() -> [(&'static str, RunQuestion); 7] {
    let text = |text: &str| Some(text.to_owned());
    let all = RunQuestion { limit: 50, ..RunQuestion::default() };
    let rare = RunQuestion { outcome: Some(Outcome::Lost), ..all.clone() };
    let hour_ago = Moment::now().ms() - 3_600_000;
    [
        ("the newest 50 runs", all.clone()),
        ("runs of a pool", RunQuestion { pool: text("pool-3"), ..all.clone() }),
        ("runs of a repository", RunQuestion { repository: text("acme/app-17"), ..all.clone() }),
        ("runs that were lost, one in a thousand", rare.clone()),
        ("runs of a pool that were lost", RunQuestion { pool: text("pool-3"), ..rare }),
        (
            "runs of a pool and a repository that have nothing in common",
            RunQuestion { pool: text("pool-3"), repository: text("acme/app-16"), ..all.clone() },
        ),
        ("runs of the last hour", RunQuestion { since_ms: Some(hour_ago), ..all }),
    ]
}

fn times(name: &'static str, samples: u32, ask: impl Fn() -> Result<usize, Error>) -> Result<Figure, Error> {
    let mut all = Vec::new();
    for _ in 0..samples {
        let began = Instant::now();
        ask()?;
        all.push(milliseconds(began));
    }
    Ok(Figure::of(name, "ms", "10 ms", all))
}

/// Writes so many runs into a state folder, as runners leave them: one a minute, so that the last one is the newest.
pub(crate) fn fill(state: &Path, runs: u64) -> Result<History, Error> {
    let history = History::of(state);
    let now = Moment::now().ms();
    for number in 0..runs {
        history.keep(&run(number, now - (runs - number) * 60_000))?;
    }
    Ok(history)
}

/// Returns the facts of a run that began at this time.
fn run(number: u64, at: u64) -> Vec<FactRecord> {
    let id = RunnerId::random(u32::try_from(number % 40).unwrap_or_default());
    let scope = RunnerScope::Repository { owner: "acme".to_owned(), name: format!("app-{}", number % 50) };
    let result = if number.is_multiple_of(7) { JobResult::Failed } else { JobResult::Succeeded };
    let is_lost = number % 1000 == 3;
    let mut facts = vec![
        Fact::Begun {
            version: 1,
            environment: "/var/lib/dayfly/instances/k3V9x0qA/environment/GH-runner-001".into(),
            forge: "https://api.github.com/".to_owned(),
            scope,
        },
        Fact::Registering,
        Fact::Registered { registration: number },
        Fact::StartingVm,
        Fact::VmmStarted { pid: 12345, from: StartKind::Fork, template: Some("0123456789abcdef".to_owned()) },
        Fact::AgentHello,
        Fact::RunnerUp,
        Fact::Listening,
        Fact::JobStarted { job: format!("build ({number}, ubuntu-24.04, release)") },
    ];
    facts.extend((!is_lost).then_some(Fact::JobFinished { result }));
    facts.extend([
        Fact::DestroyingVm,
        Fact::VmGone { exit: "the VMM was killed".to_owned() },
        Fact::DeletingRegistration,
        Fact::RegistrationEnded { how: RegistrationEnd::Gone },
        Fact::Over {
            how: if is_lost { OverHow::MachineLost } else { OverHow::JobDone },
            why: is_lost.then(|| "the VMM was killed by signal 9".to_owned()),
            kind: None,
        },
    ]);
    let record = |(step, fact): (u64, Fact)| FactRecord {
        at: Moment::of_us((at + step * 1000) * 1000 + 123),
        pool: Some(format!("pool-{}", number % 8)),
        loop_index: 1,
        runner: Some(RunnerRef { id: id.clone(), name: id.name("GH-runner") }),
        fact,
    };
    (0..).zip(facts).map(record).collect()
}

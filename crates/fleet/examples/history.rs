//! Measures the history of many runs: `cargo run --release -p dayfly-fleet --example history -- 100000`.
//!
//! Writes so many runs of one job each, as runners leave them, and prints the sizes, the time that the index takes, and the time of each
//! kind of question (the median and the largest of 50).

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Instant;

use dayfly_fleet::RunnerId;
use dayfly_fleet::fact::{Fact, FactRecord, Moment, OverHow, RegistrationEnd, RunnerRef, StartKind};
use dayfly_fleet::history::{History, Index, Outcome, RunQuestion};
use dayfly_forge::RunnerScope;
use dayfly_guest::runner_app::JobResult;

/// Number of questions of each kind.
const SAMPLES: usize = 50;

fn main() {
    let count: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let state = tempfile::tempdir().expect("a folder");
    let history = History::of(state.path());
    let began = Instant::now();
    let now = Moment::now().ms();
    for number in 0..count {
        // A run each minute or so, so that the last one is the newest.
        let at = now - (count - number) * 60_000;
        history.keep(&run(number, at)).expect("kept");
    }
    println!("{count} runs written in {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let index = Index::open(&history).expect("an index");
    println!(
        "index built in {:.1} s: {} runs",
        began.elapsed().as_secs_f64(),
        index.count().expect("counted")
    );
    drop(index);
    for file in std::fs::read_dir(history.folder()).expect("a folder").flatten() {
        if file.file_name().to_string_lossy().starts_with("index") {
            println!("{} {} MiB", file.file_name().display(), file.metadata().expect("there").len() >> 20);
        }
    }
    println!("segments {} MiB", history.bytes().expect("read") >> 20);
    let text = |text: &str| Some(text.to_owned());
    let all = RunQuestion { limit: 50, ..RunQuestion::default() };
    let rare = RunQuestion { outcome: Some(Outcome::Lost), ..all.clone() };
    for (name, question) in [
        ("the newest 50", all.clone()),
        ("of a pool", RunQuestion { pool: text("pool-3"), ..all.clone() }),
        ("of a repository", RunQuestion { repository: text("acme/app-17"), ..all.clone() }),
        ("that were lost, one in a thousand", rare.clone()),
        ("of a pool and lost", RunQuestion { pool: text("pool-3"), ..rare.clone() }),
        (
            "of a pool and a repository that have nothing in common",
            RunQuestion { pool: text("pool-3"), repository: text("acme/app-16"), ..all.clone() },
        ),
        ("of the last hour", RunQuestion { since_ms: Some(now - 3_600_000), ..all }),
    ] {
        measure(name, || {
            let index = Index::open(&history).expect("an index");
            index.runs(&question).expect("answered").len()
        });
    }
    let id = Index::open(&history).expect("an index").runs(&rare).expect("answered")[0].runner.clone();
    measure("one run by its id", || {
        Index::open(&history).expect("an index").find(&id, 1).expect("found").len()
    });
}

/// Prints the times of a question, each with opening the index.
fn measure(name: &str, ask: impl Fn() -> usize) {
    let mut times: Vec<_> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            let found = ask();
            (began.elapsed(), found)
        })
        .collect();
    times.sort_unstable();
    let (p50, found) = times[SAMPLES / 2];
    let (max, _) = times[SAMPLES - 1];
    println!("{name}: {found} runs, p50 {:.1} ms, max {:.1} ms", ms(p50), ms(max));
}

fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1000.0
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

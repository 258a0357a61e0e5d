//! Measures whole jobs: the demo runs many small jobs, one after another, and reports the time of each phase.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dayfly_e2e::lab::LabProcess;
use dayfly_lab::LabEventKind;
use serde_json::Value;

use crate::Error;
use crate::figures::Figure;

/// A workflow whose job prints a line first.
const WAITED_FOR: &str =
    "on: push\njobs:\n  echo:\n    runs-on: [self-hosted, bench]\n    steps:\n      - run: echo begun\n";

/// Measures jobs on fresh forks, then on spares.
pub(crate) fn measure(state: &Path, binary: &Path, samples: u32) -> Result<Vec<Figure>, Error> {
    let fork = run(state, binary, samples, &[])?;
    let spare = run(state, binary, samples, &["--spare", "1"])?;
    let acquired = |runs: &[Value], start: &str| {
        let of_kind = runs.iter().filter(|run| run["start"] == start);
        of_kind.filter_map(|run| between(run, "registered", "job_acquired")).collect()
    };
    let whole = fork.iter().filter_map(|run| between(run, "registered", "vm_gone")).collect();
    Ok(vec![
        Figure::of(
            "job: JIT config at hand -> acquired, from a fresh fork",
            "s",
            "0.55 s",
            acquired(&fork, "fork"),
        ),
        Figure::of(
            "job: JIT config at hand -> acquired, from a spare",
            "s",
            "0.40 s",
            acquired(&spare, "spare"),
        ),
        Figure::of("job: JIT config at hand -> an `echo` done and its machine gone", "s", "-", whole),
    ])
}

/// Measures registered, idle runners that get a job: one after another, each in its own machine.
pub(crate) async fn waiting(samples: u32) -> Result<Vec<Figure>, Error> {
    let lab = LabProcess::start();
    let (mut acquired, mut first_line) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let mut runner = lab.runner(["-r", "1", "-L", "bench"]);
        runner.wait_for_event("listening");
        // Long enough for the start of its machine to be over.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let run = lab.dispatch(WAITED_FOR).await;
        let (mut events, mut dispatched) = (lab.events_of(run).await, 0);
        loop {
            let event = events.next().await;
            let since = || (event.at_ms - dispatched) as f64 / 1000.0;
            match event.kind {
                LabEventKind::RunCreated { .. } => dispatched = event.at_ms,
                LabEventKind::JobAcquired { .. } => acquired.push(since()),
                LabEventKind::LogLine { .. } => break first_line.push(since()),
                LabEventKind::RunCompleted { .. } => return Err("a job without any line".into()),
                _ => {}
            }
        }
        lab.conclusion_of(run).await;
        runner.wait();
    }
    lab.stop();
    Ok(vec![
        Figure::of("waiting runner: job dispatched -> acquired", "s", "-", acquired),
        Figure::of("waiting runner: job dispatched -> first line at the live feed", "s", "0.6 s", first_line),
    ])
}

/// Returns the seconds between two phases of a run.
fn between(run: &Value, from: &str, to: &str) -> Option<f64> {
    Some((run["phases"][to].as_f64()? - run["phases"][from].as_f64()?) / 1000.0)
}

/// Runs a job that says its number, `samples` times and once more. Returns the phases of each.
fn run(state: &Path, binary: &Path, samples: u32, options: &[&str]) -> Result<Vec<Value>, Error> {
    let workflow = in_turn("echo", samples + 1, "      - run: echo ${{ matrix.number }}\n");
    let events = demo((state, binary), &workflow, options)?;
    let done = events.iter().rev().find_map(|event| event["runs"].as_array());
    Ok(done.ok_or("the demo reported no runs")?.clone())
}

/// Returns a workflow whose job runs `count` times, one after another. `matrix.number` tells which time it is.
pub(crate) fn in_turn(job: &str, count: u32, steps: &str) -> String {
    let numbers: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    format!(
        "on: push\njobs:\n  {job}:\n    runs-on: self-hosted\n    strategy:\n      max-parallel: 1\n      matrix:\n        \
         number: [{}]\n    steps:\n{steps}",
        numbers.join(", ")
    )
}

/// Runs a workflow by `dayfly demo`, with one runner at a time, in a state folder and with a program. Returns its events.
pub(crate) fn demo(
    (state, binary): (&Path, &Path),
    workflow: &str,
    options: &[&str],
) -> Result<Vec<Value>, Error> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bench.yml");
    std::fs::write(&file, workflow)?;
    let mut command = Command::new(binary);
    command.args(["demo", "--json", "--parallel", "1", "--workflow"]).arg(&file).args(options);
    let output = command.env("DAYFLY_STATE", state).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        return Err(format!("the demo ended with {}:\n{text}", output.status).into());
    }
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

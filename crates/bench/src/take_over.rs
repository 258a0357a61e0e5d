//! Measures a start of dayfly after `kill -9`, while jobs run.

use std::time::{Duration, UNIX_EPOCH};

use dayfly_e2e::image;
use rustix::process::Signal;

use crate::Error;
use crate::demand::{Stage, end};
use crate::figures::Figure;

/// Jobs of processes, and seconds that each of them prints a line in.
const PROCESSES: (u32, u32) = (100, 40);
/// Jobs of machines. On two cores without KVM, the last one starts a minute after the first one.
const MACHINES: (u32, u32) = (20, 150);
/// Time after which the last job has made its first requests.
const BEGUN: Duration = Duration::from_secs(10);

/// Measures the time from the exec of the next process until it has all runners and its scale set again.
///
/// # Errors
/// A job has noticed: it has failed, or its log lacks a line.
pub(crate) async fn measure() -> Result<Vec<Figure>, Error> {
    let stage = Stage::new()?;
    let of_processes = stage.pool("survive", &format!("demand = 'scale-set'\nmax = {}", PROCESSES.0));
    let of_machines = format!(
        "[pools.survive]\nforge = 'lab'\nprincipal = 'o/r'\nimage = '{}'\ndemand = 'scale-set'\nmax = {}\n\
         labels = ['survive']\nprefix = 'survive'\ntimeouts = {{ idle = '1s' }}\n",
        image(),
        MACHINES.0
    );
    let figures = vec![
        Figure::of(
            "kill -9 with 100 jobs of processes -> the next start has all of them, and its scale set",
            "s",
            "2 s",
            vec![serves_again(&stage, &of_processes, PROCESSES).await?],
        ),
        Figure::of(
            "kill -9 with 20 jobs of machines -> the next start has all of them, and its scale set",
            "s",
            "2 s",
            vec![serves_again(&stage, &of_machines, MACHINES).await?],
        ),
    ];
    stage.lab.stop();
    Ok(figures)
}

async fn serves_again(stage: &Stage, pools: &str, (jobs, lines): (u32, u32)) -> Result<f64, Error> {
    let mut killed = stage.orchestrator(pools)?;
    killed.wait_for_event("source_ready");
    let run = stage.lab.dispatch(&printing(jobs, lines)).await;
    for _ in 0..jobs {
        killed.wait_for_event("job_started");
    }
    // The app does not repeat the first requests of a job (docs/what-survives-what.md).
    tokio::time::sleep(BEGUN).await;
    killed.signal(Signal::KILL);
    killed.wait();
    let begun = UNIX_EPOCH.elapsed()?.as_secs_f64() * 1000.0;
    let mut next = stage.orchestrator(pools)?;
    let mut last = f64::NAN;
    // Each runner, and the source.
    for _ in 0..=jobs {
        let is_meant =
            |fact: &serde_json::Value| fact["event"] == "vm_taken_over" || fact["event"] == "source_ready";
        last = next.wait_for("a runner or the source", is_meant)["at_ms"].as_f64().unwrap_or(f64::NAN);
    }
    stage.succeeds(run).await?;
    for (job, log) in stage.lab.logs_of(run).await {
        let missing = (1..=lines).find(|line| !log.contains(&format!("line {line}.")));
        if let Some(line) = missing {
            return Err(format!("the log of {job} lacks line {line}").into());
        }
    }
    end(next);
    Ok((last - begun) / 1000.0)
}

/// Returns a workflow with jobs that print a line a second.
fn printing(jobs: u32, lines: u32) -> String {
    let numbers: Vec<String> = (1..=jobs).map(|number| number.to_string()).collect();
    format!(
        "on: push\njobs:\n  a:\n    runs-on: survive\n    strategy: {{ matrix: {{ n: [{}] }} }}\n    steps:\n      \
         - run: for line in $(seq {lines}); do echo \"line $line.\"; sleep 1; done\n",
        numbers.join(", ")
    )
}

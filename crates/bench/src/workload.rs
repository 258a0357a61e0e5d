//! Measures a busy job: it compiles, starts many processes, uses git, and builds and runs a container. Under emulation its
//! time is what the processor model and the cache of translated code decide.

use std::collections::BTreeMap;
use std::path::Path;

use crate::figures::Figure;
use crate::{Error, jobs};

/// Steps of the job, with the names of their figures and what they run.
const STEPS: [(&str, &str); 7] = [
    ("busy job: `docker version`", "docker version >/dev/null"),
    (
        "busy job: a container image built from a tar (`gcc -static`, `docker import`)",
        "printf 'int main(void) { return 0; }' >t.c && gcc -static -o t t.c && tar -c t | docker import - t >/dev/null",
    ),
    ("busy job: first `docker run` of it", "docker run --rm t /t"),
    ("busy job: second `docker run` of it", "docker run --rm t /t"),
    (
        "busy job: `git` init, add and commit of 200 files",
        "mkdir r && cd r && for n in $(seq 200); do echo $n >$n; done && git init -q . && git add . && \
         git -c user.name=b -c user.email=b@c commit -qm b",
    ),
    ("busy job: 100 processes, one after another", "for n in $(seq 100); do /bin/true; done"),
    (
        "busy job: `gcc -O2` of 300 functions",
        "for n in $(seq 300); do echo \"int f$n(int x) { int s = 0; for (int i = 0; i < x; i++) s += i * $n % 7; return s; }\"; \
         done >f.c && gcc -O2 -c f.c",
    ),
];
/// The whole job, from its first step's begin to its last one's end.
const WHOLE: &str = "busy job: all of these steps";
/// Begins the line that a step prints with its number and its nanoseconds.
const MARK: &str = "measured";

/// Runs the job in `samples` fresh forks, and returns the time of each step.
pub(crate) fn measure(state: &Path, binary: &Path, samples: u32) -> Result<Vec<Figure>, Error> {
    let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    let mut whole = Vec::new();
    for job in run(state, binary, samples)? {
        whole.push(job.iter().map(|(_, seconds)| seconds).sum());
        for (step, seconds) in job {
            times.entry(step).or_default().push(seconds);
        }
    }
    let steps = STEPS.iter().zip(times.into_values());
    let mut figures: Vec<_> = steps.map(|((name, _), times)| Figure::of(name, "s", "-", times)).collect();
    figures.push(Figure::of(WHOLE, "s", "-", whole));
    Ok(figures)
}

/// Returns the seconds of each step, for each job.
fn run(state: &Path, binary: &Path, samples: u32) -> Result<Vec<Vec<(usize, f64)>>, Error> {
    let mut jobs: BTreeMap<String, Vec<(usize, f64)>> = BTreeMap::new();
    for event in jobs::demo((state, binary), &jobs::in_turn("busy", samples, &steps()), &[])? {
        let (Some(job), Some(line)) = (event["job"].as_str(), event["line"].as_str()) else { continue };
        if let Some(measured) = measured(line) {
            jobs.entry(job.to_owned()).or_default().push(measured);
        }
    }
    let is_whole = jobs.len() == samples as usize && jobs.values().all(|steps| steps.len() == STEPS.len());
    if is_whole {
        Ok(jobs.into_values().collect())
    } else {
        Err(format!("a busy job has failed: {jobs:?}").into())
    }
}

fn steps() -> String {
    let step = |(number, (_, script)): (usize, &(&str, &str))| {
        format!(
            "      - run: |\n          began=$(date +%s%N)\n          ( {script} )\n          \
             echo \"{MARK} {number} $(($(date +%s%N) - began))\"\n"
        )
    };
    STEPS.iter().enumerate().map(step).collect()
}

/// Reads a step's number and its seconds out of a line of the log.
fn measured(line: &str) -> Option<(usize, f64)> {
    let (step, nanoseconds) = line.strip_prefix(MARK)?.trim().split_once(' ')?;
    Some((step.parse().ok()?, nanoseconds.parse::<f64>().ok()? / 1e9))
}

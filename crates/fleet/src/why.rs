//! Explains in words why a job waits or how it ended, and says what to do. Pure: it gets what the processes of this host have
//! published, the history, and the time.
//!
//! ```text
//!   status of each process ──┐
//!   labels of each pool ─────┼──> explain ──> Reason: words, and what to do
//!   runs of the history ─────┘
//! ```

mod labels;
mod pool;
mod run;

use std::collections::BTreeMap;

use dayfly_host::quantity::quantity;
use serde::Serialize;

use crate::fact::SeenJob;
use crate::history::RunRecord;
use crate::instance::Serves;
use crate::status::{LoopStatus, Status};

/// The knowledge about this host.
#[derive(Debug, Clone, Default)]
pub struct Situation {
    /// The processes that run loops.
    pub processes: Vec<Process>,
    /// The runs of the history that the question may be about, the newest first.
    pub runs: Vec<RunRecord>,
    /// The ends of the machines of those runs that are kept, seconds since 1970-01-01 UTC, by the id of the runner.
    pub kept: BTreeMap<String, i64>,
    /// The time, milliseconds since 1970-01-01 UTC.
    pub now_ms: u64,
}

/// A process that runs loops.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Name of its instance.
    pub instance: String,
    /// The pools that it serves.
    pub serves: Vec<Serves>,
    /// The status that it has published.
    pub status: Status,
}

/// A part of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The word for programs.
    pub reason: &'static str,
    /// The sentence.
    pub text: String,
    /// The advice; none if there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

impl Reason {
    fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), todo: None }
    }

    fn todo(self, todo: impl Into<String>) -> Self {
        Self { todo: Some(todo.into()), ..self }
    }
}

/// Explains a pool, by its name, or a job or a run: by the job's id or name, or by the runner's id or name. Returns nothing if nothing is
/// known of it.
pub fn explain(subject: &str, situation: &Situation) -> Vec<Reason> {
    let pools = pool::named(subject, situation);
    if !pools.is_empty() {
        return pools;
    }
    let waiting = waiting(subject, situation);
    if !waiting.is_empty() {
        return waiting;
    }
    let running = running(subject, situation);
    if !running.is_empty() {
        return running;
    }
    let is_it = |run: &&RunRecord| {
        let names = [Some(&run.runner), Some(&run.name), run.job.as_ref()];
        names.contains(&Some(&subject.to_owned())) || run.job_id.is_some_and(|id| id.to_string() == subject)
    };
    let explained = situation.runs.iter().find(is_it).map(|run| {
        let kept = situation.kept.get(&run.runner).map(|&until_s| run::kept(run, until_s, situation.now_ms));
        run::explain(run, situation.now_ms).into_iter().chain(kept).collect()
    });
    explained.unwrap_or_default()
}

/// Explains a pool of a process, by its name; none means the pool of a command line, which has no name. Returns nothing if the
/// process has no such pool.
pub fn explain_pool(process: &Process, name: Option<&str>, now_ms: u64) -> Vec<Reason> {
    if let Some(name) = name {
        return pool::named_of(process, name, now_ms);
    }
    let unnamed = process.status.pools.iter().filter(|(_, pool)| pool.name.is_none());
    unnamed.flat_map(|(&first, _)| pool::explain(process, first, now_ms)).collect()
}

/// Explains how a job with these labels fares on this host.
pub fn explain_labels(wanted: &[String], situation: &Situation) -> Vec<Reason> {
    labels::explain(wanted, situation)
}

fn is_named(job: &SeenJob, subject: &str) -> bool {
    job.id.to_string() == subject || job.name.as_deref() == Some(subject)
}

/// Explains the jobs of this id or name that wait.
fn waiting(subject: &str, situation: &Situation) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for process in &situation.processes {
        for (&first, pool) in &process.status.pools {
            for job in pool.jobs.values().filter(|job| is_named(job, subject)) {
                let name = pool.name.as_deref().unwrap_or("of the command line");
                let since = job.queued_ms.or(job.seen_ms).unwrap_or(situation.now_ms);
                let ahead =
                    pool.jobs.values().filter(|other| (other.seen_ms, other.id) < (job.seen_ms, job.id));
                let ahead = match ahead.count() {
                    0 => "no job is ahead of it".to_owned(),
                    count => quantity(count, "job is ahead of it", "jobs are ahead of it"),
                };
                let text = format!(
                    "The job {} waits for a runner of the pool {name} since {} ago; {ahead}.",
                    titled(job),
                    span(situation.now_ms.saturating_sub(since))
                );
                reasons.push(Reason::new("waiting", text));
                reasons.extend(pool::explain(process, first, situation.now_ms));
            }
        }
    }
    reasons
}

/// Explains the jobs of this id or name that run, and runners of this id or name.
fn running(subject: &str, situation: &Situation) -> Vec<Reason> {
    let loops = situation.processes.iter().flat_map(|process| process.status.loops.values());
    let is_it = |one: &&LoopStatus| {
        let names = [one.runner.as_deref(), one.name.as_deref(), one.job.as_deref()];
        names.contains(&Some(subject)) || one.taken.as_ref().is_some_and(|job| is_named(job, subject))
    };
    let explain = |one: &LoopStatus| {
        let runner = one.runner.as_deref().unwrap_or("-");
        let since = span(situation.now_ms.saturating_sub(one.since_ms));
        match one.job.clone().or_else(|| one.taken.as_ref().map(titled)) {
            Some(job) => Reason::new(
                "running",
                format!("The job {job} runs in the runner {runner} since {since} ago."),
            )
            .todo(format!("dayfly logs {runner} -f")),
            None => {
                let phase = one.phase.as_str();
                Reason::new(
                    "runner",
                    format!("The runner {runner} has no job; it is {phase} since {since} ago."),
                )
            }
        }
    };
    // A runner that has ended is in the history.
    loops.filter(|one| one.phase != crate::status::Phase::Ended).filter(is_it).map(explain).collect()
}

/// Returns the name and the id of a job.
fn titled(job: &SeenJob) -> String {
    match &job.name {
        Some(name) => format!("\"{name}\" ({})", job.id),
        None => job.id.to_string(),
    }
}

/// Returns a time in its largest unit that fits.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;

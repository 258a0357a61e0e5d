//! Explains how a run ended.

use super::{Reason, span};
use crate::fact::MemoryOwner;
use crate::history::{Fault, Outcome, RunRecord};

/// Explains how a run ended, and what to do.
pub(super) fn explain(run: &RunRecord, now_ms: u64) -> Vec<Reason> {
    let ago = span(now_ms.saturating_sub(run.times.over.or(run.times.last()).unwrap_or(now_ms)));
    let job = run.job.as_deref().map_or_else(|| "no job".to_owned(), |job| format!("the job \"{job}\""));
    let ended = match run.outcome() {
        Outcome::Running => "has not ended yet".to_owned(),
        Outcome::NoJob => format!("ended {ago} ago without a job"),
        Outcome::NotUp => format!("could not be created or brought up, {ago} ago"),
        Outcome::Lost => format!("ended {ago} ago, before the job had a result"),
        outcome => format!("ended {ago} ago: {}", outcome.as_str()),
    };
    let mut reasons = vec![Reason::new("ended", format!("The run {} with {job} {ended}.", run.runner))];
    reasons.extend(waited(run));
    reasons.extend(run.fault().map(|fault| blame(run, fault)));
    reasons
}

/// Returns the sentence about a machine that is kept until a time, seconds since 1970-01-01 UTC.
pub(super) fn kept(run: &RunRecord, until_s: i64, now_ms: u64) -> Reason {
    let until_ms = u64::try_from(until_s).unwrap_or_default().saturating_mul(1000);
    let left = span(until_ms.saturating_sub(now_ms));
    Reason::new("kept", format!("Its machine is kept as it was for {left} more."))
        .todo(format!("dayfly thaw {} opens a shell in it", run.runner))
}

/// Returns the sentence about the wait of the job.
fn waited(run: &RunRecord) -> Option<Reason> {
    let acquired = run.times.acquired.or(run.times.taken)?;
    let queued = run.times.queued.or(run.times.seen)?;
    let text = format!("The job waited {} for its runner.", span(acquired.saturating_sub(queued)));
    Some(Reason::new("waited", text))
}

fn blame(run: &RunRecord, fault: Fault) -> Reason {
    let detail = match fault {
        Fault::OutOfMemory => {
            run.out_of_memory.as_ref().map(|process| format!("its kernel has killed {process}"))
        }
        Fault::VmmOutOfMemory => run.vmm_out_of_memory.map(|whose| match whose {
            MemoryOwner::Machine => {
                "it had used up all that a machine of its size may take from this host".to_owned()
            }
            MemoryOwner::Host => "this host had none left".to_owned(),
        }),
        Fault::DiskFull => run.disk_failed.clone(),
        Fault::MachineDied | Fault::Start => {
            run.why.as_ref().and_then(|why| why.lines().next()).map(str::to_owned)
        }
        _ => None,
    };
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    let runner = &run.runner;
    let todo = match fault {
        Fault::Steps => format!("dayfly logs {runner}, or the job's log at the forge, shows the step"),
        Fault::OutOfMemory => {
            "give the machines more memory (memory in the pool's table), or let the job use less; then run the job again".to_owned()
        }
        Fault::VmmOutOfMemory if run.vmm_out_of_memory == Some(MemoryOwner::Host) => {
            "run fewer or smaller machines (memory_overcommit in the table [host]), or end what else uses this host's memory; then run the job again".to_owned()
        }
        Fault::VmmOutOfMemory => format!(
            "dayfly logs {runner} has the machine's last lines; its VMM, or a server of its mounts, took more than its size explains: give the machines more memory, and run the job again"
        ),
        Fault::DiskFull => {
            "free space on the file system of the state folder (dayfly image gc, dayfly template gc), and run the job again".to_owned()
        }
        Fault::ConnectionLost => {
            "check the network between the machines and the forge (dayfly doctor), and run the job again".to_owned()
        }
        Fault::MachineDied => format!("dayfly logs {runner} has the machine's last lines; run the job again"),
        Fault::AppDied => format!("dayfly logs {runner} has the app's own log; run the job again"),
        Fault::TimeLimit => "let the job be shorter, or raise job in the pool's table timeouts".to_owned(),
        Fault::Stopped => "run the job again; dayfly drain ends a pool without stopping its jobs".to_owned(),
        Fault::ProcessDied => "run the job again; the log of the service says why dayfly ended".to_owned(),
        Fault::Start => format!("dayfly logs {runner} has more; dayfly why POOL says if it still happens"),
    };
    let party = if fault.is_of_machine() { "Its machine is to blame" } else { "The job is to blame" };
    Reason::new(fault.as_str(), format!("{party}: {fault}{detail}.")).todo(todo)
}

//! The judge of a soak: what has become of each job, and what is left. Pure.
//!
//! It decides from the view of the lab (its events and registrations), the view of the host (processes, files, and with
//! the driver `process` a note that each execution of a job leaves), and the soak's own kills. The words
//! of dayfly about itself decide nothing; they only have to agree with the lab.

mod fate;

use std::collections::{BTreeMap, BTreeSet};

use dayfly_host::quantity::quantity;
use serde::Serialize;

use super::story::JobStory;
pub(super) use fate::Fate;
use fate::fate;

/// Most problems that are described.
const PROBLEMS_MAX: usize = 50;

/// Everything that the judge knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    /// Number of jobs that the soak was to dispatch.
    pub(super) jobs: u32,
    /// The jobs, as the lab reports them.
    pub(super) stories: Vec<JobStory>,
    /// Names of the runners whose machines the soak has killed.
    pub(super) killed: BTreeSet<String>,
    /// How often each job has run, by the host's own view. `None` with a driver whose machines write nothing to the
    /// host.
    pub(super) executions: Option<BTreeMap<u32, u32>>,
    /// The things that are left after dayfly has ended.
    pub(super) left: Leftovers,
    /// The ends of jobs that dayfly has told: the runner, and the conclusion.
    pub(super) told: Vec<(String, String)>,
    /// The processes of dayfly that ended otherwise than they should, each in words.
    pub(super) crashes: Vec<String>,
}

/// Things that are left after dayfly has ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Leftovers {
    pub(super) registrations: Vec<String>,
    pub(super) vms: Vec<String>,
    pub(super) files: Vec<String>,
    pub(super) processes: Vec<String>,
}

/// The verdict. Its fields are the last line of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Verdict {
    pub(super) jobs: u32,
    /// Jobs that succeeded and ran once.
    pub(super) done: u32,
    /// Jobs that a fault or a kill of the soak has ended.
    pub(super) failed_by_fault: u32,
    /// Jobs that have not ended, or ended without having run.
    pub(super) lost: u32,
    /// Jobs that ran more than once.
    pub(super) doubled: u32,
    /// Jobs that ran and were ended by nothing that the soak did.
    pub(super) killed_busy: u32,
    pub(super) left: LeftCounts,
    pub(super) pickup_ms: Percentiles,
    /// Ends of jobs of which dayfly tells otherwise than the lab.
    pub(super) disagreed: u32,
    /// Processes of dayfly that ended otherwise than they should.
    pub(super) crashed: u32,
    #[serde(skip)]
    pub(super) problems: Vec<String>,
}

/// The numbers of things that are left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct LeftCounts {
    pub(super) registrations: usize,
    pub(super) vms: usize,
    pub(super) files: usize,
    pub(super) processes: usize,
}

/// Times from a job's queueing until a runner has it, over the jobs that are done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: Option<i64>,
    pub(super) p95: Option<i64>,
    pub(super) p99: Option<i64>,
}

impl Verdict {
    /// Returns true if nothing is lost, doubled, killed busy or left, and dayfly agrees with the lab.
    pub(super) fn is_well(&self) -> bool {
        let bad = [self.lost, self.doubled, self.killed_busy, self.disagreed, self.crashed];
        bad == [0; 5] && self.left == LeftCounts::default() && self.done + self.failed_by_fault == self.jobs
    }
}

/// Judges a soak.
pub(super) fn judge(evidence: &Evidence) -> Verdict {
    let left = &evidence.left;
    let mut verdict = Verdict {
        jobs: evidence.jobs,
        done: 0,
        failed_by_fault: 0,
        lost: 0,
        doubled: 0,
        killed_busy: 0,
        left: LeftCounts {
            registrations: left.registrations.len(),
            vms: left.vms.len(),
            files: left.files.len(),
            processes: left.processes.len(),
        },
        pickup_ms: percentiles(Vec::new()),
        disagreed: 0,
        crashed: u32::try_from(evidence.crashes.len()).unwrap_or(u32::MAX),
        problems: Vec::new(),
    };
    let mut pickups = Vec::new();
    for story in &evidence.stories {
        let executions = evidence.executions.as_ref();
        let executions = executions.map(|all| all.get(&story.number).copied().unwrap_or_default());
        let fate = fate(story, &evidence.killed, executions);
        verdict.count(&fate);
        if fate == Fate::Done {
            pickups.extend(pickup(story));
        }
        if let Some(why) = fate.problem() {
            verdict.problems.push(format!("{}: {why}", named(story)));
        }
    }
    verdict.count_undispatched(evidence);
    verdict.pickup_ms = percentiles(pickups);
    verdict.compare(evidence);
    verdict.name_leftovers(left);
    verdict.problems.extend(evidence.crashes.iter().cloned());
    verdict.problems.truncate(PROBLEMS_MAX);
    verdict
}

impl Verdict {
    fn count(&mut self, fate: &Fate) {
        let counter = match fate {
            Fate::Done => &mut self.done,
            Fate::FailedByFault => &mut self.failed_by_fault,
            Fate::Lost(_) => &mut self.lost,
            Fate::Doubled(_) => &mut self.doubled,
            Fate::KilledBusy(_) => &mut self.killed_busy,
        };
        *counter += 1;
    }

    /// Counts the jobs that the soak had no time to dispatch as lost.
    fn count_undispatched(&mut self, evidence: &Evidence) {
        let dispatched = u32::try_from(evidence.stories.len()).unwrap_or(u32::MAX);
        let missing = evidence.jobs.saturating_sub(dispatched);
        if missing > 0 {
            self.lost += missing;
            let were = quantity(missing, "job was", "jobs were");
            self.problems.push(format!("{were} not dispatched before the time limit"));
        }
    }

    /// Compares what dayfly has told of ends with the lab's view.
    fn compare(&mut self, evidence: &Evidence) {
        for (runner, told) in &evidence.told {
            let is_its = |story: &&JobStory| story.acquired.iter().any(|by| by.runner == *runner);
            let lab = evidence.stories.iter().find(is_its).map(|story| {
                story.outcome.as_ref().map_or_else(|| "none".to_owned(), |end| end.conclusion.to_string())
            });
            if lab.as_ref() != Some(told) {
                self.disagreed += 1;
                let lab =
                    lab.map_or_else(|| "no job".to_owned(), |lab| format!("a job that ended with {lab}"));
                self.problems.push(format!(
                    "dayfly tells that the job of {runner} ended with {told}; at the lab it had {lab}"
                ));
            }
        }
    }

    fn name_leftovers(&mut self, left: &Leftovers) {
        let all = [
            ("registration", &left.registrations),
            ("vm", &left.vms),
            ("file", &left.files),
            ("process", &left.processes),
        ];
        for (kind, names) in all {
            self.problems.extend(names.iter().map(|name| format!("left {kind}: {name}")));
        }
    }
}

fn named(story: &JobStory) -> String {
    let id = story.id.map_or_else(|| "no id".to_owned(), |id| format!("id {id}"));
    format!("job {} ({id})", story.number)
}

fn pickup(story: &JobStory) -> Option<i64> {
    Some(story.acquired.first()?.at_ms - story.queued_ms?)
}

/// Returns the percentiles of these times, each a time that has occurred (nearest rank).
fn percentiles(mut times: Vec<i64>) -> Percentiles {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Percentiles { p50: at(50), p95: at(95), p99: at(99) }
}

#[cfg(test)]
mod tests;

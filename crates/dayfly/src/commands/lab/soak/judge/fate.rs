//! The fate of one job. Pure.

use std::collections::BTreeSet;

use dayfly_host::quantity::quantity;
use dayfly_lab::fault::Fault;
use dayfly_lab::workflow::Conclusion;

use super::super::story::JobStory;

/// The fate of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Fate {
    /// It succeeded and ran once.
    Done,
    /// A fault of the lab or a kill of the soak has ended it.
    FailedByFault,
    /// It has not ended, or ended without having run.
    Lost(String),
    /// It ran more than once.
    Doubled(String),
    /// It had a runner and was ended, and nothing that the soak did explains it.
    KilledBusy(String),
}

impl Fate {
    /// Returns the reason why it is a problem, or none if it is none.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::Done | Self::FailedByFault => None,
            Self::Lost(why) => Some(format!("lost: {why}")),
            Self::Doubled(why) => Some(format!("doubled: {why}")),
            Self::KilledBusy(why) => Some(format!("killed busy: {why}")),
        }
    }
}

/// Returns how often something has happened.
fn times(count: u32) -> String {
    quantity(count, "time", "times")
}

/// Decides what has become of a job. `killed` are the runners whose machines the soak has killed, `executions` is how
/// often the job ran by the host's own view.
pub(super) fn fate(story: &JobStory, killed: &BTreeSet<String>, executions: Option<u32>) -> Fate {
    let runners: BTreeSet<&str> = story.acquired.iter().map(|by| by.runner.as_str()).collect();
    let begun = story.begun.max(executions.unwrap_or_default());
    if begun > 1 || runners.len() > 1 {
        return Fate::Doubled(format!("it began {}, on {}", times(begun), list(&runners)));
    }
    let Some(outcome) = &story.outcome else {
        return Fate::Lost(match runners.first() {
            Some(runner) => format!("it has not ended on {runner}"),
            None => "no runner has got it".to_owned(),
        });
    };
    let remark = outcome.remark.as_deref().map(|remark| format!(" ({remark})")).unwrap_or_default();
    let ended = format!("it ended with {}{remark}", outcome.conclusion);
    let had = |fault| story.faults.contains(&fault);
    match outcome.conclusion {
        Conclusion::Success if begun == 0 && had(Fault::JobTheft) => Fate::FailedByFault,
        Conclusion::Success if story.begun == 1 && story.ended == 1 && executions != Some(0) => Fate::Done,
        Conclusion::Success => {
            let host = executions
                .map(|count| format!(", and it ran {} on the host", times(count)))
                .unwrap_or_default();
            Fate::Lost(format!(
                "{ended}, but its log has its first line {} and its last line {}{host}",
                times(story.begun),
                times(story.ended)
            ))
        }
        Conclusion::Cancelled if runners.is_empty() && had(Fault::CancelBeforePickUp) => Fate::FailedByFault,
        _ if runners.iter().any(|runner| killed.contains(*runner)) => Fate::FailedByFault,
        _ if runners.is_empty() => Fate::Lost(format!("{ended}, and no runner has got it")),
        _ => Fate::KilledBusy(format!("{ended} on {}", list(&runners))),
    }
}

fn list(runners: &BTreeSet<&str>) -> String {
    if runners.is_empty() {
        return "no runner".to_owned();
    }
    runners.iter().copied().collect::<Vec<_>>().join(", ")
}

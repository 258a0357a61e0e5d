//! The outcome of a run, and the party that is to blame for a bad one. Pure.

use std::fmt;
use std::str::FromStr;

use dayfly_guest::runner_app::JobResult;
use serde::{Deserialize, Serialize};

use super::RunRecord;
use crate::fact::OverHow;
use crate::job_end::JobConclusion;

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It goes on, or its end is not in the history yet.
    Running,
    /// Its job succeeded.
    Success,
    /// Its job failed.
    Failure,
    /// Its job was cancelled.
    Cancelled,
    /// Its job was skipped.
    Skipped,
    /// Its job has no result: the run ended first.
    Lost,
    /// It ended without a job.
    NoJob,
    /// It could not be created or brought up.
    NotUp,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 8] = [
        Self::Running,
        Self::Success,
        Self::Failure,
        Self::Cancelled,
        Self::Skipped,
        Self::Lost,
        Self::NoJob,
        Self::NotUp,
    ];

    /// Returns the word for people and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Lost => "lost",
            Self::NoJob => "no-job",
            Self::NotUp => "not-up",
        }
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|one| one.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("\"{text}\" is no conclusion; they are {words}"))
    }
}

/// The party that is to blame for a run that did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The steps of the job.
    Steps,
    /// The machine ended in the middle of its work.
    MachineDied,
    /// The memory of the machine was used up.
    OutOfMemory,
    /// The kernel of this host killed the VMM for memory.
    VmmOutOfMemory,
    /// This host could not write to the machine's disk.
    DiskFull,
    /// The forge gave the runner up while its machine went on.
    ConnectionLost,
    /// The runner app ended in the middle of the job.
    AppDied,
    /// The job ran for longer than it may.
    TimeLimit,
    /// This host stopped the runner while it had the job.
    Stopped,
    /// The process of dayfly died, and the machine with it.
    ProcessDied,
    /// The runner could not be created or brought up.
    Start,
}

impl Fault {
    /// Returns the word for people and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::MachineDied => "machine-died",
            Self::OutOfMemory => "out-of-memory",
            Self::VmmOutOfMemory => "vmm-out-of-memory",
            Self::DiskFull => "disk-full",
            Self::ConnectionLost => "connection-lost",
            Self::AppDied => "app-died",
            Self::TimeLimit => "time-limit",
            Self::Stopped => "stopped",
            Self::ProcessDied => "process-died",
            Self::Start => "start",
        }
    }

    /// Returns true if the machine or its host is to blame, and not the job: the same job may succeed in another machine.
    pub fn is_of_machine(self) -> bool {
        !matches!(self, Self::Steps | Self::TimeLimit)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steps => "a step of the job failed",
            Self::MachineDied => "its machine ended in the middle of its work",
            Self::OutOfMemory => "the memory of its machine was used up",
            Self::VmmOutOfMemory => "the kernel of this host killed its machine for memory",
            Self::DiskFull => "this host could not write to its machine's disk",
            Self::ConnectionLost => "the forge lost the connection to the runner and gave it up",
            Self::AppDied => "its runner app ended in the middle of the job",
            Self::TimeLimit => "its job ran for longer than a job may",
            Self::Stopped => "this host stopped the runner while it had the job",
            Self::ProcessDied => "the process of dayfly died, and its machine did not survive",
            Self::Start => "its runner could not be created or brought up",
        })
    }
}

impl RunRecord {
    /// Returns the outcome. The forge's word counts, because a job can print what the runner app prints.
    pub fn outcome(&self) -> Outcome {
        let Some(how) = self.how else { return Outcome::Running };
        match (self.conclusion, self.result) {
            (Some(JobConclusion::Success), _) => Outcome::Success,
            (Some(JobConclusion::Failure), _) => Outcome::Failure,
            (Some(JobConclusion::Cancelled), _) => Outcome::Cancelled,
            (Some(JobConclusion::Skipped), _) => Outcome::Skipped,
            (None, Some(JobResult::Succeeded | JobResult::SucceededWithIssues)) => Outcome::Success,
            (None, Some(JobResult::Failed | JobResult::Abandoned)) => Outcome::Failure,
            (None, Some(JobResult::Canceled)) => Outcome::Cancelled,
            (None, Some(JobResult::Skipped)) => Outcome::Skipped,
            (None, None) if self.times.acquired.or(self.times.taken).is_some() => Outcome::Lost,
            // The app exits so after a job, but it can print no line about one.
            (None, None) if how == OverHow::JobDone => Outcome::Lost,
            (None, None) if how == OverHow::NotUp => Outcome::NotUp,
            (None, None) => Outcome::NoJob,
        }
    }

    /// Returns the party that is to blame; none if the run ended well, was cancelled, or goes on.
    pub fn fault(&self) -> Option<Fault> {
        let outcome = self.outcome();
        match outcome {
            Outcome::NotUp => return Some(Fault::Start),
            Outcome::Failure | Outcome::Lost => {}
            _ => return None,
        }
        Some(match self.how {
            Some(OverHow::MachineLost) if self.vmm_out_of_memory.is_some() => Fault::VmmOutOfMemory,
            _ if self.disk_failed.is_some() => Fault::DiskFull,
            _ if self.out_of_memory.is_some() => Fault::OutOfMemory,
            Some(OverHow::MachineLost) => Fault::MachineDied,
            Some(OverHow::Unregistered) => Fault::ConnectionLost,
            Some(OverHow::ProcessDied) => Fault::ProcessDied,
            Some(OverHow::JobTooLong) => Fault::TimeLimit,
            Some(OverHow::NotUp) => Fault::Start,
            Some(OverHow::Stopped | OverHow::LifetimeOver | OverHow::Idle) if self.result.is_none() => {
                Fault::Stopped
            }
            _ if self.result.is_none() => Fault::AppDied,
            _ => Fault::Steps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(how: OverHow, conclusion: Option<JobConclusion>, result: Option<JobResult>) -> RunRecord {
        let mut record = RunRecord { how: Some(how), conclusion, result, ..RunRecord::default() };
        record.times.acquired = Some(1);
        record
    }

    #[test]
    fn a_job_that_failed_because_of_its_machine_is_told_apart_from_one_that_failed_by_its_steps() {
        let failure = Some(JobConclusion::Failure);
        let failed = Some(JobResult::Failed);
        for (record, expected, of_machine) in [
            (ended(OverHow::JobDone, None, failed), Fault::Steps, false),
            (ended(OverHow::JobDone, failure, failed), Fault::Steps, false),
            (ended(OverHow::JobDone, None, None), Fault::AppDied, true),
            (ended(OverHow::MachineLost, failure, None), Fault::MachineDied, true),
            (ended(OverHow::MachineLost, None, None), Fault::MachineDied, true),
            (ended(OverHow::Unregistered, failure, None), Fault::ConnectionLost, true),
            (ended(OverHow::ProcessDied, None, None), Fault::ProcessDied, true),
            (ended(OverHow::JobTooLong, failure, None), Fault::TimeLimit, false),
            (ended(OverHow::Stopped, failure, None), Fault::Stopped, true),
            (ended(OverHow::Stopped, failure, failed), Fault::Steps, false),
        ] {
            assert_eq!(record.fault(), Some(expected), "{record:?}");
            assert_eq!(expected.is_of_machine(), of_machine, "{expected}");
        }
        let mut record = ended(OverHow::JobDone, failure, failed);
        record.out_of_memory = Some("cc1".to_owned());
        assert_eq!(record.fault(), Some(Fault::OutOfMemory));
        record.disk_failed = Some("No space left on device".to_owned());
        assert_eq!(record.fault(), Some(Fault::DiskFull), "a full disk of this host is worse");
    }

    #[test]
    fn a_machine_that_the_host_killed_for_memory_is_told_apart_from_a_job_that_used_up_its_machine() {
        let mut record = ended(OverHow::MachineLost, Some(JobConclusion::Failure), None);
        record.vmm_out_of_memory = Some(crate::fact::MemoryOwner::Host);
        record.out_of_memory = Some("cc1".to_owned());
        assert_eq!(
            record.fault(),
            Some(Fault::VmmOutOfMemory),
            "this ended the machine, whatever came before"
        );
        assert!(Fault::VmmOutOfMemory.is_of_machine());
        record.vmm_out_of_memory = None;
        assert_eq!(record.fault(), Some(Fault::OutOfMemory));
        // The job failed by its steps before.
        let mut record = ended(OverHow::JobDone, Some(JobConclusion::Failure), Some(JobResult::Failed));
        record.vmm_out_of_memory = Some(crate::fact::MemoryOwner::Machine);
        assert_eq!(record.fault(), Some(Fault::Steps));
    }

    #[test]
    fn an_end_that_is_no_failure_has_no_fault() {
        for (conclusion, outcome) in [
            (JobConclusion::Success, Outcome::Success),
            (JobConclusion::Cancelled, Outcome::Cancelled),
            (JobConclusion::Skipped, Outcome::Skipped),
        ] {
            let mut record = ended(OverHow::MachineLost, Some(conclusion), Some(JobResult::Failed));
            record.out_of_memory = Some("cc1".to_owned());
            assert_eq!((record.outcome(), record.fault()), (outcome, None));
        }
        let idle = RunRecord { how: Some(OverHow::Idle), ..RunRecord::default() };
        assert_eq!((idle.outcome(), idle.fault()), (Outcome::NoJob, None));
        let broken = RunRecord { how: Some(OverHow::NotUp), ..RunRecord::default() };
        assert_eq!((broken.outcome(), broken.fault()), (Outcome::NotUp, Some(Fault::Start)));
    }

    #[test]
    fn the_words_of_outcomes_are_read_back_and_others_are_refused_with_the_list() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
            assert_eq!(serde_json::to_value(outcome).expect("json"), outcome.as_str());
        }
        let refusal = "nice".parse::<Outcome>().expect_err("refused");
        assert!(refusal.contains("no-job") && refusal.contains("\"nice\""), "{refusal}");
    }
}

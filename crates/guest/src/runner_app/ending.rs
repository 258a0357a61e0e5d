//! The ways in which a runner app can end.

use super::Observation;

/// The way in which a runner app ended, as the entrypoint's exit status reports it.
///
/// The app's own status says little: github-act-runner 0.13.0 exits 0 after a job that succeeded, after a job that
/// failed, and if it never got a job; it exits 1 without configuration. run.sh of actions/runner exits 0 for nearly
/// everything. Therefore an app's ending depends on whether the end of a job was seen in its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The app exited by itself, and the end of a job was seen; or a command in its place exited with status 0.
    JobDone,
    /// The entrypoint could not start the app; the entrypoint's last lines give the reason.
    NotStarted,
    /// The app exited by itself with status 0, and no end of a job was seen.
    NoJob,
    /// The app exited by itself with another status, or because of a signal that the entrypoint did not send, before the
    /// end of a job was seen. For a command in its place: any status but 0.
    Failed,
    /// The app was stopped because the loop requested it (`.trm`).
    StoppedByLoop,
    /// The app was stopped because the entrypoint got a termination signal (`.brk`).
    StoppedBySignal,
}

impl Ending {
    const ALL: [Self; 6] = [
        Self::JobDone,
        Self::NotStarted,
        Self::NoJob,
        Self::Failed,
        Self::StoppedByLoop,
        Self::StoppedBySignal,
    ];

    /// Returns the exit status of `dayfly-guest entrypoint`; 2 is reserved for its usage errors.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::JobDone => 0,
            Self::NotStarted => 1,
            Self::NoJob => 3,
            Self::Failed => 4,
            Self::StoppedByLoop => 5,
            Self::StoppedBySignal => 143,
        }
    }

    /// Returns the ending for an exit status of the entrypoint; `None` for a status that it never returns.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.code() == code)
    }

    /// Returns the ending of an app that exited by itself. `code` is its exit status, `None` after a signal; `seen` are
    /// the observations from its lines.
    #[must_use]
    pub fn judge(code: Option<i32>, seen: &[Observation]) -> Self {
        let job_done = |seen: &Observation| matches!(seen, Observation::JobFinished { .. });
        match code {
            _ if seen.iter().any(job_done) => Self::JobDone,
            Some(0) => Self::NoJob,
            _ => Self::Failed,
        }
    }

    /// Returns true if an app that exited by itself had at least one job, and neither the app nor a job of it failed. The
    /// parameters are those of [`Ending::judge`].
    #[must_use]
    pub fn is_success(code: Option<i32>, seen: &[Observation]) -> bool {
        let failed =
            |seen: &Observation| matches!(seen, Observation::JobFinished { result } if !result.is_success());
        code == Some(0) && Self::judge(code, seen) == Self::JobDone && !seen.iter().any(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::JobResult;
    use super::*;

    #[test]
    fn every_ending_has_a_code_of_its_own_and_comes_back_from_it() {
        for ending in Ending::ALL {
            assert_eq!(Ending::from_code(ending.code()), Some(ending));
        }
        assert_eq!(Ending::from_code(2), None);
    }

    #[test]
    fn status_zero_alone_proves_nothing() {
        let finished = Observation::JobFinished { result: JobResult::Failed };
        assert_eq!(Ending::judge(Some(0), &[Observation::Listening]), Ending::NoJob);
        assert_eq!(Ending::judge(Some(0), &[Observation::Listening, finished]), Ending::JobDone);
        let started = Observation::JobStarted { name: "build".to_owned() };
        assert_eq!(Ending::judge(None, &[started]), Ending::Failed);
        assert_eq!(Ending::judge(Some(1), &[]), Ending::Failed);
    }

    #[test]
    fn an_app_succeeds_with_its_status_and_with_all_of_its_jobs() {
        let finished = |result| Observation::JobFinished { result };
        let good = [finished(JobResult::Succeeded), finished(JobResult::SucceededWithIssues)];
        assert!(Ending::is_success(Some(0), &good));
        for result in [JobResult::Failed, JobResult::Canceled, JobResult::Abandoned] {
            assert!(
                !Ending::is_success(Some(0), &[good.as_slice(), &[finished(result)]].concat()),
                "{result:?}"
            );
        }
        assert!(!Ending::is_success(Some(1), &good) && !Ending::is_success(None, &good));
        assert!(!Ending::is_success(Some(0), &[Observation::Listening]), "it had no job");
    }
}

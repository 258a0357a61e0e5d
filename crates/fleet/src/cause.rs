//! The kinds of causes of failures, for advice. The words of an error are for people; this is what a program may decide by.

use dayfly_forge::ForgeError;
use dayfly_guest::runner_app::RunnerApp;
use dayfly_host::scarcity::Scarcity;
use dayfly_vm::StartError;
use serde::{Deserialize, Serialize};

use crate::demand::RegisterError;
use crate::fact::Moment;
use crate::runner::RunnerError;

/// Exit status of actions/runner if the forge refuses its version; dayfly starts it so that it has one of its own.
const TOO_OLD_STATUS: i32 = 7;

/// The kind of a failure's cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The forge does not answer, or answers with an error of its own.
    Unreachable,
    /// The forge refuses calls for a while, or dayfly holds them back so that it does not.
    RateLimit {
        /// The end of that time, milliseconds since 1970-01-01 UTC.
        until_ms: u64,
    },
    /// The forge refuses the credential, or its rights.
    Refused,
    /// The image cannot be fetched, built or read.
    Image,
    /// The disk of this host has no room for a machine.
    NoSpace,
    /// This host has no memory for a machine.
    NoMemory,
    /// No further process can be started on this host.
    NoProcesses,
    /// This process, or all of this host, may open no more files.
    NoDescriptors,
    /// The machine did not come up, or was lost at once.
    Machine,
    /// The runner app could not be started, or ended before it had a job.
    App,
    /// The forge refuses the version of the runner app as too old.
    AppTooOld,
    /// Something else; the words say it.
    Other,
}

impl Cause {
    /// Returns the cause of an error of a forge that came now.
    pub fn of_forge(error: &ForgeError, now: Moment) -> Self {
        let until = |wait: std::time::Duration| {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            Self::RateLimit { until_ms: now.ms().saturating_add(wait_ms) }
        };
        // A call to a forge starts no process.
        if let Some(scarcity @ (Scarcity::Descriptors | Scarcity::Memory)) = Scarcity::of(error) {
            return scarcity.into();
        }
        match error {
            ForgeError::Shared(error) => Self::of_forge(error, now),
            ForgeError::RateLimited { wait, .. } | ForgeError::Shed { wait, .. } => until(*wait),
            ForgeError::Connection { .. }
            | ForgeError::Cut { .. }
            | ForgeError::Certificate { .. }
            | ForgeError::Redirected { .. }
            | ForgeError::Server { .. }
            | ForgeError::TooLate { .. } => Self::Unreachable,
            ForgeError::Unauthorized { .. }
            | ForgeError::App { .. }
            | ForgeError::ServiceToken { .. }
            | ForgeError::Forbidden { .. }
            | ForgeError::NotFound { .. } => Self::Refused,
            _ => Self::Other,
        }
    }

    /// Returns the cause of an error of a runner that came now.
    pub(crate) fn of_runner(error: &RunnerError, now: Moment) -> Self {
        if let Some(scarcity) = error.scarcity() {
            return scarcity.into();
        }
        match error {
            RunnerError::Register { source: RegisterError::Forge(error), .. } => Self::of_forge(error, now),
            RunnerError::Register { source: RegisterError::NotReady { .. }, .. }
            | RunnerError::Address { .. } => Self::Unreachable,
            RunnerError::Start(StartError::NoImage(_) | StartError::Image { .. }) => Self::Image,
            RunnerError::Start(_) | RunnerError::NoHello { .. } => Self::Machine,
            RunnerError::App { lines, .. } if too_old().is_some_and(|line| lines.contains(line)) => {
                Self::AppTooOld
            }
            RunnerError::App { .. } | RunnerError::NotUp { .. } => Self::App,
            _ => Self::Other,
        }
    }
}

impl From<Scarcity> for Cause {
    fn from(scarcity: Scarcity) -> Self {
        match scarcity {
            Scarcity::Memory => Self::NoMemory,
            Scarcity::Processes => Self::NoProcesses,
            Scarcity::Descriptors => Self::NoDescriptors,
            Scarcity::Space => Self::NoSpace,
        }
    }
}

/// Returns the line of the entrypoint about a runner app whose version the forge refuses.
fn too_old() -> Option<&'static str> {
    RunnerApp::ActionsRunner.explain(Some(TOO_OLD_STATUS))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_rate_limit_has_an_end_and_a_server_that_fails_counts_as_unreachable() {
        let text = || "x".to_owned();
        let limited =
            ForgeError::RateLimited { what: text(), message: text(), wait: Duration::from_secs(60) };
        assert_eq!(Cause::of_forge(&limited, Moment::of_ms(5)), Cause::RateLimit { until_ms: 60_005 });
        let late = ForgeError::TooLate { what: text(), limit: Duration::from_secs(1) };
        assert_eq!(Cause::of_forge(&late, Moment::of_ms(5)), Cause::Unreachable);
        let refused = ForgeError::Forbidden { what: text(), message: text(), needs: None };
        assert_eq!(Cause::of_forge(&refused, Moment::of_ms(5)), Cause::Refused);
    }

    #[test]
    fn a_host_that_has_run_out_of_something_is_the_cause_wherever_that_happens_and_is_tried_again() {
        let now = Moment::of_ms(0);
        let io = |error: Errno| std::io::Error::from(error);
        for (number, cause) in [
            (Errno::NOMEM, Cause::NoMemory),
            (Errno::AGAIN, Cause::NoProcesses),
            (Errno::MFILE, Cause::NoDescriptors),
            (Errno::NFILE, Cause::NoDescriptors),
            (Errno::NOSPC, Cause::NoSpace),
        ] {
            let spawn = dayfly_vm::LaunchError::Spawn { program: "/x".into(), source: io(number) };
            let errors = [
                RunnerError::Start(StartError::Launch(spawn)),
                RunnerError::Start(StartError::Io { what: "x", path: "/x".into(), source: io(number) }),
                RunnerError::State { what: "x", path: "/x".into(), source: io(number) },
            ];
            for error in errors {
                assert_eq!(Cause::of_runner(&error, now), cause, "{error}");
                assert!(error.is_worth_a_retry(), "{error}");
            }
        }
        let denied = RunnerError::State { what: "x", path: "/x".into(), source: io(Errno::ACCESS) };
        assert_eq!(Cause::of_runner(&denied, now), Cause::Other);
        assert!(!denied.is_worth_a_retry());
        let (name, exit) = ("n".to_owned(), "the host's memory was used up".to_owned());
        let killed = RunnerError::KilledForMemory { name, exit };
        assert_eq!(Cause::of_runner(&killed, now), Cause::NoMemory);
    }

    #[test]
    fn a_runner_app_that_is_too_old_is_known_by_the_entrypoints_own_line() {
        let app = |lines: &str| RunnerError::App {
            name: "n".to_owned(),
            what: "ended before it had a job",
            lines: lines.to_owned(),
        };
        let now = Moment::of_ms(0);
        let line = format!("  exit status 7: {}\n", too_old().expect("a line"));
        assert_eq!(Cause::of_runner(&app(&line), now), Cause::AppTooOld);
        assert_eq!(Cause::of_runner(&app("  killed\n"), now), Cause::App);
    }
}

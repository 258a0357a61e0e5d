//! Exit statuses and kinds of failure of `dayfly`, all defined in this file.
//!
//! | status | meaning |
//! | --- | --- |
//! | 0 | success |
//! | 1 | the run did not succeed: a job failed or was cancelled; or a wait has reached its limit |
//! | 2 | wrong usage, or a workflow or configuration file that is refused |
//! | 3 | this host or the forge cannot do what was requested |
//! | 75 | the runners go on; the next start takes them over (SIGUSR2) |
//! | 130, 143 | stopped by SIGINT (Ctrl-C) or SIGTERM |
//!
//! `dayfly exec` and `dayfly shell` end with the status of their program.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// The status after SIGUSR2: "try again", EX_TEMPFAIL in sysexits.h. A service manager starts dayfly again because of it.
const HANDED_OVER: u8 = 75;

/// The end of a command that could do what was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Status 0.
    Success,
    /// Status 1: the run did not succeed, or a wait has reached its limit.
    NotSucceeded,
    /// Status 128 + the signal's number.
    StoppedBy(Signal),
    /// The status of a program that was run in a machine.
    Program(u8),
}

/// A signal that stops dayfly in an orderly way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    HangUp,
    /// SIGUSR2: the runners go on, for the next start.
    HandOver,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Success => 0,
            Outcome::NotSucceeded => 1,
            Outcome::Program(status) => status,
            Outcome::StoppedBy(Signal::Interrupt) => 130,
            Outcome::StoppedBy(Signal::Terminate) => 143,
            Outcome::StoppedBy(Signal::HangUp) => 129,
            Outcome::StoppedBy(Signal::HandOver) => HANDED_OVER,
        })
    }
}

/// The reason why a command could not do what was requested.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Usage,
    Cannot,
}

impl Failure {
    /// Creates a failure with status 2: the request is wrong.
    pub(crate) fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::Usage, error: error.into(), hint: None }
    }

    /// Creates a failure with status 3: the request is right, but this host or the forge cannot serve it.
    pub(crate) fn cannot(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: Kind::Cannot, error: error.into(), hint: None }
    }

    /// Adds a hint for the user, if the error itself does not say how to fix it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the place of the problem before the error.
    pub(crate) fn at(self, place: &str) -> Self {
        Self { error: format!("{place}: {}", self.error).into(), ..self }
    }

    /// Returns the hint.
    pub(crate) fn what_to_do(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns true if the request is wrong.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self.kind, Kind::Usage)
    }

    /// Returns the exit status.
    pub(crate) fn code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Cannot => 3,
        }
    }
}

impl fmt::Display for Failure {
    /// Writes the error and its root cause. The causes between the two are left out, because they repeat the same in other
    /// words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.error.to_string();
        f.write_str(&text)?;
        let mut root = self.error.source();
        while let Some(deeper) = root.and_then(Error::source) {
            root = Some(deeper);
        }
        match root.map(ToString::to_string) {
            Some(cause) if !text.contains(&cause) => write!(f, ": {cause}"),
            _ => Ok(()),
        }
    }
}

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open x: {source}")]
        struct Quoting {
            source: std::io::Error,
        }
        let error = Quoting { source: std::io::Error::other("no such file") };
        assert_eq!(Failure::cannot(error).to_string(), "cannot open x: no such file");

        #[derive(Debug, thiserror::Error)]
        #[error("cannot open x")]
        struct Silent {
            source: std::io::Error,
        }
        let error = Silent { source: std::io::Error::other("no such file") };
        assert_eq!(Failure::cannot(error).to_string(), "cannot open x: no such file");
    }
}

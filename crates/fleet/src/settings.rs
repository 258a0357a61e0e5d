//! What a loop needs to know, resolved and checked by whoever starts it. Nothing below reads the environment.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_forge::client::RunnerScope;
use dayfly_vm::{Machine, Mount};

/// Everything about one loop.
#[derive(Debug, Clone)]
pub struct LoopSettings {
    /// The loop's number: the first part of its runners' ids.
    pub index: u32,
    /// Prefix of the names of its VMs and registrations.
    pub prefix: String,
    /// `owner/repository`.
    pub principal: Principal,
    /// Runner group's id at the forge; 1 is the default group, the only one that a repository knows.
    pub group: u64,
    /// Labels of its registrations, beside those that the forge adds itself.
    pub labels: Vec<String>,
    /// How many runners it makes, one after another; none: until it is stopped.
    pub repeat: Option<NonZeroU32>,
    /// User that jobs run as in the VM.
    pub user: String,
    /// The machine of each runner.
    pub machine: Machine,
    /// DNS server of its machines.
    pub dns: IpAddr,
    /// Folders and files of the host that its machines see.
    pub mounts: Vec<Mount>,
    /// How long it waits for what others do.
    pub limits: Limits,
    /// The instance's folder of runs.
    pub runs: PathBuf,
    /// The instance's environment directory.
    pub environment: PathBuf,
    /// Leave the VM of a job that has ended running, for a look.
    pub keep: bool,
}

/// A repository at a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// User or organisation.
    pub owner: String,
    /// Repository.
    pub repository: String,
}

impl Principal {
    /// Where its runners are registered.
    pub fn scope(&self) -> RunnerScope {
        RunnerScope::Repository { owner: self.owner.clone(), name: self.repository.clone() }
    }
}

/// A text that names no repository.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" names no repository (expected OWNER/REPOSITORY)")]
pub struct PrincipalError(String);

impl std::str::FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.len() <= 100
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        match text.split_once('/') {
            Some((owner, repository)) if name(owner) && name(repository) => {
                Ok(Self { owner: owner.to_owned(), repository: repository.to_owned() })
            }
            _ => Err(PrincipalError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.repository)
    }
}

/// How long a loop waits for what others do. Each has an end, since each of the others can be gone.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the agent's hello until the runner app is about to start (`.tkn`).
    pub runner_up: Duration,
    /// From `.trm` until the entrypoint has ended.
    pub gentle_stop: Duration,
    /// From the entrypoint's end, or the end of a gentle stop, until the VM has powered off by itself.
    pub power_off: Duration,
    /// How long a registration that the forge calls busy, although its VM is gone, is asked for again.
    pub busy_registration: Duration,
    /// Pause after a runner that failed before its runner app was up, doubled with each in a row.
    pub retry_first: Duration,
    /// Longest such pause.
    pub retry_most: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            runner_up: Duration::from_secs(180),
            gentle_stop: Duration::from_secs(45),
            power_off: Duration::from_secs(10),
            // A lab, like GitHub, holds a job for a runner that is silent; the lab's lock is 150 s.
            busy_registration: Duration::from_secs(180),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_an_owner_and_a_name() {
        assert_eq!("o/r".parse::<Principal>().expect("valid").to_string(), "o/r");
        for text in ["", "o", "/r", "o/", "o/r/x", "o/..", "../r", "o r/x", "o/r\n"] {
            assert!(text.parse::<Principal>().is_err(), "{text:?}");
        }
    }
}

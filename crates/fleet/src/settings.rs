//! What a loop needs to know, resolved and checked by whoever starts it. Nothing below reads the environment.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_forge::RunnerScope;
use dayfly_host::retry::{self, Retry};
use dayfly_vm::{Entrypoint, Machine, Mount};

/// Everything about one loop.
#[derive(Debug, Clone)]
pub struct LoopSettings {
    /// The loop's number: the first part of its runners' ids.
    pub index: u32,
    /// Prefix of the names of its VMs and registrations.
    pub prefix: String,
    /// Where its runners belong.
    pub scope: RunnerScope,
    /// The forge was proven to be a lab of this host.
    pub lab: bool,
    /// The runner group of its registrations.
    pub group: Group,
    /// How its runners are registered.
    pub registration: Registration,
    /// Labels of its registrations, all of them: a JIT config adds none.
    pub labels: Vec<String>,
    /// How many runners it makes, one after another; none: until it is stopped.
    pub repeat: Option<NonZeroU32>,
    /// How long each runner may live, from the end of its pull. The loop ends with a runner that lived as long.
    pub lifetime: Option<Duration>,
    /// The secret of the handshake; none: a random one for each runner.
    pub secret: Option<String>,
    /// User that jobs run as in the VM.
    pub user: String,
    /// The runner app may update itself.
    pub update: bool,
    /// How much the entrypoint says, 0 to 3.
    pub verbose: u8,
    /// The user's own settings for the entrypoint and the jobs: `RUNNER_` variables that are not the host's.
    pub guest_settings: Vec<(String, String)>,
    /// The machine of each runner.
    pub machine: Machine,
    /// DNS server of its machines.
    pub dns: IpAddr,
    /// Folders and files of the host that its machines see.
    pub mounts: Vec<Mount>,
    /// What is started in its machines.
    pub entrypoint: Entrypoint,
    /// How long it waits for what others do.
    pub limits: Limits,
    /// The instance's folder of runs.
    pub runs: PathBuf,
    /// The loop's environment directory; see [`environment_of_loop`].
    pub environment: PathBuf,
    /// Another process waits for `<loop>-*.tkn` and removes it; this loop only looks at it.
    pub leave_tkn: bool,
    /// Try again after a failure that may pass, even where only so many runners are to be made.
    pub patient: bool,
    /// Leave the VM of a job that has ended running, for a look.
    pub keep: bool,
}

/// The environment directory of a loop under the common one: `<prefix>-<loop, three digits>`.
pub fn environment_of_loop(common: &Path, prefix: &str, index: u32) -> PathBuf {
    common.join(format!("{prefix}-{index:03}"))
}

/// A runner group, looked up at the forge once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id; 1 is the default group, the only one that a repository knows.
    pub id: u64,
    /// Its name.
    pub name: String,
}

impl Group {
    /// The group that every scope has.
    pub fn default_group() -> Self {
        Self { id: 1, name: "Default".to_owned() }
    }
}

/// How runners are registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// The host registers, and the VM gets a JIT config: an identity for one job.
    Jit,
    /// The VM gets a registration token that lives an hour, and registers itself.
    Token {
        /// For one job; else job after job in the same VM.
        ephemeral: bool,
    },
}

/// How long a loop waits for what others do. Each has an end, since each of the others can be gone.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long an image may be fetched.
    pub pull: Duration,
    /// From the agent's hello until the runner app is about to start (`.tkn`).
    pub runner_up: Duration,
    /// From `.trm` until the entrypoint has ended.
    pub gentle_stop: Duration,
    /// From the entrypoint's end, or the end of a gentle stop, until the VM has powered off by itself.
    pub power_off: Duration,
    /// How long a registration that the forge calls busy, although its VM is gone, is asked for again.
    pub busy_registration: Duration,
    /// The rule for the next runner after one that failed before its app was up.
    pub retry: Retry,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Gigabytes over a slow line.
            pull: Duration::from_secs(3600),
            runner_up: Duration::from_secs(180),
            gentle_stop: Duration::from_secs(45),
            power_off: Duration::from_secs(10),
            // A lab, like GitHub, holds a job for a runner that is silent; the lab's lock is 150 s.
            busy_registration: Duration::from_secs(180),
            retry: retry::RUNNER,
        }
    }
}

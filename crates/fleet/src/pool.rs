//! A pool of runners: its description ([`PoolSpec`]), and what was resolved from it ([`Pool`]).
//!
//! The description is data that a user writes. The resolved pool is created late, for one process on one host, and is never
//! stored in the description, because an image name can resolve to another image tomorrow.

mod spec;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dayfly_forge::Forge;
use dayfly_host::retry::{self, Retry};
use dayfly_vm::Machine;
use secrecy::SecretString;

use crate::demand::ScaleSetRegistrar;
use crate::reaper::Leftovers;

pub use spec::{
    DNS_DEFAULT, FetchSpec, GROUP_DEFAULT, HookFiles, MachineSpec, PoolSpec, Registration, USER_DEFAULT,
};

/// A pool that can run: everything that its description names was looked up and checked.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The description.
    pub spec: Arc<PoolSpec>,
    /// The client of its forge.
    pub forge: Forge,
    /// The place at which a JIT config comes from.
    pub registrar: Registrar,
    /// True if the forge was proven to be a lab of this host.
    pub is_lab: bool,
    /// The runner group, looked up at the forge.
    pub group: Group,
    /// All labels of its runners, because a JIT config adds none.
    pub labels: Vec<String>,
    /// The machine of each runner, with the image that its name resolved to at the start.
    pub machine: Machine,
    /// The secret of the handshake with the entrypoints; none: a random one for each runner.
    pub secret: Option<SecretString>,
    /// The instance's folder of runs.
    pub runs: PathBuf,
    /// Runs that are over, but not removed yet.
    pub leftovers: Leftovers,
    /// Limits of the waits for the forge, the registry and the VMs.
    pub limits: Limits,
}

/// The place at the forge where a runner gets its JIT config.
#[derive(Debug, Clone)]
pub enum Registrar {
    /// The REST API, with the runner's own labels and group.
    Rest,
    /// The pool's scale set, which has the labels and the group.
    ScaleSet(ScaleSetRegistrar),
}

/// A runner group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id; 1 is the default group, the only one that a repository knows.
    pub id: u64,
    /// Its name.
    pub name: String,
}

impl Group {
    /// Returns the group that every scope has.
    pub fn default_group() -> Self {
        Self { id: 1, name: GROUP_DEFAULT.to_owned() }
    }
}

/// Limits of a loop's waits. Each wait has a limit, because the forge, the registry and the VM can all fail to answer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest fetch of an image.
    pub pull: Duration,
    /// Longest time from the agent's hello until the runner app is about to start (`.tkn`).
    pub runner_up: Duration,
    /// Longest time from `.trm` until the entrypoint has exited.
    pub gentle_stop: Duration,
    /// Longest time from the entrypoint's exit, or from the end of a gentle stop, until the VM has powered off by itself.
    pub power_off: Duration,
    /// Time during which the loop tries again to delete a registration that the forge calls busy although its VM is gone.
    pub busy_registration: Duration,
    /// Time between two questions to the forge whether a runner's registration still exists. It is long, because all runners
    /// share the calls of one token: 200 runners make 800 calls an hour at the default, of the 5000 that GitHub allows.
    pub registration_pace: Duration,
    /// Time from the app's word that its job has ended until the forge is asked, if the machine has not ended by then.
    pub registration_after_job: Duration,
    /// Time for which a registration must be gone before its machine is ended.
    pub registration_gone: Duration,
    /// Longest job.
    pub job: Duration,
    /// Time after which a runner that waits for a job makes room for a fresh one in its slot; none: it waits for ever. For
    /// runners whose number follows the jobs, [`crate::demand::Scale::idle_timeout`] holds instead.
    pub idle: Option<Duration>,
    /// The rule for the next runner after one that failed before its app was up, or ended without a job soon after.
    pub retry: Retry,
    /// The rule for the next runner, with another name, after one whose name the forge has called taken.
    pub taken_name: Retry,
    /// The rule for removing what a runner has left because the forge did not answer.
    pub cleanup: Retry,
    /// Time for which an app must have been up for the end of its runner without a job to be ordinary.
    pub settled: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // An image can have gigabytes, and the line can be slow.
            pull: Duration::from_secs(3600),
            runner_up: Duration::from_secs(180),
            gentle_stop: Duration::from_secs(45),
            power_off: Duration::from_secs(10),
            // A lab, like GitHub, keeps a job for a runner that is silent; the lab's lock lasts 150 s.
            busy_registration: Duration::from_secs(180),
            registration_pace: Duration::from_secs(15 * 60),
            // Most machines end within seconds of their job, and cost no call.
            registration_after_job: Duration::from_secs(15),
            registration_gone: Duration::from_secs(120),
            // GitHub ends a job of a self-hosted runner after five days (docs.github.com, "Actions limits"). One hour more, so
            // that the forge ends the job and not the host.
            job: Duration::from_secs((5 * 24 + 1) * 3600),
            idle: None,
            retry: retry::RUNNER,
            taken_name: retry::RUNNER_NAME,
            cleanup: retry::CLEANUP,
            settled: Duration::from_secs(60),
        }
    }
}

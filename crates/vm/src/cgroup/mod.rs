//! A control group of its own for each VMM and its servers of files: what one machine can take from its host has a
//! bound, and its end leaves no process.
//!
//! ```text
//!   mounts ──> home ──> group ──> launcher enters, then becomes the VMM     ...    kill, remove
//!   hierarchies    where groups     limits (pure): files and values           by the record in the run folder
//! ```
//!
//! With version 2, all controllers are in one hierarchy. With version 1, each has a hierarchy of its own, and a
//! machine has a group in each; a host may also have both. A controller that cannot be used is no error: the machine
//! runs without it, and its facts and `dayfly doctor` say so.
//!
//! The host process puts the launcher into the group before it sends the order, so neither the VMM nor a process of
//! it is ever outside. The record ([`record`]) is written before the group is created, so a later process finds and
//! removes it.

mod doctor;
mod group;
mod home;
mod limits;
mod mounts;
mod record;
mod usage;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use dayfly_host::digest::digest_of;

pub(crate) use doctor::{check, missing};
pub(crate) use group::Group;
pub use group::MemoryKill;
pub(crate) use limits::GroupSize;
pub(crate) use record::{find, remove};
pub(crate) use usage::load;
pub use usage::{MachineUse, machine_use};

/// Beginning of the names of all groups of machines.
const PREFIX: &str = "dayfly-vm-";
/// Digits of the hash of the state folder in the name of a group.
const INSTALLATION_DIGITS: usize = 8;

/// The limits that the kernel enforces for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineLimits {
    /// The limits, in words for people.
    pub enforced: Vec<String>,
    /// The limits that this host cannot enforce, each with the reason.
    pub missing: Vec<String>,
}

/// A resource that the kernel limits for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
    Io,
}

impl Controller {
    pub(crate) const ALL: [Self; 4] = [Self::Memory, Self::Pids, Self::Cpu, Self::Io];

    /// Returns the kernel's name of the controller in this version.
    fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Memory, _) => "memory",
            (Self::Pids, _) => "pids",
            (Self::Cpu, _) => "cpu",
            (Self::Io, Version::V1) => "blkio",
            (Self::Io, Version::V2) => "io",
        }
    }

    /// Returns the resource, in words for people.
    fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "processes",
            Self::Cpu => "processor time",
            Self::Io => "disk access",
        }
    }
}

/// A version of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Version {
    V1,
    V2,
}

/// The control groups of this host, as far as machines use them. All copies share what was found.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    /// Part of the names of all groups of this state folder.
    installation: String,
    homes: Arc<OnceLock<home::Homes>>,
}

impl Cgroups {
    /// Returns the groups of a state folder. Nothing is looked up before the first machine.
    pub(crate) fn of(state: &Path) -> Self {
        let path = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
        let digest = digest_of(&[&path.to_string_lossy()]);
        let installation = digest.chars().take(INSTALLATION_DIGITS).collect();
        Self { installation, homes: Arc::default() }
    }

    /// Returns the places of groups. The first call prepares them: it may move this process into a group below its own.
    fn homes(&self) -> &home::Homes {
        self.homes.get_or_init(home::Homes::prepare)
    }
}

/// Returns the control groups of the machines of this state folder.
#[cfg(test)]
pub(crate) fn groups_of(state: &Path) -> std::collections::BTreeSet<std::path::PathBuf> {
    let beginning = format!("{PREFIX}{}-", Cgroups::of(state).installation);
    let homes = home::Survey::of_this_process().homes.list;
    let entries =
        homes.iter().flat_map(|home| std::fs::read_dir(&home.folder).into_iter().flatten().flatten());
    let is_ours = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&beginning);
    entries.filter(is_ours).map(|entry| entry.path()).collect()
}

/// Removes the empty control groups of this state folder that no record leads to. A group is empty between its
/// creation and the start of its VMM, so young ones stay. Returns at once if this host has no groups for machines.
pub async fn sweep_groups(state: &Path) {
    let beginning = format!("{PREFIX}{}-", Cgroups::of(state).installation);
    let sweep = move || {
        for home in home::Survey::of_this_process().homes.list {
            group::remove_old_and_empty(&home.folder, &beginning);
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(sweep).await {
        tracing::warn!("control groups that are left were not looked for: {error}");
    }
}

//! The group of one machine, in each hierarchy that has controllers for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use dayfly_host::clock;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::home::Refusal;
use super::limits::{GroupLimits, GroupSize};
use super::record::GroupRecord;
use super::{Cgroups, Controller, MachineLimits, PREFIX, Version};

/// Longest time that killed processes may take to leave a group. Freeing gigabytes of memory takes a moment.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Interval at which a group is looked at that becomes empty.
const POLL: Duration = Duration::from_millis(5);
/// Age from which an empty group without a record counts as left. A launcher enters its group within a second.
const EMPTY_MAX: Duration = Duration::from_secs(600);
/// Longest part of a group's name that is the machine's.
const NAME_MAX: usize = 64;
/// The group's processes.
const PROCESSES: &str = "cgroup.procs";

/// A folder of a machine's group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupFolder {
    pub(super) version: Version,
    pub(super) path: PathBuf,
    /// True if the kernel counts here the processes that it kills for memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) has_memory: bool,
}

/// The group of a machine.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) folders: Vec<GroupFolder>,
    limits: MachineLimits,
    /// The processes that were killed for memory in earlier starts of the machine.
    killed_before: KillCount,
}

/// Why the kernel of this host has killed a process of a machine for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKill {
    /// The machine had used up the limit of its group, MiB; none if the limit cannot be read.
    Limit(Option<u64>),
    /// The host had.
    Host,
}

/// The kernel's counts of a group with memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct KillCount {
    /// Processes that were killed for memory, for whatever reason.
    killed: u64,
    /// Times at which the limit of the group was the reason; none if the kernel does not say.
    limit_hit: Option<u64>,
}

impl Group {
    /// Creates the group of a machine, or returns the one that an earlier start of the machine has.
    /// [`Group::limits`] lists the limits that this host cannot enforce. Blocks for less than a millisecond.
    ///
    /// # Errors
    /// The record cannot be written. Nothing was created then.
    pub(crate) fn of_machine(
        cgroups: &Cgroups,
        name: &str,
        size: GroupSize,
        run_dir: &Path,
    ) -> io::Result<Self> {
        let homes = cgroups.homes();
        let refused = |(controller, refusal): &(Controller, Refusal)| (*controller, Err(refusal.why.clone()));
        let mut told: Told = homes.missing.iter().map(refused).collect();
        let known = super::record::folders_of(run_dir);
        let name = group_name(&cgroups.installation, name);
        let mut planned = Vec::new();
        for home in &homes.list {
            let is_here = |folder: &&GroupFolder| folder.path.parent() == Some(&home.folder);
            let path =
                known.iter().find(is_here).map_or_else(|| home.folder.join(&name), |old| old.path.clone());
            let has_memory = home.controllers.contains(&Controller::Memory);
            planned.push((home, GroupFolder { version: home.version, path, has_memory }));
        }
        if known.is_empty() && !planned.is_empty() {
            GroupRecord::of(planned.iter().map(|(_, folder)| folder.clone()).collect())?.write(run_dir)?;
        }
        let wanted = GroupLimits::from(size);
        let mut folders = Vec::new();
        for (home, folder) in planned {
            match make(&folder.path) {
                Ok(()) => {
                    limit(&folder, &home.controllers, &wanted, &mut told);
                    folders.push(folder);
                }
                Err(error) => {
                    let why = format!("cannot make {}: {error}", folder.path.display());
                    told.extend(home.controllers.iter().map(|&controller| (controller, Err(why.clone()))));
                }
            }
        }
        let mut group = Self::found(folders);
        group.limits = machine_limits(told);
        group.killed_before = group.count().unwrap_or_default();
        Ok(group)
    }

    /// Returns the group of a machine that an earlier process has created.
    pub(super) fn found(folders: Vec<GroupFolder>) -> Self {
        Self { folders, limits: MachineLimits::default(), killed_before: KillCount::default() }
    }

    /// Returns the limits that the kernel enforces.
    pub(crate) fn limits(&self) -> &MachineLimits {
        &self.limits
    }

    /// Puts a process into the group: a launcher that has not got its order, so that the program that it becomes and
    /// all processes of that one are in the group from their first instruction.
    ///
    /// # Errors
    /// The kernel refuses. A machine must not run outside of limits that are said to hold.
    pub(crate) fn enter(&self, pid: u32) -> io::Result<()> {
        for folder in &self.folders {
            fs::write(folder.path.join(PROCESSES), pid.to_string()).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", folder.path.display()))
            })?;
        }
        Ok(())
    }

    /// Returns why the kernel has killed a process of this start for memory; none if it has killed none.
    pub(crate) fn killed_for_memory(&self) -> Option<MemoryKill> {
        let (now, before) = (self.count()?, self.killed_before);
        if now.killed <= before.killed {
            return None;
        }
        // A kernel that does not say has the limit as the likelier reason.
        let by_limit = now.limit_hit.is_none_or(|hits| hits > before.limit_hit.unwrap_or_default());
        Some(if by_limit { MemoryKill::Limit(self.memory_limit_mib()) } else { MemoryKill::Host })
    }

    fn count(&self) -> Option<KillCount> {
        let folder = self.folders.iter().find(|folder| folder.has_memory)?;
        let read = |file: &str| fs::read_to_string(folder.path.join(file)).ok();
        match folder.version {
            Version::V2 => Some(KillCount::of_events(&read("memory.events")?)),
            Version::V1 => Some(KillCount::of_control(&read("memory.oom_control")?, read("memory.failcnt"))),
        }
    }

    fn memory_limit_mib(&self) -> Option<u64> {
        let folder = self.folders.iter().find(|folder| folder.has_memory)?;
        let file = match folder.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        Some(fs::read_to_string(folder.path.join(file)).ok()?.trim().parse::<u64>().ok()? >> 20)
    }

    /// Kills all processes of the group, waits until they have left it, and removes it. Blocks.
    ///
    /// # Errors
    /// A process does not exit in time, or the kernel refuses.
    pub(super) fn remove(&self) -> io::Result<()> {
        let end = Instant::now() + KILL_LIMIT;
        for folder in &self.folders {
            loop {
                let living = processes(&folder.path)?;
                if living.is_empty() && is_removed(&folder.path)? {
                    break;
                }
                if Instant::now() > end {
                    return Err(io::Error::other(format!("processes do not exit: {living:?}")));
                }
                kill(folder, &living)?;
                thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

impl KillCount {
    /// Parses `memory.events` of version 2.
    fn of_events(text: &str) -> Self {
        Self { killed: field(text, "oom_kill").unwrap_or_default(), limit_hit: field(text, "oom") }
    }

    /// Parses `memory.oom_control` and `memory.failcnt` of version 1. The second counts each time at which the limit
    /// was met, also if the kernel could then free memory, so only a zero says for sure that the limit was not the
    /// reason.
    fn of_control(control: &str, failures: Option<String>) -> Self {
        let never = failures.is_some_and(|text| text.trim() == "0");
        Self { killed: field(control, "oom_kill").unwrap_or_default(), limit_hit: never.then_some(0) }
    }
}

/// Returns a number of a file with a name and a number in each line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Returns the name of a new group. Its time tells a later process how old an empty group is.
fn group_name(installation: &str, machine: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let machine: String = machine.chars().map(safe).take(NAME_MAX).collect();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{PREFIX}{installation}-{:x}-{}-{machine}", clock::since_epoch().as_secs(), &random[..8])
}

/// Returns the time at which a group was created, by its name.
fn made_at(name: &str, beginning: &str) -> Option<Duration> {
    let seconds = name.strip_prefix(beginning)?.split('-').next()?;
    Some(Duration::from_secs(u64::from_str_radix(seconds, 16).ok()?))
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Writes the limits of a group's folder. A limit that the kernel does not know is missing.
fn limit(folder: &GroupFolder, controllers: &[Controller], wanted: &GroupLimits, told: &mut Told) {
    for &controller in controllers {
        let files = wanted.files(controller, folder.version);
        let written = files.iter().try_for_each(|(file, value)| {
            fs::write(folder.path.join(file), value).map_err(|error| format!("{file}: {error}"))
        });
        told.insert(controller, written.map(|()| wanted.words(controller)));
    }
}

/// The limit of each controller in words, or the reason why there is none.
type Told = BTreeMap<Controller, Result<String, String>>;

/// Returns the limits of a machine, in the order of the controllers.
fn machine_limits(told: Told) -> MachineLimits {
    let mut limits = MachineLimits::default();
    for (controller, limit) in told {
        match limit {
            Ok(words) => limits.enforced.push(words),
            Err(why) => limits.missing.push(format!("{}: {why}", controller.resource())),
        }
    }
    limits
}

/// Returns the processes of a group; none if the group does not exist.
fn processes(path: &Path) -> io::Result<BTreeSet<i32>> {
    match fs::read_to_string(path.join(PROCESSES)) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // The second is the answer if the group is removed at this moment.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

/// Removes an empty group. Returns false if the kernel still counts a process of it that exits.
fn is_removed(path: &Path) -> io::Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(error) => Err(error),
    }
}

/// Kills the processes of a group. With version 2, the kernel does so at once for all, and for those that are just
/// being forked.
fn kill(folder: &GroupFolder, living: &BTreeSet<i32>) -> io::Result<()> {
    if folder.version == Version::V2 && fs::write(folder.path.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    for &pid in living {
        // Looked up again after opening, because from then on the descriptor cannot refer to another process.
        let Some(pid) = Pid::from_raw(pid) else { continue };
        let Ok(descriptor) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if processes(&folder.path)?.contains(&pid.as_raw_nonzero().get()) {
            let _ = rustix::process::pidfd_send_signal(&descriptor, Signal::KILL);
        }
    }
    Ok(())
}

/// Removes the empty groups of a folder whose names have this beginning, and that are too old to be about to be used.
pub(super) fn remove_old_and_empty(folder: &Path, beginning: &str) {
    let now = clock::since_epoch();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_old = made_at(&name, beginning).is_some_and(|at| now.saturating_sub(at) > EMPTY_MAX);
        // The kernel refuses to remove a group with processes.
        if is_old && fs::remove_dir(entry.path()).is_ok() {
            tracing::info!("an empty control group was left and is removed: {}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests;

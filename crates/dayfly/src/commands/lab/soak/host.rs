//! The host's own view of a soak: processes and files, read from `/proc` and the folders, without dayfly.
//!
//! The soak adopts orphans (`PR_SET_CHILD_SUBREAPER`), so that every process that dayfly has started stays a descendant
//! of the soak, whatever was killed between the two. So at the end every descendant is one that is left, and none can
//! hide.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, WaitOptions};
use serde::Deserialize;

/// The record of a machine, in the folder of its run.
const RECORD: &str = "vm/vmm.json";

/// A process, as `/proc/<pid>/stat` and `cmdline` show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    parent: u32,
    is_zombie: bool,
    /// Its command line, or its name if it has none.
    command: String,
}

impl Process {
    /// Returns true if it is the VMM of a machine, or what a machine of the driver `process` has in its place.
    pub(super) fn is_machine(&self) -> bool {
        let program = self.command.split(' ').next().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default();
        program.starts_with("qemu-system") || program == "dayfly-guest"
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let command: String = self.command.chars().take(160).collect();
        write!(f, "{} ({command})", self.pid)
    }
}

/// Makes this process the parent of all orphans among its descendants.
///
/// # Errors
/// The kernel refuses.
pub(super) fn adopt_orphans() -> rustix::io::Result<()> {
    // Any process id means that the attribute is set.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
}

/// Waits for the orphans that have exited, so that dayfly's processes find them gone. `own` are the children that this
/// process has started itself and waits for elsewhere.
pub(super) fn reap_orphans(own: &[u32]) {
    let me = std::process::id();
    for zombie in all().into_iter().filter(|process| process.is_zombie && process.parent == me) {
        if own.contains(&zombie.pid) {
            continue;
        }
        let pid = i32::try_from(zombie.pid).ok().and_then(Pid::from_raw);
        // It may have been a child that another task has just waited for.
        let _ = rustix::process::waitpid(pid, WaitOptions::NOHANG);
    }
}

/// Returns the living descendants of this process.
pub(super) fn descendants() -> Vec<Process> {
    below(std::process::id(), all())
}

/// Returns the descendants of a process that are no zombies.
fn below(root: u32, all: Vec<Process>) -> Vec<Process> {
    let parents: HashMap<u32, u32> = all.iter().map(|process| (process.pid, process.parent)).collect();
    let is_below = |process: &Process| {
        let ancestors = std::iter::successors(Some(process.parent), |pid| parents.get(pid).copied());
        // The bound ends the walk if processes changed while they were read.
        ancestors.take(parents.len()).any(|ancestor| ancestor == root)
    };
    let mut found: Vec<Process> =
        all.iter().filter(|process| !process.is_zombie && is_below(process)).cloned().collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// Returns all processes of this host.
fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| read(&entry.ok()?.path())).collect()
}

fn read(folder: &Path) -> Option<Process> {
    let pid = folder.file_name()?.to_str()?.parse().ok()?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (name, is_zombie, parent) = parse_stat(&stat)?;
    let line = fs::read(folder.join("cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
    let command = if line.is_empty() { name.to_owned() } else { line };
    Some(Process { pid, parent, is_zombie, command })
}

/// Returns the name, whether it is a zombie, and the parent (proc_pid_stat(5)). The name may contain anything, also
/// `)`.
fn parse_stat(stat: &str) -> Option<(&str, bool, u32)> {
    let (name, rest) = stat.rsplit_once(')')?;
    let (_, name) = name.split_once('(')?;
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    Some((name, is_zombie, fields.next()?.parse().ok()?))
}

/// Kills a process at once. Does nothing if it is gone.
pub(super) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// A machine that can be killed: its runner's name, and the process that it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct MachineProcess {
    pub(super) name: String,
    pub(super) pid: u32,
}

/// Returns the machines of runners that live, in the order of their names. Their names come from the records in the run
/// folders, because a machine's process alone does not name its runner; only living descendants of the soak are
/// returned.
pub(super) fn machines(state: &Path) -> Vec<MachineProcess> {
    let living: Vec<u32> =
        descendants().into_iter().filter(Process::is_machine).map(|process| process.pid).collect();
    let runs =
        entries(&state.join("instances")).into_iter().flat_map(|instance| entries(&instance.join("runs")));
    let record = |run: PathBuf| {
        let text = fs::read(run.join(RECORD)).ok()?;
        serde_json::from_slice::<MachineProcess>(&text).ok()
    };
    let mut machines: Vec<MachineProcess> =
        runs.filter_map(record).filter(|machine| living.contains(&machine.pid)).collect();
    machines.sort();
    machines
}

/// Returns the entries of a folder; none if there is no folder.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Returns how often each job has run: the number of lines in the file that its executions leave.
pub(super) fn executions(ledger: &Path) -> BTreeMap<u32, u32> {
    let count = |file: PathBuf| {
        let number = file.file_name()?.to_str()?.parse().ok()?;
        let lines = fs::read_to_string(&file).ok()?.lines().count();
        Some((number, u32::try_from(lines).unwrap_or(u32::MAX)))
    };
    entries(ledger).into_iter().filter_map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, is_zombie: bool, command: &str) -> Process {
        Process { pid, parent, is_zombie, command: command.to_owned() }
    }

    #[test]
    fn descendants_are_found_through_every_generation_and_zombies_do_not_count() {
        let all = vec![
            process(1, 0, false, "init"),
            process(10, 1, false, "soak"),
            process(12, 11, false, "sleep 5"),
            process(11, 10, false, "dayfly runner"),
            process(13, 10, true, "dead"),
            process(20, 1, false, "other"),
        ];
        let found: Vec<u32> = below(10, all).into_iter().map(|process| process.pid).collect();
        assert_eq!(found, [11, 12]);
    }

    #[test]
    fn a_name_with_parentheses_is_read() {
        assert_eq!(parse_stat("7 (a) (b c) Z 3 7 7"), Some(("a) (b c", true, 3)));
        assert_eq!(parse_stat("7 (sh) S 3 7 7"), Some(("sh", false, 3)));
        assert_eq!(parse_stat("7 sh S 3"), None);
    }

    #[test]
    fn machines_are_told_from_other_processes() {
        for command in
            ["/usr/bin/qemu-system-x86_64 -name x", "dayfly-guest agent --port-fd 0", "qemu-system-x86"]
        {
            assert!(process(1, 0, false, command).is_machine(), "{command}");
        }
        for command in ["/usr/bin/dayfly orchestrator", "sh -c dayfly-guest", ""] {
            assert!(!process(1, 0, false, command).is_machine(), "{command}");
        }
    }

    #[test]
    fn executions_are_counted_by_the_lines_of_each_jobs_file() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join("7"), "runner-a\n").expect("written");
        fs::write(folder.path().join("8"), "runner-a\nrunner-b\n").expect("written");
        fs::write(folder.path().join("note"), "").expect("written");
        assert_eq!(executions(folder.path()), BTreeMap::from([(7, 1), (8, 2)]));
        assert_eq!(executions(&folder.path().join("missing")), BTreeMap::new());
    }

    #[test]
    fn a_child_is_a_descendant_until_it_has_been_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("spawn");
        let is_there = || descendants().iter().any(|process| process.pid == child.id());
        assert!(is_there());
        kill(child.id());
        let began = std::time::Instant::now();
        while is_there() && began.elapsed().as_secs() < 20 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(!is_there());
        child.wait().expect("reaped");
    }
}

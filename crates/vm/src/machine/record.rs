//! The record of a machine in its run folder, by which a later process finds and removes the machine.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use super::LeftoverError;
use crate::driver::{krunvm, podman};
use crate::virtiofs::SHARES_MAX;
use crate::vmm::MONITOR_SOCKET;
use dayfly_host::file;
use dayfly_host::tool::{self, Invocation};

/// File name of the record.
const RECORD: &str = "vmm.json";
/// The agent's socket.
pub(crate) const AGENT_SOCKET: &str = "agent.sock";
/// The serial console's socket.
pub(crate) const CONSOLE_SOCKET: &str = "console.sock";
/// The socket for sessions, on which the owner of the machine listens.
pub(crate) const SESSION_SOCKET: &str = "session.sock";
/// The scratch disk.
pub(crate) const SCRATCH_DISK: &str = "scratch.img";
/// The output of the guest on its console.
pub(crate) const CONSOLE_LOG: &str = "console.log";
/// The output of the VMM.
pub(crate) const VMM_LOG: &str = "vmm.log";
/// The folder with the files that a machine without a root file system of its own gets from this host.
pub(crate) const GUEST_FOLDER: &str = "guest";
/// The files that are removed with the machine. Logs stay.
const REMOVED: [&str; 6] =
    [AGENT_SOCKET, MONITOR_SOCKET, CONSOLE_SOCKET, SESSION_SOCKET, SCRATCH_DISK, RECORD];
/// Longest time that a keeper may take to stop its processes and exit after SIGTERM. Then it is killed.
const KEEPER_LIMIT: Duration = Duration::from_secs(5);
/// Longest time that a killed process may take to exit. Freeing gigabytes of memory takes a moment.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Longest time that a tool may take to list or remove a machine. Also the longest wait for a lock.
const TOOL_LIMIT: Duration = Duration::from_secs(60);
/// Interval at which things are polled that cannot be waited for.
const POLL: Duration = Duration::from_millis(20);

/// The identification of a machine, so that a later process finds it again and mistakes nothing else for it. The record is
/// written before any part of the machine can exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    /// The machine's name.
    pub(crate) name: String,
    /// The machine's form on this host.
    #[serde(flatten)]
    pub(crate) kind: MachineRecordKind,
}

/// The form of a machine on this host. The names of the fields distinguish the variants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum MachineRecordKind {
    /// The containers with the run folder's label.
    Podman {
        /// How podman is called. Another podman could use another store.
        podman: Invocation,
    },
    /// The krunvm machine of this name, and the processes with the run folder's mark.
    Krunvm {
        /// How krunvm is called.
        krunvm: Invocation,
        /// The file that is locked while krunvm creates or deletes a machine.
        lock: PathBuf,
    },
    /// A process.
    Process(ProcessId),
}

/// The identification of a process, which excludes another process with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// The process id.
    pid: u32,
    /// Start of the process, clock ticks since the host's boot.
    start_ticks: u64,
    /// Id of that boot of the host.
    boot_id: String,
    /// True if the process is a keeper, which stops other processes and then exits when it gets SIGTERM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_keeper: bool,
}

impl ProcessId {
    /// Returns the identification of a running process.
    pub(crate) fn of(pid: u32, is_keeper: bool) -> io::Result<Self> {
        let start_ticks = start_ticks(pid)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Self { pid, start_ticks, boot_id: boot_id()?, is_keeper })
    }

    /// Returns the path of the process's network namespace.
    pub(crate) fn network_namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid).into()
    }

    /// Returns the path of the list of the process's descriptors.
    pub(crate) fn descriptors(&self) -> PathBuf {
        format!("/proc/{}/fd", self.pid).into()
    }

    /// Returns a descriptor of the process if the process still runs.
    pub(crate) fn open(&self) -> io::Result<Option<OwnedFd>> {
        if boot_id()? != self.boot_id {
            return Ok(None);
        }
        let Some(descriptor) = open_process(self.pid)? else { return Ok(None) };
        // Compared after opening, because from then on the descriptor cannot refer to another process.
        Ok((start_ticks(self.pid)? == Some(self.start_ticks)).then_some(descriptor))
    }

    /// Removes the process's zombie, if it has exited and this process has started it.
    pub(crate) fn reap(&self) -> io::Result<()> {
        let Some(pid) = pid_of(self.pid) else { return Ok(()) };
        // A zombie keeps its id, so that no other process can have it before the wait.
        if boot_id()? == self.boot_id && stat(self.pid)?.is_some_and(|stat| stat.start == self.start_ticks) {
            // Fails if another process has started it.
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        Ok(())
    }

    /// Returns true if the process has exited, and its parent has not noticed.
    #[cfg(test)]
    pub(crate) fn is_zombie(&self) -> io::Result<bool> {
        Ok(stat(self.pid)?.is_some_and(|stat| stat.has_exited && stat.start == self.start_ticks))
    }

    /// Kills the process and waits until it has exited. A keeper gets SIGTERM first.
    async fn end(&self, run_dir: &Path) -> Result<(), LeftoverError> {
        let failed = |source| at("end the process of", run_dir, source);
        let Some(descriptor) = self.open().map_err(failed)? else { return Ok(()) };
        let descriptor = crate::readiness::readable(descriptor).map_err(failed)?;
        let ways = [(Signal::TERM, KEEPER_LIMIT), (Signal::KILL, KILL_LIMIT)];
        for (signal, limit) in &ways[usize::from(!self.is_keeper)..] {
            rustix::process::pidfd_send_signal(descriptor.get_ref(), *signal)
                .or_else(|error| if error == Errno::SRCH { Ok(()) } else { Err(error) })
                .map_err(|error| failed(error.into()))?;
            if let Ok(ready) = tokio::time::timeout(*limit, descriptor.readable()).await {
                return ready.map(drop).map_err(failed);
            }
        }
        Err(LeftoverError::Alive { pid: self.pid })
    }
}

impl MachineRecord {
    /// Returns the record of a running process.
    pub(crate) fn of_process(pid: u32, name: &str) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), kind: MachineRecordKind::Process(ProcessId::of(pid, false)?) })
    }

    /// Returns the record of a running keeper.
    pub(crate) fn of_keeper(pid: u32, name: &str) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), kind: MachineRecordKind::Process(ProcessId::of(pid, true)?) })
    }

    /// Writes the record into the run folder, whole or not at all.
    pub(crate) fn write(&self, run_dir: &Path) -> io::Result<()> {
        self.write_as(run_dir, RECORD)
    }

    /// Writes the record as that of the server for the share of this number.
    pub(crate) fn write_server(&self, run_dir: &Path, share: usize) -> io::Result<()> {
        self.write_as(run_dir, &server_record(share))
    }

    fn write_as(&self, run_dir: &Path, name: &str) -> io::Result<()> {
        // Only its owner may read it: a tool's environment may hold the credentials of a proxy.
        // Flushed, because a power cut would otherwise leave an empty file under the new name.
        file::replace_durably(&run_dir.join(name), &serde_json::to_vec(self)?)
    }

    fn read(run_dir: &Path, name: &str) -> Result<Found<Self>, LeftoverError> {
        let path = run_dir.join(name);
        match std::fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).map_or(Found::Unreadable, Found::Record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(source) => Err(LeftoverError::Io { what: "read", path, source }),
        }
    }
}

/// The machine to which the record of a run folder leads.
#[derive(Debug)]
pub(super) enum Recorded {
    /// There is no record that can be read, or its process has exited.
    Gone,
    /// A process that lives.
    Lives {
        pid: u32,
        descriptor: OwnedFd,
        /// True if the process is a keeper.
        is_keeper: bool,
    },
    /// A machine that a tool has created.
    OfTool,
}

/// Finds the machine of a run folder.
pub(super) fn find(run_dir: &Path) -> Result<Recorded, LeftoverError> {
    let Found::Record(record) = MachineRecord::read(run_dir, RECORD)? else { return Ok(Recorded::Gone) };
    let MachineRecordKind::Process(process) = record.kind else { return Ok(Recorded::OfTool) };
    let opened = process.open().map_err(|source| at("find the process of", run_dir, source))?;
    let ProcessId { pid, is_keeper, .. } = process;
    Ok(opened.map_or(Recorded::Gone, |descriptor| Recorded::Lives { pid, descriptor, is_keeper }))
}

/// The content of a record's file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<R> {
    /// There is no file.
    Nothing,
    /// The record.
    Record(R),
    /// The file is empty, cut or otherwise damaged. A record is flushed and renamed, so a process cannot have left it like
    /// this: the file system has lost it, with the host's last boot, and no process of that boot lives.
    Unreadable,
}

/// Stops the machine of a run folder and removes its files, except logs. A folder without a machine or a missing folder is
/// no error. Returns the records that could not be read; they are removed too, because no later start could read them.
///
/// # Errors
/// A file cannot be removed, a process does not exit, or a tool cannot remove the machine. The record stays then.
pub async fn destroy_leftover(run_dir: &Path) -> Result<Vec<PathBuf>, LeftoverError> {
    let mut unreadable = end(run_dir).await?;
    unreadable.extend(remove_files(run_dir).await?);
    Ok(unreadable)
}

fn server_record(share: usize) -> String {
    format!("virtiofsd-{share}.json")
}

/// Stops the machine of a run folder and its servers. Returns the records that could not be read.
pub(super) async fn end(run_dir: &Path) -> Result<Vec<PathBuf>, LeftoverError> {
    let mut unreadable = Vec::new();
    // A server exits with its VMM, but a server that a guest has taken over might not.
    for name in std::iter::once(RECORD.to_owned()).chain((0..SHARES_MAX).map(server_record)) {
        match MachineRecord::read(run_dir, &name)? {
            Found::Nothing => {}
            Found::Record(record) => end_recorded(run_dir, &record).await?,
            Found::Unreadable => unreadable.push(run_dir.join(name)),
        }
    }
    Ok(unreadable)
}

/// Stops and removes what a record describes, if it still exists.
async fn end_recorded(run_dir: &Path, record: &MachineRecord) -> Result<(), LeftoverError> {
    match &record.kind {
        MachineRecordKind::Process(process) => process.end(run_dir).await,
        MachineRecordKind::Podman { podman } => {
            let ids = containers(podman, run_dir).await?;
            if !ids.is_empty() {
                tool::run(&podman::remove(podman, ids.iter().map(String::as_str)), TOOL_LIMIT).await?;
            }
            Ok(())
        }
        MachineRecordKind::Krunvm { krunvm, lock } => {
            end_marked(run_dir).await?;
            let _lock = lock_file(lock).await.map_err(|source| at("lock", lock, source))?;
            let list = tool::run(&krunvm::list(krunvm), TOOL_LIMIT).await?;
            if krunvm::is_listed(&list, &record.name) {
                tool::run(&krunvm::delete(krunvm, &record.name), TOOL_LIMIT).await?;
            }
            Ok(())
        }
    }
}

async fn containers(podman: &Invocation, run_dir: &Path) -> Result<Vec<String>, LeftoverError> {
    let list = tool::run(&podman::list(podman, &run_dir.to_string_lossy()), TOOL_LIMIT).await?;
    Ok(list.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Takes a lock that other processes hold only briefly. The lock is held until the file is dropped. The error does not name
/// the file.
pub(super) async fn lock_file(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    let end = Instant::now() + TOOL_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => tokio::time::sleep(POLL).await,
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::TimedOut.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Returns the environment variable that marks the processes of a run folder. They are found by it even if the process that
/// started them has exited.
pub(super) fn mark(run_dir: &Path) -> (String, String) {
    ("DAYFLY_RUN".to_owned(), run_dir.to_string_lossy().into_owned())
}

/// Kills the processes with the run folder's mark, and waits until they have exited.
async fn end_marked(run_dir: &Path) -> Result<(), LeftoverError> {
    let end = Instant::now() + KILL_LIMIT;
    loop {
        let failed = |source| at("end the processes of", run_dir, source);
        let living = signal_marked(run_dir, Signal::KILL).map_err(failed)?;
        match living.first() {
            None => return Ok(()),
            Some(pid) if Instant::now() > end => return Err(LeftoverError::Alive { pid: *pid }),
            Some(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Sends a signal to every process with the run folder's mark, and returns their ids.
pub(super) fn signal_marked(run_dir: &Path, signal: Signal) -> io::Result<Vec<u32>> {
    let (name, value) = mark(run_dir);
    let wanted = format!("{name}={value}").into_bytes();
    // False for a process that has exited, for a zombie, and for a process of another user.
    let is_marked = |pid: u32| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|entry| entry == wanted))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if !is_marked(pid) {
            continue;
        }
        // Checked again after opening, because from then on the descriptor cannot refer to another process.
        if let Some(descriptor) = open_process(pid)?.filter(|_| is_marked(pid)) {
            let _ = rustix::process::pidfd_send_signal(&descriptor, signal);
            found.push(pid);
        }
    }
    Ok(found)
}

fn pid_of(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn open_process(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = pid_of(pid) else { return Ok(None) };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => Ok(Some(descriptor)),
        // INVAL (until Linux 6.15): no process has the id any more, but its group or session still has processes.
        Err(Errno::SRCH | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a machine's control group with the processes in it, its network, and its files from its run folder. The record is
/// removed last. Returns the records of group and network that could not be read.
pub(super) async fn remove_files(run_dir: &Path) -> Result<Vec<PathBuf>, LeftoverError> {
    let folder = run_dir.to_owned();
    // On a blocking thread, because the kernel takes a while to remove links, and another process may hold the lock.
    let removed = tokio::task::spawn_blocking(move || remove_files_now(&folder)).await;
    removed.unwrap_or_else(|error| Err(at("remove the files of", run_dir, io::Error::other(error))))
}

pub(super) fn remove_files_now(run_dir: &Path) -> Result<Vec<PathBuf>, LeftoverError> {
    // First, because processes that are left could use the rest.
    let mut unreadable: Vec<PathBuf> = crate::cgroup::remove(run_dir)?.into_iter().collect();
    unreadable.extend(crate::network::remove(run_dir)?);
    let guest = run_dir.join(GUEST_FOLDER);
    remove_folder(&guest).map_err(|source| at("remove", &guest, source))?;
    let servers = (0..SHARES_MAX).map(server_record);
    let removed = REMOVED.into_iter().chain([crate::network::LEDGER]).map(str::to_owned);
    for name in servers.chain(removed) {
        let path = run_dir.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LeftoverError::Io { what: "remove", path, source }),
        }
    }
    Ok(unreadable)
}

/// Removes a folder and its contents without following links. A missing folder is no error.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn at(what: &'static str, path: &Path, source: io::Error) -> LeftoverError {
    LeftoverError::Io { what, path: path.to_owned(), source }
}

/// Returns the id of this boot of the host.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Returns the start of a running process in clock ticks since boot, or `None` if the process is a zombie or does not exist.
fn start_ticks(pid: u32) -> io::Result<Option<u64>> {
    Ok(stat(pid)?.filter(|stat| !stat.has_exited).map(|stat| stat.start))
}

/// The kernel's facts about a process.
struct Stat {
    /// True if it is a zombie.
    has_exited: bool,
    /// Its start, in clock ticks since boot.
    start: u64,
}

fn stat(pid: u32) -> io::Result<Option<Stat>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(Stat::parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Stat {
    /// Parses a process's `stat`. The name in the second field may contain spaces and parentheses, so fields are counted from the
    /// last closing parenthesis.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        // The third field is the state, the twenty-second the start.
        let has_exited = matches!(fields.next()?, "Z" | "X");
        Some(Self { has_exited, start: fields.nth(18)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) (c) S 1 7 7 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4242 99 1";
        let parsed = |text: &str| Stat::parse(text).map(|stat| (stat.has_exited, stat.start));
        assert_eq!(parsed(text), Some((false, 4242)));
        assert_eq!(parsed(&text.replace(" S ", " Z ")), Some((true, 4242)));
        assert_eq!(parsed(""), None);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "the test looks at the zombie, and removes it")]
    fn the_zombie_of_a_child_is_removed_and_no_other_is() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("spawn");
        let process = ProcessId::of(child.id(), false).expect("it runs");
        let is_zombie = || stat(process.pid).expect("look").map(|stat| stat.has_exited);
        process.reap().expect("it still runs");
        assert_eq!(is_zombie(), Some(false));
        child.kill().expect("killed");
        while is_zombie() != Some(true) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        ProcessId { start_ticks: process.start_ticks + 1, ..process.clone() }.reap().expect("look");
        ProcessId { boot_id: "another".to_owned(), ..process.clone() }.reap().expect("look");
        assert_eq!(is_zombie(), Some(true));
        process.reap().expect("reaped");
        assert_eq!(is_zombie(), None);
        process.reap().expect("it is gone");
    }

    #[tokio::test]
    async fn a_process_is_found_and_ended_and_its_successor_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let mut child = Command::new("sleep").arg("60").spawn().expect("spawn");
        let record = MachineRecord::of_process(child.id(), "m").expect("record");
        record.write(folder.path()).expect("write");
        std::fs::write(folder.path().join(CONSOLE_LOG), "x").expect("log");
        let found = MachineRecord::read(folder.path(), RECORD).expect("read");
        assert_eq!(found, Found::Record(record.clone()));

        let MachineRecordKind::Process(process) = record.kind.clone() else { panic!("a process") };
        assert!(process.pid == child.id() && process.open().expect("look").is_some());
        let others = [
            // Another process that got the same number started later.
            ProcessId { start_ticks: process.start_ticks + 1, ..process.clone() },
            ProcessId { boot_id: "another".to_owned(), ..process },
        ];
        for other in others {
            assert!(other.open().expect("look").is_none());
            let other = MachineRecord { kind: MachineRecordKind::Process(other), ..record.clone() };
            other.write(folder.path()).expect("write");
            end(folder.path()).await.expect("nothing to end");
        }
        assert!(child.try_wait().expect("wait").is_none());

        record.write(folder.path()).expect("write");
        destroy_leftover(folder.path()).await.expect("destroy");
        assert!(child.wait().expect("wait").code().is_none());
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).expect("read").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [CONSOLE_LOG]);
        destroy_leftover(folder.path()).await.expect("again");
        destroy_leftover(Path::new("/nonexistent")).await.expect("none at all");
    }

    /// virtiofsd of Debian 13 is in this state for a moment, because its child outlives it.
    #[tokio::test]
    async fn a_process_that_has_left_others_in_its_group_counts_as_gone() {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!; read line"]).process_group(0);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("spawn");
        let MachineRecordKind::Process(process) =
            MachineRecord::of_process(child.id(), "m").expect("record").kind
        else {
            panic!("a process")
        };
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)
            .expect("its child's number");
        drop(child.stdin.take());
        child.wait().expect("ended");
        process.end(Path::new("/nonexistent")).await.expect("it is gone");
        let left = Pid::from_raw(line.trim().parse().expect("a number")).expect("a process");
        rustix::process::kill_process(left, Signal::KILL).expect("ended");
    }

    #[test]
    fn a_record_of_an_older_build_still_means_its_process() {
        let old = r#"{"name":"m","accel":"tcg","pid":7,"start_ticks":9,"boot_id":"b"}"#;
        let record: MachineRecord = serde_json::from_str(old).expect("understood");
        let process = ProcessId { pid: 7, start_ticks: 9, boot_id: "b".to_owned(), is_keeper: false };
        assert_eq!(record, MachineRecord { name: "m".to_owned(), kind: MachineRecordKind::Process(process) });
    }

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("folder");
        let env = vec![("A".to_owned(), "b".to_owned())];
        let tool = Invocation { program: "/usr/bin/x".into(), args: vec!["unshare".to_owned()], env };
        let process = ProcessId { pid: 7, start_ticks: 9, boot_id: "b".to_owned(), is_keeper: true };
        for kind in [
            MachineRecordKind::Podman { podman: tool.clone() },
            MachineRecordKind::Krunvm { krunvm: tool, lock: "/l".into() },
            MachineRecordKind::Process(process),
        ] {
            let record = MachineRecord { name: "m".to_owned(), kind };
            record.write(folder.path()).expect("write");
            assert_eq!(MachineRecord::read(folder.path(), RECORD).expect("read"), Found::Record(record));
        }
    }

    #[tokio::test]
    async fn a_record_that_a_power_cut_has_damaged_is_removed_and_told() {
        let of_parts = ["network.json", "cgroup.json"].map(str::to_owned);
        let names = [RECORD.to_owned(), server_record(0), server_record(15)].into_iter().chain(of_parts);
        for name in names {
            for content in ["", r#"{"name":"m","pi"#, "\0\0\0\0"] {
                let folder = tempfile::tempdir().expect("folder");
                let path = folder.path().join(&name);
                std::fs::write(&path, content).expect("record");
                let told = destroy_leftover(folder.path()).await.expect("removed");
                assert_eq!(told, [path], "{content:?}");
                assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0, "{name} {content:?}");
                assert_eq!(destroy_leftover(folder.path()).await.expect("nothing"), Vec::<PathBuf>::new());
            }
        }
    }

    #[tokio::test]
    async fn processes_are_found_by_the_mark_of_their_run_folder_and_by_no_other() {
        let folder = tempfile::tempdir().expect("folder");
        let other = folder.path().join("x");
        let spawn =
            |run_dir: &Path| Command::new("sleep").arg("60").envs([mark(run_dir)]).spawn().expect("spawn");
        let (mut ours, mut others) = (spawn(folder.path()), spawn(&other));
        let reap = std::thread::spawn(move || ours.wait());
        end_marked(folder.path()).await.expect("end");
        assert!(reap.join().expect("thread").expect("wait").code().is_none());
        assert!(others.try_wait().expect("wait").is_none());
        others.kill().expect("kill");
        others.wait().expect("wait");
    }
}

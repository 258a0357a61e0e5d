//! What a run folder tells of its machine, for those who come later.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::LeftoverError;
use crate::accel::Accel;
use crate::virtiofs::SHARES_MAX;

/// Name of the record.
const RECORD: &str = "vmm.json";
/// The agent's socket.
pub(crate) const AGENT_SOCKET: &str = "agent.sock";
/// The monitor's socket.
pub(crate) const MONITOR_SOCKET: &str = "qmp.sock";
/// The serial console's socket.
pub(crate) const CONSOLE_SOCKET: &str = "console.sock";
/// The scratch disk.
pub(crate) const SCRATCH_DISK: &str = "scratch.img";
/// What the guest printed on its console.
pub(crate) const CONSOLE_LOG: &str = "console.log";
/// What the VMM printed.
pub(crate) const VMM_LOG: &str = "vmm.log";
/// All that goes with the machine; logs stay.
const REMOVED: [&str; 5] = [AGENT_SOCKET, MONITOR_SOCKET, CONSOLE_SOCKET, SCRATCH_DISK, RECORD];
/// How long a killed process may take to be gone. Freeing gigabytes of memory takes a moment.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// A VMM's process, so that it is found again, and is never mistaken for another one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The machine's name.
    pub(crate) name: String,
    /// What runs its instructions.
    pub(crate) accel: Accel,
    /// Its process.
    pub(crate) pid: u32,
    /// When that process started, clock ticks since the host's boot.
    pub(crate) start_ticks: u64,
    /// Which boot of the host that was.
    pub(crate) boot_id: String,
}

/// A machine that a run folder tells of, and whose process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The machine's name.
    pub name: String,
    /// Its VMM.
    pub pid: u32,
}

impl Record {
    /// Describes a living process.
    pub(crate) fn of(pid: u32, name: &str, accel: Accel) -> io::Result<Self> {
        let start_ticks = start_ticks(pid)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Self { name: name.to_owned(), accel, pid, start_ticks, boot_id: boot_id()? })
    }

    /// Writes it into the run folder, whole or not at all.
    pub(crate) fn write(&self, run_dir: &Path) -> io::Result<()> {
        self.write_as(run_dir, RECORD)
    }

    /// Writes it as that of the server of the share of this number.
    pub(crate) fn write_server(&self, run_dir: &Path, share: usize) -> io::Result<()> {
        self.write_as(run_dir, &server_record(share))
    }

    fn write_as(&self, run_dir: &Path, name: &str) -> io::Result<()> {
        let new = run_dir.join(format!("{name}.new"));
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(&new, run_dir.join(name))
    }

    fn read(run_dir: &Path, name: &str) -> Result<Option<Self>, LeftoverError> {
        let path = run_dir.join(name);
        match std::fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(record) => Ok(Some(record)),
                Err(error) => Err(LeftoverError::Io { what: "understand", path, source: error.into() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LeftoverError::Io { what: "read", path, source }),
        }
    }

    /// A descriptor of the process, if it is still the same one and lives.
    fn open(&self) -> io::Result<Option<std::os::fd::OwnedFd>> {
        if boot_id()? != self.boot_id {
            return Ok(None);
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let descriptor = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Compared after opening: the descriptor cannot come to mean another process any more.
        Ok((start_ticks(self.pid)? == Some(self.start_ticks)).then_some(descriptor))
    }
}

/// The machine of a run folder, if its process lives.
///
/// # Errors
/// The folder's record or the process cannot be read.
pub fn leftover(run_dir: &Path) -> Result<Option<Leftover>, LeftoverError> {
    let Some(record) = Record::read(run_dir, RECORD)? else { return Ok(None) };
    let alive = record.open().map_err(|source| at("look at the VMM of", run_dir, source))?;
    Ok(alive.map(|_| Leftover { name: record.name, pid: record.pid }))
}

/// Ends what lives of a run folder's machine and removes its files, except logs. A folder without a machine, or none at
/// all, is no error.
///
/// # Errors
/// A file cannot be removed, or the process does not end.
pub async fn destroy_leftover(run_dir: &Path) -> Result<(), LeftoverError> {
    end(run_dir, RECORD).await?;
    // A server ends with its VMM; one that a guest has taken over might not.
    for share in 0..SHARES_MAX {
        end(run_dir, &server_record(share)).await?;
    }
    remove_files(run_dir).await
}

fn server_record(share: usize) -> String {
    format!("virtiofsd-{share}.json")
}

/// Ends the process of a record, if there is one and it lives.
async fn end(run_dir: &Path, name: &str) -> Result<(), LeftoverError> {
    if let Some(record) = Record::read(run_dir, name)? {
        let failed = |source| at("end the VMM of", run_dir, source);
        if let Some(descriptor) = record.open().map_err(failed)? {
            let descriptor = crate::readiness::readable(descriptor).map_err(failed)?;
            rustix::process::pidfd_send_signal(descriptor.get_ref(), Signal::KILL)
                .or_else(|error| if error == rustix::io::Errno::SRCH { Ok(()) } else { Err(error) })
                .map_err(|error| failed(error.into()))?;
            match tokio::time::timeout(KILL_LIMIT, descriptor.readable()).await {
                Ok(ready) => drop(ready.map_err(failed)?),
                Err(_) => return Err(LeftoverError::Alive { pid: record.pid }),
            }
        }
    }
    Ok(())
}

/// Removes a machine's network, and its files from its run folder; the record goes last.
pub(super) async fn remove_files(run_dir: &Path) -> Result<(), LeftoverError> {
    let folder = run_dir.to_owned();
    // The kernel takes its time with links, and another process may hold the lock.
    let removed = tokio::task::spawn_blocking(move || remove_files_now(&folder)).await;
    removed.unwrap_or_else(|error| Err(at("remove the files of", run_dir, io::Error::other(error))))
}

fn remove_files_now(run_dir: &Path) -> Result<(), LeftoverError> {
    crate::network::remove(run_dir)?;
    let servers = (0..SHARES_MAX).map(server_record);
    for name in servers.chain(REMOVED.map(str::to_owned)) {
        let path = run_dir.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LeftoverError::Io { what: "remove", path, source }),
        }
    }
    Ok(())
}

fn at(what: &'static str, path: &Path, source: io::Error) -> LeftoverError {
    LeftoverError::Io { what, path: path.to_owned(), source }
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Start of a living process in clock ticks since boot; none where there is none, or only a zombie.
fn start_ticks(pid: u32) -> io::Result<Option<u64>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => Ok(parse_start_ticks(&stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name in the second field may hold spaces and parentheses, so counting starts after the last of these.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // Third field: the state; twenty-second: the start.
    if matches!(fields.next()?, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4242 99 1";
        assert_eq!(parse_start_ticks(stat), Some(4242));
        assert_eq!(parse_start_ticks(&stat.replace(" S ", " Z ")), None);
        assert_eq!(parse_start_ticks(""), None);
    }

    #[tokio::test]
    async fn a_process_is_found_and_ended_and_its_successor_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let mut child = Command::new("sleep").arg("60").spawn().expect("spawn");
        let record = Record::of(child.id(), "m", Accel::Tcg).expect("record");
        record.write(folder.path()).expect("write");
        std::fs::write(folder.path().join(CONSOLE_LOG), "x").expect("log");
        let found = leftover(folder.path()).expect("look");
        assert_eq!(found, Some(Leftover { name: "m".to_owned(), pid: child.id() }));

        // Another process that got the same number started later.
        Record { start_ticks: record.start_ticks + 1, ..record.clone() }.write(folder.path()).expect("write");
        assert_eq!(leftover(folder.path()).expect("look"), None);
        Record { boot_id: "another".to_owned(), ..record.clone() }.write(folder.path()).expect("write");
        assert_eq!(leftover(folder.path()).expect("look"), None);
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
}

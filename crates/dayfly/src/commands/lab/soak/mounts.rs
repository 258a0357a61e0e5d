//! What a soak mounts to make troubles: a disk over its state folder that can be made full, and, for dayfly's processes alone, another
//! `/proc/meminfo`.
//!
//! The disk is an ordinary mount, so that `dayfly clear` sees what a soak that was killed has left. For the memory, dayfly's
//! processes are in a mount namespace of their own, which a process holds that dies with the soak.

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dayfly_host::tool::{self, Reach};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

/// The size of the disk of the state folder. It is in memory, of which it takes what is written to it.
const DISK_BYTES: u64 = 8 << 30;
/// Attempts to make a disk full to which others write.
const ATTEMPTS: u32 = 20;
/// The kernel's account of the host's memory.
const MEMINFO: &str = "/proc/meminfo";
/// Longest time until a namespace is there, and the interval at which it is looked for.
const MADE_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// Mounts a disk over a folder.
///
/// # Errors
/// The kernel refuses.
pub(super) fn make_disk(folder: &Path) -> io::Result<()> {
    let options = size(DISK_BYTES, "mode=700,")?;
    mount("dayfly-soak", folder, "tmpfs", MountFlags::empty(), options.as_c_str()).map_err(Into::into)
}

/// Removes the disk, if there is one.
///
/// # Errors
/// The kernel refuses.
pub(super) fn remove_disk(folder: &Path) -> io::Result<()> {
    match unmount(folder, UnmountFlags::DETACH) {
        // It is no mount, or this user has none.
        Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => Ok(()),
        result => result.map_err(Into::into),
    }
}

/// Makes a disk full, without a file that fills it.
///
/// # Errors
/// The kernel refuses.
pub(super) fn fill(folder: &Path) -> io::Result<()> {
    for _ in 0..ATTEMPTS {
        let disk = rustix::fs::statvfs(folder)?;
        // A size of 0 would be no limit.
        let used = ((disk.f_blocks - disk.f_bfree) * disk.f_frsize).max(disk.f_frsize);
        match mount_remount(folder, MountFlags::empty(), size(used, "")?.as_c_str()) {
            // It holds more by now.
            Err(Errno::INVAL) => {}
            result => return result.map_err(Into::into),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Gives a full disk its size again.
///
/// # Errors
/// The kernel refuses.
pub(super) fn grow(folder: &Path) -> io::Result<()> {
    mount_remount(folder, MountFlags::empty(), size(DISK_BYTES, "")?.as_c_str()).map_err(Into::into)
}

fn size(bytes: u64, before: &str) -> io::Result<CString> {
    CString::new(format!("{before}size={bytes}")).map_err(io::Error::other)
}

/// A mount namespace for dayfly's processes. It ends with this, or with the soak, once no process is in it.
#[derive(Debug)]
pub(super) struct Namespace(Child);

impl Namespace {
    /// Makes the namespace, which has the mounts that the host has by now. None of its own leaves it.
    ///
    /// # Errors
    /// The kernel refuses, or a tool of util-linux is missing.
    pub(super) fn make() -> io::Result<Self> {
        let mut command = tool::command("setpriv", Reach::Host);
        command.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sleep",
            "infinity",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut made = Self(command.spawn()?);
        let (own, until) = (std::fs::read_link("/proc/self/ns/mnt")?, Instant::now() + MADE_WITHIN);
        loop {
            let is_sleep = std::fs::read(format!("/proc/{}/comm", made.0.id()))? == b"sleep\n";
            if is_sleep && std::fs::read_link(made.path())? != own {
                return Ok(made);
            }
            if made.0.try_wait()?.is_some() {
                let mut said = String::new();
                if let Some(mut stderr) = made.0.stderr.take() {
                    io::Read::read_to_string(&mut stderr, &mut said)?;
                }
                return Err(io::Error::other(said.trim().to_owned()));
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Returns the program and the arguments that start another program in it, in the same working folder.
    ///
    /// # Errors
    /// The working folder is gone.
    pub(super) fn entry(&self) -> io::Result<Vec<String>> {
        let folder = std::env::current_dir()?;
        let (mount, folder) = (format!("--mount={}", self.path()), format!("--wd={}", folder.display()));
        Ok(vec!["nsenter".to_owned(), mount, folder, "--".to_owned()])
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/mnt", self.0.id())
    }

    /// Makes the kernel's account say that no memory is available. `file` is where the account that says so is put.
    ///
    /// # Errors
    /// It cannot be read, written or mounted.
    pub(super) fn hide_memory(&self, file: &Path) -> io::Result<()> {
        std::fs::write(file, without_memory(&std::fs::read_to_string(MEMINFO)?))?;
        self.run(&[&"mount", &"--bind", &file, &MEMINFO])
    }

    /// Shows the kernel's own account again.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn show_memory(&self) -> io::Result<()> {
        self.run(&[&"umount", &MEMINFO])
    }

    fn run(&self, words: &[&dyn AsRef<std::ffi::OsStr>]) -> io::Result<()> {
        let entry = self.entry()?;
        let mut command: Command = tool::command(&entry[0], Reach::Host);
        command.args(&entry[1..]).args(words.iter().map(AsRef::as_ref)).stdin(Stdio::null());
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(io::Error::other(said.trim().to_owned())) }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns an account of the same host with no memory available.
fn without_memory(account: &str) -> String {
    let line = |line: &str| match line.split_once(':') {
        Some((name @ ("MemFree" | "MemAvailable"), _)) => format!("{name}:       0 kB\n"),
        _ => format!("{line}\n"),
    };
    account.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_without_memory_keeps_all_but_what_is_available() {
        let account =
            "MemTotal:       100 kB\nMemFree:         30 kB\nMemAvailable:    60 kB\nBuffers:         1 kB\n";
        let expected =
            "MemTotal:       100 kB\nMemFree:       0 kB\nMemAvailable:       0 kB\nBuffers:         1 kB\n";
        assert_eq!(without_memory(account), expected);
    }
}

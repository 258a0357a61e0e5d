//! Mounts that only the soak and dayfly's processes see: a disk for the state folder that can be made full, and another
//! `/proc/meminfo`.
//!
//! The soak starts itself again in a mount namespace of its own, before it has done anything. So nothing is left of the mounts,
//! whatever ends the soak.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::cli::Trouble;
use crate::exit::{Failure, Result};

/// The variable that tells the program in the namespace which namespace its first start was in.
const LEFT: &str = "DAYFLY_SOAK_LEFT_MOUNTS";
/// The size of the disk of the state folder. It is in memory, of which it takes what is written to it.
const DISK_BYTES: u64 = 8 << 30;
/// Attempts to make a disk full to which others write.
const ATTEMPTS: u32 = 20;
/// The kernel's account of the host's memory.
const MEMINFO: &str = "/proc/meminfo";

/// Starts this program again in a mount namespace of its own if these troubles need one and it is in none. Returns those of the
/// troubles that can be made. Without a namespace, those that need one are left out if all are asked for.
///
/// # Errors
/// A trouble was named that cannot be made.
pub(super) fn enter_for(troubles: &[Trouble]) -> Result<Vec<Trouble>> {
    if !troubles.iter().any(|trouble| trouble.needs_mounts()) || are_own() {
        return Ok(troubles.to_vec());
    }
    let why = if !rustix::process::geteuid().is_root() {
        "only root can make".to_owned()
    } else if let Err(error) = try_it() {
        format!("this host does not let root make ({error})")
    } else {
        format!("there is no way to make ({})", start_again())
    };
    if troubles == Trouble::ALL {
        return Ok(troubles.iter().copied().filter(|trouble| !trouble.needs_mounts()).collect());
    }
    let text = format!("the troubles disk and memory need mounts of the soak's own, which {why}");
    Err(Failure::usage(text).hint("leave --host out, or name stop and descriptors"))
}

/// Returns true if this process is in a mount namespace of its own.
fn are_own() -> bool {
    std::env::var_os(LEFT).is_some_and(|left| namespace().is_some_and(|own| own != left))
}

fn namespace() -> Option<std::ffi::OsString> {
    std::fs::read_link("/proc/self/ns/mnt").ok().map(Into::into)
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command
}

/// Tries to make a namespace in another process.
fn try_it() -> io::Result<()> {
    let output = unshare().arg("true").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(io::Error::other(said.trim().to_owned())) }
}

/// Replaces this process by the same program in the namespace. Returns the reason if it cannot.
fn start_again() -> io::Error {
    let (Ok(program), Some(left)) = (std::env::current_exe(), namespace()) else {
        return io::Error::other("/proc cannot be read");
    };
    unshare().arg(program).args(std::env::args_os().skip(1)).env(LEFT, left).exec()
}

/// Mounts a disk over a folder.
///
/// # Errors
/// The kernel refuses.
pub(super) fn make_disk(folder: &Path) -> io::Result<()> {
    let options = size(DISK_BYTES, "mode=700,")?;
    mount("dayfly-soak", folder, "tmpfs", MountFlags::empty(), options.as_c_str()).map_err(Into::into)
}

/// Removes the disk.
///
/// # Errors
/// The kernel refuses.
pub(super) fn remove_disk(folder: &Path) -> io::Result<()> {
    unmount(folder, UnmountFlags::DETACH).map_err(Into::into)
}

/// Makes a disk full, without a file that fills it.
///
/// # Errors
/// The kernel refuses.
pub(super) fn fill(folder: &Path) -> io::Result<()> {
    for _ in 0..ATTEMPTS {
        let disk = rustix::fs::statvfs(folder)?;
        let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
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

/// Makes the kernel's account say that no memory is available. `file` is where the account that says so is put.
///
/// # Errors
/// It cannot be read, written or mounted.
pub(super) fn hide_memory(file: &Path) -> io::Result<()> {
    std::fs::write(file, without_memory(&std::fs::read_to_string(MEMINFO)?))?;
    mount_bind(file, MEMINFO).map_err(Into::into)
}

/// Shows the kernel's own account again.
///
/// # Errors
/// The kernel refuses.
pub(super) fn show_memory() -> io::Result<()> {
    unmount(MEMINFO, UnmountFlags::DETACH).map_err(Into::into)
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

    #[test]
    fn troubles_without_mounts_need_no_namespace() {
        let troubles = [Trouble::Stop, Trouble::Descriptors];
        assert_eq!(enter_for(&troubles).expect("they can be made"), troubles);
    }
}

//! Powers the machine off.
#![expect(unsafe_code, reason = "kill(-1) has no safe wrapper")]

use rustix::system::RebootCommand;
use std::time::Duration;

/// Longest time until the file systems have written their data. Usually the disks are deleted afterwards.
const SYNC_MAX: Duration = Duration::from_secs(3);

/// Kills every process, syncs the file systems and powers off.
pub(crate) fn off() -> ! {
    // SAFETY: a plain system call without memory. From process 1 it reaches all other processes, but not process 1.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    let syncing = std::thread::Builder::new().spawn(rustix::fs::sync);
    let start = std::time::Instant::now();
    while syncing.as_ref().is_ok_and(|thread| !thread.is_finished()) && start.elapsed() < SYNC_MAX {
        std::thread::sleep(Duration::from_millis(2));
    }
    // This fails only if the machine cannot power off (no ACPI). Then it is halted instead.
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    let _ = rustix::system::reboot(RebootCommand::Halt);
    loop {
        std::thread::park();
    }
}

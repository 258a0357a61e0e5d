//! The end of the machine.
#![expect(unsafe_code, reason = "kill(-1) has no safe wrapper")]

use rustix::system::RebootCommand;
use std::time::Duration;

/// How long file systems may take to write what they hold; the disks are thrown away in the usual case.
const SYNC_MAX: Duration = Duration::from_secs(3);

/// Ends every process, writes the file systems and powers off.
pub(crate) fn off() -> ! {
    // SAFETY: plain system call without memory; from process 1 it reaches all others and not itself.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    let syncing = std::thread::Builder::new().spawn(rustix::fs::sync);
    let start = std::time::Instant::now();
    while syncing.as_ref().is_ok_and(|thread| !thread.is_finished()) && start.elapsed() < SYNC_MAX {
        std::thread::sleep(Duration::from_millis(2));
    }
    // It fails only where it cannot power off (no ACPI), and then halting is the nearest.
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    let _ = rustix::system::reboot(RebootCommand::Halt);
    loop {
        std::thread::park();
    }
}

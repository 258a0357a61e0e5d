//! Children of this process: those it started and waits for, and, where it is process 1 of a container or a machine,
//! orphans that the kernel gives it.
#![expect(unsafe_code, reason = "which child has ended is told by siginfo, and that has no safe wrapper")]

use rustix::process::{Pid, WaitOptions};
use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long an ended child may stay unreaped when somebody else has to do it, or none is there at all.
const PAUSE: Duration = Duration::from_millis(200);

/// Children that somebody waits for.
static AWAITED: Mutex<Option<HashSet<Pid>>> = Mutex::new(None);

/// Starts a process whose end only [`reap`] takes.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Held over the start, so that the reaper of orphans knows it before it can have ended.
    let mut awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    awaited.get_or_insert_default().insert(Pid::from_child(&child));
    Ok(child)
}

/// Waits for a child and takes its status.
pub(super) fn reap(child: &mut Child) -> io::Result<ExitStatus> {
    let status = child.wait();
    let mut awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    awaited.get_or_insert_default().remove(&Pid::from_child(child));
    status
}

/// As process 1: takes the ends of orphans, for ever. Else the kernel gives them to somebody else.
pub(super) fn adopt() {
    if std::process::id() == 1 {
        std::thread::spawn(|| {
            loop {
                if !ended_child().is_some_and(take) {
                    std::thread::sleep(PAUSE);
                }
            }
        });
    }
}

/// Waits until a child has ended, and only looks: whose it is decides who takes it.
fn ended_child() -> Option<Pid> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is a place for the answer; once the call succeeds it is that of a child.
    unsafe {
        let ended = libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) == 0;
        if ended { Pid::from_raw(info.assume_init().si_pid()) } else { None }
    }
}

/// Whether it was an orphan.
fn take(pid: Pid) -> bool {
    let awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    let orphan = !awaited.as_ref().is_some_and(|awaited| awaited.contains(&pid));
    orphan && rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).is_ok()
}

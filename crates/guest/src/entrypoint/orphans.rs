//! Reaps the children of this process: those that it started and waits for, and, if it is process 1 of a container or a
//! machine, orphans that the kernel assigns to it.
#![expect(unsafe_code, reason = "siginfo says which child has exited, and has no safe wrapper")]

use rustix::process::{Pid, WaitOptions};
use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Pause of the reaper of orphans, if another thread has to reap the exited child or if there is no child.
const PAUSE: Duration = Duration::from_millis(200);

/// Children that [`reap`] will reap, so that the reaper of orphans leaves them alone.
static AWAITED: Mutex<Option<HashSet<Pid>>> = Mutex::new(None);

/// Starts a process that only [`reap`] reaps.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Locked during the start, so that the reaper of orphans knows the child before it can exit.
    let mut awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    awaited.get_or_insert_default().insert(Pid::from_child(&child));
    Ok(child)
}

/// Waits for a child and returns its status.
pub(super) fn reap(child: &mut Child) -> io::Result<ExitStatus> {
    let status = child.wait();
    let mut awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    awaited.get_or_insert_default().remove(&Pid::from_child(child));
    status
}

/// Starts a thread that reaps orphans for ever, if this is process 1. Otherwise the kernel assigns orphans to another
/// process.
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

/// Waits until a child has exited. Returns its id without reaping it, because another thread may have to reap it.
fn ended_child() -> Option<Pid> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is valid memory for the result, and the call fills it in for a child if it succeeds.
    unsafe {
        let ended = libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) == 0;
        if ended { Pid::from_raw(info.assume_init().si_pid()) } else { None }
    }
}

/// Reaps an exited child if it is an orphan, and returns true if it was one.
fn take(pid: Pid) -> bool {
    let awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    let orphan = !awaited.as_ref().is_some_and(|awaited| awaited.contains(&pid));
    orphan && rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).is_ok()
}

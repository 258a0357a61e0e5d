//! Termination signals, as events.
#![expect(unsafe_code, reason = "signal masks have no safe wrapper")]

use std::mem::MaybeUninit;
use std::sync::mpsc::SyncSender;

const TERMINATION: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, and `sigaddset` is given an initialised one and valid signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in TERMINATION {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Keeps the signals from this thread and all that it starts, processes too: see [`unblock`].
pub(super) fn block() {
    // SAFETY: the set is initialised, and no old set is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set(), std::ptr::null_mut()) };
}

/// Lets all signals through again: for a child before its exec, since a mask is inherited.
pub(super) fn unblock() -> std::io::Result<()> {
    let mut none = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, which is then read, and no old set is asked for.
    let error = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(error)) }
}

/// Sends `event` for each of the signals that comes, for ever; call [`block`] before.
pub(super) fn forward<T: Copy + Send + 'static>(events: &SyncSender<T>, event: T) {
    let events = events.clone();
    std::thread::spawn(move || {
        let (set, mut signal) = (set(), 0);
        loop {
            // SAFETY: the set is initialised and `signal` is a place for the answer.
            if unsafe { libc::sigwait(&set, &mut signal) } == 0 && events.try_send(event).is_err() {
                // Full or gone: an end is under way already.
                std::thread::yield_now();
            }
        }
    });
}

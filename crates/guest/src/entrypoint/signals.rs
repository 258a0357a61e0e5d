//! Termination signals, as events.
#![expect(unsafe_code, reason = "signal masks have no safe wrapper")]

use std::mem::MaybeUninit;
use std::sync::mpsc::SyncSender;

const TERMINATION: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, and `sigaddset` gets an initialised set and valid signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in TERMINATION {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Blocks the signals in this thread, and in all threads and processes that it starts. Each started process calls
/// [`unblock`] before anything else.
pub(super) fn block() {
    // SAFETY: the set is initialised, and the old set is not requested.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set(), std::ptr::null_mut()) };
}

/// Unblocks the signals in a child, between fork and exec. `std::process` passes the parent's mask on, and most programs
/// would pass it on to everything that they start, which could not be stopped then. The same is true of ignored signals:
/// a shell makes everything that it starts in the background ignore SIGINT.
pub(super) fn unblock() {
    // SAFETY: as in `block`; all of these calls are allowed after a fork.
    unsafe {
        for signal in TERMINATION {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set(), std::ptr::null_mut());
    }
}

/// Sends `event` for each signal that arrives, for ever. Call [`block`] first.
pub(super) fn forward<T: Copy + Send + 'static>(events: &SyncSender<T>, event: T) {
    let events = events.clone();
    std::thread::spawn(move || {
        let (set, mut signal) = (set(), 0);
        loop {
            // SAFETY: the set is initialised and `signal` is valid memory for the result.
            if unsafe { libc::sigwait(&set, &mut signal) } == 0 && events.try_send(event).is_err() {
                // The queue is full or closed, so a stop is already under way.
                std::thread::yield_now();
            }
        }
    });
}

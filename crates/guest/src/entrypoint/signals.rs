//! Termination signals, as events.
#![expect(unsafe_code, reason = "signal masks have no safe wrapper")]

use std::mem::MaybeUninit;
use std::sync::mpsc::SyncSender;

const TERMINATION: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
/// The last signal that is not a real-time one.
const LAST: libc::c_int = 31;

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
/// would pass it on to everything that they start, which could not be stopped then.
pub(super) fn unblock() {
    heed_all();
    // SAFETY: as in `block`; this call is allowed after a fork.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set(), std::ptr::null_mut()) };
}

/// Gives all signals their usual meaning in a child, between fork and exec. A program passes on which signals it ignores, and a
/// shell makes everything that it starts in the background ignore SIGINT: Ctrl-C would have no effect.
pub(crate) fn heed_all() {
    for signal in 1..=LAST {
        // SAFETY: this sets no handler, and is allowed after a fork. It fails for SIGKILL and SIGSTOP, which have no other meaning.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
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

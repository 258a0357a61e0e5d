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

/// Keeps the signals from this thread, and from all threads and processes that it starts; a process calls [`unblock`]
/// before anything else.
pub(super) fn block() {
    // SAFETY: the set is initialised, and no old set is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set(), std::ptr::null_mut()) };
}

/// For a child, between fork and exec: `std::process` hands the mask of its parent on, and so would most programs to
/// all that they start, which then could not be stopped. The same holds for signals that are ignored, as an interrupt
/// is by all that a shell has started in the background.
pub(super) fn unblock() {
    // SAFETY: as in `block`; all calls in it are allowed after a fork.
    unsafe {
        for signal in TERMINATION {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set(), std::ptr::null_mut());
    }
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

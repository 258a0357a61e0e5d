//! `dayfly-guest mortal PROGRAM ARGS`: becomes a program that is killed when its parent exits, for any reason.
//!
//! It does the same as `setpriv --pdeathsig KILL`, for images without it, and is faster because it loads no library.

use crate::console;
use crate::wrapper::become_program;
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// Becomes the program. Returns only if that fails.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let Some((program, args)) = args.split_first() else { return ExitCode::from(2) };
    let parent = rustix::process::getppid();
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        console::say(&format!("{} may outlive its step: {error}", program.display()));
    }
    // The kernel sends no signal for a parent that died before the call. A parent that died even before this program ran
    // cannot be noticed.
    if has_lost(parent) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    }
    become_program(Command::new(program).args(args))
}

/// Returns true if another process than `parent` is the parent now, because the kernel gives orphans to another one.
fn has_lost(parent: Option<Pid>) -> bool {
    rustix::process::getppid() != parent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_parent_means_that_the_first_one_is_lost() {
        assert!(!has_lost(rustix::process::getppid()));
        assert!(has_lost(Some(rustix::process::getpid())));
    }
}

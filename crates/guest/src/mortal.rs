//! `dayfly-guest mortal [--parent PID] PROGRAM ARGS`: becomes a program that is killed when its parent exits, for any reason.
//!
//! It does the same as `setpriv --pdeathsig KILL`, for images without it, and is faster because it loads no library. With
//! `--parent` it also notices a parent that has exited before this program ran.

use crate::console;
use crate::wrapper::become_program;
use rustix::process::{Pid, Signal};
use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode};

/// The option with the parent's process id, as a shell's `$$`.
const PARENT: &str = "--parent";

/// Becomes the program. Returns only if that fails, or if the arguments are wrong.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let (parent, args) = match args {
        [option, parent, args @ ..] if option == PARENT => match pid(parent) {
            Some(parent) => (Some(parent), args),
            None => {
                console::say(&format!("{PARENT} {} is no process id", parent.display()));
                return ExitCode::from(2);
            }
        },
        args => (rustix::process::getppid(), args),
    };
    let Some((program, args)) = args.split_first() else { return ExitCode::from(2) };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        console::say(&format!("{} may outlive its step: {error}", program.display()));
    }
    // The kernel sends no signal for a parent that died before the call.
    if has_lost(parent) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    }
    become_program(Command::new(program).args(args))
}

fn pid(text: &OsStr) -> Option<Pid> {
    text.to_str()?.parse().ok().filter(|&pid| pid > 0).and_then(Pid::from_raw)
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

    #[test]
    fn only_a_positive_number_is_a_process_id() {
        assert_eq!(pid(OsStr::new("17")), Pid::from_raw(17));
        for text in ["", "0", "-1", "x", "99999999999"] {
            assert_eq!(pid(OsStr::new(text)), None, "{text}");
        }
    }
}

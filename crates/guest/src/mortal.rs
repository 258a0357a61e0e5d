//! `dayfly-guest mortal PROGRAM ARGS`: becomes a program that is killed when its parent exits, for any reason.
//!
//! It does the same as `setpriv --pdeathsig KILL`, for images without it, and is faster because it loads no library.

use crate::console;
use crate::wrapper::become_program;
use rustix::process::Signal;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// Becomes the program. Returns only if that fails.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let Some((program, args)) = args.split_first() else { return ExitCode::from(2) };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        console::say(&format!("{} may outlive its step: {error}", program.display()));
    }
    become_program(Command::new(program).args(args))
}

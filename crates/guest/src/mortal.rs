//! `dayfly-guest mortal PROGRAM ARGS`: becomes a program that is killed when whoever has started it ends, however that ends.
//!
//! What `setpriv --pdeathsig KILL` does, for images without it, and sooner: no library is loaded.

use crate::console;
use crate::wrapper::become_program;
use rustix::process::Signal;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// Becomes the program; returns only where that did not work.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let Some((program, args)) = args.split_first() else { return ExitCode::from(2) };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        console::say(&format!("{} may outlive its step: {error}", program.display()));
    }
    become_program(Command::new(program).args(args))
}

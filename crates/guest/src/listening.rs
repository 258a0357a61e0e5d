//! `dayfly-guest listening PROGRAM ARGS`: becomes a program that takes a listening socket over from whoever started it.
//!
//! The socket is this process's standard input. The program gets it as systemd gives sockets to services (`sd_listen_fds(3)`):
//! as descriptor 3, with `LISTEN_PID` its own process id, which only a process that becomes it can know.
#![expect(unsafe_code, reason = "a descriptor is put under a certain number")]

use crate::console;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

/// First argument of this program.
pub(crate) const COMMAND: &str = "listening";
/// Where services look for the first socket.
const SOCKET: i32 = 3;

/// Becomes the program; returns only where that did not work.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let Some((program, args)) = args.split_first() else { return ExitCode::from(2) };
    // SAFETY: nothing in this program has opened a descriptor of this number that it would use from here on.
    if unsafe { libc::dup2(0, SOCKET) } != SOCKET {
        console::say(&format!("cannot hand a socket over: {}", std::io::Error::last_os_error()));
        return ExitCode::FAILURE;
    }
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", std::process::id().to_string());
    let error = command.exec();
    console::say(&format!("cannot start {program}: {error}"));
    ExitCode::FAILURE
}

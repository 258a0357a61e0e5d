//! `dayfly-guest listening PROGRAM ARGS`: becomes a program that takes over a listening socket from its parent.
//!
//! The socket is this process's standard input. The program gets it in the way systemd passes sockets to services
//! (`sd_listen_fds(3)`): as descriptor 3, with its own process id in `LISTEN_PID`. Only a process that becomes the program
//! can know this id.
#![expect(unsafe_code, reason = "a descriptor is duplicated to a fixed number")]

use crate::{console, memory};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// First argument of `dayfly-guest` that selects this program.
pub(crate) const COMMAND: &str = "listening";
/// The descriptor at which services expect the first socket.
const SOCKET: i32 = 3;

/// The control group of the program. Docker reports swap limits only if its own group has one, and the root group has none.
const GROUP: &str = "/sys/fs/cgroup/docker.service";

/// Becomes the program. Returns only if that fails.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let Some((program, args)) = args.split_first() else { return ExitCode::from(2) };
    // SAFETY: nothing in this program has opened a descriptor of this number that it would use from here on.
    if unsafe { libc::dup2(0, SOCKET) } != SOCKET {
        console::say(&format!("cannot hand a socket over: {}", std::io::Error::last_os_error()));
        return ExitCode::FAILURE;
    }
    if let Err(error) = enter_group() {
        console::say(&format!("cannot enter {GROUP}: {error}"));
    }
    memory::protect_docker();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", std::process::id().to_string());
    let error = command.exec();
    console::say(&format!("cannot start {program}: {error}"));
    ExitCode::FAILURE
}

fn enter_group() -> std::io::Result<()> {
    std::fs::create_dir_all(GROUP)?;
    // Zero is this process.
    std::fs::write(Path::new(GROUP).join("cgroup.procs"), "0")
}

//! Runs the agent as a process of a host: without a machine, in a tree of processes that is killed as a whole.
//!
//! ```text
//!   host ──spawns, records──────> keeper (`agent`)                the host's namespace
//!                                   └─ agent (`agent --tree`)     process 1 of a namespace of its own
//!                                        └─ entrypoint ─ runner app ─ job
//! ```
//!
//! When process 1 of a PID namespace exits, the kernel kills all other processes in it, even if they have detached
//! themselves. So if the agent is killed, its tree is killed too. The keeper exists because a process cannot move into a
//! new PID namespace, but only start a child in it. The keeper only waits, and exits only after the tree is gone. If the
//! keeper is killed, the agent's parent-death signal kills the agent.
//!
//! The agent changes nothing of the host: no host name, no clock, no mount that other processes see.
#![expect(
    unsafe_code,
    reason = "signal masks and sigwait have no safe wrapper; namespaces are entered by one thread, /proc mounted before an exec"
)]

use super::{Agent, Surroundings, port};
use crate::console;
use dayfly_guest::protocol::Milestone;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

/// Longest time from the keeper's start until a host connects. By connecting, the host says that it has recorded the keeper.
const HOST_MAX: Duration = Duration::from_secs(20);

/// Option that runs the agent instead of the keeper.
const TREE: &str = "--tree";
/// The path of the program that a process runs, which leads to it even if its file on the host was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    port_fd: i32,
    environment: PathBuf,
    tree: bool,
}

impl Options {
    /// Parses `--port-fd N --environment DIR [--tree]`. Only programs write this command line.
    fn parse(args: &[String]) -> Option<Self> {
        let (mut port_fd, mut environment, mut tree) = (None, None, false);
        let mut args = args.iter();
        while let Some(option) = args.next() {
            match option.as_str() {
                "--port-fd" => port_fd = Some(args.next()?.parse().ok().filter(|&fd| fd >= 0)?),
                "--environment" => environment = Some(PathBuf::from(args.next()?)),
                TREE => tree = true,
                _ => return None,
            }
        }
        Some(Self { port_fd: port_fd?, environment: environment?, tree })
    }
}

/// Runs the keeper or the agent. `args` are the arguments after `agent`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let Some(options) = Options::parse(args) else {
        console::say("usage: dayfly-guest agent --port-fd N --environment DIR");
        return ExitCode::from(2);
    };
    // SAFETY: the number was given to this process for this purpose alone, and nothing in the process closes it.
    let port = unsafe { BorrowedFd::borrow_raw(options.port_fd) };
    let result = if options.tree { serve(port, options.environment) } else { keep(port, args) };
    let Err(error) = result;
    console::say(&format!("cannot run the agent as a process of this host: {error}"));
    ExitCode::FAILURE
}

/// Runs the keeper: starts the agent in new namespaces, kills it on a termination signal, and waits until it has exited.
fn keep(port: BorrowedFd<'_>, args: &[String]) -> io::Result<std::convert::Infallible> {
    // This fails only if this process is a leader already.
    let _ = rustix::process::setsid();
    wait_for_host(port)?;
    let signals = block_signals();
    enter_namespaces()?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0(super::NAME);
    // SAFETY: between fork and exec there is only one system call, and it uses memory from before the fork.
    unsafe { command.pre_exec(mount_proc) };
    let mut agent = command
        .arg("agent")
        .args(args)
        .arg(TREE)
        .stdin(port.try_clone_to_owned()?)
        // The keeper does not read this pipe. The agent can write to it only while the keeper is alive.
        .stdout(Stdio::piped())
        .spawn()?;
    let status = wait(&mut agent, &signals)?;
    end_like(status)
}

/// Waits until the host has connected. Before that, the host may not have recorded this process yet.
fn wait_for_host(port: BorrowedFd<'_>) -> io::Result<()> {
    let limit = rustix::time::Timespec { tv_sec: HOST_MAX.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(&port, PollFlags::IN)], Some(&limit))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "no host has connected")),
        _ => Ok(()),
    }
}

/// Enters a new PID and mount namespace. Without the right to do so, it also enters a user namespace, in which the user
/// keeps its ids.
fn enter_namespaces() -> io::Result<()> {
    let flags = UnshareFlags::NEWPID | UnshareFlags::NEWNS;
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: this process has one thread, and no descriptor whose meaning depends on a namespace.
    match unsafe { rustix::thread::unshare_unsafe(flags) } {
        Err(rustix::io::Errno::PERM) => {}
        result => return Ok(result?),
    }
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(flags | UnshareFlags::NEWUSER) }?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Mounts `/proc` for the caller's PID namespace. The first process of the namespace calls this before its exec, because
/// the exec takes the capabilities of a user namespace away from every user but root.
fn mount_proc() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("proc", "/proc", "proc", flags, None)?)
}

/// Waits until the agent, and so its tree, has exited. Kills the agent on a termination signal.
fn wait(agent: &mut Child, signals: &libc::sigset_t) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = agent.try_wait()? {
            return Ok(status);
        }
        let mut signal = 0;
        // SAFETY: the set is initialised and `signal` is a place for the result. All signals of the set are blocked, so a
        // signal that came after `try_wait` above is still pending.
        unsafe { libc::sigwait(signals, &mut signal) };
        if signal != libc::SIGCHLD {
            agent.kill()?;
        }
    }
}

/// Blocks the signals that [`wait`] waits for. The agent inherits the mask, and resets it.
fn block_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, `sigaddset` and the mask are given an initialised one.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        let set = set.assume_init();
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        set
    }
}

/// Unblocks the signals that the keeper has blocked, for the agent and for all processes that it starts.
fn unblock_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, which is then read, and no old set is requested.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Exits with the agent's exit code, or by SIGKILL if a signal killed the agent, so that this process's parent learns how
/// the agent has ended.
fn end_like(status: ExitStatus) -> ! {
    if status.signal().is_some() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    }
    std::process::exit(status.code().unwrap_or(1))
}

/// Runs the agent as process 1 of its namespace.
fn serve(port: BorrowedFd<'_>, environment: PathBuf) -> io::Result<std::convert::Infallible> {
    unblock_signals();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // If the keeper died before the line above, no signal comes. But then this write fails, because the pipe has no reader.
    std::io::stdout().write_all(b"\n").and_then(|()| std::io::stdout().flush())?;
    let listener = UnixListener::from(port.as_fd().try_clone_to_owned()?);
    let program = PathBuf::from(OWN_PROGRAM);
    let agent = Agent::within(Surroundings::Host { environment, program });
    agent.reached(Milestone::Mounts);
    agent.reached(Milestone::Network);
    agent.serve(port::ListenAddress::Socket(listener));
    agent.reap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_options_are_needed_and_nothing_else_is_taken() {
        let parse = |line: &str| Options::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let options = parse("--port-fd 0 --environment /e").expect("good");
        assert_eq!(options, Options { port_fd: 0, environment: "/e".into(), tree: false });
        assert!(parse("--port-fd 0 --environment /e --tree").expect("good").tree);
        for bad in
            ["", "--port-fd 0", "--environment /e", "--port-fd -1 --environment /e", "--port-fd x", "-h"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}

//! The agent as a process of a host: no machine, but a tree of processes that ends as a whole.
//!
//! ```text
//!   host ──spawns, writes down──> keeper (`agent`)                the host's namespace
//!                                   └─ agent (`agent --tree`)     process 1 of a namespace of its own
//!                                        └─ entrypoint ─ runner app ─ job
//! ```
//!
//! When process 1 of a PID namespace ends, the kernel ends all others in it, whatever they have done to get away. So
//! whoever ends the agent ends its tree. The keeper exists because a process cannot move into a new PID namespace, only
//! start one in it; it does nothing but wait, and ends only after the tree is gone. A keeper that is killed takes the
//! agent with it, by the agent's death signal.
//!
//! Nothing of the host is changed: no host name, no clock, no mount that others see.
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

/// How long a host may take from starting the keeper to connecting, with which it says that the keeper is written down.
const HOST_MAX: Duration = Duration::from_secs(20);

/// Marks the agent's own call.
const TREE: &str = "--tree";

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    port_fd: i32,
    environment: PathBuf,
    tree: bool,
}

impl Options {
    /// `--port-fd N --environment DIR [--tree]`; nobody types it.
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

/// Runs keeper or agent, with the arguments after `agent`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let Some(options) = Options::parse(args) else {
        console::say("usage: dayfly-guest agent --port-fd N --environment DIR");
        return ExitCode::from(2);
    };
    // SAFETY: the number was given to this process for this purpose alone, and nothing in it closes it.
    let port = unsafe { BorrowedFd::borrow_raw(options.port_fd) };
    let result = if options.tree { serve(port, options.environment) } else { keep(port, args) };
    let Err(error) = result;
    console::say(&format!("cannot run the agent as a process of this host: {error}"));
    ExitCode::FAILURE
}

/// The keeper: starts the agent in namespaces of its own, and waits for its end or for a termination signal.
fn keep(port: BorrowedFd<'_>, args: &[String]) -> io::Result<std::convert::Infallible> {
    // It fails only where this is a leader already.
    let _ = rustix::process::setsid();
    wait_for_host(port)?;
    let signals = block_signals();
    enter_namespaces()?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let mut command = Command::new(std::env::current_exe()?);
    // SAFETY: between fork and exec only a system call is made, on memory that was there before.
    unsafe { command.pre_exec(mount_proc) };
    let mut agent = command
        .arg("agent")
        .args(args)
        .arg(TREE)
        .stdin(port.try_clone_to_owned()?)
        // Nobody reads it: that it can be written shows that this process lives.
        .stdout(Stdio::piped())
        .spawn()?;
    let status = wait(&mut agent, &signals)?;
    end_like(status)
}

/// Before the host has connected, this process may be unknown to everybody but it.
fn wait_for_host(port: BorrowedFd<'_>) -> io::Result<()> {
    let limit = rustix::time::Timespec { tv_sec: HOST_MAX.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(&port, PollFlags::IN)], Some(&limit))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "no host has connected")),
        _ => Ok(()),
    }
}

/// As root a PID and a mount namespace; else these within a user namespace, where this user is itself.
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

/// The processes of the namespace that the caller is in: of its first process, before its exec, which takes the
/// capabilities of a user namespace away from all but root.
fn mount_proc() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("proc", "/proc", "proc", flags, None)?)
}

/// Waits until the agent, and so its tree, is gone. A termination signal ends it.
fn wait(agent: &mut Child, signals: &libc::sigset_t) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = agent.try_wait()? {
            return Ok(status);
        }
        let mut signal = 0;
        // SAFETY: the set is initialised and `signal` is a place for the answer. All of the set are blocked, so one
        // that came since the look above is still there.
        unsafe { libc::sigwait(signals, &mut signal) };
        if signal != libc::SIGCHLD {
            agent.kill()?;
        }
    }
}

/// Blocks the signals that [`wait`] waits for. The agent inherits that, and undoes it.
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

/// The agent and all that it starts get the signals again that the keeper has blocked.
fn unblock_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, which is then read, and no old set is asked for.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Ends this process as the agent has ended: whoever waits for the one learns what became of the other.
fn end_like(status: ExitStatus) -> ! {
    if status.signal().is_some() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    }
    std::process::exit(status.code().unwrap_or(1))
}

/// The agent, as process 1.
fn serve(port: BorrowedFd<'_>, environment: PathBuf) -> io::Result<std::convert::Infallible> {
    unblock_signals();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A keeper that died before the line above sends no signal; but then nobody holds the other end of this pipe.
    std::io::stdout().write_all(b"\n").and_then(|()| std::io::stdout().flush())?;
    let listener = UnixListener::from(port.as_fd().try_clone_to_owned()?);
    let program = std::env::current_exe()?;
    let agent = Agent::within(Surroundings::Host { environment, program });
    agent.reached(Milestone::Mounts);
    agent.reached(Milestone::Network);
    agent.serve(port::Place::Socket(listener));
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

//! The host process's side: starts a launcher, sends it the order, and reads its answer.
#![expect(unsafe_code, reason = "entering a namespace")]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

use super::order::{self, LaunchOrder, LaunchReply, User};
use crate::walls::Walls;

/// Longest time that a launcher may take. It takes milliseconds, but longer on a host that is out of memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The program that becomes a VMM. It calls [`super::main`] with the number that it gets as its last argument.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The program, usually the running one by `/proc/self/exe`, which leads to it even if its file was replaced.
    pub program: PathBuf,
    /// Arguments before the number, e.g. `vmm-launch`.
    pub args: Vec<String>,
}

/// Why a VMM could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher itself could not be started.
    #[error("cannot start the launcher {}: {source}", program.display())]
    Spawn {
        /// Its path.
        program: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The communication with the launcher failed.
    #[error("cannot communicate with the launcher: {0}")]
    Speak(#[source] io::Error),
    /// The launcher's process could not be recorded, so the order was not sent.
    #[error("cannot record the process of the VMM: {0}")]
    Record(#[source] io::Error),
    /// A step of the launcher failed.
    #[error("the launcher could not {step}: {cause}")]
    Step {
        /// The step that failed.
        step: String,
        /// The kernel's error.
        #[source]
        cause: io::Error,
    },
    /// The launcher exited without an answer, or did not answer in time.
    #[error("the launcher gave no answer within {} s", ANSWER_LIMIT.as_secs())]
    NoAnswer,
}

/// A running VMM.
#[derive(Debug)]
pub(crate) struct Launched {
    /// The VMM's process, a child of this process.
    pub(crate) child: Child,
    /// The descriptors that it has handed back: the listener on the requested port, or those of a network.
    pub(crate) handed: Vec<OwnedFd>,
    /// The VMM's output, both streams in one pipe.
    pub(crate) output: OwnedFd,
    /// The walls between it and this host; none if it is no VMM.
    pub(crate) walls: Option<Walls>,
}

/// Starts a VMM. `record` stores its process id before the program runs, so that the VMM is found even if this process
/// dies. Blocks for some milliseconds.
pub(crate) fn launch(
    launcher: &Launcher,
    order: &LaunchOrder,
    descriptors: &[OwnedFd],
    record: impl FnOnce(u32) -> io::Result<()>,
) -> Result<Launched, LaunchError> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| LaunchError::Speak(error.into()))?;
    rustix::net::sockopt::set_socket_timeout(&ours, rustix::net::sockopt::Timeout::Recv, Some(ANSWER_LIMIT))
        .map_err(|error| LaunchError::Speak(error.into()))?;
    let (output, printer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| LaunchError::Speak(error.into()))?;
    let printer_too = printer.try_clone().map_err(LaunchError::Speak)?;
    let mut command = Command::new(&launcher.program);
    command.args(&launcher.args).env_clear().arg("0").stdin(Stdio::from(theirs));
    command.stdout(Stdio::from(printer)).stderr(Stdio::from(printer_too));
    let mut child = spawn(command, !matches!(order.user, User::Same))
        .map_err(|source| LaunchError::Spawn { program: launcher.program.clone(), source })?;
    let result =
        record(child.id()).map_err(LaunchError::Record).and_then(|()| give_order(&ours, order, descriptors));
    match result {
        Ok(handed) => Ok(Launched { child, handed, output, walls: Walls::of(order) }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Starts a launcher. With `own_processes`, it is the first process of a namespace, so that it sees no other process, and all
/// that it starts dies with it.
fn spawn(mut command: Command, own_processes: bool) -> io::Result<Child> {
    if !own_processes {
        return command.spawn();
    }
    // A thread of its own, because the namespace is for all further children of the thread, and takes no other one after its
    // first process has ended.
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: the call changes the namespace of this thread's children only.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
            command.spawn()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it has panicked")))
    })
}

fn give_order(
    socket: &OwnedFd,
    order: &LaunchOrder,
    descriptors: &[OwnedFd],
) -> Result<Vec<OwnedFd>, LaunchError> {
    let borrowed: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    order::send(socket, order, &borrowed).map_err(LaunchError::Speak)?;
    let mut handed = Vec::new();
    loop {
        match order::receive::<LaunchReply>(socket) {
            Ok(Some((LaunchReply::Handed, descriptors))) => handed = descriptors,
            Ok(Some((LaunchReply::Failed { step, cause, errno }, _))) => {
                let cause = errno.map_or_else(|| io::Error::other(cause), io::Error::from_raw_os_error);
                return Err(LaunchError::Step { step, cause });
            }
            // The launcher's end closes when the program starts. A launcher that died looks the same; the VMM's exit
            // then shows it.
            Ok(None) if order.hands_back() && handed.is_empty() => return Err(LaunchError::NoAnswer),
            Ok(None) => return Ok(handed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(LaunchError::NoAnswer),
            Err(error) => return Err(LaunchError::Speak(error)),
        }
    }
}

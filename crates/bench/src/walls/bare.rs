//! The same machines without walls: the bench is their launcher, and runs where there are no control groups.
#![expect(unsafe_code, reason = "descriptors by number")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, IoSliceMut, Lines, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use dayfly_vm::{Egress, Launcher};
use rustix::io::FdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Deserialize;

use super::Fork;
use crate::machines::Stage;
use crate::{Args, Error};

/// The first argument of the launcher without walls.
const LAUNCH: &str = "bare-launch";
/// The first argument of the process that starts machines without walls.
const SERVE: &str = "bare-machines";
/// Longest order, bytes.
const ORDER_MAX: usize = 64 * 1024;
/// Most descriptors of an order.
const DESCRIPTORS_MAX: usize = 32;
/// Received descriptors are moved to this number and above, until each gets its final number.
const DESCRIPTORS_ASIDE: RawFd = 200;

/// Carries out the parts of this module that are processes of their own; none if this is the bench itself.
pub(crate) fn role() -> Option<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [LAUNCH, _] => launch().map(|never| match never {}),
        [SERVE, state, binary, image] => serve(state.as_ref(), binary.as_ref(), image),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}: {error}", args[0]);
            ExitCode::FAILURE
        }
    })
}

/// The parts of an order to a launcher that are no walls.
#[derive(Debug, Deserialize)]
struct Order {
    task: Task,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Task {
    Program(Program),
}

#[derive(Debug, Deserialize)]
struct Program {
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    descriptors: Vec<RawFd>,
}

/// Takes the order on standard input, and executes its program as this user, in this process's namespaces.
fn launch() -> Result<std::convert::Infallible, Error> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), DESCRIPTORS_ASIDE)?;
    let mut bytes = vec![0; ORDER_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let Order { task: Task::Program(program) } = serde_json::from_slice(&bytes[..received.bytes])?;
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights.collect::<Vec<OwnedFd>>()),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = rights.flatten().collect();
    let aside = descriptors.iter().map(|one| rustix::io::fcntl_dupfd_cloexec(one, DESCRIPTORS_ASIDE));
    let aside = aside.collect::<Result<Vec<_>, _>>()?;
    drop(descriptors);
    for (&number, descriptor) in program.descriptors.iter().zip(&aside) {
        // SAFETY: nothing in this program owns these numbers now, because the originals are closed and all else is aside.
        unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
        // SAFETY: as above; the number is open, or the next line reports that it is not.
        let placed = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(placed, FdFlags::empty())?;
    }
    let command = &mut Command::new(program.path);
    Err(command.args(program.args).env_clear().envs(program.env).stdin(Stdio::null()).exec().into())
}

/// Starts machines as standard input asks for them.
#[tokio::main]
async fn serve(state: &Path, binary: &Path, image: &str) -> Result<(), Error> {
    dayfly_host::descriptors::raise_limit()?;
    let mut stage = Stage::new(state, binary, image)?;
    stage.launch_by(Launcher { program: std::env::current_exe()?, args: vec![LAUNCH.to_owned()] });
    stage.connect(Egress::Shut);
    stage.prepare().await?;
    println!("{{}}");
    for (number, line) in std::io::stdin().lines().enumerate() {
        match line?.as_str() {
            "fork" => {
                let fork = super::fork(&stage, &format!("bare{number}"), &BTreeSet::new()).await?;
                println!("{}", serde_json::to_string(&fork)?);
            }
            _ => {
                super::sender(&stage, &format!("bare{number}")).await?;
                println!("{{}}");
            }
        }
    }
    Ok(())
}

/// The process that starts machines without walls. It ends when this is dropped.
pub(super) struct Bare {
    process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Bare {
    /// Starts the process, and waits until it has a template.
    pub(super) fn start(args: &Args) -> Result<Self, Error> {
        // Its machines get no group where no hierarchy is mounted.
        let mut command = Command::new("unshare");
        let script = r#"umount --lazy --all --types cgroup,cgroup2 && exec "$@""#;
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(std::env::current_exe()?).arg(SERVE);
        command.arg(&args.state).arg(&args.binary).arg(&args.image);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take().ok_or("no input")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        let mut bare = Self { process, orders, answers };
        bare.answer()?;
        Ok(bare)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Measures a fork.
    pub(super) fn fork(&mut self) -> Result<Fork, Error> {
        writeln!(self.orders, "fork")?;
        Ok(serde_json::from_str(&self.answer()?)?)
    }

    /// Has a guest send data to the peer.
    pub(super) fn send(&mut self) -> Result<(), Error> {
        writeln!(self.orders, "send")?;
        self.answer().map(drop)
    }

    fn answer(&mut self) -> Result<String, Error> {
        Ok(self.answers.next().ok_or("the process of the machines without walls has ended")??)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

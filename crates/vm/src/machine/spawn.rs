//! One start of a VMM: descriptors, launcher, connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Exit;
use super::exit::{Knowledge, LAST_WORDS_LIMIT, classify};
use super::files::Files;
use super::link::Link;
use super::record::{self, Record};
use super::servers::Servers;
use super::watcher::Watcher;
use crate::accel::Accel;
use crate::console::{BoundedFile, NO_BOOT_DEVICE, Output};
use crate::driver::qemu::{Invocation, Role};
use crate::forward::{self, Forward};
use crate::launch::{self, LaunchError, Launched, Launcher, Order, Place, User};
use crate::network::Connection;
use crate::process::Process;
use crate::qmp::{Command, Event};
use crate::socket::SocketFolder;
use crate::virtiofs::Shares;

/// All that a VMM is started from, more than once if need be.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) launcher: Launcher,
    pub(crate) invocation: Invocation,
    pub(crate) accel: Accel,
    pub(crate) name: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) connection: Arc<Connection>,
    pub(crate) shares: Option<Shares>,
    pub(crate) forward: Option<Forward>,
    pub(crate) files: Files,
}

/// A VMM that runs, with everything that listens to it.
#[derive(Debug)]
pub(crate) struct Vmm {
    pub(crate) process: Process,
    /// What serves files to it.
    servers: Servers,
    /// None once the connection has ended.
    pub(crate) link: Option<Link>,
    /// None where it has none.
    pub(crate) monitor: Option<Watcher>,
    /// Tasks that read what it prints; they end with it.
    pub(crate) drains: JoinSet<()>,
    /// The task that forwards its port; it ends when this is dropped.
    forward: JoinSet<()>,
    ended: bool,
    detached: Arc<AtomicBool>,
}

impl Vmm {
    /// A process, and the connection to its agent.
    pub(super) fn new(process: Process, agent: tokio::net::UnixStream, detached: &Arc<AtomicBool>) -> Self {
        Self {
            process,
            servers: Servers::default(),
            link: Some(Link::new(agent)),
            monitor: None,
            drains: JoinSet::new(),
            forward: JoinSet::new(),
            ended: false,
            detached: Arc::clone(detached),
        }
    }

    /// Its process has ended: nothing is left to be killed, and nothing to be forwarded.
    pub(crate) fn settle(&mut self) {
        self.ended = true;
        self.servers.end();
        self.forward.abort_all();
    }
}

/// How a VMM has ended before its machine was of use.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// The same, and what QEMU printed, for people.
    pub(crate) words: String,
}

impl Vmm {
    /// Why it ended: its exit status or signal, a panic of its guest, and what QEMU printed. One that still runs is
    /// killed.
    pub(crate) async fn why_ended(&mut self, outputs: &Outputs) -> Ended {
        let ended = tokio::time::timeout(LAST_WORDS_LIMIT, self.process.wait()).await;
        let still_runs = ended.is_err();
        let ending = match ended {
            Ok(ending) => ending,
            Err(_) => {
                self.process.kill();
                self.process.wait().await
            }
        };
        self.settle();
        let mut knowledge = Knowledge { killed: still_runs, ..Knowledge::default() };
        let deadline = Instant::now() + LAST_WORDS_LIMIT;
        while let Some(monitor) = &mut self.monitor
            && let Ok(Some(event)) = tokio::time::timeout_at(deadline, monitor.next_event()).await
        {
            if let Event::Shutdown(reason) = event {
                knowledge.shutdown_reason = Some(reason);
            }
        }
        while let Ok(Some(_)) = tokio::time::timeout_at(deadline, self.drains.join_next()).await {}
        knowledge.panic_message = outputs.console.panic_message();
        let exit = match ending {
            Ok(_) if still_runs && outputs.has_no_boot_device() => Exit::NoBootDevice,
            Ok(ending) => classify(ending, &knowledge),
            Err(error) => Exit::NotStarted { reason: error.to_string() },
        };
        let said = outputs.vmm.tail(TAIL_LINES);
        let words = if said.is_empty() { exit.to_string() } else { format!("{exit}; QEMU said: {said}") };
        Ended { exit, words }
    }
}

impl Drop for Vmm {
    /// A machine that nobody watches any more is ended, unless it was let go on purpose.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.detached.load(Ordering::Relaxed) {
            self.servers.release();
        } else {
            self.process.kill();
            self.process.reap();
            self.servers.end();
        }
    }
}

/// What is connected before the VMM is there: its sockets listen from the start.
struct Connections {
    agent: tokio::net::UnixStream,
    monitor: tokio::net::UnixStream,
    console: tokio::net::UnixStream,
}

impl Recipe {
    /// Starts a VMM.
    pub(crate) async fn spawn(
        self: &Arc<Self>,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> Result<Vmm, LaunchError> {
        let folder = SocketFolder::open(&self.run_dir).map_err(LaunchError::Record)?;
        let (servers, connected) = self.serve_shares(&folder, outputs).await?;
        let descriptors = self.descriptors(&folder, &connected).map_err(LaunchError::Record)?;
        let connections = connect(&folder).await.map_err(LaunchError::Record)?;
        let recipe = Arc::clone(self);
        // Not cancellable: an owner who loses patience drops this future, and the process is killed by `Unclaimed`.
        let launched = tokio::task::spawn_blocking(move || recipe.launch(descriptors).map(Unclaimed::new))
            .await
            .map_err(|error| LaunchError::Speak(io::Error::other(error)))??
            .claim();
        self.listen_to(launched, servers, connections, outputs, detached).map_err(LaunchError::Speak)
    }

    fn descriptors(&self, folder: &SocketFolder, servers: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
        self.invocation
            .descriptors
            .iter()
            .map(|&(_, role)| match role {
                Role::Firmware
                | Role::Kernel
                | Role::Initrd
                | Role::RootDisk
                | Role::ScratchDisk
                | Role::BaseDisk
                | Role::Memory
                | Role::State => self.files.get(role),
                Role::Tap => match &*self.connection {
                    Connection::Own(attachment) => attachment.tap.try_clone(),
                    Connection::Open | Connection::Shut => Err(io::ErrorKind::NotFound.into()),
                },
                Role::Share(number) => servers[number].try_clone(),
                Role::AgentSocket => folder.listen(record::AGENT_SOCKET),
                Role::MonitorSocket => folder.listen(record::MONITOR_SOCKET),
                Role::ConsoleSocket => folder.listen(record::CONSOLE_SOCKET),
            })
            .collect()
    }

    fn launch(&self, descriptors: Vec<OwnedFd>) -> Result<Launched, LaunchError> {
        let order = Order {
            program: self.invocation.program.clone(),
            args: self.invocation.args.clone(),
            env: self.invocation.env.clone(),
            descriptors: self.invocation.descriptors.iter().map(|&(number, _)| number).collect(),
            user: user(self.accel),
            export: None,
            small_pages: self.invocation.small_pages,
            network: match *self.connection {
                // The card's descriptor leads to the machine's network from anywhere.
                Connection::Own(_) => Place::Empty { listen: None },
                Connection::Open => Place::Host,
                Connection::Shut => Place::Empty { listen: self.forward.map(|forward| forward.guest_port) },
            },
        };
        launch::launch(&self.launcher, &order, &descriptors, |pid| {
            Record::of_process(pid, &self.name)?.write(&self.run_dir)
        })
    }

    fn listen_to(
        &self,
        launched: Launched,
        servers: Servers,
        connections: Connections,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> io::Result<Vmm> {
        let process = Process::new(launched.child)?;
        let mut vmm = Vmm::new(process, connections.agent, detached);
        vmm.servers = servers;
        // A fork waits for nothing else.
        let restore = self.invocation.number(Role::State).map(Command::Restore);
        vmm.monitor = Some(Watcher::start(connections.monitor, restore));
        let log = |name| BoundedFile::append(&self.run_dir.join(name)).ok();
        vmm.drains.spawn(outputs.console.clone().drain(connections.console, log(record::CONSOLE_LOG)));
        let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(launched.output)?;
        vmm.drains.spawn(outputs.vmm.clone().drain(pipe, log(record::VMM_LOG)));
        let listener = match launched.listener {
            Some(listener) => Some(listener),
            None => self.network_listener().transpose()?,
        };
        if let (Some(listener), Some(to)) = (listener, self.forward.map(|forward| forward.to)) {
            vmm.forward.spawn(serve_forward(listener, to)?);
        }
        Ok(vmm)
    }

    /// What listens in the machine's own network; shared by all its starts.
    fn network_listener(&self) -> Option<io::Result<TcpListener>> {
        match &*self.connection {
            Connection::Own(attachment) => attachment.listener.as_ref().map(TcpListener::try_clone),
            Connection::Open | Connection::Shut => None,
        }
    }
}

fn serve_forward(listener: TcpListener, to: SocketAddr) -> io::Result<impl Future<Output = ()>> {
    listener.set_nonblocking(true)?;
    Ok(forward::serve(tokio::net::TcpListener::from_std(listener)?, to))
}

async fn connect(folder: &SocketFolder) -> io::Result<Connections> {
    Ok(Connections {
        agent: folder.connect(record::AGENT_SOCKET).await?,
        monitor: folder.connect(record::MONITOR_SOCKET).await?,
        console: folder.connect(record::CONSOLE_SOCKET).await?,
    })
}

/// A process that is killed unless somebody takes it over.
pub(super) struct Unclaimed(Option<Launched>);

impl Unclaimed {
    pub(super) fn new(launched: Launched) -> Self {
        Self(Some(launched))
    }

    pub(super) fn claim(mut self) -> Launched {
        self.0.take().expect("claimed once: this consumes it")
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(launched) = &mut self.0 {
            let _ = launched.child.kill();
            let _ = launched.child.wait();
        }
    }
}

/// What console and VMM print, kept over restarts.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    pub(crate) console: Output,
    pub(crate) vmm: Output,
}

/// Lines of each that are quoted.
const TAIL_LINES: usize = 30;

impl Outputs {
    pub(crate) fn new() -> Self {
        Self { console: Output::new(), vmm: Output::new() }
    }

    /// The last line of either.
    pub(crate) fn last_line(&self) -> String {
        self.tail().lines().last().unwrap_or_default().to_owned()
    }

    /// Whether a firmware has said that it found no kernel.
    pub(super) fn has_no_boot_device(&self) -> bool {
        self.console.tail(TAIL_LINES).contains(NO_BOOT_DEVICE)
    }

    /// The last lines of both.
    pub(crate) fn tail(&self) -> String {
        let (console, vmm) = (self.console.tail(TAIL_LINES), self.vmm.tail(TAIL_LINES));
        match (console.is_empty(), vmm.is_empty()) {
            (true, true) => "(nothing was printed)".to_owned(),
            (false, true) => console,
            (true, false) => vmm,
            (false, false) => format!("{console}\n{vmm}"),
        }
    }
}

/// As root, machines run as users of their own; `/dev/kvm` is open to its group at most.
fn user(accel: Accel) -> User {
    if !rustix::process::geteuid().is_root() {
        return User::Same;
    }
    let group = match accel {
        Accel::Tcg => None,
        Accel::Kvm => crate::kvm::group(),
    };
    User::Own { group }
}

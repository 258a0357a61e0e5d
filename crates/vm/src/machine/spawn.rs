//! Starts a VMM: opens its descriptors, runs the launcher, connects to its sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dayfly_guest::protocol::GuestMessage;
use dayfly_host::socket::SocketFolder;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Exit;
use super::exit::{EndReason, ExitDemand, ExitEvidence, LAST_WORDS_LIMIT, classify};
use super::link::Link;
use super::record::{self, MachineRecord};
use super::servers::Servers;
use crate::accel::Accel;
use crate::cgroup::{Cgroups, Group, GroupSize};
use crate::console::{BoundedFile, Output};
use crate::forward::{self, Forward};
use crate::launch::{self, LaunchError, Launched, Launcher};
use crate::network::Connection;
use crate::process::{Ending, Process};
use crate::virtiofs::Shares;
use crate::vmm::{self, DescriptorRole, Monitor, MonitorEvent, StateToRestore, VmmCommand, VmmFiles};
use crate::walls::Walls;

/// Everything that a VMM is started from. A recipe can be used more than once.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) launcher: Launcher,
    pub(crate) command: VmmCommand,
    pub(crate) accel: Accel,
    pub(crate) cgroups: Cgroups,
    pub(crate) size: GroupSize,
    pub(crate) name: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) connection: Arc<Connection>,
    pub(crate) shares: Option<Shares>,
    pub(crate) forward: Option<Forward>,
    pub(crate) files: VmmFiles,
}

/// A running VMM, with its connections and the tasks that read its output.
#[derive(Debug)]
pub(crate) struct Vmm {
    pub(crate) process: Process,
    /// The processes that serve files to the VMM.
    servers: Servers,
    /// The connection to the agent; `None` once it has ended.
    pub(crate) link: Option<Link>,
    /// The monitor; `None` if the process has no monitor.
    pub(crate) monitor: Option<Monitor>,
    /// Tasks that read the output of the VMM. They end when it exits.
    pub(crate) drains: JoinSet<()>,
    /// The task that forwards the machine's port. It ends when this is dropped.
    forward: JoinSet<()>,
    /// The control group of the VMM and its servers; `None` if the process is no VMM.
    pub(crate) group: Option<Arc<Group>>,
    /// The walls between it and this host; `None` if the process is no VMM, or another process started it.
    pub(crate) walls: Option<Walls>,
    /// The lock that keeps the machine's image from being removed.
    _image_lock: Option<OwnedFd>,
    ended: bool,
    detached: Arc<AtomicBool>,
}

impl Vmm {
    /// Wraps a process and the connection to its agent.
    pub(super) fn new(process: Process, agent: tokio::net::UnixStream, detached: &Arc<AtomicBool>) -> Self {
        Self {
            process,
            servers: Servers::default(),
            link: Some(Link::new(agent)),
            monitor: None,
            drains: JoinSet::new(),
            forward: JoinSet::new(),
            group: None,
            walls: None,
            _image_lock: None,
            ended: false,
            detached: Arc::clone(detached),
        }
    }

    /// Forwards the connections of a listener in the machine's network.
    pub(super) fn forward_to(&mut self, listener: TcpListener, to: SocketAddr) -> io::Result<()> {
        self.forward.spawn(serve_forward(listener, to)?);
        Ok(())
    }

    /// Stops forwarding, so that another owner of the machine can listen on the port.
    pub(super) async fn end_forward(&mut self) {
        self.forward.shutdown().await;
    }

    /// Marks the process as exited, so that it is not killed on drop. Stops the servers and the forwarding.
    pub(crate) fn settle(&mut self) {
        self.ended = true;
        self.servers.end();
        self.forward.abort_all();
    }
}

/// The exit of a VMM that ended before its machine was ready.
#[derive(Debug)]
pub(crate) struct EarlyExit {
    pub(crate) exit: Exit,
    /// The exit and the last output of the VMM, for messages.
    pub(crate) words: String,
}

impl Vmm {
    /// Returns why the VMM exited: its exit status or signal, a panic of its guest, and the output of the VMM. Kills the VMM
    /// if it still runs.
    pub(crate) async fn why_ended(&mut self, outputs: &Outputs) -> EarlyExit {
        let mut evidence = ExitEvidence::default();
        let ending = match tokio::time::timeout(LAST_WORDS_LIMIT, self.process.wait()).await {
            Ok(ending) => ending,
            Err(_) => {
                evidence.demand = ExitDemand::Kill;
                evidence.reason = outputs.has_no_boot_device().then_some(EndReason::NoBootDevice);
                self.process.kill();
                self.process.wait().await
            }
        };
        let exit = self.exit_of(ending, evidence, outputs, drop).await;
        let said = outputs.vmm.tail(TAIL_LINES);
        let words =
            if said.is_empty() { exit.to_string() } else { format!("{exit}; {} said: {said}", vmm::NAME) };
        EarlyExit { exit, words }
    }

    /// Reads the remaining events, messages and output of a VMM that has exited, for a second at most, then determines its
    /// exit. `hear` gets each remaining message of the agent.
    pub(super) async fn exit_of(
        &mut self,
        ending: io::Result<Ending>,
        mut evidence: ExitEvidence,
        outputs: &Outputs,
        mut hear: impl FnMut(GuestMessage),
    ) -> Exit {
        self.settle();
        let deadline = Instant::now() + LAST_WORDS_LIMIT;
        while let Some(monitor) = &mut self.monitor
            && let Ok(Some(event)) = tokio::time::timeout_at(deadline, monitor.next_event()).await
        {
            if let MonitorEvent::ShuttingDown(cause) = event {
                evidence.shutdown = Some(cause);
            }
        }
        while let Some(link) = &mut self.link
            && let Ok(Ok(message)) = tokio::time::timeout_at(deadline, link.next()).await
        {
            hear(message);
        }
        while let Ok(Some(_)) = tokio::time::timeout_at(deadline, self.drains.join_next()).await {}
        evidence.panic_message = outputs.console.panic_message();
        evidence.memory_kill = self.group.as_ref().and_then(|group| group.killed_for_memory());
        classify(ending, &evidence)
    }
}

impl Drop for Vmm {
    /// Kills the VMM if it still runs, unless the machine was detached.
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

/// Connections to the VMM's sockets. They are made before the VMM starts, because this process listens on its behalf.
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
        let group = self.make_group().await?;
        let (servers, connected) = self.serve_shares(&group, &folder, outputs).await?;
        let descriptors = self.descriptors(&folder, &connected).map_err(LaunchError::Record)?;
        let connections = connect(&folder).await.map_err(LaunchError::Record)?;
        let (recipe, of_vmm) = (Arc::clone(self), Arc::clone(&group));
        // This cannot be cancelled. If the owner drops this future, `Unclaimed` kills the process.
        let launched =
            tokio::task::spawn_blocking(move || recipe.launch(&of_vmm, descriptors).map(Unclaimed::new))
                .await
                .map_err(|error| LaunchError::Speak(io::Error::other(error)))??
                .claim();
        let mut vmm =
            self.listen_to(launched, servers, connections, outputs, detached).map_err(LaunchError::Speak)?;
        vmm.group = Some(group);
        Ok(vmm)
    }

    /// Creates the machine's control group, or returns the one of an earlier start.
    async fn make_group(self: &Arc<Self>) -> Result<Arc<Group>, LaunchError> {
        let recipe = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            Group::of_machine(&recipe.cgroups, &recipe.name, recipe.size, &recipe.run_dir)
        });
        let made = made.await.map_err(io::Error::other).flatten();
        made.map(Arc::new).map_err(LaunchError::Record)
    }

    fn descriptors(&self, folder: &SocketFolder, servers: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
        self.command
            .descriptors
            .iter()
            .map(|&(_, role)| match role {
                DescriptorRole::Firmware
                | DescriptorRole::Kernel
                | DescriptorRole::Initrd
                | DescriptorRole::RootDisk
                | DescriptorRole::ScratchDisk
                | DescriptorRole::BaseDisk
                | DescriptorRole::KeptDisk
                | DescriptorRole::Memory
                | DescriptorRole::State => self.files.get(role),
                DescriptorRole::Tap => match &*self.connection {
                    Connection::Own(attachment) => attachment.tap.try_clone(),
                    Connection::Open | Connection::Shut => Err(io::ErrorKind::NotFound.into()),
                },
                DescriptorRole::Share(number) => servers[number].try_clone(),
                DescriptorRole::AgentSocket => folder.listen(record::AGENT_SOCKET),
                DescriptorRole::MonitorSocket => folder.listen(vmm::MONITOR_SOCKET),
                DescriptorRole::ConsoleSocket => folder.listen(record::CONSOLE_SOCKET),
            })
            .collect()
    }

    fn launch(&self, group: &Group, descriptors: Vec<OwnedFd>) -> Result<Launched, LaunchError> {
        let order = self.order(&descriptors)?;
        launch::launch(&self.launcher, &order, &descriptors, |pid| {
            MachineRecord::of_process(pid, &self.name)?.write(&self.run_dir)?;
            group.enter(pid)
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
        vmm.walls = launched.walls;
        vmm._image_lock = self.files.image_lock()?;
        let has_memory = self.command.number(DescriptorRole::Memory).is_some();
        let state = self.command.number(DescriptorRole::State);
        let state = state.map(|descriptor| StateToRestore { descriptor, has_memory });
        vmm.monitor = Some(Monitor::start(connections.monitor, state));
        let log = |name| BoundedFile::append(&self.run_dir.join(name)).ok();
        vmm.drains.spawn(outputs.console.clone().drain(connections.console, log(record::CONSOLE_LOG)));
        let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(launched.output)?;
        vmm.drains.spawn(outputs.vmm.clone().drain(pipe, log(record::VMM_LOG)));
        let listener = match launched.handed.into_iter().next() {
            Some(listener) => Some(listener.into()),
            None => self.network_listener().transpose()?,
        };
        if let (Some(listener), Some(to)) = (listener, self.forward.map(|forward| forward.to)) {
            vmm.forward_to(listener, to)?;
        }
        Ok(vmm)
    }

    /// Returns the socket that listens in the machine's own network. All starts of the machine share it.
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
        monitor: folder.connect(vmm::MONITOR_SOCKET).await?,
        console: folder.connect(record::CONSOLE_SOCKET).await?,
    })
}

/// A process that is killed on drop unless it is claimed.
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

/// The output of the console and of the VMM, kept across restarts.
#[derive(Debug, Clone)]
pub(crate) struct Outputs {
    pub(crate) console: Output,
    pub(crate) vmm: Output,
}

/// Number of lines that are quoted from each output.
const TAIL_LINES: usize = 30;

impl Outputs {
    pub(crate) fn new() -> Self {
        Self { console: Output::new(), vmm: Output::new() }
    }

    /// Returns the last line of the joined output.
    pub(crate) fn last_line(&self) -> String {
        self.tail().lines().last().unwrap_or_default().to_owned()
    }

    /// Returns true if the firmware has reported that it found no kernel.
    pub(super) fn has_no_boot_device(&self) -> bool {
        self.console.tail(TAIL_LINES).contains(vmm::NO_BOOT_DEVICE)
    }

    /// Returns the last lines of both outputs.
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

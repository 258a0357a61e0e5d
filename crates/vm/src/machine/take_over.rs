//! Takes over a machine whose process lives, from a process of dayfly that died, or from a task of this process that has panicked.
//!
//! ```text
//!   record: process ──> its descriptor        agent ──> hello (a new epoch, the last line that was kept)
//!   sockets that it listens on: agent, monitor, console       network: the card, and the forwarded port
//! ```
//!
//! The machine has noticed nothing: it keeps its processor, memory, disk, network and files of this host. The output of the
//! VMM itself and the connections through the forwarded port ended with the process that died.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dayfly_host::socket::SocketFolder;
use rustix::process::Signal;
use tokio::net::UnixStream;

use super::owned;
use super::record::{self, Recorded};
use super::source::NoStarts;
use super::spawn::{Outputs, Vmm};
use super::supervise::own;
use super::supervisor::{Beginning, MachineRole};
use super::{LeftoverError, Vm};
use crate::cgroup;
use crate::console::BoundedFile;
use crate::environment::EnvironmentDir;
use crate::forward::Forward;
use crate::network::{self, NetworkError};
use crate::process::Process;
use crate::vmm::{MONITOR_SOCKET, Monitor};

/// Longest time until a VMM accepts a connection. It does so at once unless its host is very busy.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// A machine that may still run.
#[derive(Debug)]
pub struct TakeOver {
    /// Id of its runner.
    pub runner_id: String,
    /// The environment directory.
    pub environment: PathBuf,
    /// Number of the last line that was kept; 0 if there is none.
    pub lines_seen: u64,
    /// The port that the machine reaches on this host.
    pub forward: Option<Forward>,
}

/// Errors of a take-over. The machine is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The record, a socket or a file cannot be used.
    #[error("cannot {what} of the machine in {}: {source}", path.display())]
    Io {
        /// The attempted operation.
        what: &'static str,
        /// Folder of the machine.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A tool of another driver owns the machine.
    #[error("the machine in {} belongs to podman or krunvm, whose machines cannot be taken over", path.display())]
    OtherDriver {
        /// Folder of the machine.
        path: PathBuf,
    },
    /// The machine's network cannot be used.
    #[error("the network of the machine in {}: {source}", path.display())]
    Network {
        /// Folder of the machine.
        path: PathBuf,
        /// Cause.
        source: NetworkError,
    },
}

/// Takes over the machine of a run folder, which is owned by the returned handle from then on. Returns `None` if no process of
/// the machine lives. [`super::VmEvent::TakenOver`] is the first event.
///
/// # Errors
/// See [`TakeOverError`].
pub async fn take_over(take_over: TakeOver, run_dir: &Path) -> Result<Option<Vm>, TakeOverError> {
    let failed = |what| move |source| TakeOverError::Io { what, path: run_dir.to_owned(), source };
    owned::let_go(run_dir).await.map_err(failed("wait for the owner in this process"))?;
    let found = record::find(run_dir).map_err(io::Error::other).map_err(failed("read the record"))?;
    let (pid, descriptor, is_keeper) = match found {
        Recorded::Gone => return Ok(None),
        Recorded::OfTool => return Err(TakeOverError::OtherDriver { path: run_dir.to_owned() }),
        Recorded::Lives { pid, descriptor, is_keeper } => (pid, descriptor, is_keeper),
    };
    let environment = EnvironmentDir::open(&take_over.environment, &take_over.runner_id)
        .map_err(io::Error::other)
        .map_err(failed("open the environment directory"))?;
    let network = network::take_over(run_dir, (pid, &descriptor), take_over.forward.map(|to| to.guest_port))
        .map_err(|source| TakeOverError::Network { path: run_dir.to_owned(), source })?;
    let process = Process::of_earlier(pid, descriptor).map_err(failed("watch the process"))?;
    let process = if is_keeper { process.killed_by(Signal::TERM) } else { process };
    let (outputs, detached) = (Outputs::new(), Arc::<AtomicBool>::default());
    let sockets = Sockets::connect(run_dir, is_keeper).await.map_err(failed("connect to the sockets"))?;
    let listener = network.as_ref().and_then(|network| network.listener.as_ref());
    let listener =
        listener.map(TcpListener::try_clone).transpose().map_err(failed("use the forwarded port"))?;
    let mut vmm = Vmm::new(process, sockets.agent, &detached);
    vmm.group = cgroup::find(run_dir).map(Arc::new);
    vmm.monitor = sockets.monitor.map(|monitor| Monitor::start(monitor, None));
    if let Some(console) = sockets.console {
        let log = BoundedFile::append(&run_dir.join(record::CONSOLE_LOG)).ok();
        vmm.drains.spawn(outputs.console.clone().drain(console, log));
    }
    if let (Some(listener), Some(forward)) = (listener, take_over.forward)
        && let Err(error) = vmm.forward_to(listener, forward.to)
    {
        // An error here would kill the machine, because its handle is dropped.
        tracing::warn!("the machine in {} reaches its forge no more: {error}", run_dir.display());
    }
    let (lines_seen, role) = (take_over.lines_seen, MachineRole::of_running(take_over.runner_id));
    let source = (NoStarts(network), Beginning::TakeOver { vmm, lines_seen });
    Ok(Some(own(source, role, environment, run_dir.to_owned(), (outputs, detached))))
}

/// Returns true if the process of the machine of a run folder lives, so that [`take_over`] can take it over.
///
/// # Errors
/// The record cannot be read.
pub fn is_alive(run_dir: &Path) -> Result<bool, LeftoverError> {
    Ok(matches!(record::find(run_dir)?, Recorded::Lives { .. }))
}

/// Returns true if a machine of a run folder lives, or may live because a tool owns it.
///
/// # Errors
/// The record cannot be read.
pub fn may_live(run_dir: &Path) -> Result<bool, LeftoverError> {
    Ok(!matches!(record::find(run_dir)?, Recorded::Gone))
}

/// Connections to the sockets on which a machine's process listens.
struct Sockets {
    agent: UnixStream,
    monitor: Option<UnixStream>,
    console: Option<UnixStream>,
}

impl Sockets {
    /// Connects. A keeper has no monitor and no console.
    async fn connect(run_dir: &Path, is_keeper: bool) -> io::Result<Self> {
        let folder = SocketFolder::open(run_dir)?;
        let agent = connect(&folder, record::AGENT_SOCKET).await?;
        if is_keeper {
            return Ok(Self { agent, monitor: None, console: None });
        }
        let monitor = Some(connect(&folder, MONITOR_SOCKET).await?);
        let console = Some(connect(&folder, record::CONSOLE_SOCKET).await?);
        Ok(Self { agent, monitor, console })
    }
}

async fn connect(folder: &SocketFolder, name: &str) -> io::Result<UnixStream> {
    let connected = tokio::time::timeout(CONNECT_LIMIT, folder.connect(name)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

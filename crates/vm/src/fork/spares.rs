//! Spares: forks that are created before they are needed. They have run until they answered, and are stopped.
//!
//! A stopped machine costs memory but no CPU time. It continues within milliseconds, but with a clock that stood still and a
//! neutral identity, so the first message to it is its new identity.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dayfly_guest::protocol::{self, GuestMessage, HostMessage, Milestone};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::NEUTRAL_HOSTNAME;
use super::origin::ForkBase;
use super::parts::{MachineParts, connect};
use super::template::{Opened, TemplateId};
use crate::machine::spawn::{Outputs, Vmm};
use crate::machine::{MachineFolder, StartError, identity};
use crate::network::Connection;
use crate::pace::Turn;
use crate::spec::Network;
use crate::vm_host::VmHost;
use dayfly_host::retry;
/// A stopped fork.
#[derive(Debug)]
pub(super) struct Spare {
    // Before the folder, because fields are dropped in order: first the process is killed, then its files are removed.
    pub(super) vmm: Vmm,
    pub(super) folder: MachineFolder,
    pub(super) outputs: Outputs,
    pub(super) detached: Arc<AtomicBool>,
    pub(super) connection: Arc<Connection>,
    template: Arc<Opened>,
    network: Network,
}

/// The spares of this process. Copies share the same spares.
#[derive(Debug, Clone, Default)]
pub struct Spares(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    kinds: HashMap<TemplateId, TemplateSpares>,
    /// Tasks that create spares. They are aborted when this is dropped.
    makers: JoinSet<()>,
    /// True if no more spares are created.
    is_ended: bool,
}

/// Spares of one template.
#[derive(Debug)]
struct TemplateSpares {
    request: SpareRequest,
    ready: Vec<Spare>,
    /// Number of spares that are being created.
    making: usize,
    attempts: Attempts,
}

/// The attempts to create a spare that failed in a row.
#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    failures: u32,
    /// Those for which this host lacked something. They do not count against the template.
    lacks: u32,
}

impl Attempts {
    fn failed(&mut self, error: &StartError) {
        match error.scarcity() {
            Some(_) => self.lacks += 1,
            None => self.failures += 1,
        }
    }

    /// Returns the pause before the next attempt; none after too many failures.
    fn pause(self) -> Option<Duration> {
        let pause = retry::SPARE.pause_after(self.failures)?;
        let lack = if self.lacks == 0 { None } else { retry::SCARCE.pause_after(self.lacks) };
        Some(lack.map_or(pause, |lack| lack.max(pause)))
    }
}

/// A request for spares: their kind and their number.
#[derive(Debug, Clone)]
pub(super) struct SpareRequest {
    pub(super) base: ForkBase,
    pub(super) network: Network,
    /// Number of spares.
    pub(super) count: usize,
    /// The folder that contains the folders of the spares.
    pub(super) folder: PathBuf,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a spare that fits the request, if one is ready, and has new spares created until there are `count`. Spares of the
    /// template that do not fit are removed.
    pub(super) fn take(&self, host: &VmHost, request: SpareRequest) -> Option<Spare> {
        let (taken, unfit) = {
            let mut inner = self.lock();
            if inner.is_ended {
                return None;
            }
            let id = request.base.template.id().clone();
            let kind = inner.kinds.entry(id).or_insert_with(|| TemplateSpares {
                request: request.clone(),
                ready: Vec::new(),
                making: 0,
                attempts: Attempts::default(),
            });
            if !Arc::ptr_eq(&kind.request.base.template, &request.base.template) {
                kind.attempts = Attempts::default();
            }
            kind.request = request;
            let (fit, unfit): (Vec<_>, Vec<_>) =
                std::mem::take(&mut kind.ready).into_iter().partition(|spare| spare.is_as(&kind.request));
            kind.ready = fit;
            (kind.ready.pop(), unfit)
        };
        // This kills processes, which blocks.
        if !unfit.is_empty() {
            tokio::task::spawn_blocking(move || drop(unfit));
        }
        self.refill(host);
        taken
    }

    /// Starts tasks that create the missing spares.
    fn refill(&self, host: &VmHost) {
        let mut inner = self.lock();
        let Inner { kinds, makers, is_ended } = &mut *inner;
        if *is_ended {
            return;
        }
        while makers.try_join_next().is_some() {}
        for kind in kinds.values_mut() {
            // After too many failures in a row, no more spares of the template are created.
            let Some(pause) = kind.attempts.pause() else { continue };
            while kind.ready.len() + kind.making < kind.request.count {
                kind.making += 1;
                makers.spawn(make_one(self.clone(), host.clone(), kind.request.clone(), pause));
            }
        }
    }

    fn made(&self, request: &SpareRequest, made: Result<Spare, StartError>) -> Option<Spare> {
        let mut inner = self.lock();
        let is_ended = inner.is_ended;
        let Some(kind) = inner.kinds.get_mut(request.base.template.id()) else { return made.ok() };
        kind.making -= 1;
        match made {
            Ok(spare) if !is_ended && spare.is_as(&kind.request) => {
                kind.attempts = Attempts::default();
                kind.ready.push(spare);
                None
            }
            Ok(spare) => Some(spare),
            Err(error) => {
                kind.attempts.failed(&error);
                tracing::warn!(
                    "a spare machine of template {} cannot be made: {error}",
                    request.base.template.id()
                );
                None
            }
        }
    }

    /// Removes the spares of a template that is no longer wanted.
    pub(crate) fn forget(&self, template: &TemplateId) {
        let unwanted = self.lock().kinds.remove(template);
        // This kills processes, which blocks.
        if unwanted.is_some() {
            tokio::task::spawn_blocking(move || drop(unwanted));
        }
    }

    /// Returns the number of spares that are ready.
    pub fn ready(&self) -> usize {
        self.lock().kinds.values().map(|kind| kind.ready.len()).sum()
    }

    /// Removes all spares. No more are created afterwards.
    pub async fn end(&self) {
        let (kinds, mut makers) = {
            let mut inner = self.lock();
            inner.is_ended = true;
            (std::mem::take(&mut inner.kinds), std::mem::take(&mut inner.makers))
        };
        makers.shutdown().await;
        // This kills processes and removes files, which blocks.
        let _ = tokio::task::spawn_blocking(move || drop(kinds)).await;
    }
}

async fn make_one(spares: Spares, host: VmHost, request: SpareRequest, pause: Duration) {
    // The machine that needed a spare starts first.
    tokio::time::sleep(pause).await;
    let made = match host.pace.enter_when_calm(request.base.blueprint.memory_mib).await {
        Ok(turn) => Spare::make(&host, &request, turn).await,
        Err(error) => Err(error.into()),
    };
    let unwanted = spares.made(&request, made);
    let _ = tokio::task::spawn_blocking(move || drop(unwanted)).await;
    // Other spares may have been taken meanwhile.
    spares.refill(&host);
}

impl Spare {
    /// Returns true if the spare fits the request and its process runs.
    fn is_as(&self, request: &SpareRequest) -> bool {
        Arc::ptr_eq(&self.template, &request.base.template)
            && self.network == request.network
            && !self.vmm.process.has_ended()
    }

    /// Creates a fork, runs it until it answers, then stops it.
    async fn make(host: &VmHost, request: &SpareRequest, _turn: Turn) -> Result<Self, StartError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let path = request.folder.join(&id);
        let io_error = |source| StartError::Io { what: "make the folder", path: path.clone(), source };
        let folder = MachineFolder::make(path.clone()).map_err(io_error)?;
        let connection = Arc::new(connect(host, &request.network, folder.path()).await?);
        let parts = Arc::new(MachineParts::of_blueprint(
            host,
            &request.base.blueprint,
            format!("spare-{}", &id[..8]),
            folder.path(),
            Arc::clone(&connection),
            request.network.forward,
        ));
        let template = Arc::clone(&request.base.template);
        let recipe = Arc::new(MachineParts::blocking(&parts, move |parts| parts.fork(&template)).await?);
        let (outputs, detached) = (Outputs::new(), Arc::new(AtomicBool::new(false)));
        let vmm = recipe.spawn(&outputs, &detached).await?;
        let (template, network) = (Arc::clone(&request.base.template), request.network.clone());
        let mut spare = Self { vmm, folder, outputs, detached, connection, template, network };
        let deadline = Instant::now() + request.base.blueprint.platform.limits(&host.limits).fork;
        let stopped = tokio::time::timeout_at(deadline, spare.answer_and_stop()).await;
        stopped.unwrap_or(Err(io::ErrorKind::TimedOut.into())).map_err(|source| StartError::Io {
            what: "get an answer from the spare machine",
            path,
            source,
        })?;
        Ok(spare)
    }

    /// Lets the fork take on a neutral identity and answer a hello, then stops it. The fork does the same faster the next
    /// time, because an emulated processor has translated the code.
    async fn answer_and_stop(&mut self) -> io::Result<()> {
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let link = self.vmm.link.as_mut().ok_or_else(ended)?;
        link.send(&HostMessage::Identify(identity(NEUTRAL_HOSTNAME, None, false)))?;
        link.send(&HostMessage::Hello { version: protocol::VERSION, epoch: 1, lines_seen: 0 })?;
        loop {
            match link.next().await? {
                GuestMessage::Hello { version, .. } if version != protocol::VERSION => {
                    return Err(io::Error::other(format!("its agent speaks version {version}")));
                }
                GuestMessage::Milestone { milestone: Milestone::Identified, .. } => break,
                GuestMessage::Fault { message: reason } | GuestMessage::DockerFailed { reason } => {
                    return Err(io::Error::other(reason));
                }
                _ => {}
            }
        }
        self.vmm.monitor.as_mut().ok_or_else(ended)?.pause().await
    }

    /// Moves the spare's folder to the run folder of a runner, and lets the machine continue.
    pub(super) fn hand_over(self, run_dir: &Path) -> io::Result<ClaimedSpare> {
        let Self { vmm, folder, outputs, detached, connection, .. } = self;
        folder.move_to(run_dir)?;
        if let Some(monitor) = &vmm.monitor {
            monitor.resume();
        }
        Ok(ClaimedSpare { vmm, outputs, detached, connection })
    }
}

/// A spare that belongs to a runner.
#[derive(Debug)]
pub(super) struct ClaimedSpare {
    pub(super) vmm: Vmm,
    pub(super) outputs: Outputs,
    pub(super) detached: Arc<AtomicBool>,
    pub(super) connection: Arc<Connection>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_lacks_something_does_not_count_against_the_template() {
        let error = |number| StartError::Io {
            what: "make",
            path: PathBuf::from("/x"),
            source: io::Error::from_raw_os_error(number),
        };
        let mut attempts = Attempts::default();
        assert_eq!(attempts.pause(), retry::SPARE.pause_after(0));
        let pauses = [30, 60, 120, 240, 300, 300].map(Duration::from_secs);
        for pause in pauses {
            attempts.failed(&error(libc::EMFILE));
            assert_eq!(attempts.pause(), Some(pause));
        }
        for _ in 0..3 {
            attempts.failed(&error(libc::EIO));
        }
        assert_eq!(attempts.pause(), None, "too many that the template may be to blame for");
    }
}

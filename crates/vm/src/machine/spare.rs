//! Forks that were made before anybody needs them: they have run until they answered, and stand still.
//!
//! A machine that stands still costs memory and no time. It goes on within milliseconds, with a clock that stood still too
//! and the identity of nobody: the first thing it hears is who it is now.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dayfly_guest::protocol::{self, GuestMessage, HostMessage, Milestone};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::folder::MachineFolder;
use super::origin::Parts;
use super::spawn::{Outputs, Vmm};
use super::supervisor::identity;
use super::{Network, StartError, VmHost, connect};
use crate::network::Connection;
use crate::pace::Turn;
use crate::qmp::{Command, Event};
use crate::template::{Blueprint, Opened, TemplateId};

/// Host name of a machine that is nobody's yet.
pub(crate) const NOBODY: &str = "dayfly";
/// From the start of a machine until the next spare is made.
const PAUSE: Duration = Duration::from_secs(2);
/// Failures in a row after which no more spares of a kind are made.
const FAILURES_MAX: u32 = 3;

/// A fork that stands still.
#[derive(Debug)]
pub(super) struct Spare {
    // Before the folder: the process ends, then its files go.
    pub(super) vmm: Vmm,
    pub(super) folder: MachineFolder,
    pub(super) outputs: Outputs,
    pub(super) detached: Arc<AtomicBool>,
    pub(super) connection: Arc<Connection>,
    template: Arc<Opened>,
    network: Network,
}

/// The spares of a process. Cheap to clone: all copies are one.
#[derive(Debug, Clone, Default)]
pub struct Spares(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    kinds: HashMap<TemplateId, Kind>,
    /// Tasks that make spares; they end with this.
    makers: JoinSet<()>,
    /// No more are made.
    is_ended: bool,
}

/// Spares of one template.
#[derive(Debug)]
struct Kind {
    wish: Wish,
    ready: Vec<Spare>,
    /// How many are being made.
    making: usize,
    failures: u32,
}

/// What spares there should be.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) blueprint: Blueprint,
    pub(super) template: Arc<Opened>,
    pub(super) network: Network,
    /// How many.
    pub(super) count: usize,
    /// Where their folders are.
    pub(super) folder: PathBuf,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A spare as it is wished, where one is ready; and others are made, so that there are as many as are wished.
    pub(super) fn take(&self, host: &VmHost, wish: Wish) -> Option<Spare> {
        let (taken, unfit) = {
            let mut inner = self.lock();
            if inner.is_ended {
                return None;
            }
            let id = wish.template.id().clone();
            let kind = inner.kinds.entry(id).or_insert_with(|| Kind {
                wish: wish.clone(),
                ready: Vec::new(),
                making: 0,
                failures: 0,
            });
            if !Arc::ptr_eq(&kind.wish.template, &wish.template) {
                kind.failures = 0;
            }
            kind.wish = wish;
            let (fit, unfit): (Vec<_>, Vec<_>) =
                std::mem::take(&mut kind.ready).into_iter().partition(|spare| spare.is_as(&kind.wish));
            kind.ready = fit;
            (kind.ready.pop(), unfit)
        };
        // Ends processes.
        if !unfit.is_empty() {
            tokio::task::spawn_blocking(move || drop(unfit));
        }
        self.refill(host);
        taken
    }

    /// Makes what is missing, in the background.
    fn refill(&self, host: &VmHost) {
        let mut inner = self.lock();
        let Inner { kinds, makers, is_ended } = &mut *inner;
        if *is_ended {
            return;
        }
        while makers.try_join_next().is_some() {}
        for kind in kinds.values_mut() {
            while kind.failures < FAILURES_MAX && kind.ready.len() + kind.making < kind.wish.count {
                kind.making += 1;
                makers.spawn(make_one(self.clone(), host.clone(), kind.wish.clone()));
            }
        }
    }

    fn made(&self, wish: &Wish, made: Result<Spare, StartError>) -> Option<Spare> {
        let mut inner = self.lock();
        let is_ended = inner.is_ended;
        let Some(kind) = inner.kinds.get_mut(wish.template.id()) else { return made.ok() };
        kind.making -= 1;
        match made {
            Ok(spare) if !is_ended && spare.is_as(&kind.wish) => {
                kind.failures = 0;
                kind.ready.push(spare);
                None
            }
            Ok(spare) => Some(spare),
            Err(error) => {
                kind.failures += 1;
                tracing::warn!("a spare machine of template {} cannot be made: {error}", wish.template.id());
                None
            }
        }
    }

    /// Ends those of a template that nobody wants any more.
    pub(crate) fn forget(&self, template: &TemplateId) {
        let unwanted = self.lock().kinds.remove(template);
        // Ends processes.
        if unwanted.is_some() {
            tokio::task::spawn_blocking(move || drop(unwanted));
        }
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.lock().kinds.values().map(|kind| kind.ready.len()).sum()
    }

    /// Ends all spares; no more are made.
    pub async fn end(&self) {
        let (kinds, mut makers) = {
            let mut inner = self.lock();
            inner.is_ended = true;
            (std::mem::take(&mut inner.kinds), std::mem::take(&mut inner.makers))
        };
        makers.shutdown().await;
        // Ends processes and removes files.
        let _ = tokio::task::spawn_blocking(move || drop(kinds)).await;
    }
}

async fn make_one(spares: Spares, host: VmHost, wish: Wish) {
    // The machine that a spare was taken for comes up first.
    tokio::time::sleep(PAUSE).await;
    let made = match host.pace.enter_when_calm().await {
        Ok(turn) => Spare::make(&host, &wish, turn).await,
        Err(error) => Err(error.into()),
    };
    let unwanted = spares.made(&wish, made);
    let _ = tokio::task::spawn_blocking(move || drop(unwanted)).await;
    // What is missing still: others may have been taken meanwhile.
    spares.refill(&host);
}

impl Spare {
    /// Whether it is what somebody wishes, and lives.
    fn is_as(&self, wish: &Wish) -> bool {
        Arc::ptr_eq(&self.template, &wish.template)
            && self.network == wish.network
            && !self.vmm.process.has_ended()
    }

    /// A fork, run until it answers, then stopped.
    async fn make(host: &VmHost, wish: &Wish, _turn: Turn) -> Result<Self, StartError> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let path = wish.folder.join(&id);
        let io_error = |source| StartError::Io { what: "make the folder", path: path.clone(), source };
        let folder = MachineFolder::make(path.clone()).map_err(io_error)?;
        let connection = Arc::new(connect(&wish.network, folder.path()).await?);
        let parts = Arc::new(Parts::of_blueprint(
            host,
            &wish.blueprint,
            format!("spare-{}", &id[..8]),
            folder.path(),
            Arc::clone(&connection),
            wish.network.forward,
        ));
        let template = Arc::clone(&wish.template);
        let recipe = Arc::new(Parts::blocking(&parts, move |parts| parts.fork(&template)).await?);
        let (outputs, detached) = (Outputs::new(), Arc::new(AtomicBool::new(false)));
        let vmm = recipe.spawn(&outputs, &detached).await?;
        let (template, network) = (Arc::clone(&wish.template), wish.network.clone());
        let mut spare = Self { vmm, folder, outputs, detached, connection, template, network };
        let deadline = Instant::now() + wish.blueprint.platform.limits(&host.limits).fork;
        let stopped = tokio::time::timeout_at(deadline, spare.answer_and_stop()).await;
        stopped.unwrap_or(Err(io::ErrorKind::TimedOut.into())).map_err(|source| StartError::Io {
            what: "hear anything of the spare machine",
            path,
            source,
        })?;
        Ok(spare)
    }

    /// What it does here it does faster the next time: an emulated processor has translated it.
    async fn answer_and_stop(&mut self) -> io::Result<()> {
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let link = self.vmm.link.as_mut().ok_or_else(ended)?;
        link.send(&HostMessage::Identify(identity(NOBODY, None, false)))?;
        link.send(&HostMessage::Hello { version: protocol::VERSION, epoch: 1 })?;
        loop {
            match link.next().await? {
                GuestMessage::Hello { version, .. } if version != protocol::VERSION => {
                    return Err(io::Error::other(format!("its agent speaks version {version}")));
                }
                GuestMessage::Milestone { milestone: Milestone::Identified, .. } => break,
                GuestMessage::Fault { message } => return Err(io::Error::other(message)),
                _ => {}
            }
        }
        let monitor = self.vmm.monitor.as_mut().ok_or_else(ended)?;
        monitor.ask(Command::Stop);
        while monitor.next_event().await.ok_or_else(ended)? != Event::Stopped {}
        Ok(())
    }

    /// Gives its folder to a runner, and lets it go on.
    pub(super) fn hand_over(self, run_dir: &Path) -> io::Result<HandedOver> {
        let Self { vmm, folder, outputs, detached, connection, .. } = self;
        folder.move_to(run_dir)?;
        if let Some(monitor) = &vmm.monitor {
            monitor.ask(Command::Continue);
        }
        Ok(HandedOver { vmm, outputs, detached, connection })
    }
}

/// A spare that is somebody's.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) vmm: Vmm,
    pub(super) outputs: Outputs,
    pub(super) detached: Arc<AtomicBool>,
    pub(super) connection: Arc<Connection>,
}

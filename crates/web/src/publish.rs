//! The data that the server shows, as the process publishes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_fleet::orchestrator::Budget;
use dayfly_fleet::status::Status;
use dayfly_forge::{Credential, RunnerScope};
use dayfly_traces::TraceCounts;
use tokio::sync::watch;

use crate::metrics::{FactCounters, Metrics};

/// The pools of a process, and their share of the host. A start, a reload and the orders of an administrator change it.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// The pools that do not drain, in the order of the file.
    pub pools: Vec<PoolEntry>,
    /// The limits for all machines together.
    pub budget: Budget,
    /// The credentials in use, each once.
    pub forges: Vec<ForgeAccount>,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolEntry {
    /// Its name.
    pub name: String,
    /// Name of its scale set; none without one.
    pub scale_set: Option<String>,
    /// The scope of its runners.
    pub scope: RunnerScope,
    /// Idle runners that are kept ready.
    pub min_idle: u32,
    /// Most runners.
    pub max: u32,
    /// Virtual CPUs of each machine.
    pub vcpus: u32,
    /// Memory of each machine, MiB.
    pub memory_mib: u32,
}

/// A credential, and the forge that it is for.
#[derive(Debug, Clone)]
pub struct ForgeAccount {
    /// The forge's name in the file, and the owner of the runners.
    pub name: String,
    /// The credential, which knows what is left of its limits.
    pub credential: Credential,
}

/// The writing end, for the loop of the process.
#[derive(Debug)]
pub struct Publisher {
    status: watch::Sender<Arc<Status>>,
    site: watch::Receiver<Arc<Site>>,
    counters: FactCounters,
}

/// The reading end, for the server.
#[derive(Debug, Clone)]
pub struct Published {
    pub(crate) status: watch::Receiver<Arc<Status>>,
    pub(crate) site: watch::Receiver<Arc<Site>>,
    pub(crate) metrics: Arc<Metrics>,
    /// The state folder, with history, logs, images and templates.
    pub(crate) state: PathBuf,
}

/// Creates both ends, for a process with this state folder. The sender of the site replaces it after each change of the pools.
/// `traces` is none if no traces are sent.
pub fn channel(
    site: Site,
    state: &Path,
    traces: Option<TraceCounts>,
) -> (Publisher, watch::Sender<Arc<Site>>, Published) {
    let (status_sender, status) = watch::channel(Arc::new(Status::begin()));
    let (site_sender, site) = watch::channel(Arc::new(site));
    let counters = FactCounters::default();
    let metrics = Arc::new(Metrics::new(&counters, status.clone(), site.clone(), traces));
    let publisher = Publisher { status: status_sender, site: site.clone(), counters };
    (publisher, site_sender, Published { status, site, metrics, state: state.to_owned() })
}

impl Publisher {
    /// Counts a fact.
    pub fn take(&mut self, record: &FactRecord) {
        // There are thousands of lines a second, and nothing counts them.
        if matches!(record.fact, Fact::Line { .. }) {
            return;
        }
        // A reader holds this for the time of a clone.
        let site = Arc::clone(&self.site.borrow());
        self.counters.take(record, &site);
    }

    /// Replaces the published status.
    pub fn publish(&self, status: &Status) {
        self.status.send_replace(Arc::new(status.clone()));
    }

    /// Returns the number of runners whose end has not been told.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.counters.remembered()
    }
}

//! The traces of an orchestrator: the headers of their collector, the task that sends them, and the pools that they name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dayfly_fleet::history::History;
use dayfly_forge::RunnerScope;
use dayfly_traces::{Exporter, ExporterOptions, Headers, PoolRepositories, TraceCounts, TraceWriter};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::file::secret_at;
use super::reload::KnownPool;
use crate::config::{SecretPlace, TracesConfig};
use crate::exit::{Failure, Result};

/// Longest time that the last traces may take at the end of the process.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// An exporter that does not run yet, and the ends that get what it sends.
pub(super) struct Traces {
    exporter: Exporter,
    feed: Feed,
}

/// The ends that get what is sent.
pub(super) struct Feed {
    /// For facts.
    pub(super) writer: TraceWriter,
    /// For the pools.
    pub(super) repositories: watch::Sender<Arc<PoolRepositories>>,
}

/// An exporter that runs. It ends when this is dropped.
pub(super) struct Exporting {
    tasks: JoinSet<()>,
}

/// Prepares traces for the collector of the file; none if it has none.
///
/// # Errors
/// The headers cannot be read, or no certificate authority is known for an https address.
pub(super) fn open(config: Option<&TracesConfig>, state: &Path) -> Result<Option<Traces>> {
    let Some(TracesConfig { endpoint, headers_file }) = config else { return Ok(None) };
    let headers = headers_file.as_deref().map(headers_in).transpose()?.unwrap_or_default();
    let host = dayfly_host::name::host_name();
    let options = ExporterOptions { endpoint: endpoint.clone(), headers, host, history: History::of(state) };
    let (writer, repositories, exporter) = dayfly_traces::channel(options).map_err(Failure::cannot)?;
    Ok(Some(Traces { exporter, feed: Feed { writer, repositories } }))
}

fn headers_in(file: &Path) -> Result<Headers> {
    let text = secret_at(&SecretPlace::File(file.to_owned()), "headers of the collector")?;
    Headers::parse(&text)
        .map_err(|error| Failure::usage(format!("traces.headers_file: {}: {error}", file.display())))
}

impl Traces {
    /// Returns how many traces were sent and lost.
    pub(super) fn counts(&self) -> TraceCounts {
        self.exporter.counts()
    }

    /// Starts to send.
    pub(super) fn start(self) -> (Exporting, Feed) {
        let Self { exporter, feed } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(exporter.run());
        (Exporting { tasks }, feed)
    }
}

impl Exporting {
    /// Waits until the last traces are sent, but not for long. The writer is dropped before.
    pub(super) async fn close(mut self) {
        if tokio::time::timeout(CLOSE_LIMIT, self.tasks.join_next()).await.is_err() {
            tracing::warn!("the last traces were lost: their collector did not take them in time");
        }
    }
}

/// Returns the repositories of the pools that serve only one.
pub(super) fn repositories_of(pools: &[KnownPool]) -> PoolRepositories {
    let of_pool = |known: &KnownPool| {
        let config = &known.text.config;
        let RunnerScope::Repository { .. } = config.spec.scope else { return None };
        Some((config.name.clone(), config.spec.scope.to_string()))
    };
    pools.iter().filter_map(of_pool).collect()
}

//! The metrics of an orchestrator, as OpenMetrics.
//!
//! ```text
//!   facts ──> FactCounters (counters, histograms) ────┐
//!   status, site, traces ──> Gauges (at each scrape) ─┴──> registry ──> text
//! ```
//!
//! Names that begin with `gha_` are those of Actions Runner Controller, so that its dashboards work. Their meaning and their
//! labels are in docs/metrics.md.
//!
//! The number of series is bounded: labels are names of pools, words of a fixed list, or names of repositories and jobs, of
//! which only so many are told apart ([`labels::JobLabels`]).

mod facts;
mod gauges;
mod labels;

use std::fmt;
use std::sync::Arc;

use dayfly_fleet::status::Status;
use dayfly_traces::TraceCounts;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::publish::Site;
pub(crate) use facts::FactCounters;
use gauges::Gauges;

/// The type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics(Registry);

impl Metrics {
    pub(crate) fn new(
        counters: &FactCounters,
        status: watch::Receiver<Arc<Status>>,
        site: watch::Receiver<Arc<Site>>,
        traces: Option<TraceCounts>,
    ) -> Self {
        let mut registry = Registry::default();
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("dayfly_build", "Version of dayfly", version);
        counters.register(&mut registry);
        registry.register_collector(Box::new(Gauges::new(status, site, traces)));
        Self(registry)
    }

    /// Returns the text.
    ///
    /// # Errors
    /// A value cannot be written, which would be a bug.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;

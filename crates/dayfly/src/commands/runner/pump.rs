//! Where the events of loops go: the log, standard output as JSON, the log of each runner, and the status for `ps`.

use std::path::PathBuf;
use std::time::Duration;

use dayfly_fleet::event::{Event, EventKind};
use dayfly_fleet::instance::Instance;
use dayfly_fleet::run_log::RunLogs;
use dayfly_fleet::status::Status;
use dayfly_guest::protocol::Milestone;
use tokio::time::Instant;

use crate::exit::{Failure, Result};
use crate::{log, printer};

/// How often the status is written at most: events come in bursts.
const STATUS_PAUSE: Duration = Duration::from_millis(100);

/// Takes events, one after another.
pub(crate) struct Pump {
    json: bool,
    logs: RunLogs,
    status: Status,
    folder: PathBuf,
    write_status_at: Option<Instant>,
    troubled: bool,
}

impl Pump {
    /// For the loops of this process's instance.
    pub(crate) fn open(state: &std::path::Path, instance: &Instance, json: bool) -> Result<Self> {
        let logs = RunLogs::open(state).map_err(|error| {
            Failure::cannot(format!("cannot make the folder of logs under {}: {error}", state.display()))
        })?;
        let pump = Self {
            json,
            logs,
            status: Status::begin(),
            folder: instance.folder().to_owned(),
            write_status_at: None,
            troubled: false,
        };
        pump.status.write(&pump.folder).map_err(Failure::cannot)?;
        Ok(pump)
    }

    /// Passes an event on to all who want it.
    pub(crate) fn take(&mut self, event: &Event) {
        if self.json {
            printer::json(event);
        }
        log::loop_span(event.loop_index).in_scope(|| tell(event));
        if let Err(error) = self.logs.take(event) {
            self.trouble("the log of a runner", &error);
        }
        if self.status.take(event) && self.write_status_at.is_none() {
            self.write_status_at = Some(Instant::now() + STATUS_PAUSE);
        }
    }

    /// Waits until the status is to be written; for ever while nothing has changed.
    pub(crate) async fn due(&self) {
        match self.write_status_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Writes the status.
    pub(crate) fn write_status(&mut self) {
        self.write_status_at = None;
        if let Err(error) = self.status.write(&self.folder) {
            self.trouble("the status", &error);
        }
    }

    /// A full disk is told once; the loops go on without.
    fn trouble(&mut self, what: &str, error: &std::io::Error) {
        if !std::mem::replace(&mut self.troubled, true) {
            tracing::warn!("{what} cannot be written: {error}");
        }
    }
}

/// Tells an event as a log line.
fn tell(event: &Event) {
    let name = event.name();
    match &event.kind {
        EventKind::LoopReplaced { why, count, pause_ms } => {
            tracing::warn!(
                "loop ended and is replaced in {} s (number {count} in a row): {why}",
                pause_ms / 1000
            );
        }
        EventKind::Retrying { why, count, pause_ms } => {
            tracing::warn!("next try in {} s (number {count} in a row): {why}", pause_ms / 1000);
        }
        EventKind::Warning { message } => tracing::warn!("{message}"),
        EventKind::VmRestarted { reason } => tracing::warn!("{name}: machine started once again: {reason}"),
        EventKind::LinesDropped { count } => tracing::warn!("{name}: {count} lines were not kept"),
        EventKind::LoopStarted => tracing::info!("loop started"),
        EventKind::LoopEnded { how } => tracing::info!("loop ended: {how}"),
        EventKind::Registered { registration } => tracing::info!("{name}: registered (id {registration})"),
        EventKind::TemplateBuilding { template } => {
            tracing::info!("{name}: building template {template}, from which machines are forked");
        }
        EventKind::TemplateWaiting { template } => {
            tracing::info!("{name}: waiting for template {template}, which is being built");
        }
        EventKind::TemplateLine { text } => tracing::debug!("{name}: warm-up: {text}"),
        EventKind::TemplateBuilt { template, took_ms, bytes } => {
            tracing::info!("{name}: template {template} built in {took_ms} ms ({} MiB)", bytes >> 20);
        }
        EventKind::TemplateFailed { template, reason } => {
            tracing::warn!("{name}: no template {template}, machines are booted: {reason}");
        }
        EventKind::Cold { reason } => tracing::warn!("{name}: machine is booted: {reason}"),
        EventKind::VmmStarted { pid, from, .. } => {
            tracing::info!("{name}: machine started ({from}, process {pid})");
        }
        EventKind::AgentHello => tracing::info!("{name}: machine is up"),
        EventKind::RunnerUp => tracing::info!("{name}: runner starts"),
        EventKind::Listening => tracing::info!("{name}: runner waits for a job"),
        EventKind::JobStarted { job } => tracing::info!("{name}: job {job} started"),
        EventKind::JobFinished { result } => tracing::info!("{name}: job ended: {result}"),
        EventKind::Stopping { reason } => tracing::info!("{name}: is being stopped: {reason}"),
        EventKind::VmGone { exit } => tracing::info!("{name}: machine is gone ({exit})"),
        EventKind::VmKept { folder } => tracing::info!("{name}: machine is kept in {}", folder.display()),
        EventKind::RegistrationEnded { how } => tracing::info!("{name}: registration {how}"),
        EventKind::Ended => tracing::info!("{name}: nothing of it is left"),
        EventKind::EntrypointExited { code, signal } => {
            tracing::debug!("{name}: entrypoint ended (status {code:?}, signal {signal:?})");
        }
        EventKind::Milestone { milestone: Milestone::DockerReady, .. } => {
            tracing::debug!("{name}: Docker answers");
        }
        EventKind::Milestone { milestone, uptime_ms } => {
            tracing::debug!("{name}: {milestone:?} after {uptime_ms} ms");
        }
        EventKind::ImagePhase { phase } => tracing::info!("{name}: image: {phase}"),
        EventKind::ImageChanged { name: image_name, image } => {
            tracing::info!("{name}: {image_name} is another image than before, {image}");
        }
        EventKind::Pulled => tracing::debug!("{name}: image is at hand"),
        EventKind::Registering => tracing::debug!("{name}: registering"),
        EventKind::Line { source, text } => tracing::debug!("{name}: {source:?}: {text}"),
    }
}

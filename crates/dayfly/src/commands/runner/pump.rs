//! Passes the facts of loops on: to the log, to standard output as JSON, to the log of each runner, and to the status for
//! `ps`.

use std::path::PathBuf;
use std::time::Duration;

use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_fleet::history::History;
use dayfly_fleet::instance::Instance;
use dayfly_fleet::run_log::RunLogs;
use dayfly_fleet::status::{Phase, PoolState, Status};
use dayfly_guest::protocol::Milestone;
use dayfly_host::quantity::quantity;
use dayfly_traces::TraceWriter;
use dayfly_web::Publisher;
use tokio::time::Instant;

use crate::commands::sentence::{disk_failed, out_of_memory, vmm_out_of_memory};
use crate::exit::{Failure, Result};
use crate::service::Service;
use crate::{log, printer};

/// Shortest time between two writes of the status, because facts come in bursts.
const STATUS_PAUSE: Duration = Duration::from_millis(100);

/// The readers of a process's facts.
pub(crate) struct Pump {
    json: bool,
    history: History,
    logs: RunLogs,
    status: Status,
    folder: PathBuf,
    write_status_at: Option<Instant>,
    troubled: bool,
    service: Service,
    /// None if no server shows the process.
    publisher: Option<Publisher>,
    /// None if no trace is sent.
    tracer: Option<TraceWriter>,
    /// The last line of text for the service manager.
    told: String,
    /// True if the log names the pool of each loop.
    names_pools: bool,
}

impl Pump {
    /// Opens the readers for the loops of this process's instance.
    pub(crate) fn open(state: &std::path::Path, instance: &Instance, json: bool) -> Result<Self> {
        let logs = RunLogs::open(state).map_err(|error| {
            Failure::cannot(format!("cannot create the folder of logs under {}: {error}", state.display()))
        })?;
        let pump = Self {
            json,
            history: History::of(state),
            logs,
            status: Status::begin(),
            folder: instance.folder().to_owned(),
            write_status_at: None,
            troubled: false,
            service: Service::default(),
            publisher: None,
            tracer: None,
            told: String::new(),
            names_pools: false,
        };
        pump.status.write(&pump.folder).map_err(Failure::cannot)?;
        Ok(pump)
    }

    /// Names the pool of each loop in the log, if there may be several.
    pub(crate) fn naming_pools(self, names_pools: bool) -> Self {
        Self { names_pools, ..self }
    }

    /// Reports the state to a service manager too.
    pub(crate) fn reporting_to(self, service: Service) -> Self {
        Self { service, ..self }
    }

    /// Publishes facts and status to a server too, if there is one.
    pub(crate) fn publishing_to(self, publisher: Option<Publisher>) -> Self {
        Self { publisher, ..self }
    }

    /// Passes facts on to the traces too, if any are sent.
    pub(crate) fn tracing_to(self, tracer: Option<TraceWriter>) -> Self {
        Self { tracer, ..self }
    }

    /// Reports that the process stops.
    pub(crate) fn stopping(&self) {
        self.service.stopping();
    }

    /// Returns the history that the process writes.
    pub(crate) fn history(&self) -> History {
        self.history.clone()
    }

    /// Passes a fact on to all readers.
    pub(crate) fn take(&mut self, record: &FactRecord) {
        if self.json {
            printer::json(record);
        }
        log::span_of(record, self.names_pools).in_scope(|| tell(record));
        if let Err(error) = self.logs.take(record) {
            self.trouble("the log of a runner", &error);
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.take(record);
        }
        if let Some(tracer) = &mut self.tracer {
            tracer.take(record);
        }
        if self.status.take(record) && self.write_status_at.is_none() {
            self.write_status_at = Some(Instant::now() + STATUS_PAUSE);
        }
    }

    /// Waits until the status has to be written; for ever if it has not changed.
    pub(crate) async fn due(&self) {
        match self.write_status_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Writes the status.
    pub(crate) fn write_status(&mut self) {
        self.write_status_at = None;
        if let Some(publisher) = &self.publisher {
            publisher.publish(&self.status);
        }
        if let Err(error) = self.status.write(&self.folder) {
            self.trouble("the status", &error);
        }
        let text = summary(&self.status);
        if text != self.told {
            self.service.status(text.clone());
            self.told = text;
        }
    }

    /// Warns once, for example of a full disk. The loops go on without the file.
    fn trouble(&mut self, what: &str, error: &std::io::Error) {
        if !std::mem::replace(&mut self.troubled, true) {
            tracing::warn!("{what} cannot be written: {error}");
        }
    }
}

/// Returns the state in a line, as `systemctl status` shows it.
fn summary(status: &Status) -> String {
    let runners =
        status.loops.values().filter(|one| one.runner.is_some() && one.phase != Phase::Ended).count();
    let jobs = status.loops.values().filter(|one| one.job.is_some()).count();
    let waiting: u32 = status.pools.values().map(|pool| pool.waiting).sum();
    let pools = |state| {
        let pools = status.pools.values().filter(move |pool| pool.state == state);
        pools.filter_map(|pool| pool.name.as_deref()).collect::<Vec<_>>().join(", ")
    };
    let runners = quantity(runners, "runner", "runners");
    let mut text = format!("{runners}, {jobs} with a job; {}", quantity(waiting, "job waits", "jobs wait"));
    for (word, state) in
        [("paused", PoolState::Paused), ("draining", PoolState::Draining), ("given up", PoolState::GivenUp)]
    {
        let names = pools(state);
        if !names.is_empty() {
            text.push_str(&format!("; {word}: {names}"));
        }
    }
    text
}

/// Writes a fact as a log line.
fn tell(record: &FactRecord) {
    // Facts of a pool or a loop as a whole have no runner.
    let of = record.runner.as_ref().map(|runner| format!("{}: ", runner.name)).unwrap_or_default();
    match &record.fact {
        Fact::LoopReplaced { why, count, pause_ms } => {
            tracing::warn!(
                "loop ended and is replaced in {} s (number {count} in a row): {why}",
                pause_ms / 1000
            );
        }
        Fact::SourceReady { source, message } => tracing::info!("{source}: {message}"),
        Fact::SourceTrouble { source, message } => tracing::warn!("{source}: {message}"),
        Fact::PoolAdded => tracing::info!("pool added"),
        Fact::PoolAdjusted => tracing::info!("pool adjusted"),
        Fact::PoolPaused => {
            tracing::info!("pool is paused: its idle runners end now, the others with their job")
        }
        Fact::PoolResumed => tracing::info!("pool is resumed"),
        Fact::JobsWaiting { count } => {
            tracing::debug!("{} for a runner", quantity(*count, "job waits", "jobs wait"));
        }
        // The source says it in its own words too.
        Fact::ForgeLost { source, message, .. } => tracing::debug!("{source}: the forge is lost: {message}"),
        Fact::ForgeBack { source } => tracing::info!("{source}: the forge is back"),
        Fact::ScratchInUse { scratch: Some(scratch) } if !scratch.is_whole => tracing::warn!(
            "more scratch space is in use than the {} MiB that were measured: some files cannot be read, or there are too many; \
             dayfly disk lists what was found",
            scratch.used_mib
        ),
        Fact::ScratchInUse { scratch } => tracing::debug!("scratch space in use: {scratch:?}"),
        Fact::PoolWaits { why } => tracing::debug!("why jobs wait: {why:?}"),
        Fact::JobSeen { job } => {
            tracing::debug!("job {} ({}) waits", job.id, job.name.as_deref().unwrap_or("-"))
        }
        Fact::JobLeft { id } => tracing::debug!("job {id} does not wait any more"),
        Fact::JobTaken { job } => tracing::debug!("{of}the forge gave it the job {}", job.id),
        Fact::PoolDraining => {
            tracing::info!("pool drains: its idle runners end now, the others with their job")
        }
        Fact::PoolDrained => tracing::info!("pool has drained"),
        Fact::PoolGivenUp { why } => {
            tracing::warn!("pool cannot start, and is not tried again until a reload: {why}");
        }
        Fact::GaveUp { why } => tracing::warn!("no further runner: {why}"),
        Fact::Retrying { why, count, pause_ms } => {
            tracing::warn!("next try in {} s (number {count} in a row): {why}", pause_ms / 1000);
        }
        Fact::Warning { message } => tracing::warn!("{message}"),
        Fact::OutOfMemory { process, used_mib, memory_mib } => {
            tracing::warn!("{of}{}", out_of_memory(process, *used_mib, *memory_mib));
        }
        Fact::VmmOutOfMemory { whose, limit_mib } => {
            tracing::warn!("{of}{}", vmm_out_of_memory(*whose, *limit_mib));
        }
        Fact::DiskFailed { reason } => tracing::warn!("{of}{}", disk_failed(reason)),
        Fact::SessionOpened { uid, user, command, .. } => {
            tracing::info!("{of}the user {uid} of this host runs in it, as {user}: {command}");
        }
        Fact::SessionEnded { how, .. } => tracing::info!("{of}a session has ended: {how}"),
        Fact::VmRestarted { reason } => tracing::warn!("{of}machine started once again: {reason}"),
        Fact::LinesDropped { count } => {
            tracing::warn!("{of}{}", quantity(*count, "line was dropped", "lines were dropped"));
        }
        Fact::LoopStarted { .. } => tracing::info!("loop started"),
        Fact::LoopEnded { how } => tracing::info!("loop ended: {how}"),
        Fact::Registered { registration } => tracing::info!("{of}registered (id {registration})"),
        Fact::TemplateBuilding { template } => {
            tracing::info!("{of}building template {template}, from which machines are forked");
        }
        Fact::TemplateWaiting { template } => {
            tracing::info!("{of}waiting for template {template}, which is being built");
        }
        Fact::TemplateLine { text } => tracing::debug!("{of}in the template: {text}"),
        Fact::TemplateBuilt { template, took_ms, bytes } => {
            tracing::info!("{of}template {template} built in {took_ms} ms ({} MiB)", bytes >> 20);
        }
        Fact::TemplateFailed { template, reason } => {
            tracing::warn!("{of}no template {template}, machines are booted: {reason}");
        }
        Fact::Cold { reason } => tracing::warn!("{of}machine is booted: {reason}"),
        Fact::VmmStarted { pid, from, .. } => {
            tracing::info!("{of}machine started ({}, process {pid})", from.as_str());
        }
        Fact::VmLimited { enforced, missing } => {
            let list = |limits: &[String]| limits.join(", ");
            tracing::debug!("{of}limits: {}; not enforced: {}", list(enforced), list(missing));
        }
        Fact::VmJailed { walls, missing } => {
            tracing::debug!("{of}walls: {}; missing: {}", walls.join(", "), missing.join("; "));
        }
        Fact::VmTakenOver { pid, phase, .. } => {
            tracing::info!("{of}machine taken over (process {pid}), {}", phase.as_str());
        }
        Fact::AgentHello => tracing::info!("{of}machine is up"),
        Fact::RunnerUp => tracing::info!("{of}runner starts"),
        Fact::Listening => tracing::info!("{of}runner waits for a job"),
        Fact::JobStarted { job } => tracing::info!("{of}job {job} started"),
        Fact::JobFinished { result } => tracing::info!("{of}job ended: {result:?}"),
        Fact::JobConcluded { job, conclusion, .. } => {
            tracing::info!("{of}the forge says that job {job} ended: {}", conclusion.as_str());
        }
        Fact::Stopping { reason } => tracing::info!("{of}is being stopped: {reason}"),
        Fact::VmUsed { cpu_ms, memory_peak_mib, .. } => {
            tracing::debug!("{of}machine has used {cpu_ms:?} ms of processors and {memory_peak_mib:?} MiB");
        }
        Fact::NetworkUsed { network } => {
            tracing::debug!("{of}machine has reached {} destinations", network.destinations.len());
        }
        Fact::VmGone { exit } => tracing::info!("{of}machine is gone ({exit})"),
        Fact::VmHandedOver => tracing::info!("{of}goes on; the next start takes it over"),
        Fact::VmKept { folder } => tracing::info!("{of}machine is kept in {}", folder.display()),
        Fact::VmFrozen { bytes, .. } => {
            tracing::info!(
                "{of}its job has failed, so its machine is kept ({} MiB); `dayfly thaw` brings it back",
                bytes >> 20
            );
        }
        Fact::RegistrationEnded { how } => tracing::info!("{of}registration {}", how.as_str()),
        Fact::Over { how, why, .. } => {
            tracing::debug!("{of}is over: {how:?} {}", why.as_deref().unwrap_or_default())
        }
        Fact::Ended => tracing::info!("{of}runner has ended"),
        Fact::EntrypointExited { code, signal } => {
            tracing::debug!("{of}entrypoint ended (status {code:?}, signal {signal:?})");
        }
        Fact::Milestone { milestone: Milestone::DockerReady, .. } => {
            tracing::debug!("{of}Docker answers");
        }
        Fact::Milestone { milestone, uptime_ms } => {
            tracing::debug!("{of}{milestone:?} after {uptime_ms} ms");
        }
        Fact::ImagePhase { phase } => tracing::info!("{of}image: {phase}"),
        Fact::ImageChanged { name: image_name, image } => {
            tracing::info!("{of}{image_name} is another image than before, {image}");
        }
        Fact::Pulled => tracing::debug!("{of}image is at hand"),
        Fact::Registering => tracing::debug!("{of}registering"),
        Fact::Line { source, text, .. } => tracing::debug!("{of}{source:?}: {text}"),
        Fact::Cut { why } => tracing::debug!("{of}its log ends here: {why}"),
        Fact::Begun { .. }
        | Fact::Resuming { .. }
        | Fact::StartingVm
        | Fact::DestroyingVm
        | Fact::DeletingRegistration => {}
    }
}

#[cfg(test)]
mod tests {
    use dayfly_fleet::status::{LoopStatus, PoolStatus};

    use super::*;

    #[test]
    fn the_line_for_the_service_manager_counts_runners_and_names_the_pools_that_stand_still() {
        let mut status = Status::default();
        assert_eq!(summary(&status), "0 runners, 0 with a job; 0 jobs wait");
        let runner = Some("1-aaaaaaa".to_owned());
        let idle = LoopStatus { runner, phase: Phase::Idle, ..LoopStatus::default() };
        let busy = LoopStatus { job: Some("x".to_owned()), ..idle.clone() };
        let ended = LoopStatus { phase: Phase::Ended, ..idle.clone() };
        status.loops.extend([(1, idle), (2, busy), (3, ended)]);
        let paused = PoolStatus {
            name: Some("a".to_owned()),
            state: PoolState::Paused,
            since_ms: 1,
            waiting: 4,
            ..PoolStatus::default()
        };
        status.pools.insert(0, paused);
        assert_eq!(summary(&status), "2 runners, 1 with a job; 4 jobs wait; paused: a");
    }
}

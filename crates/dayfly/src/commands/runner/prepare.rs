//! Resolves the descriptions of pools: asks the forges, chooses drivers, removes the remains of earlier processes. Every
//! problem that can be known before anything is created is reported here, as one error.

use std::sync::Arc;
use std::time::Duration;

use dayfly_fleet::demand::{
    self, MinIdleNow, MinIdleSchedule, PollSource, PoolLabels, ScaleSetRegistrar, ScaleSetSource,
    SessionNote, Source, WebhookSource,
};
use dayfly_fleet::instance::{Instance, Serves};
use dayfly_fleet::pool::{Group, Limits, Pool, PoolSpec, Registrar};
use dayfly_fleet::reaper::Leftovers;
use dayfly_fleet::recovery::{self, Heir, Inherited, Serving};
use dayfly_forge::scale_set::ScaleSetSpec;
use dayfly_forge::{Forge, ForgeError, OpenJobs, RunnerScope};
use dayfly_host::retry;
use dayfly_vm::{Machine, VmHost};
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};

use super::request::{PoolRequest, ScaleSetRequest, WebhookRequest};
use crate::commands::machine;
use crate::config::Schedule;
use crate::exit::{Failure, Result, Signal};
use crate::labels;
use crate::service::Service;
use crate::settings::Places;

/// Most changes that a webhook has reported and that wait for the next look at the lists of jobs.
const COPIES_MAX: usize = 4096;

/// Pools that are ready to run on this host.
pub(crate) struct Prepared {
    pub(crate) host: VmHost,
    pub(crate) instance: Instance,
    /// The pools, in the order of the requests.
    pub(crate) pools: Vec<PreparedPool>,
}

/// A pool, the sources of its demand, and their controls.
pub(crate) struct PreparedPool {
    pub(crate) pool: Pool,
    pub(crate) sources: Vec<Source>,
    pub(crate) controls: Controls,
    /// The runners of a process that died, which the pool takes over.
    pub(crate) inherited: Vec<Inherited>,
}

/// Replaces the numbers that the sources of a running pool work with.
#[derive(Default)]
pub(crate) struct Controls {
    min_idle: Option<watch::Sender<MinIdleNow>>,
    /// The most jobs of its scale set, with those of its family.
    max: Option<watch::Sender<u32>>,
}

impl Controls {
    /// Replaces the schedule, the minimum of idle runners at other times, and the most runners.
    pub(crate) fn set(&self, schedule: Schedule, min_idle: u32, max: u32) {
        if let Some(sender) = &self.min_idle {
            drop(sender.send_replace(min_idle_now(schedule, min_idle)));
        }
        if let Some(sender) = &self.max {
            sender.send_if_modified(|before| std::mem::replace(before, max) != max);
        }
    }
}

fn min_idle_now(schedule: Schedule, otherwise: u32) -> MinIdleNow {
    Box::new(move || schedule.min_idle_at(Timestamp::now(), otherwise))
}

/// The answer to a forge that cannot be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience<'a> {
    /// It is an error.
    None,
    /// The forge is waited for, without a limit. The log and the service manager learn of each attempt.
    Waits(&'a Service),
}

/// A pool whose forge has answered.
struct KnownPool {
    spec: PoolSpec,
    forge: Forge,
    is_lab: bool,
    group: Group,
    secret: Option<SecretString>,
    scale_set: Option<ScaleSetRequest>,
    polls: bool,
    webhook: Option<WebhookRequest>,
    schedule: Option<(Schedule, u32)>,
    limits: Limits,
}

/// Creates the instance of resolved pools, and takes over or removes the remains of earlier processes. If a loop is given, only a
/// runner of that loop is taken over.
///
/// # Errors
/// A forge or this host cannot do what is requested. No instance is left then.
pub(crate) async fn prepare(
    places: &Places,
    mut host: VmHost,
    resolved: Vec<ResolvedPool>,
    only: Option<u32>,
    quiet: bool,
) -> Result<Prepared> {
    let serves = resolved.iter().map(ResolvedPool::serves).collect();
    let instance = Instance::create(&places.state, serves).map_err(Failure::cannot)?;
    let heir = only.map_or_else(|| Heir::of_all(&instance), |index| Heir::of_loop(&instance, index));
    let inherited = match clear_up(places, &serving(&resolved), &heir).await {
        Ok(inherited) => inherited,
        Err(error) => {
            // It may have taken runs over, which a later start then takes over from it.
            let _ = instance.remove();
            return Err(error);
        }
    };
    host.spare_folder = Some(instance.spares());
    if quiet {
        crate::printer::json(&serde_json::json!({ "event": "instance", "folder": instance.folder() }));
    }
    Ok(Prepared { pools: pools(resolved, &instance, inherited), host, instance })
}

/// Resolves further pools for an instance that runs, and removes the remains of earlier processes that served the same places.
///
/// # Errors
/// As for [`prepare`]. Nothing was changed then.
pub(crate) async fn prepare_more(
    places: &Places,
    host: &VmHost,
    instance: &mut Instance,
    requests: Vec<PoolRequest>,
    quiet: bool,
) -> Result<Vec<PreparedPool>> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    // The pools that run must not wait for another forge.
    let resolved = resolve(places, host, requests, Patience::None, quiet).await?;
    let inherited = clear_up(places, &serving(&resolved), &Heir::of_all(instance)).await?;
    // Before the first runner, so that a later start finds what a crash leaves. Earlier pools stay in the record, because they
    // may have runners for as long as jobs last.
    let mut serves: Vec<Serves> = resolved.iter().map(ResolvedPool::serves).collect();
    let is_replaced = |earlier: &&Serves| serves.iter().any(|own| earlier.is_replaced_by(own));
    let earlier = instance.serves().iter().filter(|earlier| !is_replaced(earlier));
    let earlier: Vec<Serves> = earlier.cloned().collect();
    serves.extend(earlier);
    instance.serve(serves).map_err(Failure::cannot)?;
    Ok(pools(resolved, instance, inherited))
}

/// A pool whose forge has answered, and its machine.
pub(crate) struct ResolvedPool {
    known: KnownPool,
    machine: Machine,
}

impl ResolvedPool {
    fn serves(&self) -> Serves {
        let (labels, _) = labels_of(&self.known.spec, &self.machine);
        Serves { labels, ..Serves::of(&self.known.spec, &self.known.forge) }
    }
}

/// Asks the forges of pools, and then chooses their machines, which may build an image. Nothing is left if this is dropped before
/// its end.
///
/// # Errors
/// A forge or this host cannot do what is requested.
pub(crate) async fn resolve(
    places: &Places,
    host: &VmHost,
    requests: Vec<PoolRequest>,
    patience: Patience<'_>,
    quiet: bool,
) -> Result<Vec<ResolvedPool>> {
    let mut all = Vec::new();
    for request in requests {
        all.push(ask_forge(request, patience).await?);
    }
    let mut resolved = Vec::new();
    for known in all {
        let made = machine::choose(places, host, &known.spec, known.is_lab, quiet).await?;
        match &known.spec.name {
            Some(name) => tracing::info!("machines of {name}: {}", made.explanation),
            None => tracing::info!("machines: {}", made.explanation),
        }
        resolved.push(ResolvedPool { known, machine: made.machine });
    }
    Ok(resolved)
}

fn serving(resolved: &[ResolvedPool]) -> Vec<Serving> {
    let one = |pool: &ResolvedPool| Serving { forge: pool.known.forge.clone(), serves: pool.serves() };
    resolved.iter().map(one).collect()
}

fn pools(
    resolved: Vec<ResolvedPool>,
    instance: &Instance,
    inherited: Vec<(usize, Inherited)>,
) -> Vec<PreparedPool> {
    let mut pools: Vec<_> = resolved.into_iter().map(|resolved| pool(resolved, instance)).collect();
    for (place, inherited) in inherited {
        pools[place].inherited.push(inherited);
    }
    pools
}

fn pool(ResolvedPool { known, machine }: ResolvedPool, instance: &Instance) -> PreparedPool {
    let (labels, of_jobs) = labels_of(&known.spec, &machine);
    let (mut sources, mut controls) = (Vec::new(), Controls::default());
    let registrar = match &known.scale_set {
        Some(request) => {
            let (sender, max) = watch::channel(request.max);
            let note = session_note(&known, request, instance);
            let (source, registrar) = scale_set(&known, request, max, &labels, note);
            controls.max = Some(sender);
            sources.push(Source::ScaleSet(Box::new(source)));
            Registrar::ScaleSet(registrar)
        }
        None => Registrar::Rest,
    };
    let mut poll = poll(&known, &of_jobs);
    if let Some(WebhookRequest { queue, url }) = known.webhook {
        let mut webhook = WebhookSource::new(queue, url, known.spec.scope.clone(), of_jobs);
        if known.scale_set.is_some() {
            webhook = webhook.without_ends();
        }
        if let Some(checking) = poll.take() {
            let (copies, reported) = mpsc::channel(COPIES_MAX);
            (webhook, poll) = (webhook.checked_by(copies), Some(checking.checking(reported)));
        }
        sources.push(Source::Webhook(Box::new(webhook)));
    }
    sources.extend(poll.map(|poll| Source::Poll(Box::new(poll))));
    if let Some((schedule, otherwise)) = known.schedule {
        let (source, sender) = MinIdleSchedule::new(min_idle_now(schedule, otherwise));
        controls.min_idle = Some(sender);
        sources.push(Source::Schedule(source));
    }
    let pool = Pool {
        labels,
        spec: Arc::new(known.spec),
        forge: known.forge,
        registrar,
        is_lab: known.is_lab,
        group: known.group,
        machine,
        secret: known.secret,
        runs: instance.runs(),
        leftovers: Leftovers::default(),
        limits: known.limits,
    };
    PreparedPool { pool, sources, controls, inherited: Vec::new() }
}

/// Returns the labels of a pool's runners, also for the sources that compare them with those of jobs.
fn labels_of(spec: &PoolSpec, machine: &Machine) -> (Vec<String>, PoolLabels) {
    let given = spec.labels.clone();
    if spec.size_of.is_some() {
        // With more labels, it would also get jobs that ask for no size.
        let labels = given.unwrap_or_default();
        return (labels.clone(), PoolLabels::of_size(labels));
    }
    let labels = labels::all(given, machine);
    (labels.clone(), PoolLabels::of_pool(labels))
}

fn poll(known: &KnownPool, labels: &PoolLabels) -> Option<PollSource> {
    match &known.spec.scope {
        RunnerScope::Repository { owner, name } if known.polls => {
            Some(PollSource::new(OpenJobs::new(known.forge.clone(), owner, name), labels.clone()))
        }
        _ => None,
    }
}

/// Returns the scale set of a pool. Jobs may ask for it by its name and by the labels of the pool's runners.
fn scale_set(
    known: &KnownPool,
    request: &ScaleSetRequest,
    max: watch::Receiver<u32>,
    labels: &[String],
    note: SessionNote,
) -> (ScaleSetSource, ScaleSetRegistrar) {
    let is_named = labels.iter().any(|label| label.eq_ignore_ascii_case(&request.name));
    let own = (!is_named).then(|| request.name.clone());
    let spec = ScaleSetSpec {
        name: request.name.clone(),
        group: known.group.name.clone(),
        labels: own.into_iter().chain(labels.iter().cloned()).collect(),
        owner: dayfly_host::name::host_name(),
    };
    demand::scale_set(request.client.clone(), spec, (max, &request.family), note)
}

fn session_note(known: &KnownPool, request: &ScaleSetRequest, instance: &Instance) -> SessionNote {
    let (forge, scope) = (known.forge.base().url().as_str(), known.spec.scope.to_string());
    SessionNote::of(&instance.sessions(), &[forge, &scope, &known.group.name, &request.name])
}

/// Asks a pool's forge for everything that must be known before the first runner.
async fn ask_forge(request: PoolRequest, patience: Patience<'_>) -> Result<KnownPool> {
    let PoolRequest { spec, forge, secret, warnings, scale_set, polls, webhook, schedule, limits } = request;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let (is_lab, group) = ask_patiently(&spec, &forge, patience).await?;
    Ok(KnownPool { spec, forge, is_lab, group, secret, scale_set, polls, webhook, schedule, limits })
}

/// Asks until the forge answers, if it is to be waited for. An answer that is an error ends the wait.
async fn ask_patiently(spec: &PoolSpec, forge: &Forge, patience: Patience<'_>) -> Result<(bool, Group)> {
    let mut failures = 0;
    loop {
        let error = match ask_once(spec, forge).await {
            Ok(known) => return Ok(known),
            Err(error) => error,
        };
        failures += 1;
        let Patience::Waits(service) = patience else { return Err(failure(error)) };
        let Some(pause) = retry::FORGE_AT_START.pause_after(failures).filter(|_| error.is_temporary()) else {
            return Err(failure(error));
        };
        service.status(format!("waiting for the forge: {error}"));
        tracing::warn!("{}", waiting(&error, pause));
        tokio::time::sleep(pause).await;
    }
}

/// Returns the text about a forge that is waited for.
fn waiting(error: &ForgeError, pause: Duration) -> String {
    format!("{error}; the start waits for the forge, next attempt in {} s", pause.as_secs())
}

async fn ask_once(spec: &PoolSpec, forge: &Forge) -> std::result::Result<(bool, Group), ForgeError> {
    let is_lab = forge.prove_lab().await?.is_some();
    let id = forge.group_id(&spec.scope, &spec.group).await?;
    // A credential that may create a registration token may register runners in both ways, and creating one changes nothing.
    forge.registration_token(&spec.scope).await?;
    if !spec.allow_public && forge.takes_public_jobs(&spec.scope, &spec.group).await? {
        let group = (!matches!(spec.scope, RunnerScope::Repository { .. })).then(|| spec.group.clone());
        return Err(ForgeError::Public { scope: spec.scope.to_string(), group });
    }
    Ok((is_lab, Group { id, name: spec.group.clone() }))
}

fn failure(error: ForgeError) -> Failure {
    match error {
        ForgeError::RepositoryGroup { .. } | ForgeError::UnknownGroup { .. } => Failure::usage(error),
        ForgeError::Public { .. } => Failure::usage(error).hint(
            "if that is meant, set allow_public = true for the pool, or give --allow-public; at the forge, let the runs of pull \
             requests from all outside contributors wait for an approval",
        ),
        _ => Failure::cannot(error),
    }
}

/// Destroys the spares, and removes the instance's folder unless it holds something that a later start must remove, or runners
/// that were handed over to it.
pub(crate) async fn close(host: &VmHost, instance: Instance, stopped_by: Option<Signal>) -> Result<()> {
    host.spares.end().await;
    let folder = instance.folder().to_owned();
    match (instance.remove().map_err(Failure::cannot)?, stopped_by) {
        (true, _) => {}
        (false, Some(Signal::HandOver)) => {
            tracing::info!(
                "the runners go on; the next start with the same forge, scope and prefix takes them over"
            );
        }
        (false, _) => tracing::warn!("{} is not removed yet; the next start removes it", folder.display()),
    }
    Ok(())
}

/// Removes the remains of earlier processes, and returns the runs that go on, with the number of their pool.
async fn clear_up(places: &Places, serving: &[Serving], heir: &Heir) -> Result<Vec<(usize, Inherited)>> {
    let sweep = recovery::sweep(&places.state, serving, Some(heir)).await.map_err(Failure::cannot)?;
    for run in sweep.cleared {
        tracing::info!("removed the remains of an earlier process in {}", run.folder.display());
        if let Some(job) = run.lost_job {
            tracing::warn!("the job \"{job}\" was lost with its machine, while no process of dayfly ran");
        }
    }
    for (_, inherited) in &sweep.inherited {
        let busy = if inherited.has_job { ", which has a job" } else { "" };
        tracing::info!("taking over {}{busy}, from a process that has died", inherited.runner.name);
    }
    for record in sweep.damaged {
        tracing::warn!(
            "{} could not be read, as after a power cut; it is removed with its run",
            record.display()
        );
    }
    for (run, why) in sweep.left {
        tracing::warn!("{} is not removed: {why}", run.display());
    }
    Ok(sweep.inherited)
}

#[cfg(test)]
mod tests;

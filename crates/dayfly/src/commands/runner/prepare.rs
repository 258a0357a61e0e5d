//! Resolves the descriptions of pools: asks the forges, chooses drivers, removes the remains of earlier processes. Every
//! problem that can be known before anything is created is reported here, as one error.

mod ask;

use std::sync::Arc;

use dayfly_fleet::demand::{
    self, MinIdleNow, MinIdleSchedule, PollSource, PoolLabels, SessionNote, Source, WebhookSource,
};
use dayfly_fleet::instance::{Instance, Serves};
use dayfly_fleet::pool::{Pool, PoolSpec, Registrar};
use dayfly_fleet::reaper::{Leftover, Leftovers};
use dayfly_fleet::recovery::{self, Heir, Inherited, Serving};
use dayfly_forge::scale_set::ScaleSetSpec;
use dayfly_forge::{OpenJobs, RunnerScope};
use dayfly_vm::{Machine, VmHost};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::request::{PoolRequest, ScaleSetRequest, WebhookRequest};
use crate::commands::machine;
use crate::config::Schedule;
use crate::exit::{Failure, Result, Signal};
use crate::labels;
use crate::settings::Places;
pub(crate) use ask::{AnsweredPool, Asked, ask, ask_all, ask_patiently};

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
    let remains = match clear_up(places, &serving(&resolved), &heir).await {
        Ok(remains) => remains,
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
    Ok(Prepared { pools: pools(resolved, &instance, remains), host, instance })
}

/// Resolves further pools for an instance that runs, and removes the remains of earlier processes that served the same places.
/// The pools that run do not wait for a forge.
///
/// # Errors
/// As for [`prepare`]. Nothing was changed then.
pub(crate) async fn prepare_more(
    places: &Places,
    host: &VmHost,
    instance: &mut Instance,
    known: Vec<AnsweredPool>,
    quiet: bool,
) -> Result<Vec<PreparedPool>> {
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let resolved = resolve(places, host, known, quiet).await?;
    let remains = clear_up(places, &serving(&resolved), &Heir::of_all(instance)).await?;
    // Before the first runner, so that a later start finds what a crash leaves. Earlier pools stay in the record, because they
    // may have runners for as long as jobs last.
    let mut serves: Vec<Serves> = resolved.iter().map(ResolvedPool::serves).collect();
    let is_replaced = |earlier: &&Serves| serves.iter().any(|own| earlier.is_replaced_by(own));
    let earlier = instance.serves().iter().filter(|earlier| !is_replaced(earlier));
    let earlier: Vec<Serves> = earlier.cloned().collect();
    serves.extend(earlier);
    instance.serve(serves).map_err(Failure::cannot)?;
    Ok(pools(resolved, instance, remains))
}

/// A pool whose forge has answered, and its machine.
pub(crate) struct ResolvedPool {
    known: AnsweredPool,
    machine: Machine,
}

impl ResolvedPool {
    fn serves(&self) -> Serves {
        let (labels, _) = labels_of(&self.known.request.spec, &self.machine);
        let PoolRequest { spec, forge, .. } = &self.known.request;
        Serves { labels, ..Serves::of(spec, forge) }
    }
}

/// Chooses the machines of pools, which may build an image. Nothing is left if this is dropped before its end.
///
/// # Errors
/// This host cannot do what is requested.
pub(crate) async fn resolve(
    places: &Places,
    host: &VmHost,
    known: Vec<AnsweredPool>,
    quiet: bool,
) -> Result<Vec<ResolvedPool>> {
    let mut resolved = Vec::new();
    for known in known {
        let spec = &known.request.spec;
        let made = machine::choose(places, host, spec, known.answer.is_lab, quiet).await?;
        match &spec.name {
            Some(name) => tracing::info!("machines of {name}: {}", made.explanation),
            None => tracing::info!("machines: {}", made.explanation),
        }
        resolved.push(ResolvedPool { known, machine: made.machine });
    }
    Ok(resolved)
}

fn serving(resolved: &[ResolvedPool]) -> Vec<Serving> {
    let one =
        |pool: &ResolvedPool| Serving { forge: pool.known.request.forge.clone(), serves: pool.serves() };
    resolved.iter().map(one).collect()
}

fn pools(resolved: Vec<ResolvedPool>, instance: &Instance, remains: Remains) -> Vec<PreparedPool> {
    let mut pools: Vec<_> = resolved.into_iter().map(|resolved| pool(resolved, instance)).collect();
    for (place, inherited) in remains.inherited {
        pools[place].inherited.push(inherited);
    }
    for (place, left) in remains.to_retry {
        pools[place].pool.leftovers.add(left);
    }
    pools
}

fn pool(ResolvedPool { known, machine }: ResolvedPool, instance: &Instance) -> PreparedPool {
    let AnsweredPool { request, answer } = known;
    let (labels, of_jobs) = labels_of(&request.spec, &machine);
    let (mut sources, mut controls) = (Vec::new(), Controls::default());
    let registrar = match &request.scale_set {
        Some(set) => {
            let (sender, max) = watch::channel(set.max);
            let note = session_note(&request, set, instance);
            let spec = scale_set_spec(&request, set, &labels);
            let (source, registrar) = demand::scale_set(set.client.clone(), spec, (max, &set.family), note);
            controls.max = Some(sender);
            sources.push(Source::ScaleSet(Box::new(source)));
            Registrar::ScaleSet(registrar)
        }
        None => Registrar::Rest,
    };
    let mut poll = poll(&request, &of_jobs);
    if let Some(WebhookRequest { queue, url }) = request.webhook {
        let mut webhook = WebhookSource::new(queue, url, request.spec.scope.clone(), of_jobs);
        if request.scale_set.is_some() {
            webhook = webhook.without_ends();
        }
        if let Some(checking) = poll.take() {
            let (copies, reported) = mpsc::channel(COPIES_MAX);
            (webhook, poll) = (webhook.checked_by(copies), Some(checking.checking(reported)));
        }
        sources.push(Source::Webhook(Box::new(webhook)));
    }
    sources.extend(poll.map(|poll| Source::Poll(Box::new(poll))));
    if let Some((schedule, otherwise)) = request.schedule {
        let (source, sender) = MinIdleSchedule::new(min_idle_now(schedule, otherwise));
        controls.min_idle = Some(sender);
        sources.push(Source::Schedule(source));
    }
    let pool = Pool {
        labels,
        spec: Arc::new(request.spec),
        forge: request.forge,
        registrar,
        is_lab: answer.is_lab,
        group: answer.group,
        machine,
        secret: request.secret,
        runs: instance.runs(),
        leftovers: Leftovers::default(),
        limits: request.limits,
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

fn poll(request: &PoolRequest, labels: &PoolLabels) -> Option<PollSource> {
    match &request.spec.scope {
        RunnerScope::Repository { owner, name } if request.polls => {
            Some(PollSource::new(OpenJobs::new(request.forge.clone(), owner, name), labels.clone()))
        }
        _ => None,
    }
}

/// Returns the description of a pool's scale set. Jobs may ask for it by its name and by the labels of the pool's runners.
fn scale_set_spec(request: &PoolRequest, set: &ScaleSetRequest, labels: &[String]) -> ScaleSetSpec {
    let is_named = labels.iter().any(|label| label.eq_ignore_ascii_case(&set.name));
    let own = (!is_named).then(|| set.name.clone());
    ScaleSetSpec {
        name: set.name.clone(),
        group: request.spec.group.clone(),
        labels: own.into_iter().chain(labels.iter().cloned()).collect(),
        owner: dayfly_host::name::host_name(),
    }
}

fn session_note(request: &PoolRequest, set: &ScaleSetRequest, instance: &Instance) -> SessionNote {
    let PoolRequest { spec, forge, .. } = request;
    let (url, scope) = (forge.base().url().as_str(), spec.scope.to_string());
    SessionNote::of(&instance.sessions(), &[url, &scope, &spec.group, &set.name])
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

/// Runs of earlier processes that still exist, with the number of their pool.
struct Remains {
    /// Those that go on.
    inherited: Vec<(usize, Inherited)>,
    /// Those that could not be removed yet.
    to_retry: Vec<(usize, Leftover)>,
}

/// Removes the remains of earlier processes, and returns the others.
async fn clear_up(places: &Places, serving: &[Serving], heir: &Heir) -> Result<Remains> {
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
        let is_retried = sweep.to_retry.iter().any(|(_, left)| left.is_of(&run));
        let next = if is_retried { "; it is tried again" } else { "" };
        tracing::warn!("{} is not removed: {why}{next}", run.display());
    }
    Ok(Remains { inherited: sweep.inherited, to_retry: sweep.to_retry })
}

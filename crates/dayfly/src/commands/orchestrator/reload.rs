//! The pools of an orchestrator as an administrator knows them. If they come from a configuration file, it is read again on
//! request while they run, and what has changed is taken over.
//!
//! ```text
//!   SIGHUP ────────┐                 a failure in one of these steps changes nothing
//!   control.sock ──┴──> read ──> difference (pure) ──> try new secrets ──> prepare new pools ──> changes ──> orchestrator
//! ```

mod difference;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dayfly_fleet::instance::Instance;
use dayfly_fleet::orchestrator::{Budget, Changes, PoolChange};
use dayfly_fleet::pool::Pool;
use dayfly_forge::Credential;
use dayfly_traces::PoolRepositories;
use dayfly_vm::VmHost;
use dayfly_web::Site;
use tokio::sync::{mpsc, watch};

use super::file::{self, Clients, NewSecret, Renewal};
use super::waiting::WaitingPools;
use super::{HostShare, run_of, traces, web};
use crate::commands::runner::prepare::{self, Controls, PreparedPool};
use crate::commands::runner::refresh::Keepers;
use crate::config::{Finding, HostBudget, Severity, TracesConfig, WebConfig, WebhookConfig};
use crate::control::{Answer, Ask, FileProblem, PoolChanges, RELOAD_LIMIT, Request, TRANSFER_LIMIT};
use crate::exit::{Failure, Result};
use crate::printer;
use crate::service::Service;
use crate::settings::Places;
use crate::signals::HangUps;
pub(super) use difference::PoolText;

/// The requests of an administrator.
pub(super) struct Triggers {
    /// None without a file, because SIGHUP then stops the orchestrator.
    pub(super) hang_ups: Option<HangUps>,
    pub(super) asks: mpsc::Receiver<Ask>,
}

impl Triggers {
    /// Returns the next request; none for a SIGHUP. Cancel-safe.
    async fn next(&mut self) -> Option<Ask> {
        let hang_up = async {
            match &mut self.hang_ups {
                Some(hang_ups) => hang_ups.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = hang_up => None,
            Some(ask) = self.asks.recv() => Some(ask),
        }
    }
}

/// A pool that runs, and does not drain.
pub(super) struct KnownPool {
    pub(super) text: PoolText,
    pub(super) pool: Pool,
    pub(super) controls: Controls,
    /// True if an administrator has paused it.
    pub(super) is_paused: bool,
}

/// The file that an orchestrator runs from.
pub(super) struct RunningFile {
    pub(super) path: PathBuf,
    pub(super) clients: Clients,
    /// The server for webhooks, which a reload does not change.
    pub(super) webhook: Option<WebhookConfig>,
    /// The server for the page and the metrics, which a reload does not change either.
    pub(super) web: Option<WebConfig>,
    /// The collector of traces, which a reload does not change either.
    pub(super) traces: Option<TracesConfig>,
}

/// The pools of an orchestrator, and everything that a reload or an order changes.
pub(super) struct RunningPools<'a> {
    /// None if the only pool comes from options.
    pub(super) file: Option<RunningFile>,
    pub(super) pools: Vec<KnownPool>,
    /// The pools of the file that an administrator has drained.
    pub(super) drained: Vec<PoolText>,
    /// The pools whose forge has not answered yet.
    pub(super) waiting: WaitingPools,
    /// True if all pools drain for good.
    pub(super) is_ending: bool,
    /// The share of the host, as the file gives it.
    pub(super) host_budget: HostBudget,
    /// The limits that follow from it on this host.
    pub(super) budget: Budget,
    /// Gets the pools after each change; none without a server that shows them.
    pub(super) site: Option<watch::Sender<Arc<Site>>>,
    /// Gets the repositories of the pools after each change; none without traces.
    pub(super) repositories: Option<watch::Sender<Arc<PoolRepositories>>>,
    pub(super) places: &'a Places,
    pub(super) json: bool,
    pub(super) host: &'a VmHost,
    pub(super) instance: &'a mut Instance,
    pub(super) keepers: Keepers,
    pub(super) changes: mpsc::Sender<Changes>,
    pub(super) service: Service,
}

impl RunningPools<'_> {
    /// Serves requests, one after another, until it is dropped.
    pub(super) async fn serve(mut self, mut triggers: Triggers) -> Infallible {
        loop {
            self.publish();
            let trigger = tokio::select! {
                trigger = triggers.next() => trigger,
                answered = self.waiting.answered() => {
                    self.begin_answered(answered).await;
                    continue;
                }
            };
            let Some(Ask { request, answer, written }) = trigger else {
                drop(self.reload().await);
                continue;
            };
            let was_ending = self.is_ending;
            // An asker that has gone away reads the outcome in the log.
            let _ = answer.send(self.answer(request).await);
            if self.is_ending && !was_ending {
                // Without a runner the process ends at once, and would take the answer with it.
                let _ = tokio::time::timeout(TRANSFER_LIMIT, written).await;
                self.end().await;
            }
        }
    }

    /// Publishes the pools that run now.
    fn publish(&self) {
        if let Some(site) = &self.site {
            site.send_replace(Arc::new(web::site_of(&self.pools, self.budget)));
        }
        if let Some(repositories) = &self.repositories {
            repositories.send_replace(Arc::new(traces::repositories_of(&self.pools)));
        }
    }

    /// Returns the path of the file; none if there is no file.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.file.as_ref().map(|file| file.path.clone())
    }

    async fn answer(&mut self, request: Request) -> Answer {
        let path = self.path();
        let is_own = |config| path.as_deref().is_some_and(|path| is_same_file(config, path));
        if request.config().is_some_and(|config| !is_own(config)) {
            return Answer::OtherFile { file: path };
        }
        match request {
            Request::Reload { .. } => self.reload().await,
            Request::Steer { order, .. } => self.steer(order).await,
        }
    }

    /// Reloads the file, and tells the outcome in the log.
    async fn reload(&mut self) -> Answer {
        let Some(file) = self.path() else { return Answer::NoFile };
        self.service.reloading();
        let mut problems = Vec::new();
        let late = |_| {
            let limit = RELOAD_LIMIT.as_secs() / 60;
            Err(Failure::cannot(format!("its pools could not be prepared within {limit} minutes")))
        };
        let taken = tokio::time::timeout(RELOAD_LIMIT, self.take_over(&file, &mut problems))
            .await
            .unwrap_or_else(late);
        let answer = match taken {
            Ok(pools) => Answer::Reloaded { file, pools, problems },
            Err(failure) => {
                let hint = failure.what_to_do().map(str::to_owned);
                Answer::Refused { file: Some(file), why: failure.to_string(), hint, problems }
            }
        };
        self.service.ready();
        tell(&answer, self.json);
        answer
    }

    /// Takes the file over.
    ///
    /// # Errors
    /// The file has errors, a new secret does not work, or a new pool cannot be prepared. Nothing has changed then.
    async fn take_over(&mut self, path: &Path, problems: &mut Vec<FileProblem>) -> Result<PoolChanges> {
        let file = file::read(self.places, path, |finding| problems.push(problem(finding)))?;
        let Some(before) = &self.file else { return Err(Failure::cannot("there is no file")) };
        let changed = [
            ("webhook", file.config.webhook != before.webhook),
            ("web", file.config.web != before.web),
            ("traces", file.config.traces != before.traces),
        ];
        if let Some((table, _)) = changed.into_iter().find(|(_, has_changed)| *has_changed) {
            return Err(Failure::usage(format!(
                "the table {table} has changed, and is read at the start only"
            ))
            .hint("start the orchestrator again; until then, leave the table as it was"));
        }
        let texts = self.pools.iter().map(|pool| &pool.text).chain(self.waiting.texts());
        let running: Vec<_> = texts.map(|text| &text.config).collect();
        let Renewal { mut clients, secrets } = before.clients.renew(&file.config, &running)?;
        let host_budget = file.config.host;
        let is_drained = |text: &PoolText| self.drained.iter().any(|one| is_same_or_size(text, one));
        let texts = file.config.pools.into_iter().map(PoolText::read);
        let (drained, found): (Vec<_>, Vec<_>) = texts.partition(is_drained);
        let waits = |text: &PoolText| self.waiting.texts().any(|one| one == text);
        let (waiting, found): (Vec<_>, Vec<_>) = found.into_iter().partition(waits);
        let mut difference = difference::between(self.pools.iter().map(|pool| &pool.text), &found);
        difference.still_drained = drained.iter().map(|text| text.config.name.clone()).collect();
        difference.still_waiting = waiting.iter().map(|text| text.config.name.clone()).collect();
        difference.still_paused = still_paused(&self.pools, &found);
        let adopted = Adopted::try_secrets(secrets).await?;
        let begins = |text: &&PoolText| {
            [&difference.added, &difference.replaced].iter().any(|names| names.contains(&text.config.name))
        };
        let requests = found.iter().filter(begins).map(|text| file::request(&text.config, &mut clients));
        let answered = prepare::ask(requests.collect::<Result<_>>()?).await?;
        let prepared =
            prepare::prepare_more(self.places, self.host, self.instance, answered, self.json).await?;
        self.make(&difference, found, prepared, file.share).await?;
        adopted.keep();
        (self.drained, self.host_budget, self.budget) = (drained, host_budget, file.share.budget);
        self.waiting.retain(|text| waiting.contains(text)).await;
        if let Some(file) = &mut self.file {
            file.clients = clients;
        }
        Ok(difference)
    }

    /// Makes the changes. `prepared` are the pools that begin, in the order of the file.
    ///
    /// # Errors
    /// The orchestrator is stopping.
    async fn make(
        &mut self,
        difference: &PoolChanges,
        found: Vec<PoolText>,
        prepared: Vec<PreparedPool>,
        share: HostShare,
    ) -> Result<()> {
        let ends = difference.removed.iter().chain(&difference.replaced);
        let mut changes: Changes = ends.map(|pool| PoolChange::Drain { pool: pool.clone() }).collect();
        changes.push(PoolChange::Budget(share.budget));
        let (mut begun, mut runs) = (Vec::new(), Vec::new());
        for prepared in prepared {
            let pool = prepared.pool.clone();
            let (run, controls) = run_of(prepared);
            runs.push(PoolChange::Add(Box::new(run)));
            begun.push((pool, controls));
        }
        changes.extend(runs);
        let begins = |pool: &&String| {
            [&difference.replaced, &difference.added].iter().any(|names| names.contains(pool))
        };
        let paused = difference.still_paused.iter().filter(begins);
        changes.extend(paused.map(|pool| PoolChange::Pause { pool: pool.clone() }));
        let adjusted = |text: &&PoolText| difference.adjusted.contains(&text.config.name);
        changes.extend(found.iter().filter(adjusted).map(|text| PoolChange::Adjust {
            pool: text.config.name.clone(),
            demand: text.config.spec.demand,
            weight: text.config.spec.weight,
            scratch_mib: text.config.spec.scratch_mib,
        }));
        self.send(changes).await?;
        self.host.limit_starts(share.max_starts);
        self.host.limit_memory(share.memory_overcommit);
        self.host.reserve_disk(share.disk_reserve_mib);
        self.host.limit_kept(share.kept_mib);
        self.note(difference, found, begun);
        self.keepers.serve(self.pools.iter().map(|pool| &pool.pool));
        Ok(())
    }

    /// Notes pools that run from now on beside the others.
    pub(super) fn note_begun(&mut self, begun: Vec<KnownPool>) {
        self.pools.extend(begun);
        self.keepers.serve(self.pools.iter().map(|pool| &pool.pool));
    }

    /// Notes the pools that run now, and sets the numbers of their sources. `begun` are those that begin.
    fn note(&mut self, difference: &PoolChanges, found: Vec<PoolText>, begun: Vec<(Pool, Controls)>) {
        let mut before = std::mem::take(&mut self.pools);
        let mut begun = begun.into_iter();
        for text in found {
            let name = &text.config.name;
            let stays = difference.unchanged.contains(name) || difference.adjusted.contains(name);
            let at = before.iter().position(|pool| stays && pool.text.config.name == *name);
            let (pool, controls) = match at.map(|at| before.swap_remove(at)) {
                Some(pool) => (pool.pool, pool.controls),
                None => match begun.next() {
                    Some(begun) => begun,
                    None => continue,
                },
            };
            if difference.adjusted.contains(name) {
                controls.set(text.config.schedule.clone(), text.config.min_idle, text.config.max);
            }
            let is_paused = difference.still_paused.contains(name);
            self.pools.push(KnownPool { text, pool, controls, is_paused });
        }
    }
}

/// Returns the changes that start prepared pools, and these pools as they are known from then on.
pub(super) fn starts(texts: Vec<PoolText>, prepared: Vec<PreparedPool>) -> (Changes, Vec<KnownPool>) {
    let start = |(text, prepared): (PoolText, PreparedPool)| {
        let pool = prepared.pool.clone();
        let (run, controls) = run_of(prepared);
        (PoolChange::Add(Box::new(run)), KnownPool { text, pool, controls, is_paused: false })
    };
    texts.into_iter().zip(prepared).map(start).unzip()
}

/// Returns the names of the pools of the file that stay paused: a size that is new is paused as its pool is.
fn still_paused(running: &[KnownPool], found: &[PoolText]) -> Vec<String> {
    let is_paused = |text: &&PoolText| {
        let same = running.iter().find(|pool| pool.text.config.name == text.config.name);
        let whole = || running.iter().find(|pool| is_same_or_size(text, &pool.text));
        same.or_else(whole).is_some_and(|pool| pool.is_paused)
    };
    found.iter().filter(is_paused).map(|text| text.config.name.clone()).collect()
}

/// Returns true if a pool of the file is this one, or a size of it.
fn is_same_or_size(text: &PoolText, other: &PoolText) -> bool {
    let (name, size_of) = (&text.config.name, &text.config.spec.size_of);
    other.config.name == *name || size_of.as_ref() == Some(&other.config.name)
}

/// New secrets that are in use. The old ones come back when this is dropped.
struct Adopted(Vec<(Credential, Credential)>);

impl Adopted {
    /// Tries new secrets at their forges, and then uses them.
    ///
    /// # Errors
    /// A forge does not answer, or refuses one of them.
    async fn try_secrets(secrets: Vec<NewSecret>) -> Result<Self> {
        for secret in &secrets {
            for scope in &secret.scopes {
                // It needs the right that every registration needs, and changes nothing.
                secret.fresh.registration_token(scope).await.map_err(Failure::cannot)?;
            }
        }
        let adopt = |secret: NewSecret| {
            let before = secret.used.adopt(secret.fresh.credential());
            (secret.used, before)
        };
        Ok(Self(secrets.into_iter().map(adopt).collect()))
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|(used, before)| drop(used.adopt(&before)));
    }
}

fn problem(finding: &Finding) -> FileProblem {
    let is_error = finding.severity == Severity::Error;
    FileProblem { is_error, text: finding.to_string(), hint: finding.hint.clone() }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let resolved = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    resolved(one) == resolved(other)
}

/// Tells the outcome of a reload: in the log, and as JSON if events are printed.
fn tell(answer: &Answer, json: bool) {
    if json && let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(answer) {
        let event = [("event".to_owned(), serde_json::Value::from("reload"))];
        printer::json(&event.into_iter().chain(fields).collect::<serde_json::Map<_, _>>());
    }
    match answer {
        Answer::Reloaded { file, pools, .. } => tracing::info!("{} is reloaded: {pools}", file.display()),
        Answer::Refused { file, why, problems, .. } => {
            for problem in problems.iter().filter(|problem| problem.is_error) {
                tracing::warn!("{}", problem.text);
            }
            let file = file.as_deref().unwrap_or(Path::new("the file")).display();
            tracing::warn!("{file} is refused, and nothing has changed: {why}");
        }
        Answer::OtherFile { .. } | Answer::NoFile | Answer::Steered { .. } | Answer::Failed { .. } => {}
    }
}

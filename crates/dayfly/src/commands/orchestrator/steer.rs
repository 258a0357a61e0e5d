//! Carries out the orders of an administrator for the pools of an orchestrator: `dayfly pause`, `resume`, `drain` and `scale`.
//!
//! ```text
//!              pause                  drain
//!   running <─────────> paused ────────────────> drained (no pool of the orchestrator any more)
//!      ^       resume      │                        │
//!      └───────────────────┴──────── resume ────────┘
//! ```
//!
//! A pool whose forge has not answered since the start has not begun. It can be drained, and nothing else.
//!
//! The orders count until the orchestrator ends. A reload leaves pools paused and drained, and brings the file's numbers back.
//! Without a file there is one pool, and its drain is that of the orchestrator.

mod numbers;

use dayfly_fleet::orchestrator::{Changes, PoolChange};

use super::file;
use super::reload::{KnownPool, PoolText, RunningPools, starts};
use crate::commands::runner::prepare::{self, PreparedPool};
use crate::config::schema::nearest;
use crate::config::{self, PoolConfig, Surroundings};
use crate::control::{Answer, PoolOrder, RELOAD_LIMIT, Steered};
use crate::exit::{Failure, Result};
use numbers::{notes_of_numbers, scaled};

/// The name and the fate of a pool, or of a size of one. An order for a pool is for its sizes too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NamedPool {
    name: String,
    /// The pool that it is a size of.
    size_of: Option<String>,
    fate: PoolFate,
}

impl NamedPool {
    fn new(text: &PoolText, fate: PoolFate) -> Self {
        let size_of = text.config.spec.size_of.clone();
        Self { name: text.config.name.clone(), size_of, fate }
    }

    /// Returns true if a name means the pool.
    fn is_named(&self, name: &str) -> bool {
        self.name == name || self.size_of.as_deref() == Some(name)
    }
}

/// The state of a pool of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PoolFate {
    Running,
    Paused,
    Drained,
    /// Its forge has not answered yet.
    Waiting,
    /// It could not be started when its forge answered.
    GivenUp,
}

impl RunningPools<'_> {
    /// Carries out an order, wholly or not at all.
    pub(super) async fn steer(&mut self, order: PoolOrder) -> Answer {
        let done = match order {
            _ if self.is_ending => self.steer_to_the_end(&order),
            PoolOrder::Pause { pools } => self.pause(&pools).await,
            PoolOrder::Resume { pools } => self.resume(&pools).await,
            PoolOrder::Drain { pools } if pools.is_empty() || self.file.is_none() => {
                self.drain_all(&pools).await
            }
            PoolOrder::Drain { pools } => self.drain(&pools).await,
            PoolOrder::Scale { pool, max, min_idle } => self.scale(&pool, max, min_idle).await,
        };
        let file = self.path();
        match done {
            Ok(steered) => Answer::Steered { file, steered },
            Err(failure) if failure.is_usage() => {
                let hint = failure.what_to_do().map(str::to_owned);
                Answer::Refused { file, why: failure.to_string(), hint, problems: Vec::new() }
            }
            Err(failure) => Answer::Failed { why: failure.to_string() },
        }
    }

    /// Returns the answer to an order that comes after all pools were told to drain.
    fn steer_to_the_end(&self, order: &PoolOrder) -> Result<Steered> {
        match order {
            PoolOrder::Drain { .. } => {
                let already = self.known_pools().into_iter().map(|pool| pool.name).collect();
                Ok(Steered { already, ends: true, ..Steered::default() })
            }
            _ => Err(Failure::cannot("all pools drain, and the orchestrator ends with the last runner")),
        }
    }

    async fn pause(&mut self, pools: &[String]) -> Result<Steered> {
        let named =
            named(&self.known_pools(), pools, &[PoolFate::Drained, PoolFate::Waiting, PoolFate::GivenUp])?;
        named.iter().try_for_each(runs)?;
        let (already, changed) = split(named, PoolFate::Paused);
        self.send(changed.iter().map(|pool| PoolChange::Pause { pool: pool.clone() }).collect()).await?;
        self.mark(&changed, true);
        let notes =
            vec!["a pool that is paused runs again after `dayfly resume`, or after a restart".to_owned()];
        Ok(Steered { changed, already, notes, ends: false })
    }

    async fn resume(&mut self, pools: &[String]) -> Result<Steered> {
        let named =
            named(&self.known_pools(), pools, &[PoolFate::Running, PoolFate::Waiting, PoolFate::GivenUp])?;
        let has_not_begun = |pool: &&NamedPool| matches!(pool.fate, PoolFate::Waiting | PoolFate::GivenUp);
        named.iter().find(has_not_begun).map_or(Ok(()), runs)?;
        let (already, changed) = split(named, PoolFate::Running);
        let (drained, paused): (Vec<_>, Vec<_>) = changed
            .iter()
            .cloned()
            .partition(|name| self.drained.iter().any(|text| text.config.name == *name));
        let texts: Vec<PoolText> =
            self.drained.iter().filter(|text| drained.contains(&text.config.name)).cloned().collect();
        let prepared = self.prepare(&texts).await?;
        let mut changes: Changes =
            paused.iter().map(|pool| PoolChange::Resume { pool: pool.clone() }).collect();
        let (adds, begun) = starts(texts, prepared);
        changes.extend(adds);
        self.send(changes).await?;
        self.mark(&paused, false);
        self.drained.retain(|text| !drained.contains(&text.config.name));
        self.note_begun(begun);
        let notes = if changed.is_empty() && already.is_empty() {
            vec!["no pool is paused or drained".to_owned()]
        } else {
            Vec::new()
        };
        Ok(Steered { changed, already, notes, ends: false })
    }

    async fn drain(&mut self, pools: &[String]) -> Result<Steered> {
        let (already, changed) =
            split(named(&self.known_pools(), pools, &[PoolFate::Drained])?, PoolFate::Drained);
        let is_meant = |text: &PoolText| changed.contains(&text.config.name);
        let running = self.pools.iter().map(|pool| &pool.text).filter(|text| is_meant(text));
        let drain = |text: &PoolText| PoolChange::Drain { pool: text.config.name.clone() };
        self.send(running.map(drain).collect()).await?;
        let waiting = self.waiting.texts().chain(self.waiting.given_up_texts());
        let drained = self.pools.iter().map(|pool| &pool.text).chain(waiting);
        let drained: Vec<_> = drained.filter(|text| is_meant(text)).cloned().collect();
        self.pools.retain(|pool| !is_meant(&pool.text));
        self.waiting.retain(|text| !is_meant(text)).await;
        self.drained.extend(drained);
        self.keepers.serve(self.pools.iter().map(|pool| &pool.pool));
        let notes =
            vec!["a pool that has drained runs again after `dayfly resume`, or after a restart".to_owned()];
        Ok(Steered { changed, already, notes, ends: false })
    }

    /// Decides to drain all pools for good; see [`Self::end`]. `pools` are the names of the order, if it has any.
    ///
    /// # Errors
    /// There is no such pool.
    async fn drain_all(&mut self, pools: &[String]) -> Result<Steered> {
        let known = self.known_pools();
        named(&known, pools, &[PoolFate::Drained])?;
        self.is_ending = true;
        self.waiting.retain(|_| false).await;
        let (already, changed) = split(known, PoolFate::Drained);
        Ok(Steered { changed, already, ends: true, notes: Vec::new() })
    }

    /// Drains all pools, and has the orchestrator end with the last runner.
    pub(super) async fn end(&self) {
        if self.send(vec![PoolChange::End]).await.is_err() {
            tracing::info!("all runners are being stopped already");
        }
    }

    async fn scale(&mut self, name: &str, max: Option<u32>, min_idle: Option<u32>) -> Result<Steered> {
        let known = named(&self.known_pools(), &[name.to_owned()], &[])?;
        known.iter().try_for_each(runs)?;
        if let Some(whole) = known.iter().find(|pool| pool.name == name).and_then(|pool| pool.size_of.clone())
        {
            let why = format!("{name} is a size of {whole}, and all its sizes have one maximum");
            return Err(Failure::usage(why).hint(format!("dayfly scale {whole}")));
        }
        let is_meant = |pool: &KnownPool| known.iter().any(|known| known.name == pool.text.config.name);
        let meant = self.pools.iter().enumerate().filter(|(_, pool)| is_meant(pool));
        let after = meant.map(|(at, pool)| Ok((at, scaled(&pool.text.config, max, min_idle)?)));
        let after = after.collect::<Result<Vec<_>>>()?;
        // A size is compared with the host as one machine, which does not change.
        let whole = after.iter().map(|(_, pool)| pool).find(|pool| pool.name == name);
        let whole = whole.ok_or_else(|| Failure::usage(format!("there is no pool {name:?}")))?;
        let around = Surroundings::this_host(self.places);
        if let Some((why, hint)) =
            config::errors_of_numbers(whole, &self.host_budget, &around).into_iter().next()
        {
            return Err(hint.into_iter().fold(Failure::usage(why), Failure::hint));
        }
        let notes = notes_of_numbers(whole, self.file.is_some());
        let is_same = |(at, pool): &(usize, PoolConfig)| self.pools[*at].text.config == *pool;
        let (same, after): (Vec<_>, Vec<_>) = after.into_iter().partition(is_same);
        let adjust = |(_, pool): &(usize, PoolConfig)| PoolChange::Adjust {
            pool: pool.name.clone(),
            demand: pool.spec.demand,
            weight: pool.spec.weight,
            scratch_mib: pool.spec.scratch_mib,
        };
        self.send(after.iter().map(adjust).collect()).await?;
        let names = |pools: &[(usize, PoolConfig)]| pools.iter().map(|(_, pool)| pool.name.clone()).collect();
        let steered = Steered { changed: names(&after), already: names(&same), notes, ends: false };
        for (at, pool) in after {
            let one = &mut self.pools[at];
            one.controls.set(pool.schedule.clone(), pool.min_idle, pool.max);
            // A reload compares the file with these numbers, so that it brings its own ones back.
            one.text.config = pool;
        }
        Ok(steered)
    }

    /// Returns all pools.
    fn known_pools(&self) -> Vec<NamedPool> {
        let fate = |pool: &KnownPool| if pool.is_paused { PoolFate::Paused } else { PoolFate::Running };
        let pools = self.pools.iter().map(|pool| NamedPool::new(&pool.text, fate(pool)));
        let drained = self.drained.iter().map(|text| NamedPool::new(text, PoolFate::Drained));
        let waiting = self.waiting.texts().map(|text| NamedPool::new(text, PoolFate::Waiting));
        let given_up = self.waiting.given_up_texts().map(|text| NamedPool::new(text, PoolFate::GivenUp));
        pools.chain(drained).chain(waiting).chain(given_up).collect()
    }

    fn mark(&mut self, names: &[String], is_paused: bool) {
        let named = self.pools.iter_mut().filter(|pool| names.contains(&pool.text.config.name));
        named.for_each(|pool| pool.is_paused = is_paused);
    }

    /// Has the orchestrator make changes.
    ///
    /// # Errors
    /// The orchestrator is stopping.
    pub(super) async fn send(&self, changes: Changes) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.changes.send(changes).await.map_err(|_| Failure::cannot("the orchestrator is stopping"))
    }

    /// Prepares pools that have drained, as a start of the orchestrator does.
    ///
    /// # Errors
    /// A forge or this host cannot do what is requested. Nothing has changed then.
    async fn prepare(&mut self, texts: &[PoolText]) -> Result<Vec<PreparedPool>> {
        // Without a file, no pool is drained and resumed.
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        let requests = texts.iter().map(|text| file::request(&text.config, &mut file.clients));
        let requests = requests.collect::<Result<_>>()?;
        let preparing = async {
            let answered = prepare::ask(requests).await?;
            prepare::prepare_more(self.places, self.host, self.instance, answered, self.json).await
        };
        tokio::time::timeout(RELOAD_LIMIT, preparing).await.unwrap_or_else(|_| {
            let limit = RELOAD_LIMIT.as_secs() / 60;
            Err(Failure::cannot(format!("the pools could not be prepared within {limit} minutes")))
        })
    }
}

/// Returns the pools of these names, each once; all but those of some fates if no name is given.
///
/// # Errors
/// There is no such pool.
fn named(all: &[NamedPool], names: &[String], but: &[PoolFate]) -> Result<Vec<NamedPool>> {
    if names.is_empty() {
        return Ok(all.iter().filter(|pool| !but.contains(&pool.fate)).cloned().collect());
    }
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|pool| pool.is_named(name))) {
        let known: Vec<&str> = all.iter().map(|pool| pool.name.as_str()).collect();
        let near = nearest(unknown, known.iter().copied()).map(|near| format!("did you mean {near}?"));
        let hint = near.unwrap_or_else(|| format!("the pools are {}", known.join(", ")));
        return Err(Failure::usage(format!("there is no pool {unknown:?}")).hint(hint));
    }
    let is_named = |pool: &&NamedPool| names.iter().any(|name| pool.is_named(name));
    Ok(all.iter().filter(is_named).cloned().collect())
}

/// Returns the names of the pools that have a fate already, and of the others.
fn split(pools: Vec<NamedPool>, fate: PoolFate) -> (Vec<String>, Vec<String>) {
    let (already, others): (Vec<_>, Vec<_>) = pools.into_iter().partition(|pool| pool.fate == fate);
    let names = |pools: Vec<NamedPool>| pools.into_iter().map(|pool| pool.name).collect();
    (names(already), names(others))
}

/// Refuses an order that only a pool that runs can carry out.
fn runs(pool: &NamedPool) -> Result<()> {
    let name = &pool.name;
    match pool.fate {
        PoolFate::Running | PoolFate::Paused => Ok(()),
        PoolFate::Drained => Err(Failure::usage(format!("the pool {name} was drained"))
            .hint(format!("dayfly resume {name} starts it again"))),
        PoolFate::Waiting => {
            Err(Failure::usage(format!("the pool {name} has not started, because its forge does not answer"))
                .hint(format!("dayfly drain {name} gives it up; the log of the orchestrator has the reason")))
        }
        PoolFate::GivenUp => Err(Failure::usage(format!("the pool {name} was given up"))
            .hint(format!("dayfly why {name} says why; dayfly reload tries it again"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Vec<NamedPool> {
        let pool = |name: &str, size_of: Option<&str>, fate| NamedPool {
            name: name.to_owned(),
            size_of: size_of.map(str::to_owned),
            fate,
        };
        vec![
            pool("build", None, PoolFate::Running),
            pool("test", None, PoolFate::Paused),
            pool("test (dayfly-4cpu-8gb)", Some("test"), PoolFate::Running),
            pool("old", None, PoolFate::Drained),
        ]
    }

    /// Returns the names of the pools that are so already, and of those that the order changes.
    fn parts(names: &[&str], but: PoolFate, fate: PoolFate) -> (Vec<String>, Vec<String>) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        split(named(&pools(), &names, &[but]).expect("known"), fate)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn an_order_without_names_is_for_all_pools_that_it_can_change() {
        let pause = parts(&[], PoolFate::Drained, PoolFate::Paused);
        let size = "test (dayfly-4cpu-8gb)";
        assert_eq!(pause, (names(&["test"]), names(&["build", size])), "a drained pool is left alone");
        let resume = parts(&[], PoolFate::Running, PoolFate::Running);
        assert_eq!(resume, (names(&[]), names(&["test", "old"])));
    }

    #[test]
    fn an_order_for_a_pool_is_for_its_sizes_too_and_one_for_a_size_is_for_that_alone() {
        let size = "test (dayfly-4cpu-8gb)";
        let pause = |name: &str| parts(&[name], PoolFate::Drained, PoolFate::Paused);
        assert_eq!(pause("test"), (names(&["test"]), names(&[size])));
        assert_eq!(pause(size), (names(&[]), names(&[size])));
    }

    #[test]
    fn an_order_that_is_repeated_changes_nothing_and_names_count_once() {
        let again = parts(&["old", "old"], PoolFate::Drained, PoolFate::Drained);
        assert_eq!(again, (names(&["old"]), names(&[])));
    }

    #[test]
    fn an_unknown_pool_is_refused_with_the_nearest_name_or_with_all() {
        let refused = |name: &str| {
            let failure = named(&pools(), &["test".to_owned(), name.to_owned()], &[PoolFate::Drained])
                .expect_err("not known");
            (failure.code(), format!("{failure}; {}", failure.what_to_do().unwrap_or_default()))
        };
        assert_eq!(refused("biuld"), (2, "there is no pool \"biuld\"; did you mean build?".to_owned()));
        assert_eq!(
            refused("x"),
            (2, "there is no pool \"x\"; the pools are build, test, test (dayfly-4cpu-8gb), old".to_owned())
        );
    }
}

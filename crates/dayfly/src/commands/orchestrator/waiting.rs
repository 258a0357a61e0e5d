//! Pools whose forge did not answer at the start. The pools of other forges do not wait for them: each begins as soon as its
//! forge answers.

use std::future;

use dayfly_fleet::cause::Cause;
use dayfly_fleet::fact::{Fact, Moment};
use dayfly_fleet::stream::{FactSink, FactWriter};
use dayfly_forge::ForgeError;
use dayfly_host::retry;
use tokio::time::{self, Instant};

use super::file::{self, Clients};
use super::reload::{PoolText, RunningPools, starts};
use crate::commands::runner::prepare::{self, AnsweredPool, Asked, PreparedPool};
use crate::commands::runner::request::PoolRequest;
use crate::control::RELOAD_LIMIT;
use crate::exit::{Failure, Result};

/// The name of the trouble in the pool's facts, where others have the kind of a source of demand.
const START: &str = "start";

/// The pools that wait for their forge.
pub(super) struct WaitingPools {
    pools: Vec<(WaitingPool, PoolRequest)>,
    /// The pools that could not be started although their forge had answered, until a reload or an order to drain them.
    given_up: Vec<WaitingPool>,
    /// Number of attempts since the last pool that has started.
    failures: u32,
    /// Time of the next attempt.
    next: Instant,
}

/// A pool that waits for its forge.
pub(super) struct WaitingPool {
    text: PoolText,
    facts: FactWriter,
    /// The last trouble, until it is written.
    news: Option<Fact>,
}

impl WaitingPools {
    /// Returns the pools that a start goes on without. `pools` are these with the reason of each.
    pub(super) fn after_the_start(pools: Vec<(PoolText, PoolRequest, ForgeError)>, facts: &FactSink) -> Self {
        let mut waiting = Self { pools: Vec::new(), given_up: Vec::new(), failures: 0, next: Instant::now() };
        waiting.pause();
        for (number, (text, request, error)) in (0..).zip(pools) {
            let facts = facts.of_waiting_pool(&text.config.name, number);
            waiting.wait_for(WaitingPool { text, facts, news: None }, request, &error);
        }
        waiting
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &PoolText> {
        self.pools.iter().map(|(pool, _)| &pool.text)
    }

    pub(super) fn given_up_texts(&self) -> impl Iterator<Item = &PoolText> {
        self.given_up.iter().map(|pool| &pool.text)
    }

    /// Forgets the pools that a condition does not hold for.
    pub(super) async fn retain(&mut self, stays: impl Fn(&PoolText) -> bool) {
        let waiting = self.pools.extract_if(.., |(pool, _)| !stays(&pool.text)).map(|(pool, _)| pool);
        let given_up = self.given_up.extract_if(.., |pool| !stays(&pool.text));
        for mut pool in waiting.chain(given_up) {
            pool.facts.tell(Fact::PoolDrained).await;
        }
    }

    /// Lets pools wait that could not be prepared although their forge had answered. Gives up those whose description is no longer
    /// valid on this host, because only an administrator can change that.
    async fn wait_again(&mut self, pools: Vec<WaitingPool>, clients: &mut Clients) {
        for mut pool in pools {
            match file::request(&pool.text.config, clients) {
                Ok(request) => self.pools.push((pool, request)),
                Err(failure) => {
                    pool.facts.tell(Fact::PoolGivenUp { why: failure.to_string() }).await;
                    self.given_up.push(pool);
                }
            }
        }
    }

    /// Waits until the forges of some pools answer, and returns these pools. Never ends if no pool waits. Cancel-safe.
    pub(super) async fn answered(&mut self) -> Vec<(WaitingPool, AnsweredPool)> {
        loop {
            for (pool, _) in &mut self.pools {
                if let Some(news) = pool.news.take() {
                    pool.facts.tell(news).await;
                }
            }
            if self.pools.is_empty() {
                future::pending::<()>().await;
            }
            time::sleep_until(self.next).await;
            let answers = prepare::ask_all(self.pools.iter().map(|(_, request)| request)).await;
            let asked = Asked::sort(std::mem::take(&mut self.pools), answers);
            self.failures += 1;
            self.pause();
            for (pool, request, error) in asked.waiting {
                self.wait_for(pool, request, &error);
            }
            if !asked.known.is_empty() {
                return asked.known;
            }
        }
    }

    fn wait_for(&mut self, mut pool: WaitingPool, request: PoolRequest, error: &ForgeError) {
        let pause = self.next.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
        let name = &pool.text.config.name;
        tracing::warn!("the pool {name} waits for its forge: {error}; next attempt in {pause} s");
        let cause = Cause::of_forge(error, Moment::now());
        pool.news = Some(Fact::ForgeLost { source: START.to_owned(), cause, message: error.to_string() });
        self.pools.push((pool, request));
    }

    fn pause(&mut self) {
        // The rule has no last attempt.
        let pause = retry::FORGE_AT_START.pause_after(self.failures + 1);
        self.next = Instant::now() + pause.unwrap_or(retry::FORGE_AT_START.limit);
    }
}

impl RunningPools<'_> {
    /// Begins pools whose forge answers now. If this host cannot begin them yet, they wait again, with pauses that grow.
    pub(super) async fn begin_answered(&mut self, answered: Vec<(WaitingPool, AnsweredPool)>) {
        let (pools, answered): (Vec<_>, Vec<_>) = answered.into_iter().unzip();
        let names: Vec<&str> = pools.iter().map(|pool| pool.text.config.name.as_str()).collect();
        let names = names.join(", ");
        let preparing = prepare::prepare_more(self.places, self.host, self.instance, answered, self.json);
        let prepared = time::timeout(RELOAD_LIMIT, preparing).await.unwrap_or_else(|_| {
            let limit = RELOAD_LIMIT.as_secs() / 60;
            Err(Failure::cannot(format!("it was not prepared within {limit} minutes")))
        });
        let begun = match prepared {
            Ok(prepared) => self.start(pools, prepared).await,
            Err(failure) => {
                // Only a file has pools that wait.
                if let Some(file) = &mut self.file {
                    self.waiting.wait_again(pools, &mut file.clients).await;
                }
                Err(failure)
            }
        };
        match begun {
            Ok(()) => {
                self.waiting.failures = 0;
                tracing::info!("the forge answers now: started {names}");
            }
            Err(failure) => tracing::warn!("the forge answers, but {names} cannot start: {failure}"),
        }
    }

    /// Has the orchestrator start pools that are prepared.
    ///
    /// # Errors
    /// The orchestrator is stopping.
    async fn start(&mut self, pools: Vec<WaitingPool>, prepared: Vec<PreparedPool>) -> Result<()> {
        let (texts, facts): (Vec<_>, Vec<_>) = pools.into_iter().map(|pool| (pool.text, pool.facts)).unzip();
        let (changes, begun) = starts(texts, prepared);
        self.send(changes).await?;
        self.note_begun(begun);
        for mut pool in facts {
            pool.tell(Fact::ForgeBack { source: START.to_owned() }).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

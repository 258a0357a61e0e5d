//! Pools whose forge did not answer at the start. The pools of other forges do not wait for them: each begins as soon as its
//! forge answers.

use std::future;

use dayfly_forge::ForgeError;
use dayfly_host::retry;
use tokio::time::{self, Instant};

use super::file;
use super::reload::{PoolText, RunningPools, starts};
use crate::commands::runner::prepare::{self, AnsweredPool, Asked, PreparedPool};
use crate::commands::runner::request::PoolRequest;
use crate::control::RELOAD_LIMIT;
use crate::exit::{Failure, Result};

/// The pools that wait for their forge.
pub(super) struct WaitingPools {
    pools: Vec<(PoolText, PoolRequest)>,
    /// Number of attempts that no forge has answered, one after another.
    failures: u32,
    /// Time of the next attempt.
    next: Instant,
}

impl WaitingPools {
    /// Returns the pools that a start goes on without. `pools` are these with the reason of each.
    pub(super) fn after_the_start(pools: Vec<(PoolText, PoolRequest, ForgeError)>) -> Self {
        let mut waiting = Self { pools: Vec::new(), failures: 0, next: Instant::now() };
        waiting.pause();
        pools.into_iter().for_each(|(text, request, error)| waiting.wait_for(text, request, &error));
        waiting
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &PoolText> {
        self.pools.iter().map(|(text, _)| text)
    }

    /// Gives up the pools that a condition does not hold for.
    pub(super) fn retain(&mut self, stays: impl Fn(&PoolText) -> bool) {
        self.pools.retain(|(text, _)| stays(text));
    }

    /// Waits until the forges of some pools answer, and returns these pools. Never ends if no pool waits. Cancel-safe.
    pub(super) async fn answered(&mut self) -> Vec<(PoolText, AnsweredPool)> {
        loop {
            if self.pools.is_empty() {
                future::pending::<()>().await;
            }
            time::sleep_until(self.next).await;
            let answers = prepare::ask_all(self.pools.iter().map(|(_, request)| request)).await;
            let asked = Asked::sort(std::mem::take(&mut self.pools), answers);
            self.failures = if asked.known.is_empty() { self.failures + 1 } else { 0 };
            self.pause();
            for (text, request, error) in asked.waiting {
                self.wait_for(text, request, &error);
            }
            if !asked.known.is_empty() {
                return asked.known;
            }
        }
    }

    /// Has a pool wait for another attempt.
    fn push(&mut self, text: PoolText, request: PoolRequest) {
        self.pools.push((text, request));
    }

    fn wait_for(&mut self, text: PoolText, request: PoolRequest, error: &ForgeError) {
        let pause = self.next.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
        tracing::warn!(
            "the pool {} waits for its forge: {error}; next attempt in {pause} s",
            text.config.name
        );
        self.push(text, request);
    }

    fn pause(&mut self) {
        // The rule has no last attempt.
        let pause = retry::FORGE_AT_START.pause_after(self.failures + 1);
        self.next = Instant::now() + pause.unwrap_or(retry::FORGE_AT_START.limit);
    }
}

impl RunningPools<'_> {
    /// Begins pools whose forge answers now. One that this host cannot begin yet waits again.
    pub(super) async fn begin_answered(&mut self, answered: Vec<(PoolText, AnsweredPool)>) {
        let (texts, answered): (Vec<_>, Vec<_>) = answered.into_iter().unzip();
        let names: Vec<&str> = texts.iter().map(|text| text.config.name.as_str()).collect();
        let names = names.join(", ");
        let preparing = prepare::prepare_more(self.places, self.host, self.instance, answered, self.json);
        let prepared = time::timeout(RELOAD_LIMIT, preparing).await.unwrap_or_else(|_| {
            let limit = RELOAD_LIMIT.as_secs() / 60;
            Err(Failure::cannot(format!("it was not prepared within {limit} minutes")))
        });
        let begun = match prepared {
            Ok(prepared) => self.start(texts, prepared).await,
            Err(failure) => {
                self.wait_again(texts);
                Err(failure)
            }
        };
        match begun {
            Ok(()) => tracing::info!("the forge answers now: started {names}"),
            Err(failure) => tracing::warn!("the forge answers, but {names} cannot start: {failure}"),
        }
    }

    fn wait_again(&mut self, texts: Vec<PoolText>) {
        let Some(file) = &mut self.file else { return };
        for text in texts {
            match file::request(&text.config, &mut file.clients) {
                Ok(request) => self.waiting.push(text, request),
                Err(failure) => tracing::warn!("gave up {}: {failure}", text.config.name),
            }
        }
    }

    /// Has the orchestrator start pools that are prepared.
    ///
    /// # Errors
    /// The orchestrator is stopping.
    async fn start(&mut self, texts: Vec<PoolText>, prepared: Vec<PreparedPool>) -> Result<()> {
        let (changes, begun) = starts(texts, prepared);
        self.send(changes).await?;
        self.note_begun(begun);
        Ok(())
    }
}

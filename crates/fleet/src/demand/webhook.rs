//! The deliveries of a webhook as a source of a pool's demand.
//!
//! Deliveries may be lost, late, twice, or in another order. So each job only moves forward, from queued to taken to over, and
//! a job that is said to wait for more than a day is forgotten. A job that was never reported is found by another source.

mod fold;
#[cfg(test)]
mod tests;

use std::time::Duration;

use dayfly_forge::RunnerScope;
use dayfly_forge::webhook::WebhookQueue;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::demand::labels::PoolLabels;
use crate::demand::{DemandEvent, PoolDemandSender};
use crate::fact::Fact;
use crate::stop::{Stop, StopOrder};
use crate::stream::FactWriter;
use fold::{WebhookFold, described};

/// Time between two looks for jobs that are to be forgotten.
const LOOK: Duration = Duration::from_secs(600);
/// The word for this source in facts.
pub const WEBHOOK: &str = "webhook";

/// The deliveries of a webhook that feed a pool.
#[derive(Debug)]
pub struct WebhookSource {
    queue: WebhookQueue,
    /// Address of the server.
    url: String,
    fold: WebhookFold,
    copies: Option<mpsc::Sender<DemandEvent>>,
}

impl WebhookSource {
    /// Creates a source for the jobs of a scope that a runner with these labels can run. `url` is the address of the server
    /// that fills the queue.
    pub fn new(queue: WebhookQueue, url: String, scope: RunnerScope, labels: PoolLabels) -> Self {
        Self { queue, url, fold: WebhookFold::new(scope, labels), copies: None }
    }

    /// Leaves it to another source of the pool to report how jobs ended, because each end is reported once.
    pub fn without_ends(mut self) -> Self {
        self.fold.tells_ends = false;
        self
    }

    /// Also sends all changes to a source that can check them; see [`super::PollSource::checking`].
    pub fn checked_by(mut self, copies: mpsc::Sender<DemandEvent>) -> Self {
        self.copies = Some(copies);
        self
    }

    /// Passes changes on until a stop order.
    pub(super) async fn run(&mut self, demand: &PoolDemandSender, facts: &mut FactWriter, mut stop: Stop) {
        let message = format!("takes the jobs of {} from the deliveries at {}", self.fold.scope(), self.url);
        facts.tell(Fact::SourceReady { source: WEBHOOK.to_owned(), message }).await;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let events = tokio::select! {
                biased;
                _ = stop.above(StopOrder::None) => return,
                Some(delivery) = self.queue.next() => {
                    // Lists of the jobs have it too, and their source says it once.
                    let mistake = self.fold.mistake(&delivery).filter(|_| self.copies.is_none());
                    if let Some(message) = mistake {
                        facts.tell(Fact::SourceTrouble { source: WEBHOOK.to_owned(), message }).await;
                    }
                    let changes = self.fold.changes(&delivery, Instant::now());
                    if !changes.is_empty() {
                        demand.send(described(&delivery));
                    }
                    changes
                }
                at = looks.tick() => self.fold.forget(at),
            };
            for event in events {
                if let Some(copies) = &self.copies {
                    // A copy without room is one job that is not checked.
                    let _ = copies.try_send(event.clone());
                }
                demand.send(event);
            }
        }
    }
}

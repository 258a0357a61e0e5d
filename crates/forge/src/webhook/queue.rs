//! The queues between the server and the pools: each pool gets every change of a job, and takes its own.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::delivery::JobDelivery;
use super::refusal::Refusal;

/// Most deliveries that wait for a pool. Its reader only compares labels, so they wait for moments.
const QUEUE_LENGTH: usize = 1024;

/// The queues of all pools. Clones refer to the same queues, so pools can come and go while the server runs.
#[derive(Debug, Clone, Default)]
pub struct WebhookQueues(Arc<Mutex<Vec<mpsc::Sender<Arc<JobDelivery>>>>>);

/// The queue of one pool. The pool leaves the server when it is dropped.
#[derive(Debug)]
pub struct WebhookQueue(mpsc::Receiver<Arc<JobDelivery>>);

impl WebhookQueues {
    /// Adds a queue, which gets all deliveries from now on.
    pub fn subscribe(&self) -> WebhookQueue {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        WebhookQueue(receiver)
    }

    /// Puts a delivery into each queue that has room.
    ///
    /// # Errors
    /// A queue has none, or all pools are gone because the process stops. A delivery that comes again is taken by those pools
    /// alone that have not seen it.
    pub(super) fn offer(&self, delivery: &Arc<JobDelivery>) -> Result<(), Refusal> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut full) = (false, false);
        queues.retain(|queue| match queue.try_send(Arc::clone(delivery)) {
            Err(TrySendError::Closed(_)) => false,
            sent => {
                taken |= sent.is_ok();
                full |= sent.is_err();
                true
            }
        });
        match (full, taken) {
            (true, _) => Err(Refusal::Full),
            (false, true) => Ok(()),
            (false, false) => Err(Refusal::NoPool),
        }
    }
}

impl WebhookQueue {
    /// Waits for the next delivery. Returns `None` once the server and its queues are gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<JobDelivery>> {
        self.0.recv().await
    }
}

//! The queues between the server and the pools: each pool gets every change of a job, and takes its own.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::delivery::JobDelivery;

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

    /// Puts a delivery into each queue that has room. Returns false if one has none, or if all pools are gone because the
    /// process stops: a delivery that comes again is taken by those pools alone that have not seen it.
    pub(super) fn offer(&self, delivery: &Arc<JobDelivery>) -> bool {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| !queue.is_closed());
        let full = queues.iter().filter(|queue| queue.try_send(Arc::clone(delivery)).is_err()).count();
        full == 0 && !queues.is_empty()
    }
}

impl WebhookQueue {
    /// Waits for the next delivery. Returns `None` once the server and its queues are gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<JobDelivery>> {
        self.0.recv().await
    }
}

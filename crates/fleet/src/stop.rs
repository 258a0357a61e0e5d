//! Orders to stop a loop. The caller passes them in as a value; this crate installs no signal handler.

use tokio::sync::watch;

/// The urgency of a stop. An order never becomes less urgent: a later, less urgent order is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum StopOrder {
    /// Continue.
    #[default]
    None,
    /// End the loop once its runner has no job: delete the registration if the forge allows it, which it does not while the
    /// runner has a job, and start no other runner after that job.
    WhenIdle,
    /// Stop the runner by the handshake (`.trm`), delete its registration, then end the loop.
    Gently,
    /// Kill the VM; its registration and its files are still removed.
    AtOnce,
    /// End the loop at once, and leave a runner whose machine has answered to the next start of a process, which takes it over.
    /// Its job goes on.
    HandOver,
}

/// The sending end of stop orders.
#[derive(Debug)]
pub struct StopSender(watch::Sender<StopOrder>);

/// The receiving end of stop orders, for a loop.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<StopOrder>);

/// Creates a pair of ends. A dropped sender counts as [`StopOrder::Gently`], because nothing can stop the loop any more.
pub fn channel() -> (StopSender, Stop) {
    let (sender, receiver) = watch::channel(StopOrder::None);
    (StopSender(sender), Stop(receiver))
}

impl StopSender {
    /// Sends an order, unless an equal or more urgent one is in force.
    pub fn order(&self, order: StopOrder) {
        self.0.send_if_modified(|now| {
            let grows = order > *now;
            *now = order.max(*now);
            grows
        });
    }
}

impl StopSender {
    /// Returns another receiving end.
    pub(crate) fn subscribe(&self) -> Stop {
        Stop(self.0.subscribe())
    }

    /// Returns true if all receiving ends are dropped, because everything that they could stop has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.receiver_count() == 0
    }

    /// Waits until all receiving ends are dropped.
    pub(crate) async fn ended(&self) {
        self.0.closed().await;
    }
}

impl Stop {
    /// Returns the order in force.
    pub fn order(&self) -> StopOrder {
        let order = *self.0.borrow();
        if order == StopOrder::None && self.0.has_changed().is_err() { StopOrder::Gently } else { order }
    }

    /// Waits until the order is above `current`, and returns it. Cancel-safe.
    pub async fn above(&mut self, current: StopOrder) -> StopOrder {
        loop {
            let order = self.order();
            if order > current {
                return order;
            }
            if self.0.changed().await.is_err() && self.order() <= current {
                // The sender is dropped, so no more urgent order can arrive.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orders_only_grow() {
        let (sender, mut stop) = channel();
        assert_eq!(stop.order(), StopOrder::None);
        sender.order(StopOrder::AtOnce);
        sender.order(StopOrder::Gently);
        assert_eq!(stop.above(StopOrder::None).await, StopOrder::AtOnce);
    }

    #[tokio::test]
    async fn an_end_that_comes_later_gets_the_order_in_force() {
        let (sender, first) = channel();
        drop(first);
        sender.order(StopOrder::WhenIdle);
        assert_eq!(sender.subscribe().above(StopOrder::None).await, StopOrder::WhenIdle);
    }

    #[tokio::test]
    async fn a_sender_knows_when_everything_has_ended() {
        let (sender, stop) = channel();
        let other = stop.clone();
        drop(stop);
        assert!(!sender.is_ended());
        let (ended, ()) = tokio::join!(async { sender.ended().await }, async { drop(other) });
        assert_eq!((ended, sender.is_ended()), ((), true));
    }

    #[tokio::test]
    async fn a_sender_that_is_gone_means_gently() {
        let (sender, mut stop) = channel();
        drop(sender);
        assert_eq!(stop.above(StopOrder::None).await, StopOrder::Gently);
    }
}

//! How whoever started a loop ends it: a value that is passed in, never a signal handler down here.

use tokio::sync::watch;

/// How urgently to stop. Orders only grow: a later, lesser order changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum StopOrder {
    /// Go on.
    #[default]
    None,
    /// End the runner by the handshake (`.trm`), delete its registration, then end.
    Gently,
    /// The VM is killed; its registration and files still go.
    AtOnce,
}

/// The end that gives orders.
#[derive(Debug)]
pub struct StopSender(watch::Sender<StopOrder>);

/// The end that a loop listens to.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<StopOrder>);

/// A pair of ends. A dropped sender counts as [`StopOrder::Gently`]: who started a loop and is gone cannot want more.
pub fn channel() -> (StopSender, Stop) {
    let (sender, receiver) = watch::channel(StopOrder::None);
    (StopSender(sender), Stop(receiver))
}

impl StopSender {
    /// Gives an order.
    pub fn order(&self, order: StopOrder) {
        self.0.send_if_modified(|now| {
            let grows = order > *now;
            *now = order.max(*now);
            grows
        });
    }
}

impl Stop {
    /// The order in force.
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
                // Nobody is left to order more.
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
    async fn a_sender_that_is_gone_means_gently() {
        let (sender, mut stop) = channel();
        drop(sender);
        assert_eq!(stop.above(StopOrder::None).await, StopOrder::Gently);
    }
}

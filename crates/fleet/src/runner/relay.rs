//! Passes the messages of a long step on as facts while the step runs, and stops waiting for it if the loop is stopped.

use std::ops::ControlFlow;

use tokio::sync::mpsc;

use super::{Run, RunnerEnd};
use crate::fact::Fact;
use crate::stop::{Stop, StopOrder};
use crate::stream::FactWriter;

/// Most messages of a step that wait to be passed on. Further ones, such as the lines of a warm-up, are dropped.
const MESSAGES_MAX: usize = 256;

/// The queue of a step's messages.
pub(crate) struct Relay<M> {
    sender: mpsc::Sender<M>,
    receiver: mpsc::Receiver<M>,
}

impl<M> Relay<M> {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        Self { sender, receiver }
    }

    /// Returns the function that a step calls with each message.
    pub(crate) fn teller(&self) -> impl FnMut(M) + Send + use<M>
    where
        M: Send,
    {
        let sender = self.sender.clone();
        move |message| {
            let _ = sender.try_send(message);
        }
    }

    /// Waits for the step. Breaks if the loop is stopped before.
    pub(crate) async fn wait<T>(
        mut self,
        step: impl Future<Output = T>,
        facts: &mut FactWriter,
        mut stop: Stop,
    ) -> ControlFlow<RunnerEnd, T>
    where
        M: Into<Fact>,
    {
        tokio::pin!(step);
        let result = loop {
            tokio::select! {
                biased;
                _ = stop.above(StopOrder::None) => return ControlFlow::Break(RunnerEnd::Stopped),
                Some(message) = self.receiver.recv() => facts.tell(message.into()).await,
                result = &mut step => break result,
            }
        };
        while let Ok(message) = self.receiver.try_recv() {
            facts.tell(message.into()).await;
        }
        ControlFlow::Continue(result)
    }
}

impl Run<'_> {
    /// Fetches the image and builds the template. Breaks if the loop is stopped meanwhile. If the template cannot be built
    /// from the image, the image is fetched again, so that an older image is used if there is one.
    pub(super) async fn get_ready(&mut self) -> Result<ControlFlow<RunnerEnd>, super::RunnerError> {
        if let ControlFlow::Break(end) = self.pull().await? {
            return Ok(ControlFlow::Break(end));
        }
        match self.prepare().await {
            Ok(flow) => Ok(flow),
            Err(error) => {
                self.tell(Fact::Warning { message: error.to_string() }).await?;
                match self.pull().await? {
                    ControlFlow::Continue(()) => self.prepare().await,
                    stopped => Ok(stopped),
                }
            }
        }
    }
}

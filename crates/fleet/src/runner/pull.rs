//! Fetches the image of a runner's machine, anew for each runner, because a name may lead to another image than an hour ago.

use std::ops::ControlFlow;

use dayfly_vm::Pulling;

use super::relay::Relay;
use super::{Run, RunnerEnd, RunnerError};
use crate::fact::Fact;

impl Run<'_> {
    /// Fetches the image. Breaks if the loop is stopped meanwhile.
    pub(super) async fn pull(&mut self) -> Result<ControlFlow<RunnerEnd>, RunnerError> {
        let relay = Relay::new();
        let mut tell = relay.teller();
        let pulling = dayfly_vm::pull(self.host, &self.pool.machine, self.pool.limits.pull, &mut tell);
        match relay.wait(pulling, &mut self.facts, self.stop.clone()).await {
            ControlFlow::Break(end) => return Ok(ControlFlow::Break(end)),
            ControlFlow::Continue(machine) => self.machine = machine?,
        }
        self.tell(Fact::Pulled).await?;
        Ok(ControlFlow::Continue(()))
    }
}

impl From<Pulling> for Fact {
    fn from(message: Pulling) -> Self {
        match message {
            Pulling::Phase(phase) => Self::ImagePhase { phase },
            Pulling::Changed { name, image } => Self::ImageChanged { name, image },
            Pulling::Warning(message) => Self::Warning { message },
        }
    }
}

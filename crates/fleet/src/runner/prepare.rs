//! Prepares the template of a runner's machine, before there is a registration that would age meanwhile.

use std::ops::ControlFlow;

use dayfly_vm::{Network, Preparing, StartError};
use tokio::time::Instant;

use super::relay::Relay;
use super::{Run, RunnerEnd, RunnerError};
use crate::fact::Fact;
use crate::pool::PoolSpec;

impl Run<'_> {
    /// Prepares the template. Breaks if the loop is stopped meanwhile. The runner's lifetime counts from the end on.
    pub(super) async fn prepare(&mut self) -> Result<ControlFlow<RunnerEnd>, RunnerError> {
        let spec = &self.pool.spec;
        let network = network_of_template(spec);
        let relay = Relay::new();
        let mut tell = relay.teller();
        let preparing = dayfly_vm::prepare(self.host, &self.machine, &network, &spec.mounts, &mut tell);
        match relay.wait(preparing, &mut self.facts, self.stop.clone()).await {
            ControlFlow::Break(end) => return Ok(ControlFlow::Break(end)),
            ControlFlow::Continue(prepared) => prepared.map_err(StartError::from)?,
        }
        self.lifetime_ends = spec.lifetime.map(|lifetime| Instant::now() + lifetime);
        Ok(ControlFlow::Continue(()))
    }
}

/// Returns the network of a template's machine: that of the pool's machines, without a forge.
pub(crate) fn network_of_template(spec: &PoolSpec) -> Network {
    Network::new(spec.network.clone(), spec.dns)
}

impl From<Preparing> for Fact {
    fn from(message: Preparing) -> Self {
        match message {
            Preparing::Building { template } => Self::TemplateBuilding { template },
            Preparing::Waiting { template } => Self::TemplateWaiting { template },
            Preparing::Line(text) => Self::TemplateLine { text },
            Preparing::Built { template, took_ms, bytes } => Self::TemplateBuilt { template, took_ms, bytes },
            Preparing::Failed { template, reason } => Self::TemplateFailed { template, reason },
            Preparing::Cold { reason } => Self::Cold { reason },
        }
    }
}

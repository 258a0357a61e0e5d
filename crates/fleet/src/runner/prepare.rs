//! What a runner's machine is forked from, made before there is a registration: one that waits for a template would age.

use dayfly_vm::{Egress, Network, Preparing, StartError};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Run, RunnerError};
use crate::fact::Fact;
use crate::stop::StopOrder;

/// Things told that wait to be passed on; lines of a warm-up beyond it are dropped.
const TOLD_MAX: usize = 256;

impl Run<'_> {
    /// Has image and template got ready; false where the loop was stopped meanwhile. An image that turns out to be of no use
    /// gives way to the one before it, where there is one.
    pub(super) async fn get_ready(&mut self) -> Result<bool, RunnerError> {
        if !self.pull().await? {
            return Ok(false);
        }
        match self.prepare().await {
            Ok(is_ready) => Ok(is_ready),
            Err(error) => {
                self.tell(Fact::Warning { message: error.to_string() }).await?;
                Ok(self.pull().await? && self.prepare().await?)
            }
        }
    }

    /// Has the template got ready. The runner's lifetime counts from here.
    async fn prepare(&mut self) -> Result<bool, RunnerError> {
        let (host, settings) = (self.host, self.settings);
        let network = Network { egress: Egress::Open, dns: settings.dns, forward: None, allow: Vec::new() };
        let (sender, mut told) = mpsc::channel(TOLD_MAX);
        let mut tell = move |what| {
            let _ = sender.try_send(what);
        };
        let preparing = dayfly_vm::prepare(host, &self.machine, &network, &settings.mounts, &mut tell);
        tokio::pin!(preparing);
        let mut stop = self.stop.clone();
        let prepared = loop {
            tokio::select! {
                biased;
                _ = stop.above(StopOrder::None) => return Ok(false),
                Some(what) = told.recv() => self.facts.tell(fact_of(what)).await,
                prepared = &mut preparing => break prepared,
            }
        };
        while let Ok(what) = told.try_recv() {
            self.facts.tell(fact_of(what)).await;
        }
        prepared.map_err(StartError::from)?;
        self.lifetime_ends = settings.lifetime.map(|lifetime| Instant::now() + lifetime);
        Ok(true)
    }
}

fn fact_of(what: Preparing) -> Fact {
    match what {
        Preparing::Building { template } => Fact::TemplateBuilding { template },
        Preparing::Waiting { template } => Fact::TemplateWaiting { template },
        Preparing::Line(text) => Fact::TemplateLine { text },
        Preparing::Built { template, took_ms, bytes } => Fact::TemplateBuilt { template, took_ms, bytes },
        Preparing::Failed { template, reason } => Fact::TemplateFailed { template, reason },
        Preparing::Cold { reason } => Fact::Cold { reason },
    }
}

//! What a runner's machine is forked from, made before there is a registration: one that waits for a template would age.

use dayfly_vm::{Egress, Network, Preparing, StartError};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Run, RunnerError};
use crate::event::EventKind;
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
                self.events.tell(EventKind::Warning { message: error.to_string() }).await;
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
                Some(what) = told.recv() => self.events.tell(kind_of(what)).await,
                prepared = &mut preparing => break prepared,
            }
        };
        while let Ok(what) = told.try_recv() {
            self.events.tell(kind_of(what)).await;
        }
        prepared.map_err(StartError::from)?;
        self.lifetime_ends = settings.lifetime.map(|lifetime| Instant::now() + lifetime);
        Ok(true)
    }
}

fn kind_of(what: Preparing) -> EventKind {
    match what {
        Preparing::Building { template } => EventKind::TemplateBuilding { template },
        Preparing::Waiting { template } => EventKind::TemplateWaiting { template },
        Preparing::Line(text) => EventKind::TemplateLine { text },
        Preparing::Built { template, took_ms, bytes } => {
            EventKind::TemplateBuilt { template, took_ms, bytes }
        }
        Preparing::Failed { template, reason } => EventKind::TemplateFailed { template, reason },
        Preparing::Cold { reason } => EventKind::Cold { reason },
    }
}

//! What a runner's machine is forked from, made before there is a registration: one that waits for a template would age.

use dayfly_vm::{Egress, Network, Preparing};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Run;
use crate::event::EventKind;
use crate::stop::StopOrder;

/// Things told that wait to be passed on; lines of a warm-up beyond it are dropped.
const TOLD_MAX: usize = 256;

impl Run<'_> {
    /// Has the template got ready; false where the loop was stopped meanwhile. The runner's lifetime counts from here.
    pub(super) async fn prepare(&mut self) -> bool {
        let (host, settings) = (self.host, self.settings);
        let network = Network { egress: Egress::Open, dns: settings.dns, forward: None, allow: Vec::new() };
        let (sender, mut told) = mpsc::channel(TOLD_MAX);
        let mut tell = move |what| {
            let _ = sender.try_send(what);
        };
        let preparing = dayfly_vm::prepare(host, &self.machine, &network, &settings.mounts, &mut tell);
        tokio::pin!(preparing);
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                _ = stop.above(StopOrder::None) => return false,
                Some(what) = told.recv() => self.events.tell(kind_of(what)).await,
                () = &mut preparing => break,
            }
        }
        while let Ok(what) = told.try_recv() {
            self.events.tell(kind_of(what)).await;
        }
        self.lifetime_ends = settings.lifetime.map(|lifetime| Instant::now() + lifetime);
        true
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

//! What a runner's machine is made of, looked for anew for each: a name may lead to another image than it did an hour ago.

use dayfly_vm::Pulling;
use tokio::sync::mpsc;

use super::{Run, RunnerError};
use crate::event::EventKind;
use crate::stop::StopOrder;

/// Things told that wait to be passed on; what is more is dropped.
const TOLD_MAX: usize = 64;

impl Run<'_> {
    /// Has the image fetched; false where the loop was stopped meanwhile.
    pub(super) async fn pull(&mut self) -> Result<bool, RunnerError> {
        let (sender, mut told) = mpsc::channel(TOLD_MAX);
        let mut tell = move |what| {
            let _ = sender.try_send(what);
        };
        let pulling =
            dayfly_vm::pull(self.host, &self.settings.machine, self.settings.limits.pull, &mut tell);
        tokio::pin!(pulling);
        let mut stop = self.stop.clone();
        let machine = loop {
            tokio::select! {
                biased;
                _ = stop.above(StopOrder::None) => return Ok(false),
                Some(what) = told.recv() => self.events.tell(kind_of(what)).await,
                pulled = &mut pulling => break pulled?,
            }
        };
        while let Ok(what) = told.try_recv() {
            self.events.tell(kind_of(what)).await;
        }
        self.machine = machine;
        self.events.tell(EventKind::Pulled).await;
        Ok(true)
    }
}

fn kind_of(what: Pulling) -> EventKind {
    match what {
        Pulling::Phase(phase) => EventKind::ImagePhase { phase },
        Pulling::Changed { name, image } => EventKind::ImageChanged { name, image },
        Pulling::Warning(message) => EventKind::Warning { message },
    }
}

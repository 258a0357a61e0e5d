//! What a runner's machine is made of, looked for anew for each: a name may lead to another image than it did an hour ago.

use dayfly_vm::Pulling;
use tokio::sync::mpsc;

use super::{Run, RunnerError};
use crate::fact::Fact;
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
                Some(what) = told.recv() => self.facts.tell(fact_of(what)).await,
                pulled = &mut pulling => break pulled?,
            }
        };
        while let Ok(what) = told.try_recv() {
            self.facts.tell(fact_of(what)).await;
        }
        self.machine = machine;
        self.tell(Fact::Pulled).await?;
        Ok(true)
    }
}

fn fact_of(what: Pulling) -> Fact {
    match what {
        Pulling::Phase(phase) => Fact::ImagePhase { phase },
        Pulling::Changed { name, image } => Fact::ImageChanged { name, image },
        Pulling::Warning(message) => Fact::Warning { message },
    }
}

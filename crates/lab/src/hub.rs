//! The way to the state: one thread owns it, everyone else sends it work and waits for the answer.
//!
//! The thread does a piece of work, writes the journal, and only then lets the answer go, so that whatever was answered
//! outlives the process. Work is short and never waits; long polls wait outside, on a channel that the state keeps.

use tokio::sync::{mpsc, oneshot};

use super::refusal::Refusal;
use super::state::State;

type Deliver = Box<dyn FnOnce() + Send>;
type Work = Box<dyn FnOnce(&mut State) -> Deliver + Send>;

/// A handle to the thread that owns the state; the thread ends with the last handle.
#[derive(Clone)]
pub(crate) struct Hub {
    requests: mpsc::Sender<Work>,
}

impl Hub {
    /// Gives `state` to a thread of its own.
    pub(crate) fn start(mut state: State) -> std::io::Result<Self> {
        let (requests, mut waiting) = mpsc::channel::<Work>(state.limits.requests_waiting_max.max(1));
        std::thread::Builder::new().name("lab-state".to_owned()).spawn(move || {
            while let Some(work) = waiting.blocking_recv() {
                let deliver = work(&mut state);
                state.save();
                deliver();
            }
        })?;
        Ok(Self { requests })
    }

    /// Has `work` done with the state and answers what it returned.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> R + Send + 'static,
    ) -> Result<R, Refusal> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |state| {
            let result = work(state);
            Box::new(move || {
                // The caller may have gone away meanwhile.
                let _ = reply.send(result);
            })
        });
        self.requests
            .try_send(work)
            .map_err(|_| Refusal::new(503, "The lab has too many calls waiting; try again in a moment"))?;
        answer.await.map_err(|_| Refusal::new(500, "The lab is stopping"))
    }
}

//! Access to the state: one thread owns it, and all other code sends it work and waits for the answer.
//!
//! The thread runs a piece of work, writes the journal, and only then releases the answer. So every change that was
//! confirmed outlives the process. Work is short and never blocks; long polls wait outside of the thread, on a channel
//! whose sender the state holds.

use tokio::sync::{mpsc, oneshot};

use super::refusal::Refusal;
use super::state::LabState;

type Deliver = Box<dyn FnOnce() + Send>;
type Work = Box<dyn FnOnce(&mut LabState) -> Deliver + Send>;

/// A handle to the thread that owns the state. The thread exits when the last handle is dropped.
#[derive(Clone)]
pub(crate) struct Hub {
    requests: mpsc::Sender<Work>,
}

impl Hub {
    /// Starts a thread that owns `state`.
    pub(crate) fn start(mut state: LabState) -> std::io::Result<Self> {
        let (requests, mut waiting) = mpsc::channel::<Work>(state.limits.requests_waiting_max.max(1));
        std::thread::Builder::new().name("lab-state".to_owned()).spawn(move || {
            while let Some(work) = waiting.blocking_recv() {
                let deliver = work(&mut state);
                state.prepare_answers();
                state.save();
                state.send_answers();
                deliver();
            }
        })?;
        Ok(Self { requests })
    }

    /// Runs `work` with the state and returns its result.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut LabState) -> R + Send + 'static,
    ) -> Result<R, Refusal> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |state| {
            let result = work(state);
            Box::new(move || {
                // The caller may have been dropped in the meantime.
                let _ = reply.send(result);
            })
        });
        self.requests
            .try_send(work)
            .map_err(|_| Refusal::new(503, "The lab has too many calls waiting; try again in a moment"))?;
        answer.await.map_err(|_| Refusal::new(500, "The lab is stopping"))
    }
}

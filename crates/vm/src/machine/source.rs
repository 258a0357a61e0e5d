//! The starts of a machine, as its supervisor sees them: the next one, and how it went.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::spawn::{Outputs, Vmm};
use super::{StartError, StartedFrom};
use crate::pace::Turn;

/// One start of a machine whose process runs.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) vmm: Vmm,
    pub(crate) from: StartedFrom,
    /// Held until the machine is up.
    pub(crate) turn: Option<Turn>,
    /// Why the machine was booted, if it was to be forked.
    pub(crate) cold: Option<String>,
}

/// The source of a machine's starts. It decides what each start is made from, and the supervisor tells it how the start
/// went.
pub(crate) trait StartSource: std::fmt::Debug + Send + Sync + 'static {
    /// Waits until the machine may start; none if it need not wait. Nothing exists of this start before, so the wait can be
    /// cancelled.
    fn turn(&self) -> impl Future<Output = Result<Option<Turn>, StartError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Starts the machine.
    fn spawn(
        &mut self,
        turn: Option<Turn>,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> impl Future<Output = Result<Started, StartError>> + Send;

    /// Records that the last start is up.
    fn succeeded(&self) {}

    /// Records that the last start, which was no boot, has failed. The next start must be a boot.
    fn fork_failed(&mut self, _reason: &str) {}
}

//! The starts of a machine, as its supervisor sees them: the next one, and how it went.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::spawn::{Outputs, Vmm};
use super::{StartError, StartedFrom};
use crate::pace::Turn;
use crate::vmm::{NetworkCard, Platform};
use serde::{Deserialize, Serialize};

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

/// The parts of a machine that is frozen to disk, besides its memory and its disk: what it was started from.
pub(crate) trait KeptParts: std::fmt::Debug + Send + Sync {
    /// Puts the files that the machine reads into a folder, and returns the description of its VMM. Blocks.
    ///
    /// # Errors
    /// The machine cannot be kept, for this reason.
    fn put_into(&self, folder: &Path) -> Result<KeptVmm, String>;
}

/// The description of the VMM of a machine that was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptVmm {
    pub(crate) platform: Platform,
    /// Digest of the VMM's program.
    pub(crate) program: String,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u64,
    pub(crate) card: NetworkCard,
    /// True if the machine's disk is over that of its template.
    pub(crate) is_fork: bool,
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

/// The source of a machine that is not started again. It keeps what the machine needs as long as it runs.
#[derive(Debug)]
pub(super) struct NoStarts<Kept>(pub(super) Kept);

impl<Kept: std::fmt::Debug + Send + Sync + 'static> StartSource for NoStarts<Kept> {
    async fn spawn(
        &mut self,
        _turn: Option<Turn>,
        _outputs: &Outputs,
        _detached: &Arc<AtomicBool>,
    ) -> Result<Started, StartError> {
        Err(StartError::Vanished)
    }
}

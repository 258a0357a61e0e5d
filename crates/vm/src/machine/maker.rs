//! Things that machines are needed to make.

use std::io;
use std::path::Path;

use tokio::runtime::Handle;

use super::destroy_leftover;
use dayfly_host::stage::{self, Claim, Maker, StageError};

/// Makes things by a machine in the folder [`MachineMaker::FOLDER`] of its stage: that is what a killed one leaves. To be used
/// where a runtime may be blocked.
pub(crate) struct MachineMaker;

impl MachineMaker {
    /// Folder of the machine below that of the stage.
    pub(crate) const FOLDER: &str = "vm";

    /// The right to make `id` in a store, once nobody else has it. `waits` is told if somebody has, once; what a killed one has
    /// left is ended and removed.
    pub(crate) async fn claim(store: &Path, id: &str, mut waits: impl FnMut()) -> Result<Claim, StageError> {
        let mut told = false;
        loop {
            let (store, id) = (store.to_owned(), id.to_owned());
            if let Some(claim) = blocking(move || Claim::take(&store, &id, &Self)).await? {
                return Ok(claim);
            }
            if !std::mem::replace(&mut told, true) {
                waits();
            }
            tokio::time::sleep(stage::LOOK).await;
        }
    }

    /// Ends and removes what killed ones have left in a store.
    pub(crate) async fn sweep(store: &Path) -> Result<(), StageError> {
        let stages = stage::folder_of(store);
        blocking(move || stage::sweep(&stages, &Self)).await
    }
}

impl Maker for MachineMaker {
    fn end_leftover(&self, stage: &Path) -> Result<(), StageError> {
        let run_dir = stage.join(Self::FOLDER);
        let ended = Handle::current().block_on(destroy_leftover(&run_dir));
        ended.map_err(|error| StageError::Io { what: "end", path: run_dir, source: io::Error::other(error) })
    }
}

/// Work with files, beside the runtime's own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StageError> + Send + 'static,
) -> Result<T, StageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StageError::Cancelled))
}

//! Builds that run a machine: claims, and the cleanup of builds that were killed.

use std::io;
use std::path::Path;

use tokio::runtime::Handle;

use super::destroy_leftover;
use dayfly_host::stage::{self, Claim, Maker, StageError};

/// A maker that builds things with a machine in the folder [`MachineMaker::FOLDER`] of its stage. If the maker is killed,
/// that machine is left. [`Maker::end_leftover`] must be called on a thread that may block.
pub(crate) struct MachineMaker;

impl MachineMaker {
    /// Name of the machine's folder in the stage.
    pub(crate) const FOLDER: &str = "vm";

    /// Waits for the right to build `id` in a store. Calls `waits` once if another builder holds the right. Stops and
    /// removes what killed builders have left.
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

    /// Stops and removes what killed builders have left in a store.
    pub(crate) async fn sweep(store: &Path) -> Result<(), StageError> {
        let stages = stage::folder_of(store);
        blocking(move || stage::sweep(&stages, &Self)).await
    }
}

impl Maker for MachineMaker {
    fn end_leftover(&self, stage: &Path) -> Result<(), StageError> {
        let run_dir = stage.join(Self::FOLDER);
        let ended = Handle::current().block_on(destroy_leftover(&run_dir));
        ended.map(drop).map_err(|error| StageError::Io {
            what: "end",
            path: run_dir,
            source: io::Error::other(error),
        })
    }
}

/// Runs work with files on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StageError> + Send + 'static,
) -> Result<T, StageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StageError::Cancelled))
}

//! Things that machines are needed to make.

use std::io;
use std::path::Path;

use tokio::runtime::Handle;

use super::destroy_leftover;
use crate::stage::{Maker, StageError};

/// Makes things by a machine in the folder [`MachineMaker::FOLDER`] of its stage: that is what a killed one leaves. To be used
/// where a runtime may be blocked.
pub(crate) struct MachineMaker;

impl MachineMaker {
    /// Folder of the machine below that of the stage.
    pub(crate) const FOLDER: &str = "vm";
}

impl Maker for MachineMaker {
    fn end_leftover(&self, stage: &Path) -> Result<(), StageError> {
        let run_dir = stage.join(Self::FOLDER);
        let ended = Handle::current().block_on(destroy_leftover(&run_dir));
        ended.map_err(|error| StageError::Io { what: "end", path: run_dir, source: io::Error::other(error) })
    }
}

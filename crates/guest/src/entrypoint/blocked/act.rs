//! github-act-runner: images hold another program beside it, `act-standby`. It starts in the same way, waits until the
//! entrypoint writes to a FIFO, and then does the same as `github-act-runner run`, with the environment that was written.

use super::{Standby, StandbyError, fifo};
use crate::entrypoint::app::{self, at};
use crate::entrypoint::process;
use crate::entrypoint::user::Account;
use dayfly_guest::runner_app::{JitConfig, Launch};
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::PipeReader;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Instant;

/// Name of the waiting program, beside the app.
const PROGRAM: &str = "act-standby";
/// Name of the FIFO in the app's folder, from which it reads its environment.
const FIFO: &str = ".standby";

pub(super) struct ActStandby {
    program: PathBuf,
    /// The app's folder, once it was made.
    folder: Option<PathBuf>,
    /// The other end of the FIFO, while the app waits.
    pipe: Option<File>,
}

impl ActStandby {
    /// Returns `None` if the app has no waiting program beside it.
    pub(super) fn beside(app: &Path) -> Option<Self> {
        let program = app.with_file_name(PROGRAM);
        program.is_file().then_some(Self { program, folder: None, pipe: None })
    }
}

impl Standby for ActStandby {
    fn start(
        &mut self,
        launch: &Launch,
        account: Option<&Account>,
        end: Instant,
    ) -> Result<(Child, PipeReader), StandbyError> {
        let folder = &launch.folder;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .map_err(at("cannot make the folder", folder))?;
        self.folder = Some(folder.clone());
        let fifo = folder.join(FIFO);
        fifo::make(&fifo, account)?;
        app::give(folder, account)?;
        let waiting = Launch { program: self.program.clone(), args: vec![FIFO.to_owned()], ..launch.clone() };
        let (child, output) = process::spawn(&waiting, account)?;
        let waiting = fifo::wait_for_reader(&fifo, &self.program, Pid::from_child(&child), end);
        let (child, pipe) = process::keep_if(child, waiting)?;
        self.pipe = Some(pipe);
        Ok((child, output))
    }

    fn hand_over(&mut self, launch: &Launch, _: &JitConfig) -> Result<(), StandbyError> {
        let fifo = launch.folder.join(FIFO);
        let environment: BTreeMap<_, _> = launch.env.iter().map(|(name, value)| (name, value)).collect();
        let text = serde_json::to_vec(&environment).map_err(std::io::Error::from);
        let pipe = self.pipe.take().ok_or(StandbyError::Gone)?;
        let written = text.and_then(|text| fifo::write(pipe, &text));
        std::fs::remove_file(&fifo).map_err(at("cannot remove", &fifo))?;
        Ok(written.map_err(at("cannot write the environment to", &fifo))?)
    }

    fn clean_up(&mut self) {
        if let Some(folder) = self.folder.take() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

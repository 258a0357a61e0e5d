//! A runner app that is started before there is a runner, and waits for its environment.
//!
//! The start of github-act-runner takes longer than any other step before a job, half a second under emulation. Therefore
//! images hold another program beside it, `act-standby`. It starts in the same way, waits until the entrypoint writes to a
//! FIFO, and then does the same as `github-act-runner run`, with the environment that was written. While it waits, it holds
//! no data of a runner, so it can be frozen in a template. The official app has no such program: its own program is only
//! read once, by a run with `--version`.

use super::app::{self, AppError, at};
use super::process::{self, Process};
use super::settings::Layers;
use super::supervisor::Event;
use super::user::Account;
use super::{StartError, install};
use dayfly_guest::runner_app::{Launch, RunnerApp};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{PipeReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::SyncSender;

/// A waiting app. Dropping it kills the app and removes the app's folder, unless the app continues.
pub(super) struct Blocked {
    /// The app that the waiting program replaces.
    app: PathBuf,
    folder: PathBuf,
    account: Option<Account>,
    state: BlockedStage,
}

/// The progress of a waiting app.
enum BlockedStage {
    /// Its folder exists, but no process runs yet.
    Preparing,
    /// The process waits; the pipe has its output.
    Waiting(Child, PipeReader),
    /// It was told to continue. The folder belongs to the app, or to the one that takes its place.
    Released,
}

/// Name of the waiting program, beside the app.
const PROGRAM: &str = "act-standby";
/// Name of the FIFO in the app's folder, from which it reads its environment.
const FIFO: &str = ".standby";

impl Blocked {
    /// Starts the app as it would be started for a JIT config without any user settings. Returns `None` if the app has no
    /// waiting program.
    pub(super) fn start(layers: &Layers<'_>) -> Result<Option<Self>, StartError> {
        let account = layers.user().as_deref().map(Account::to_become).transpose()?.flatten();
        let app_dir = layers.options.get("app-dir").map(PathBuf::from);
        let (user, folder) = app::home(app_dir.as_deref(), account.as_ref())?;
        let program = match layers.options.get("app") {
            Some(program) => PathBuf::from(program),
            None => install::find(layers.get("RUNNER_INSTALL").map(PathBuf::from).as_deref())?,
        };
        let mut launch = Launch::run(&program, &folder, &user);
        crate::image_env::apply(&mut launch);
        let waiting = program.with_file_name(PROGRAM);
        if RunnerApp::of(&program) != RunnerApp::GithubActRunner || !waiting.is_file() {
            launch.args = vec!["--version".to_owned()];
            launch.folder = "/".into();
            let (mut child, _output) = process::spawn(&launch, account.as_ref())?;
            let _ = super::orphans::reap(&mut child);
            return Ok(None);
        }
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(at("cannot make the folder", &folder))?;
        // From here on an error drops this value, which removes the folder.
        let mut blocked = Self { app: program, folder, account, state: BlockedStage::Preparing };
        let fifo = blocked.folder.join(FIFO);
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .map_err(|errno| at("cannot make", &fifo)(errno.into()))?;
        app::give(&fifo, blocked.account.as_ref())?;
        app::give(&blocked.folder, blocked.account.as_ref())?;
        (launch.program, launch.args) = (waiting, vec![FIFO.to_owned()]);
        let (child, output) = process::spawn(&launch, blocked.account.as_ref())?;
        blocked.state = BlockedStage::Waiting(child, output);
        Ok(Some(blocked))
    }

    /// Returns true if this app can replace the one that would be started: everything but the environment must match.
    pub(super) fn is(&self, launch: &Launch, account: Option<&Account>) -> bool {
        self.app == launch.program
            && launch.args == ["run"]
            && self.folder == launch.folder
            && self.account.as_ref() == account
            && launch.secret.is_none()
    }

    /// Writes the app's environment, with which it continues. Returns `None` if it does not wait (any more). The app has
    /// exited or is killed in that case.
    pub(super) fn go_on(
        mut self,
        launch: &Launch,
        events: &SyncSender<Event>,
    ) -> Result<Option<(Process, PipeReader)>, AppError> {
        let path = self.folder.join(FIFO);
        let BlockedStage::Waiting(child, output) = std::mem::replace(&mut self.state, BlockedStage::Released)
        else {
            return Ok(None);
        };
        let environment: BTreeMap<_, _> = launch.env.iter().map(|(name, value)| (name, value)).collect();
        let written = serde_json::to_vec(&environment)
            .map_err(std::io::Error::from)
            .and_then(|text| File::from(open_fifo(&path)?).write_all(&text));
        std::fs::remove_file(&path).map_err(at("cannot remove", &path))?;
        match written {
            Ok(()) if !process::has_ended(Pid::from_child(&child)) => {
                Ok(Some((process::watch(child, launch.stop_signal, events), output)))
            }
            _ => {
                process::discard(child);
                Ok(None)
            }
        }
    }
}

/// Opens the FIFO for writing. Returns an error if no process has opened it for reading.
fn open_fifo(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fifo = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NXIO) => return Err(std::io::Error::other("it does not wait")),
        fifo => fifo?,
    };
    // Writes block from now on: the reader empties the FIFO while it is filled.
    rustix::fs::fcntl_setfl(&fifo, OFlags::empty())?;
    Ok(fifo)
}

impl Drop for Blocked {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, BlockedStage::Released) {
            BlockedStage::Released => return,
            BlockedStage::Waiting(child, _) => process::discard(child),
            BlockedStage::Preparing => {}
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

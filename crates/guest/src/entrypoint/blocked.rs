//! A runner app that runs before there is a runner: it waits for its environment.
//!
//! Starting github-act-runner costs more than anything else on the way to a job, under emulation half a second. So images
//! hold another program beside it, `act-standby`: it starts in the same way, waits for somebody to write to a FIFO, and then
//! does what `github-act-runner run` does, with the environment that was written. Nothing of it belongs to anybody while it
//! waits: it can be frozen in a template. For the official app there is no such program; its own is read once.

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

/// An app that waits. Dropping it ends it, and removes its folder.
pub(super) struct Blocked {
    /// The app that it stands in for.
    app: PathBuf,
    folder: PathBuf,
    account: Option<Account>,
    /// `None` once it goes on.
    running: Option<(Child, PipeReader)>,
}

/// Name of the program that waits, beside the app.
const PROGRAM: &str = "act-standby";
/// What it reads its environment from, in the app's folder.
const FIFO: &str = ".standby";

impl Blocked {
    /// Starts the app as a JIT config without any settings of a user's own would have it; `None` where it could not wait.
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
        // From here on dropping it removes the folder.
        let mut blocked = Self { app: program, folder, account, running: None };
        let fifo = blocked.folder.join(FIFO);
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .map_err(|errno| at("cannot make", &fifo)(errno.into()))?;
        app::give(&fifo, blocked.account.as_ref())?;
        app::give(&blocked.folder, blocked.account.as_ref())?;
        (launch.program, launch.args) = (waiting, vec![FIFO.to_owned()]);
        blocked.running = Some(process::spawn(&launch, blocked.account.as_ref())?);
        Ok(Some(blocked))
    }

    /// Whether it can take the place of what would be started: all but the environment must be the same.
    pub(super) fn is(&self, launch: &Launch, account: Option<&Account>) -> bool {
        self.app == launch.program
            && launch.args == ["run"]
            && self.folder == launch.folder
            && self.account.as_ref() == account
            && launch.secret.is_none()
    }

    /// Gives it its environment, with which it goes on. `None` where it does not wait (any more): it has ended then.
    pub(super) fn go_on(
        mut self,
        launch: &Launch,
        events: &SyncSender<Event>,
    ) -> Result<Option<(Process, PipeReader)>, AppError> {
        let path = self.folder.join(FIFO);
        let Some((child, output)) = self.running.take() else { return Ok(None) };
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

/// Its writing end; an error where nobody has opened the other one.
fn open_fifo(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fifo = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NXIO) => return Err(std::io::Error::other("it does not wait")),
        fifo => fifo?,
    };
    // The reader empties it while it is filled.
    rustix::fs::fcntl_setfl(&fifo, OFlags::empty())?;
    Ok(fifo)
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some((child, _)) = self.running.take() {
            process::discard(child);
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

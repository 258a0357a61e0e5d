//! A runner app that runs before there is a runner: it waits for its settings.
//!
//! Starting github-act-runner costs more than anything else on the way to a job, under emulation half a second. Its `run`
//! reads `.runner` first, once, then `.credentials` and `.credentials_rsaparams` (seen in the sources of 0.13.0). Where
//! `.runner` is a FIFO it waits there, and nothing of it belongs to anybody: it can be frozen in a template. The official
//! app reads its files in another order, so it is not started; only its program is read once.

use super::app::{self, AppError, at};
use super::process::{self, Process};
use super::settings::Layers;
use super::supervisor::Event;
use super::user::Account;
use super::{StartError, install};
use dayfly_guest::runner_app::{Launch, RunnerApp, RunnerFile};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{PipeReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::SyncSender;

/// An app that waits. Dropping it ends it, and removes its folder.
pub(super) struct Blocked {
    launch: Launch,
    account: Option<Account>,
    /// `None` once it goes on.
    running: Option<(Child, PipeReader)>,
}

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
        if RunnerApp::of(&program) != RunnerApp::GithubActRunner {
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
        let mut blocked = Self { launch, account, running: None };
        let fifo = blocked.settings_path();
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .map_err(|errno| at("cannot make", &fifo)(errno.into()))?;
        app::give(&fifo, blocked.account.as_ref())?;
        app::give(&folder, blocked.account.as_ref())?;
        blocked.running = Some(process::spawn(&blocked.launch, blocked.account.as_ref())?);
        Ok(Some(blocked))
    }

    fn settings_path(&self) -> PathBuf {
        self.launch.folder.join(RunnerFile::Runner.name())
    }

    /// Whether it is what would be started.
    pub(super) fn is(&self, launch: &Launch, account: Option<&Account>) -> bool {
        self.running.is_some() && self.launch == *launch && self.account.as_ref() == account
    }

    /// Gives it its settings, with which it goes on. `None` where it does not wait (any more): it has ended then, and the
    /// settings are in its folder, for another one.
    pub(super) fn go_on(
        mut self,
        settings: &[u8],
        events: &SyncSender<Event>,
    ) -> Result<Option<(Process, PipeReader)>, AppError> {
        let path = self.settings_path();
        let Some((child, output)) = self.running.take() else { return Ok(None) };
        let fifo = open_fifo(&path);
        // Whoever looks for them later finds a file as after any start.
        std::fs::remove_file(&path).map_err(at("cannot remove", &path))?;
        app::write_new(&path, settings, self.account.as_ref())?;
        match fifo.and_then(|fifo| File::from(fifo).write_all(settings)) {
            Ok(()) => Ok(Some((process::watch(child, self.launch.stop_signal, events), output))),
            Err(_) => {
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
            let _ = std::fs::remove_dir_all(&self.launch.folder);
        }
    }
}

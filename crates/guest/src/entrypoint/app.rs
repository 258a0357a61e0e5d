//! The runner app before it runs: who it runs as, its folder and the files in it.

use super::blocked::Blocked;
use super::process::{self, Process};
use super::settings::{Settings, Task};
use super::supervisor::Event;
use super::user::{self, Account};
use super::{StartError, install};
use crate::folder::Folder;
use dayfly_guest::runner_app::{JitConfig, Launch, RunnerApp, RunnerFile, SETTINGS, User, without_token};
use std::fs::File;
use std::io::{self, PipeReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

/// Most bytes of the app's settings; with its key they have about 4 KiB.
const SETTINGS_LENGTH_MAX: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum AppError {
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{}: this runner app is configured already; each runner needs a fresh one", .0.display()
    )]
    Configured(PathBuf),
    #[error("the configuration failed ({0}); the lines of [configuration] say why")]
    Configuration(String),
}

pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AppError {
    let path = path.to_owned();
    move |source| AppError::Io { what, path, source }
}

/// A runner app, or a command in its place, that is ready to be configured or started.
pub(super) struct App {
    /// What runs in the end.
    pub(super) launch: Launch,
    /// What comes before, and registers the runner.
    pub(super) configure: Option<Launch>,
    /// `None`: no change of user.
    pub(super) account: Option<Account>,
    /// `None` for a command.
    pub(super) kind: Option<RunnerApp>,
    /// It runs already, and waits for its environment.
    blocked: Option<Blocked>,
}

impl App {
    /// Makes the app's folder and the files of a JIT config, readable by its user alone.
    ///
    /// An app that was started before goes on, if it is what would be started now; else it ends.
    pub(super) fn prepare(settings: &Settings, blocked: Option<Blocked>) -> Result<Self, StartError> {
        let account = settings.user.as_deref().map(Account::to_become).transpose()?.flatten();
        let (user, folder) = home(settings.app_dir.as_deref(), account.as_ref())?;
        let mut app = match &settings.task {
            Task::Command(command) => {
                let launch = Launch::command(Path::new(&command[0]), &command[1..], &folder, &user);
                Self { launch, configure: None, account, kind: None, blocked: None }
            }
            Task::Jit { .. } | Task::Register(_) => Self::installed(settings, account, &user, &folder)?,
        };
        crate::image_env::apply(&mut app.launch);
        if let Some(configure) = &mut app.configure {
            crate::image_env::apply(configure);
        }
        for (name, value) in &settings.for_jobs {
            app.launch.set(name, value);
        }
        let jit_config = match &settings.task {
            Task::Jit { config, .. } => Some(config),
            Task::Register(_) | Task::Command(_) => None,
        };
        match (blocked, jit_config) {
            (Some(blocked), Some(config)) if blocked.is(&app.launch, app.account.as_ref()) => {
                app.write_files(config)?;
                app.blocked = Some(blocked);
            }
            (blocked, _) => {
                drop(blocked);
                app.make_folder(jit_config)?;
            }
        }
        if matches!(settings.task, Task::Register(_)) {
            app.make_work_folder(&settings.work_folder)?;
        }
        Ok(app)
    }

    fn installed(
        settings: &Settings,
        account: Option<Account>,
        user: &User,
        folder: &Path,
    ) -> Result<Self, StartError> {
        let program = settings.app.clone().map_or_else(|| install::find(settings.install.as_deref()), Ok)?;
        rustix::fs::access(&program, rustix::fs::Access::EXEC_OK)
            .map_err(|errno| at("cannot run", &program)(errno.into()))?;
        let kind = RunnerApp::of(&program);
        let folder = kind.own_folder(&program).unwrap_or_else(|| folder.to_owned());
        let mut launch = Launch::run(&program, &folder, user);
        let mut configure = None;
        match &settings.task {
            Task::Jit { encoded, .. } if kind == RunnerApp::ActionsRunner => {
                launch = launch.with_jit_config(encoded);
            }
            Task::Register(registration) => {
                configure = Some(Launch::configure(&program, &folder, user, registration));
            }
            Task::Jit { .. } | Task::Command(_) => {}
        }
        Ok(Self { launch, configure, account, kind: Some(kind), blocked: None })
    }

    /// The official app has a folder, whose user it becomes: it writes its files, those of a JIT config too, and its
    /// updates there. Another app's folder is new, so nobody can have put a link in it.
    fn make_folder(&self, jit_config: Option<&JitConfig>) -> Result<(), AppError> {
        let folder = &self.launch.folder;
        if self.kind == Some(RunnerApp::ActionsRunner) {
            let runner = folder.join(RunnerFile::Runner.name());
            return if runner.exists() { Err(AppError::Configured(runner)) } else { self.give(folder) };
        }
        let make = std::fs::DirBuilder::new().mode(0o700).create(folder);
        make.map_err(at("cannot make the folder", folder))?;
        if let Some(jit_config) = jit_config {
            self.write_files(jit_config)?;
        }
        self.give(folder)
    }

    /// Until its user gets it, root's folder lets nobody else in.
    fn write_files(&self, jit_config: &JitConfig) -> Result<(), AppError> {
        for file in RunnerFile::ALL {
            write_new(&self.launch.folder.join(file.name()), jit_config.file(file), self.account.as_ref())?;
        }
        Ok(())
    }

    /// Starts the app, or lets one go on that waits.
    pub(super) fn start(&mut self, events: &SyncSender<Event>) -> Result<(Process, PipeReader), AppError> {
        if let Some(blocked) = self.blocked.take()
            && let Some(started) = blocked.go_on(&self.launch, events)?
        {
            return Ok(started);
        }
        process::start(&self.launch, self.account.as_ref(), events)
    }

    /// Where it is there already, it is somebody's who knows what for.
    fn make_work_folder(&self, folder: &Path) -> Result<(), AppError> {
        if folder.is_relative() || folder.is_dir() {
            return Ok(());
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(folder)
            .map_err(at("cannot make the work folder (see RUNNER_WORKDIR)", folder))?;
        self.give(folder)
    }

    /// Takes the token out of what the configuration has left for every job to read.
    pub(super) fn forget_token(&self) -> Result<(), StartError> {
        if self.kind != Some(RunnerApp::GithubActRunner) {
            return Ok(());
        }
        let folder = Folder::open(&self.launch.folder)?;
        let settings = match folder.read(SETTINGS, SETTINGS_LENGTH_MAX) {
            Err(error) if error.is_absent() => return Ok(()),
            settings => settings?,
        };
        if let Some(settings) = without_token(&settings) {
            folder.write(SETTINGS, &settings)?;
            self.give(&self.launch.folder.join(SETTINGS))?;
        }
        Ok(())
    }

    fn give(&self, path: &Path) -> Result<(), AppError> {
        give(path, self.account.as_ref())
    }

    /// Takes the secrets away once the app has ended; one that is gone already is fine.
    pub(super) fn remove_secrets(&self) {
        for name in self.kind.map(RunnerApp::secret_files).unwrap_or_default() {
            let _ = std::fs::remove_file(self.launch.folder.join(name));
        }
    }
}

/// Writes a file that is not there yet, for that user alone.
fn write_new(path: &Path, content: &[u8], account: Option<&Account>) -> Result<(), AppError> {
    let new = File::options().write(true).create_new(true).mode(0o600).open(path);
    new.and_then(|mut new| new.write_all(content)).map_err(at("cannot write", path))?;
    give(path, account)
}

/// Gives a file to a user; `None`: it stays whose it is.
pub(super) fn give(path: &Path, account: Option<&Account>) -> Result<(), AppError> {
    let Some(account) = account else { return Ok(()) };
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(at("cannot change the owner of", path))
}

/// Whose home it is, and the app's folder. A folder that somebody names, without a change of user, has its home beside
/// it, so that nothing of this machine's real home is touched.
pub(super) fn home(app_dir: Option<&Path>, account: Option<&Account>) -> Result<(User, PathBuf), StartError> {
    let beside = |folder: &Path| User {
        name: "runner".to_owned(),
        home: folder.parent().unwrap_or(Path::new("/")).to_owned(),
        shell: "/bin/sh".into(),
    };
    Ok(match (app_dir, account) {
        (Some(folder), None) => (beside(folder), folder.to_owned()),
        (Some(folder), Some(account)) => (account.user.clone(), folder.to_owned()),
        (None, account) => {
            let user = account.map_or_else(user::own, |account| Ok(account.user.clone()))?;
            let folder = user.home.join("app");
            (user, folder)
        }
    })
}

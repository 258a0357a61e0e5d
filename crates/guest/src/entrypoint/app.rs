//! Prepares the runner app before it runs: its user, its folder and the files in the folder.

use super::blocked::Blocked;
use super::log::Log;
use super::process::{self, Process};
use super::settings::{Settings, Task};
use super::supervisor::Event;
use super::user::{self, Account};
use super::{StartError, folders, install, tuning};
use crate::folder::Folder;
use dayfly_guest::runner_app::{JitConfig, Launch, RunnerApp, RunnerFile, SETTINGS, User, without_token};
use std::fs::File;
use std::io::{self, PipeReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

/// Largest size of the app's settings in bytes. With the key they have about 4 KiB.
const SETTINGS_LENGTH_MAX: usize = 256 * 1024;

/// Folders that the official app makes in its own: for jobs, and for its log files.
const OWN_FOLDERS: [&str; 2] = ["_work", "_diag"];

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
    #[error(
        "the pool has hooks, and only the official runner app runs hooks: take an image with it, or remove `hooks` from the pool"
    )]
    NoHooks,
    #[error("the configuration failed ({0}); the lines of [configuration] say why")]
    Configuration(String),
}

pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AppError {
    let path = path.to_owned();
    move |source| AppError::Io { what, path, source }
}

/// A runner app, or a command in its place, that is ready to be configured or started.
pub(super) struct App {
    /// The command line of the app.
    pub(super) launch: Launch,
    /// The command line that runs before, and registers the runner. It holds the registration token, so it is taken out when
    /// it runs.
    pub(super) configure: Option<Launch>,
    /// The user to become; `None`: no change of user.
    pub(super) account: Option<Account>,
    /// The kind of runner app; `None` for a command.
    pub(super) kind: Option<RunnerApp>,
    /// An app that already runs, and waits for its runner.
    blocked: Option<(Blocked, JitConfig)>,
}

impl App {
    /// Creates the app's folder and the files of a JIT config, readable only by the app's user.
    ///
    /// The waiting app is used if it is the app that would be started now. Otherwise it is killed.
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
        settings.outside.apply(&mut app.launch);
        if let Some(configure) = &mut app.configure {
            settings.outside.apply(configure);
        }
        app.launch.set_all(settings.for_jobs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let jit_config = match &settings.task {
            Task::Jit { config, .. } => Some(config),
            Task::Register(_) | Task::Command(_) => None,
        };
        match (blocked, jit_config) {
            (Some(blocked), Some(config)) if blocked.is(&app.launch, app.account.as_ref()) => {
                app.write_files(config)?;
                app.blocked = Some((blocked, config.clone()));
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
            Task::Register(_) => {
                let registration = settings.take_registration();
                configure = registration.map(|new| Launch::configure(&program, &folder, user, &new));
            }
            Task::Jit { .. } | Task::Command(_) => {}
        }
        Ok(Self { launch, configure, account, kind: Some(kind), blocked: None })
    }

    /// Creates the app's folder and gives it to the app's user. The official app already has a folder, in which it writes
    /// its files, including those of a JIT config, and its updates. Another app's folder is new, so no other user can have
    /// put a link in it.
    fn make_folder(&self, jit_config: Option<&JitConfig>) -> Result<(), AppError> {
        let folder = &self.launch.folder;
        if self.kind == Some(RunnerApp::ActionsRunner) {
            let runner = folder.join(RunnerFile::Runner.name());
            if runner.exists() {
                return Err(AppError::Configured(runner));
            }
            self.give(folder)?;
            return OWN_FOLDERS.into_iter().try_for_each(|name| self.give_inner(&folder.join(name)));
        }
        let make = std::fs::DirBuilder::new().mode(0o700).create(folder);
        make.map_err(at("cannot make the folder", folder))?;
        if let Some(jit_config) = jit_config {
            self.write_files(jit_config)?;
        }
        self.give(folder)
    }

    /// Writes the files of a JIT config. A new folder still belongs to root then, so that no other user can enter it. A
    /// waiting app may have a FIFO in the place of a file.
    fn write_files(&self, jit_config: &JitConfig) -> Result<(), AppError> {
        for file in RunnerFile::ALL {
            write_file(&self.launch.folder, file.name(), jit_config.file(file), self.account.as_ref())?;
        }
        Ok(())
    }

    /// Installs the user's proxies and authorities. Outside of a dayfly machine nothing is changed.
    pub(super) fn open_way_out(&self, settings: &Settings) -> Result<(), AppError> {
        let home = self.launch.value("HOME").unwrap_or("/root");
        match folders::is_machine() {
            true => settings.outside.install(Path::new("/"), Path::new(home), self.account.as_ref()),
            false => Ok(()),
        }
    }

    /// Sets the app's runtime up for a short life, unless the app runs already. Returns the problems. Outside of a dayfly
    /// machine nothing is changed, because the app then is not dayfly's.
    pub(super) fn tune(&self) -> Vec<String> {
        let is_meant = self.kind == Some(RunnerApp::ActionsRunner) && self.blocked.is_none();
        if is_meant && folders::is_machine() { tuning::tune(&self.launch) } else { Vec::new() }
    }

    /// Starts the app, or lets the waiting one continue.
    pub(super) fn start(
        &mut self,
        events: &SyncSender<Event>,
        log: &Log,
    ) -> Result<(Process, PipeReader), AppError> {
        if let Some((blocked, jit_config)) = self.blocked.take() {
            match blocked.go_on(&self.launch, &jit_config, events) {
                Ok(started) => {
                    log.detail("the app that waited goes on");
                    return Ok(started);
                }
                Err(error) => log.say(&format!("the app is started, not the one that waited: {error}")),
            }
        }
        process::start(&self.launch, self.account.as_ref(), events)
    }

    /// Gives a folder of the app's folder to the app's user, if the image's build has left it to another user.
    fn give_inner(&self, folder: &Path) -> Result<(), AppError> {
        let is_folder = folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        match &self.account {
            Some(account) if is_folder && !account.may_write(folder) => self.give(folder),
            _ => Ok(()),
        }
    }

    /// Creates the work folder for the app's user. An existing folder stays unchanged, because its owner was set on
    /// purpose.
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

    /// Removes the token from the file that the configuration leaves, because every job could read it there.
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

    /// Removes the files with secrets once the app has exited. A missing file is no error.
    pub(super) fn remove_secrets(&self) {
        for name in self.kind.map(RunnerApp::secret_files).unwrap_or_default() {
            let _ = std::fs::remove_file(self.launch.folder.join(name));
        }
    }
}

/// Writes a file that only this user can read. It has another name until it is complete.
pub(super) fn write_file(
    folder: &Path,
    name: &str,
    content: &[u8],
    account: Option<&Account>,
) -> Result<(), AppError> {
    let (path, draft) = (folder.join(name), folder.join(format!("{name}.draft")));
    let new = File::options().write(true).create_new(true).mode(0o600).open(&draft);
    new.and_then(|mut new| new.write_all(content)).map_err(at("cannot write", &draft))?;
    give(&draft, account)?;
    std::fs::rename(&draft, &path).map_err(at("cannot write", &path))
}

/// Gives a file to a user; `None`: its owner stays.
pub(super) fn give(path: &Path, account: Option<&Account>) -> Result<(), AppError> {
    let Some(account) = account else { return Ok(()) };
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(at("cannot change the owner of", path))
}

/// Returns the app's user with the home, and the app's folder. If the folder is named and the user does not change, the
/// folder's parent is the home, so that nothing in this machine's real home is touched.
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

//! The runner app as a process: its folder and files, its start, its process group.
#![expect(unsafe_code, reason = "changing the user with all its groups must happen between fork and exec")]

use super::Event;
use super::options::Options;
use super::settings::Settings;
use super::user::Account;
use super::{StartError, user::UserError};
use dayfly_guest::runner_app::{Launch, RunnerFile, StopSignal, User};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use std::fs::File;
use std::io::{self, PipeReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;

/// Open files a job's programs may have: what hosted machines give. Some programs walk through all of them.
const OPEN_FILES: u64 = 65_536;

#[derive(Debug, thiserror::Error)]
pub(super) enum AppError {
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AppError {
    let path = path.to_owned();
    move |source| AppError::Io { what, path, source }
}

/// A runner app that is ready to start.
pub(super) struct App {
    pub(super) launch: Launch,
    account: Option<Account>,
}

impl App {
    /// Makes the app's folder with the files of the JIT config, readable by its user alone.
    pub(super) fn prepare(options: &Options, settings: &Settings) -> Result<Self, StartError> {
        let account = settings.user.as_deref().map(Account::find).transpose()?;
        let folder = match (&options.app_dir, &account) {
            (Some(folder), _) => folder.clone(),
            (None, Some(account)) => account.user.home.join("app"),
            (None, None) => return Err(UserError::Unknown("'' (and --app-dir is missing)".to_owned()).into()),
        };
        let user = account.as_ref().map_or_else(|| own_user(&folder), |account| account.user.clone());
        let app = Self { launch: Launch::new(&options.app, &folder, &user), account };
        rustix::fs::access(&options.app, rustix::fs::Access::EXEC_OK)
            .map_err(|errno| at("cannot run", &options.app)(errno.into()))?;
        app.write_files(settings)?;
        Ok(app)
    }

    /// The folder is new and root's until its files are whole, so nobody can put a link in their way.
    fn write_files(&self, settings: &Settings) -> Result<(), AppError> {
        let folder = &self.launch.folder;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .map_err(at("cannot make the folder", folder))?;
        for file in RunnerFile::ALL {
            let path = folder.join(file.name());
            let new = File::options().write(true).create_new(true).mode(0o600).open(&path);
            let content = settings.jit_config.file(file);
            new.and_then(|mut new| new.write_all(content)).map_err(at("cannot write", &path))?;
            self.give(&path)?;
        }
        self.give(folder)
    }

    fn give(&self, path: &Path) -> Result<(), AppError> {
        let Some(account) = &self.account else { return Ok(()) };
        let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(at("cannot change the owner of", path))
    }

    /// Takes the secrets away once the app has ended; one that is gone already is fine.
    pub(super) fn remove_secrets(&self) {
        for file in RunnerFile::ALL {
            let _ = std::fs::remove_file(self.launch.folder.join(file.name()));
        }
    }

    /// Starts the app in a process group of its own: its end comes as an event, and what it prints
    /// (standard output and error in one) through the pipe.
    pub(super) fn start(&self, events: SyncSender<Event>) -> Result<(Running, PipeReader), AppError> {
        let program = &self.launch.program;
        let (output, writer) = io::pipe().map_err(at("no pipe for", program))?;
        let copy = writer.try_clone().map_err(at("no pipe for", program))?;
        let mut command = Command::new(program);
        command.args(&self.launch.args).env_clear().envs(self.launch.env.iter().map(|(k, v)| (k, v)));
        command
            .current_dir(&self.launch.folder)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(copy)
            .process_group(0);
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(super::signals::unblock) };
        if let Some(account) = self.account.clone() {
            // SAFETY: between fork and exec only system calls are made, on memory that was there before.
            unsafe { command.pre_exec(move || become_user(&account)) };
        }
        let child = command.spawn().map_err(at("cannot start", program))?;
        let pid = Pid::from_child(&child);
        std::thread::spawn(move || {
            // Not reaped here: until it is, its process group's number cannot be another's.
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            // Never full for long: the receiver handles events until this one.
            let _ = events.send(Event::Ended);
        });
        Ok((Running { child, pid, stop_signal: self.launch.stop_signal }, output))
    }
}

/// Without a change of user the app's home is beside its folder.
fn own_user(folder: &Path) -> User {
    let home = folder.parent().unwrap_or(Path::new("/")).to_owned();
    User { name: "runner".to_owned(), home, shell: "/bin/sh".into() }
}

fn become_user(account: &Account) -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let maximum = limit.maximum;
    let current = Some(maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)));
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    rustix::thread::set_thread_groups(&account.groups)?;
    rustix::thread::set_thread_gid(account.gid)?;
    rustix::thread::set_thread_uid(account.uid)?;
    Ok(())
}

/// A runner app that runs, or has ended and is not reaped yet.
pub(super) struct Running {
    child: Child,
    pid: Pid,
    stop_signal: StopSignal,
}

impl Running {
    /// Asks the app and all that it started to end.
    pub(super) fn ask_to_end(&self) {
        let signal = match self.stop_signal {
            StopSignal::Interrupt => Signal::INT,
            StopSignal::Terminate => Signal::TERM,
        };
        // An app that has just ended is no error.
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Ends them by force.
    pub(super) fn kill(&self) {
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }

    /// Takes the status of an app that has ended, and ends what it left behind in its group.
    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.child.wait()
    }
}

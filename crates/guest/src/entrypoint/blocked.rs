//! A runner app that is started before there is a runner, and waits for it.
//!
//! The start of an app takes longer than any other step before a job: half a second for github-act-runner and ten seconds
//! for the official app under emulation. Therefore an app is started in a machine that is then frozen, and each fork of
//! this machine only gives it a runner. While it waits, it holds no data of a runner.
//!
//! ```text
//!   template   Standby::start      the app runs, and reads from a FIFO that this process holds open
//!   fork       App::write_files    the files of the JIT config
//!              Standby::hand_over  the text that the app waits for
//!         or   Standby::clean_up   another app or a command is started instead
//! ```

mod act;
mod fifo;
mod listener;

use super::app::{self, AppError};
use super::process::{self, Process};
use super::settings::Layers;
use super::supervisor::Event;
use super::user::Account;
use super::{StartError, folders, install};
use act::ActStandby;
use dayfly_guest::runner_app::{JitConfig, Launch, RunnerApp};
use listener::ListenerStandby;
use rustix::process::Pid;
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

/// The reason why an app does not wait, or does not continue.
#[derive(Debug, thiserror::Error)]
pub(super) enum StandbyError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error("{} ended before it waited for its runner", .0.display())]
    Ended(PathBuf),
    #[error("{} was not seen to wait for its runner in time", .0.display())]
    Late(PathBuf),
    #[error("{} is there already: the app in the image is configured, or of an unknown version", .0.display())]
    Occupied(PathBuf),
    #[error(
        "{} is in the memory of the app that waits: all forks would share the state of its random numbers", .0.display()
    )]
    Tls(PathBuf),
    #[error("the app waits no more")]
    Gone,
}

/// A way in which a runner app waits for its runner.
trait Standby {
    /// Starts the app, and returns it with its output once it has been seen to wait, before `end`. The app is not left
    /// running if this fails.
    fn start(
        &mut self,
        launch: &Launch,
        account: Option<&Account>,
        end: Instant,
    ) -> Result<(Child, PipeReader), StandbyError>;

    /// Gives the waiting app its runner, whose files are in the app's folder already.
    fn hand_over(&mut self, launch: &Launch, jit_config: &JitConfig) -> Result<(), StandbyError>;

    /// Removes everything that [`Standby::start`] has made, also if it has failed. The app does not run any more.
    fn clean_up(&mut self);
}

/// Returns the way in which an app waits; `None` if it has none.
fn standby_of(program: &Path) -> Option<Box<dyn Standby>> {
    match RunnerApp::of(program) {
        RunnerApp::GithubActRunner => Some(Box::new(ActStandby::beside(program)?)),
        RunnerApp::ActionsRunner => Some(Box::new(ListenerStandby::default())),
    }
}

/// A waiting app. Dropping it kills the app and removes everything that was made for it, unless the app continues.
pub(super) struct Blocked {
    /// The command line that the waiting app takes the place of.
    launch: Launch,
    account: Option<Account>,
    standby: Box<dyn Standby>,
    /// The process and its output; `None` once it was told to continue.
    waiting: Option<(Child, PipeReader)>,
}

impl Blocked {
    /// Starts the app as it would be started for a JIT config without any user settings. It must wait before `end`. Returns
    /// `None` if the app cannot wait; then it is only read once, by a run with `--version`.
    pub(super) fn start(layers: &Layers<'_>, end: Instant) -> Result<Option<Self>, StartError> {
        let account = layers.user().as_deref().map(Account::to_become).transpose()?.flatten();
        let app_dir = layers.options.get("app-dir").map(PathBuf::from);
        let (user, folder) = app::home(app_dir.as_deref(), account.as_ref())?;
        let program = match layers.options.get("app") {
            Some(program) => PathBuf::from(program),
            None => install::find(layers.get("RUNNER_INSTALL").map(PathBuf::from).as_deref())?,
        };
        let folder = RunnerApp::of(&program).own_folder(&program).unwrap_or(folder);
        let mut launch = Launch::run(&program, &folder, &user);
        crate::image_env::apply(&mut launch);
        folders::settle(&mut launch, account.as_ref());
        let Some(mut standby) = standby_of(&program) else {
            launch.args = vec!["--version".to_owned()];
            launch.folder = "/".into();
            let (mut child, _output) = process::spawn(&launch, account.as_ref())?;
            let _ = super::orphans::reap(&mut child);
            return Ok(None);
        };
        match standby.start(&launch, account.as_ref(), end) {
            Ok(waiting) => Ok(Some(Self { launch, account, standby, waiting: Some(waiting) })),
            Err(error) => {
                standby.clean_up();
                Err(error.into())
            }
        }
    }

    /// Returns true if this app can replace the one that would be started: everything but the environment must match.
    pub(super) fn is(&self, launch: &Launch, account: Option<&Account>) -> bool {
        let fixed = |launch: &Launch| (launch.program.clone(), launch.args.clone(), launch.folder.clone());
        fixed(&self.launch) == fixed(launch) && self.account.as_ref() == account
    }

    /// Gives the app its runner and its environment, with which it continues. If this fails, the app has exited or is
    /// killed.
    pub(super) fn go_on(
        mut self,
        launch: &Launch,
        jit_config: &JitConfig,
        events: &SyncSender<Event>,
    ) -> Result<(Process, PipeReader), StandbyError> {
        let (child, output) = self.waiting.take().ok_or(StandbyError::Gone)?;
        let handed_over = self.standby.hand_over(launch, jit_config);
        let gone = process::has_ended(Pid::from_child(&child)).then_some(StandbyError::Gone);
        match handed_over.err().or(gone) {
            None => Ok((process::watch(child, launch.stop_signal, events), output)),
            Some(error) => {
                process::discard(child);
                Err(error)
            }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some((child, _)) = self.waiting.take() {
            process::discard(child);
            self.standby.clean_up();
        }
    }
}

//! `dayfly-guest entrypoint`: starts the runner app, relays its output, and stops it on request.
//!
//! The entrypoint uses files, standard output and processes only, so that any driver can run it: a driver that mounts
//! the environment directory, the agent, which transfers the files over its port, or a driver that runs it on the host.
//!
//! ```text
//!   <id>.env  -- read, removed -->  settings --> container engine --> the app's files, or its `configure`
//!                                                  --> <id>.tkn --> runner app (or a command in its place)
//!   <id>.trm with the secret  -->  stop signal to the process group that runs, 30 s later SIGKILL
//!   SIGTERM, SIGINT, SIGHUP   -->  <id>.brk, then the same; a second signal kills at once, in every phase
//! ```
//!
//! Each line that a started program prints goes to standard output as `[source@runner-<id>] text`. The source is
//! `runner`, `diagnostics` or `app-log` (its own log files, after a failure), `configuration`, `docker` or `podman`, or
//! `entrypoint` for the entrypoint's own lines. The exit status is an [`Ending`], or 2 for wrong usage. Secrets come in the `.env` file, or from a user who runs the
//! entrypoint by hand. They are passed on in the environment and in files, never as arguments.
//!
//! The entrypoint does not delete the registration, because a registration token has long expired when a job ends. The
//! loop on the host deletes the registration, by its id.

mod app;
mod app_log;
mod blocked;
mod engine;
pub(crate) mod folders;
mod help;
mod hooks;
pub(crate) mod install;
mod log;
mod mask;
mod options;
mod orphans;
pub(crate) mod outside;
mod process;
mod registration;
mod run;
mod settings;
mod setup_info;
pub(crate) mod signals;
pub(crate) mod standby;
mod stop;
mod supervisor;
mod trm;
mod tuning;
pub(crate) mod user;
pub(crate) mod worker;

use crate::folder::{Folder, FolderError};
use blocked::Blocked;
use dayfly_guest::envfile::{self, Variables};
use dayfly_guest::environment::is_runner_id;
use dayfly_guest::runner_app::Ending;
use log::Log;
use options::{Options, UsageError};
use settings::{Layers, Settings};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Once};
use stop::Order;
use supervisor::{Event, Supervisor};

/// The reason why the app could not be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    #[error(transparent)]
    User(#[from] user::UserError),
    #[error(transparent)]
    NotInstalled(#[from] install::NotInstalled),
    #[error(transparent)]
    App(#[from] app::AppError),
    #[error(transparent)]
    Standby(#[from] blocked::StandbyError),
    #[error("{}: not a path to a file", .0.display())]
    Path(PathBuf),
}

/// The options and the environment of this process, and the id of its runner.
struct Start {
    options: Options,
    environment: Vec<(String, String)>,
    runner_id: String,
}

/// Runs with the arguments after `entrypoint`, and returns the exit status.
pub(crate) fn run(args: &[String]) -> u8 {
    let environment = crate::options::environment();
    match args.split_first() {
        Some((first, args)) if first == standby::OPTION => match standby::wait(args, &environment) {
            Some((order, blocked)) => start(&order.args, order.env, blocked),
            None => 0,
        },
        _ => start(args, environment, None),
    }
}

fn start(args: &[String], environment: Vec<(String, String)>, blocked: Option<Blocked>) -> u8 {
    match Start::new(args, environment) {
        Ok(start) if start.options.get("help").is_some() => {
            print(&help::text(&start.options, &start.environment))
        }
        Ok(start) => start.run(blocked),
        Err(error) => {
            crate::console::say(&format!("{error}\n{}; -h tells more", help::USAGE));
            2
        }
    }
}

/// Blocks the termination signals, starts a session and adopts orphans, once in a process. Call it before any thread
/// starts, so that all threads leave the signals to the thread that waits for them.
fn begin() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        signals::block();
        // This fails only if the process already leads a process group.
        let _ = rustix::process::setsid();
        orphans::adopt();
    });
}

fn print(text: &str) -> u8 {
    // If standard output has no reader, nothing is lost.
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

impl Start {
    fn new(args: &[String], environment: Vec<(String, String)>) -> Result<Self, UsageError> {
        let options = options::parse(args)?;
        let layers = Layers { file: None, options: &options, environment: &environment };
        match layers.runner_id() {
            None if options.get("help").is_none() => Err(UsageError::NoId),
            Some(id) if !is_runner_id(&id) => Err(UsageError::Id(id)),
            runner_id => Ok(Self { runner_id: runner_id.unwrap_or_default(), options, environment }),
        }
    }

    fn run(&self, blocked: Option<Blocked>) -> u8 {
        let layers = Layers { file: None, options: &self.options, environment: &self.environment };
        begin();
        let log = Arc::new(Log::open(&self.runner_id, layers.get("RUNNER_LOG"), layers.is_verbose()));
        let ending = self.supervise(&log, blocked).unwrap_or_else(|error| {
            log.say(&format!("the runner app was not started: {error}"));
            Ending::NotStarted
        });
        log.say(&format!("end: {ending:?}"));
        u8::try_from(ending.code()).unwrap_or(1)
    }

    fn supervise(&self, log: &Arc<Log>, blocked: Option<Blocked>) -> Result<Ending, StartError> {
        let (sender, events) = sync_channel(16);
        signals::forward(&sender, Event::Order(Order::Signal));
        let mut supervisor = Supervisor::new(events, Arc::clone(log));
        let file = self.read_env_file()?;
        let layers = Layers { file: file.as_ref(), options: &self.options, environment: &self.environment };
        log.set_verbose(layers.is_verbose());
        log.keep_in(Path::new(&layers.in_force("RUNNER_LOGDIR")));
        let settings = Settings::resolve(&layers, &self.runner_id)?;
        if self.options.get("pat").is_some() {
            log.say("-T: every user who lists processes sees the PAT; a registration token (-t) expires in an hour");
        }
        let folder = match Folder::open(&settings.environment) {
            Ok(folder) => Some(Arc::new(folder)),
            Err(error) if file.is_none() && error.is_absent() => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(folder) = &folder {
            trm::watch(folder, &settings, log, &sender)?;
            supervisor.tell_signals(trm::brk(folder, &settings, log));
        }
        // The file holds the registration token.
        drop(file);
        let layers = Layers { file: None, options: &self.options, environment: &self.environment };
        let run = run::Run { settings: &settings, folder: folder.as_deref(), events: sender, log };
        let docker = (layers.process("PATH"), layers.process("DOCKER_HOST"));
        run.live(&mut supervisor, docker, blocked)
    }

    /// Reads the env file, and removes it before anything else is done, whatever it holds. Returns `None` if no file
    /// was named and the usual one does not exist.
    fn read_env_file(&self) -> Result<Option<Variables>, StartError> {
        let (path, named) = settings::env_path(&self.options, &self.environment, &self.runner_id);
        let read = || -> Result<_, StartError> {
            let (folder, name) = split(&path)?;
            let text = folder.read(&name, envfile::LENGTH_MAX);
            folder.remove(&name)?;
            Ok(text?)
        };
        match read() {
            Ok(text) => Ok(Some(envfile::parse(&text).map_err(settings::SettingsError::from)?)),
            Err(StartError::Folder(error)) if error.is_absent() && !named => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Opens the folder of a file, and returns it with the file's name.
fn split(path: &Path) -> Result<(Folder, String), StartError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| StartError::Path(path.to_owned()))?.to_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Folder::open(parent)?, name))
}

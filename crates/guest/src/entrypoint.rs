//! `dayfly-guest entrypoint`: starts the runner app, relays what it prints, and stops it when it is told to.
//!
//! It knows files and standard output only, so that any driver can run it: one that mounts the environment
//! directory, or the agent, which carries the files over its port.
//!
//! ```text
//!   <id>.env  -- read, removed -->  settings --> the runner app's files --> <id>.tkn --> runner app
//!   <id>.trm, the secret in it  -->  the app's stop signal to its process group, 30 s, SIGKILL
//!   SIGTERM, SIGINT, SIGHUP     -->  <id>.brk, then the same; a second one kills at once
//! ```
//!
//! Standard output gets one line for each of the app's, `[runner@runner-<id>] text`, and its own words as
//! `[entrypoint@runner-<id>] text`. The exit status is an [`Ending`], or 2 for wrong usage. No option takes a
//! secret: secrets come in the `.env` file only.

mod app;
mod log;
mod options;
mod settings;
mod signals;
mod stop;
mod user;

use crate::folder::{Folder, FolderError};
use app::App;
use dayfly_guest::environment::{self, Suffix, is_secret};
use dayfly_guest::runner_app::{Ending, Observation, observe};
use log::Log;
use options::Options;
use settings::Settings;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use stop::{Action, Stop};

/// How long the last lines of an app that has ended are waited for.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);

/// Most observations that are kept; an app has three or four of those that count.
const OBSERVATIONS_MAX: usize = 64;

/// What happens while the app runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// The app's own process has ended and waits to be reaped.
    Ended,
    /// The loop asks for the end: `.trm` with the right secret.
    Terminate,
    /// A termination signal.
    Signal,
}

/// Why the app could not be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    #[error(transparent)]
    User(#[from] user::UserError),
    #[error(transparent)]
    App(#[from] app::AppError),
    #[error("{}: not a path to a file", .0.display())]
    Path(PathBuf),
}

/// Runs with the arguments after `entrypoint`; the exit status.
pub(crate) fn run(args: &[String]) -> u8 {
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(error) => {
            crate::console::say(&format!("{error}\n{}", options::USAGE));
            return 2;
        }
    };
    // Before any thread starts, so that all of them leave the signals to the one that waits for them.
    signals::block();
    // It fails only where this is a leader already.
    let _ = rustix::process::setsid();
    let log = Arc::new(Log::open(&options.runner_id, options.log.as_deref(), options.verbose));
    let ending = supervise(&options, &log).unwrap_or_else(|error| {
        log.say(&format!("the runner app was not started: {error}"));
        Ending::NotStarted
    });
    log.say(&format!("end: {ending:?}"));
    u8::try_from(ending.code()).unwrap_or(1)
}

fn supervise(options: &Options, log: &Arc<Log>) -> Result<Ending, StartError> {
    let folder = Arc::new(Folder::open(&options.environment)?);
    let settings = read_settings(options)?;
    let (sender, events) = sync_channel(16);
    signals::forward(&sender, Event::Signal);
    watch_for_trm(options, &folder, &settings, log, &sender)?;

    let app = App::prepare(options, &settings)?;
    log.detail(&format!("starting {} in {}", app.launch.program.display(), app.launch.folder.display()));
    let (tkn_folder, tkn_name) = split(&options.tkn_path())?;
    tkn_folder.write(&tkn_name, &settings.name)?;
    let (mut running, output) = app.start(sender)?;

    let seen = Arc::new(Mutex::new(Vec::new()));
    let relay = relay_output(output, log, &seen);
    let stop = wait(&running, &events, || write_brk(&folder, options, &settings, log), log);
    let status = running.reap();
    app.remove_secrets();
    let end = Instant::now();
    while !relay.is_finished() && end.elapsed() < LAST_LINES_MAX {
        std::thread::sleep(Duration::from_millis(2));
    }
    match &status {
        Ok(status) => log.say(&format!("the runner app ended: {status}")),
        Err(error) => log.say(&format!("the runner app ended; its status is lost: {error}")),
    }
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(stop.unwrap_or_else(|| Ending::judge(status.ok().and_then(|status| status.code()), &seen)))
}

/// Reads the `.env` file, and removes it before anything else is done, whatever it holds.
fn read_settings(options: &Options) -> Result<Settings, StartError> {
    let (folder, name) = split(&options.env_path())?;
    let text = folder.read(&name, dayfly_guest::envfile::LENGTH_MAX);
    folder.remove(&name)?;
    Ok(Settings::parse(&text?, options)?)
}

fn split(path: &Path) -> Result<(Folder, String), StartError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| StartError::Path(path.to_owned()))?.to_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Folder::open(parent)?, name))
}

/// Sends an event when the loop writes `<id>.trm` with the secret in it. A wrong one is said and ignored.
fn watch_for_trm(
    options: &Options,
    folder: &Arc<Folder>,
    settings: &Settings,
    log: &Arc<Log>,
    events: &SyncSender<Event>,
) -> Result<(), StartError> {
    let watch = folder.watch()?;
    let (folder, log, events) = (Arc::clone(folder), Arc::clone(log), events.clone());
    let (name, secret) = (environment::file_name(&options.runner_id, Suffix::Trm), settings.secret.clone());
    let look = move || match folder.read_note(&name) {
        Ok(note) if is_secret(&note, &secret) => {
            log.say(&format!("{name}: the loop asks for the end"));
            // A full queue holds an end already.
            let _ = events.try_send(Event::Terminate);
        }
        Ok(_) => log.say(&format!("{name} is ignored: it does not hold this runner's secret")),
        Err(error) if error.is_absent() => {}
        Err(error) => log.say(&format!("{name} is ignored: {error}")),
    };
    let wanted = environment::file_name(&options.runner_id, Suffix::Trm);
    std::thread::spawn(move || {
        // It may have been written before the watch began.
        look();
        watch.for_each(|written| {
            if written.is_empty() || written == wanted {
                look();
            }
        });
    });
    Ok(())
}

fn write_brk(folder: &Folder, options: &Options, settings: &Settings, log: &Log) {
    let name = environment::file_name(&options.runner_id, Suffix::Brk);
    match folder.write(&name, &settings.secret) {
        Ok(()) => log.say(&format!("termination signal: {name} written")),
        Err(error) => log.say(&format!("termination signal: {error}")),
    }
}

fn relay_output(
    output: std::io::PipeReader,
    log: &Arc<Log>,
    seen: &Arc<Mutex<Vec<Observation>>>,
) -> std::thread::JoinHandle<()> {
    let (log, seen) = (Arc::clone(log), Arc::clone(seen));
    std::thread::spawn(move || {
        crate::lines::for_each(output, |line| {
            log.relay(line);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            // What is seen twice says nothing new, and the rest is bounded.
            if let Some(new) =
                observe(line).filter(|new| seen.len() < OBSERVATIONS_MAX && !seen.contains(new))
            {
                seen.push(new);
            }
        });
    })
}

/// Waits until the app has ended; how it was stopped, if it was.
fn wait(
    running: &app::Running,
    events: &Receiver<Event>,
    mut on_first_signal: impl FnMut(),
    log: &Log,
) -> Option<Ending> {
    let mut stop = Stop::default();
    loop {
        let event = match stop.deadline() {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        let event = match event {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            // The thread that waits for the app never goes without its event.
            Err(RecvTimeoutError::Disconnected) => Some(Event::Ended),
        };
        if event == Some(Event::Signal) && stop.is_first_signal() {
            on_first_signal();
        }
        match stop.handle(event, Instant::now()) {
            Action::Wait => {}
            Action::Ask => {
                log.say("stopping the runner app");
                running.ask_to_end();
            }
            Action::Kill => {
                log.say("killing the runner app");
                running.kill();
            }
            Action::Done => return stop.reason(),
        }
    }
}

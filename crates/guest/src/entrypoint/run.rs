//! Runs a runner app: container engine, configuration, then the app itself, and again after an update or a retry.

use super::app::{App, AppError};
use super::app_log;
use super::blocked::Blocked;
use super::engine::{self, Engine};
use super::log::Log;
use super::mask::Mask;
use super::settings::{Settings, Task};
use super::supervisor::{Event, Supervisor};
use super::{StartError, folders, hooks, process, setup_info, split};
use crate::folder::Folder;
use dayfly_guest::environment::{Suffix, file_name};
use dayfly_guest::runner_app::{
    After, DIAGNOSTICS, Ending, Launch, Observation, RunnerApp, is_diagnostic, observe,
};
use std::io::PipeReader;
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for the last lines of an app that has exited.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);

/// Largest number of observations that are stored. An app makes three or four that count.
const OBSERVATIONS_MAX: usize = 64;

/// Largest number of starts of an app, as in its own service wrapper.
const STARTS_MAX: usize = 10;

/// Pause before an app is started again at its own request.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Longest time that an update may take after the app has exited for it.
const UPDATE_MAX: Duration = Duration::from_secs(30);

/// Name of the file that an update leaves when it is done.
const UPDATE_DONE: &str = "update.finished";

/// Observations from the lines of a running app.
type Seen = Arc<Mutex<Vec<Observation>>>;

/// Everything that one run needs.
pub(super) struct Run<'a> {
    pub(super) settings: &'a Settings,
    /// The environment directory; it may be absent if the entrypoint is run by hand.
    pub(super) folder: Option<&'a Folder>,
    pub(super) events: SyncSender<Event>,
    pub(super) log: &'a Arc<Log>,
}

impl Run<'_> {
    /// Runs everything from the resolved settings to the end. `path` and `docker_host` are this process's `PATH` and
    /// `DOCKER_HOST`.
    pub(super) fn live(
        &self,
        supervisor: &mut Supervisor,
        (path, docker_host): (Option<&str>, Option<&str>),
        blocked: Option<Blocked>,
    ) -> Result<Ending, StartError> {
        let mut app = App::prepare(self.settings, blocked)?;
        if let Err(error) = setup_info::write(&app, self.settings) {
            self.log.say(&format!("the job's log says nothing about its machine: {error}"));
        }
        hooks::install(&mut app, self.settings)?;
        for unusable in folders::settle(&mut app.launch, app.account.as_ref()) {
            match unusable.is_set() {
                true => self.log.say(&unusable.to_string()),
                false => self.log.detail(&unusable.to_string()),
            }
        }
        app.open_way_out(self.settings)?;
        self.check_work_folder(&app);
        for problem in app.tune() {
            self.log.detail(&problem);
        }
        let request = engine::Request {
            wanted: self.settings.engine,
            path: path.unwrap_or_default(),
            docker_host: docker_host.unwrap_or_default(),
            configuration: &self.settings.containers_conf,
            proxies: self.settings.outside.proxy_variables(),
            account: app.account.as_ref(),
        };
        let engine = Engine::start(&request, supervisor, &self.events, self.log);
        let result = self.run_app(&mut app, supervisor);
        app.remove_secrets();
        if let Some(engine) = engine {
            engine.end(supervisor);
        }
        result
    }

    /// Reports a work folder that jobs cannot use. github-act-runner has a folder of its own.
    fn check_work_folder(&self, app: &App) {
        let folder = &self.settings.work_folder;
        let is_used =
            matches!(self.settings.task, Task::Register(_)) && app.kind == Some(RunnerApp::ActionsRunner);
        if is_used
            && folder.is_absolute()
            && let Some(why) = folders::problem(folder, app.account.as_ref())
        {
            self.log.say(&format!(
                "the work folder {} cannot be used (see RUNNER_WORKDIR): {why}",
                folder.display()
            ));
        }
    }

    fn run_app(&self, app: &mut App, supervisor: &mut Supervisor) -> Result<Ending, StartError> {
        self.configure(app, supervisor)?;
        if let Some(ending) = supervisor.reason() {
            return Ok(ending);
        }
        // The runner is registered, and the app is not started yet.
        self.write_tkn()?;
        for start in 1.. {
            let after = self.run_once(app, supervisor)?;
            if let Some(ending) = supervisor.reason() {
                return Ok(ending);
            }
            match after {
                After::End(ending) => return Ok(ending),
                After::Retry | After::Update if start == STARTS_MAX => {
                    self.log.say(&format!("the runner app is not started more than {STARTS_MAX} times"));
                    self.relay_app_log(app, &self.mask());
                    break;
                }
                After::Retry => supervisor.pause(RETRY_PAUSE),
                After::Update => wait_for_update(&app.launch.folder, supervisor),
            }
            if let Some(ending) = supervisor.reason() {
                return Ok(ending);
            }
            self.log.say("starting the runner app again");
        }
        Ok(Ending::Failed)
    }

    /// Registers the runner, if the app does that, and forgets the registration token. With it, a job that is root could
    /// register runners of its own for an hour, which get other repositories' jobs.
    fn configure(&self, app: &mut App, supervisor: &mut Supervisor) -> Result<(), StartError> {
        let Some(launch) = app.configure.take().filter(|_| supervisor.reason().is_none()) else {
            return Ok(());
        };
        self.log.detail(&format!("configuring {} in {}", launch.program.display(), launch.folder.display()));
        let (mut process, output) = process::start(&launch, app.account.as_ref(), &self.events)?;
        let relay = relay_output("configuration", output, self.log, None);
        let status = supervisor.wait(&mut process, "the configuration");
        wait_for_last_lines(&relay);
        match status {
            // The configuration was stopped by an order, which is no error.
            _ if supervisor.reason().is_some() => Ok(()),
            Ok(status) if status.success() => app.forget_token(),
            Ok(status) => {
                let token = launch.secret.iter().map(|secret| secret.value.clone());
                self.relay_app_log(app, &Mask::of(self.settings, token));
                Err(AppError::Configuration(status.to_string()).into())
            }
            Err(error) => Err(AppError::Configuration(error.to_string()).into()),
        }
    }

    fn write_tkn(&self) -> Result<(), StartError> {
        let note = self.settings.name.as_str();
        match (&self.settings.tkn, self.folder) {
            (Some(path), _) => {
                let (folder, name) = split(path)?;
                folder.write(&name, note)?;
            }
            (None, Some(folder)) => folder.write(&file_name(&self.settings.runner_id, Suffix::Tkn), note)?,
            (None, None) => {}
        }
        Ok(())
    }

    fn run_once(&self, app: &mut App, supervisor: &mut Supervisor) -> Result<After, StartError> {
        let Launch { program, folder, .. } = &app.launch;
        self.log.detail(&format!("starting {} in {}", program.display(), folder.display()));
        let (mut process, output) = app.start(&self.events, self.log)?;
        let seen = Seen::default();
        let relay = relay_output("runner", output, self.log, Some(&seen));
        let what = if app.kind.is_some() { "the runner app" } else { "the command" };
        let status = supervisor.wait(&mut process, what);
        wait_for_last_lines(&relay);
        match &status {
            Ok(status) => self.log.say(&format!("{what} ended: {status}")),
            Err(error) => self.log.say(&format!("{what} ended; its status is lost: {error}")),
        }
        let code = status.ok().and_then(|status| status.code());
        let Some(kind) = app.kind else {
            // A command has no jobs to observe, so only its status counts.
            debug_assert!(matches!(self.settings.task, Task::Command(_)));
            return Ok(After::End(if code == Some(0) { Ending::JobDone } else { Ending::Failed }));
        };
        if let Some(reason) = kind.explain(code) {
            self.log.say(reason);
        }
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let after = kind.after(code, &seen, self.settings.ephemeral);
        let is_over = matches!(after, After::End(_)) && supervisor.reason().is_none();
        if is_over && !Ending::is_success(code, &seen) {
            self.relay_app_log(app, &self.mask());
        }
        Ok(after)
    }

    /// Relays the end of the app's own log files, if it has any.
    fn relay_app_log(&self, app: &App, mask: &Mask) {
        if app.kind == Some(RunnerApp::ActionsRunner) {
            app_log::relay(&app.launch.folder, mask, self.log);
        }
    }

    /// Returns the mask of an app that is registered.
    fn mask(&self) -> Mask {
        Mask::of(self.settings, [])
    }
}

/// Waits until the update is done, which continues after the app has exited, and replaces the app.
fn wait_for_update(folder: &Path, supervisor: &mut Supervisor) {
    let (start, done) = (Instant::now(), folder.join(UPDATE_DONE));
    while supervisor.reason().is_none() && start.elapsed() < UPDATE_MAX {
        if std::fs::remove_file(&done).is_ok() {
            return;
        }
        supervisor.pause(Duration::from_millis(100));
    }
}

/// Waits for the last lines for a limited time, because a leftover process may hold the pipe open for ever.
pub(super) fn wait_for_last_lines(relay: &std::thread::JoinHandle<()>) {
    let end = Instant::now();
    while !relay.is_finished() && end.elapsed() < LAST_LINES_MAX {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Relays lines, and stores their observations if `seen` is given.
fn relay_output(
    source: &'static str,
    output: PipeReader,
    log: &Arc<Log>,
    seen: Option<&Seen>,
) -> std::thread::JoinHandle<()> {
    let (log, seen) = (Arc::clone(log), seen.cloned());
    std::thread::spawn(move || {
        crate::lines::for_each(output, |line| {
            log.relay(if is_diagnostic(line) { DIAGNOSTICS } else { source }, line);
            let Some(seen) = &seen else { return };
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            // Repeated observations say nothing new, and the number of the others is bounded.
            if let Some(new) =
                observe(line).filter(|new| seen.len() < OBSERVATIONS_MAX && !seen.contains(new))
            {
                seen.push(new);
            }
        });
    })
}

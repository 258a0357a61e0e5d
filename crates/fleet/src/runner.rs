//! One runner, from its registration to the moment when nothing of it is left.
//!
//! ```text
//!   Run::begin ──> register ──> start ──> watch ──> end
//!     folder,        JIT config,  .env,     .tkn,     entrypoint stopped or ended,
//!     journal        journalled   VM        events    VM destroyed, registration deleted, folder removed
//! ```
//!
//! Every step from `register` on can fail, and each failure goes through `end`, the only place that clears up.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_forge::client::{Deletion, Forge, ForgeError, JitRequest, NewRunner};
use dayfly_guest::envfile::{self, EnvFileError};
use dayfly_guest::environment::{self, Suffix};
use dayfly_guest::protocol::Source;
use dayfly_guest::runner_app::{self, Ending, JobResult, Observation};
use dayfly_vm::{EnvironmentDir, Forward, LeftoverError, StartError, Vm, VmEvent, VmHost, VmSpec};
use rand::RngExt as _;
use rand::distr::Alphanumeric;
use tokio::time::Instant;

use crate::event::{EventKind, Events};
use crate::journal::{Journal, JournalError, Step};
use crate::runner_id::RunnerId;
use crate::settings::LoopSettings;
use crate::stop::{Stop, StopOrder};

/// Length of the secret that proves who wrote a `.brk` or `.trm`.
const SECRET_LENGTH: usize = 32;

/// How a runner ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunnerEnd {
    /// It ran a job, with the result that the runner app told (a hint: the forge knows better).
    JobDone {
        /// None where the runner app did not say.
        result: Option<JobResult>,
    },
    /// The runner app ended without a job having been seen.
    NoJob,
    /// The machine was gone before the entrypoint's end.
    MachineLost {
        /// How the VMM ended.
        exit: String,
    },
    /// It was ended by whoever runs the loop.
    Stopped,
    /// Somebody in the VM ended it by a rightful `.brk`.
    Broken,
}

/// Why a runner could not be made or brought up.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// No registration.
    #[error("cannot register runner {name}: {source}")]
    Register {
        /// Name of the runner.
        name: String,
        /// Cause.
        source: ForgeError,
    },
    /// No VM.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The machine ended before its agent said hello.
    #[error("the machine of {name} never said hello: {exit}; its console's last lines:\n{console}")]
    NoHello {
        /// Name of the runner.
        name: String,
        /// How it ended.
        exit: String,
        /// Last lines of the console.
        console: String,
    },
    /// The machine came up, but the runner app did not.
    #[error("the runner app of {name} was not about to start within {} s of the agent's hello; the console's last lines:\n{console}", limit.as_secs())]
    NotUp {
        /// Name of the runner.
        name: String,
        /// How long was waited.
        limit: Duration,
        /// Last lines of the console.
        console: String,
    },
    /// The runner app could not be started, or ended before any job.
    #[error("the runner app of {name} {what}; the last lines of its machine:\n{lines}")]
    App {
        /// Name of the runner.
        name: String,
        /// What it did.
        what: &'static str,
        /// Last lines of the machine.
        lines: String,
    },
    /// The environment file.
    #[error("cannot write the environment of {name}: {source}")]
    EnvFile {
        /// Name of the runner.
        name: String,
        /// Cause.
        source: EnvFileError,
    },
    /// The state folder.
    #[error("cannot {what} {}: {source}", path.display())]
    State {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The journal: what it cannot announce is not done.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What is left of the machine.
    #[error(transparent)]
    Leftover(#[from] LeftoverError),
    /// The environment directory.
    #[error(transparent)]
    Environment(#[from] dayfly_vm::EnvironmentError),
    /// The forge's address in the JIT config is none that a VM could be given.
    #[error("the JIT config of {name} cannot be used: {problem}")]
    Address {
        /// Name of the runner.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl RunnerError {
    /// Whether trying again with a fresh runner could help.
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Register { source, .. } => source.is_temporary(),
            Self::Start(error) => error.is_transient(),
            Self::NoHello { .. } | Self::NotUp { .. } | Self::App { .. } => true,
            Self::EnvFile { .. }
            | Self::Leftover(_)
            | Self::State { .. }
            | Self::Journal(_)
            | Self::Environment(_)
            | Self::Address { .. } => false,
        }
    }
}

/// A runner in the making.
pub(crate) struct Run<'a> {
    settings: &'a LoopSettings,
    host: &'a VmHost,
    forge: &'a Forge,
    id: RunnerId,
    name: String,
    folder: PathBuf,
    environment: EnvironmentDir,
    secret: String,
    journal: Journal,
    events: Events,
    stop: Stop,
    registration: Option<u64>,
    vm: Option<Vm>,
    /// The runner app is about to start, or has.
    up: bool,
}

/// What `watch` has seen so far.
#[derive(Debug, Default)]
struct Seen {
    hello: bool,
    job: bool,
    result: Option<JobResult>,
    /// The last lines of the machine, for an error.
    lines: VecDeque<String>,
}

/// How many of the machine's last lines an error shows.
const LINES_SHOWN: usize = 15;

impl Seen {
    fn remember(&mut self, line: &str) {
        if self.lines.len() >= LINES_SHOWN {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// What happened, named before anybody decides about it.
enum Happening {
    Vm(Option<VmEvent>),
    EnvironmentChanged,
    Ordered(StopOrder),
    DeadlinePassed,
}

/// Makes one runner, waits for its end, and clears up after it.
pub(crate) async fn run_one(
    settings: &LoopSettings,
    host: &VmHost,
    forge: &Forge,
    events: &crate::event::EventSink,
    stop: &Stop,
) -> Result<RunnerEnd, RunnerError> {
    let mut run = Run::begin(settings, host, forge, events, stop.clone())?;
    let result = run.live().await;
    run.end(result).await
}

impl<'a> Run<'a> {
    fn begin(
        settings: &'a LoopSettings,
        host: &'a VmHost,
        forge: &'a Forge,
        events: &crate::event::EventSink,
        stop: Stop,
    ) -> Result<Self, RunnerError> {
        let id = RunnerId::random(settings.index);
        let name = id.name(&settings.prefix);
        let folder = settings.runs.join(id.as_str());
        make_folder(&folder)?;
        let environment = settings.environment.join(format!("{}-{:03}", settings.prefix, settings.index));
        make_folder(&environment)?;
        let secret = rand::rng().sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
        Ok(Self {
            settings,
            host,
            forge,
            environment: EnvironmentDir::open(&environment, id.as_str())?,
            secret,
            journal: Journal::open(&folder)?,
            events: events.of(&id, &name),
            id,
            name,
            folder,
            stop,
            registration: None,
            vm: None,
            up: false,
        })
    }

    async fn live(&mut self) -> Result<RunnerEnd, RunnerError> {
        if self.stop.order() != StopOrder::None {
            return Ok(RunnerEnd::Stopped);
        }
        let new_runner = self.register().await?;
        self.start(&new_runner).await?;
        drop(new_runner);
        self.watch().await
    }

    async fn register(&mut self) -> Result<NewRunner, RunnerError> {
        self.journal.write(Step::Registering {
            forge: self.forge.base().url().to_string(),
            principal: self.settings.principal.to_string(),
            name: self.name.clone(),
        })?;
        self.events.tell(EventKind::Registering).await;
        let request = JitRequest {
            name: self.name.clone(),
            group_id: self.settings.group,
            labels: self.settings.labels.clone(),
            work_folder: "_work".to_owned(),
        };
        let new_runner = self
            .forge
            .generate_jit_config(&self.settings.principal.scope(), &request)
            .await
            .map_err(|source| RunnerError::Register { name: self.name.clone(), source })?;
        let registration = new_runner.runner_id;
        self.registration = Some(registration);
        self.journal.write(Step::Registered { registration })?;
        self.events.tell(EventKind::Registered { registration }).await;
        Ok(new_runner)
    }

    async fn start(&mut self, new_runner: &NewRunner) -> Result<(), RunnerError> {
        let forward = self.forward(new_runner).await?;
        let environment = [
            ("RUNNER_ID", self.id.as_str()),
            ("RUNNER_NAME", &self.name),
            ("RUNNER_USER", &self.settings.user),
            ("RUNNER_SECRET", &self.secret),
            ("RUNNER_JITCONFIG", &new_runner.encoded),
        ];
        let environment = envfile::render(&environment)
            .map_err(|source| RunnerError::EnvFile { name: self.name.clone(), source })?;
        self.environment.write(Suffix::Env, &environment)?;
        let spec = VmSpec {
            name: self.name.clone(),
            runner_id: self.id.to_string(),
            machine: self.settings.machine.clone(),
            forward: Some(forward),
            environment: self.environment.path().to_owned(),
            entrypoint_args: Vec::new(),
        };
        self.journal.write(Step::StartingVm)?;
        self.vm = Some(dayfly_vm::start(self.host, spec, &self.folder).await?);
        Ok(())
    }

    /// Which one port of the host must work from the guest: the one that the JIT config tells the runner app to speak to.
    async fn forward(&self, new_runner: &NewRunner) -> Result<Forward, RunnerError> {
        let address = |problem: String| RunnerError::Address { name: self.name.clone(), problem };
        let (_, guest_port) = new_runner.config.server().map_err(|error| address(error.to_string()))?;
        let url = self.forge.base().url();
        let (host, port) = match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => (host.trim_matches(['[', ']']), port),
            _ => return Err(address(format!("comes from {url}, which names no host and port"))),
        };
        let found = tokio::net::lookup_host((host, port)).await.map(|mut addresses| addresses.next());
        match found {
            Ok(Some(to)) => Ok(Forward { guest_port, to }),
            Ok(None) => Err(address(format!("comes from {host}, which has no address"))),
            Err(error) => Err(address(format!("comes from {host}, whose address cannot be found: {error}"))),
        }
    }

    async fn watch(&mut self) -> Result<RunnerEnd, RunnerError> {
        let mut seen = Seen::default();
        let mut ordered = StopOrder::None;
        let mut deadline: Option<Instant> = None;
        loop {
            match self.next_happening(ordered, deadline).await {
                Happening::Vm(None) => {
                    return Ok(RunnerEnd::MachineLost { exit: "its events ended".to_owned() });
                }
                Happening::Vm(Some(event)) => {
                    if matches!(event, VmEvent::Hello) && !seen.hello {
                        seen.hello = true;
                        deadline = deadline.or(Some(Instant::now() + self.settings.limits.runner_up));
                    }
                    match self.take_vm_event(event, &mut seen).await {
                        Some(_) if ordered != StopOrder::None => return Ok(RunnerEnd::Stopped),
                        Some(end) => return end,
                        None => {}
                    }
                }
                Happening::EnvironmentChanged => {
                    if self.environment.take(Suffix::Tkn)?.is_some() && !self.up {
                        self.up = true;
                        deadline = deadline.filter(|_| ordered != StopOrder::None);
                        self.events.tell(EventKind::RunnerUp).await;
                    }
                }
                // Before the runner app is up there is nobody to end gently.
                Happening::Ordered(order) if order == StopOrder::AtOnce || !self.up => {
                    return Ok(RunnerEnd::Stopped);
                }
                Happening::Ordered(order) => {
                    ordered = order;
                    deadline = Some(Instant::now() + self.settings.limits.gentle_stop);
                    self.ask_to_end("the loop was stopped").await?;
                }
                Happening::DeadlinePassed if ordered == StopOrder::None => {
                    return Err(RunnerError::NotUp {
                        name: self.name.clone(),
                        limit: self.settings.limits.runner_up,
                        console: self.vm.as_ref().map(Vm::console_tail).unwrap_or_default(),
                    });
                }
                Happening::DeadlinePassed => {
                    let limit = self.settings.limits.gentle_stop.as_secs();
                    let message =
                        format!("{} did not end within {limit} s of .trm: killing its machine", self.name);
                    self.events.tell(EventKind::Warning { message }).await;
                    return Ok(RunnerEnd::Stopped);
                }
            }
        }
    }

    async fn next_happening(&mut self, ordered: StopOrder, deadline: Option<Instant>) -> Happening {
        let Some(vm) = self.vm.as_mut() else { return Happening::Vm(None) };
        let passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = vm.next_event() => Happening::Vm(event),
            () = self.environment.changed() => Happening::EnvironmentChanged,
            order = self.stop.above(ordered) => Happening::Ordered(order),
            () = passed => Happening::DeadlinePassed,
        }
    }

    /// Passes an event on, and says how the runner ended where this was its last.
    async fn take_vm_event(
        &mut self,
        event: VmEvent,
        seen: &mut Seen,
    ) -> Option<Result<RunnerEnd, RunnerError>> {
        let kind = match event {
            VmEvent::VmmStarted { pid } => EventKind::VmmStarted { pid },
            VmEvent::Restarted { reason } => EventKind::VmRestarted { reason },
            VmEvent::Hello => EventKind::AgentHello,
            VmEvent::Milestone { milestone, uptime_ms } => EventKind::Milestone { milestone, uptime_ms },
            VmEvent::Fault { message } => EventKind::Warning { message },
            VmEvent::Line { source, text } => {
                self.observe(&text, seen).await;
                // Docker's own lines say nothing about a runner app.
                if source != Source::Docker {
                    seen.remember(&text);
                }
                EventKind::Line { source, text }
            }
            VmEvent::EntrypointExited { code, signal } => {
                self.events.tell(EventKind::EntrypointExited { code, signal }).await;
                return Some(self.end_of(code, seen));
            }
            VmEvent::Gone { exit, .. } if seen.hello => {
                return Some(Ok(RunnerEnd::MachineLost { exit: exit.to_string() }));
            }
            VmEvent::Gone { exit, console_tail } => {
                let (name, exit) = (self.name.clone(), exit.to_string());
                return Some(Err(RunnerError::NoHello { name, exit, console: console_tail }));
            }
        };
        self.events.tell(kind).await;
        None
    }

    /// The runner app's milestones, from the lines that the entrypoint relays. Hints: a job can print such lines too.
    async fn observe(&mut self, text: &str, seen: &mut Seen) {
        let Some(relayed) = runner_app::parse_relayed(text) else { return };
        if relayed.runner_id != self.id.as_str() {
            return;
        }
        let kind = match runner_app::observe(relayed.text) {
            Some(Observation::Listening) => EventKind::Listening,
            Some(Observation::JobStarted { name }) => {
                seen.job = true;
                EventKind::JobStarted { job: name }
            }
            Some(Observation::JobFinished { result }) => {
                seen.result = Some(result);
                EventKind::JobFinished { result: format!("{result:?}") }
            }
            Some(Observation::Retrying | Observation::Unregistered) | None => return,
        };
        self.events.tell(kind).await;
    }

    /// What the entrypoint's end means. Its status is a hint of a hostile guest: it decides only what is told.
    fn end_of(&self, code: Option<i32>, seen: &Seen) -> Result<RunnerEnd, RunnerError> {
        if let Ok(Some(note)) = self.environment.read(Suffix::Brk)
            && environment::is_secret(&note, &self.secret)
        {
            return Ok(RunnerEnd::Broken);
        }
        let failed = |what| RunnerError::App { name: self.name.clone(), what, lines: seen.text() };
        match code.and_then(Ending::from_code) {
            Some(Ending::JobDone) => Ok(RunnerEnd::JobDone { result: seen.result }),
            _ if seen.job || seen.result.is_some() => Ok(RunnerEnd::JobDone { result: seen.result }),
            Some(Ending::NotStarted) => Err(failed("could not be started")),
            Some(Ending::NoJob | Ending::StoppedByLoop | Ending::StoppedBySignal) => Ok(RunnerEnd::NoJob),
            Some(Ending::Failed) | None => Err(failed("ended before it had a job")),
        }
    }

    /// Writes `.trm`: the entrypoint stops the runner app when it sees the loop's secret in it.
    async fn ask_to_end(&mut self, reason: &str) -> Result<(), RunnerError> {
        self.events.tell(EventKind::Stopping { reason: reason.to_owned() }).await;
        self.environment.write(Suffix::Trm, &self.secret)?;
        Ok(())
    }

    /// Clears up, whatever happened before; the first error is the one that is told.
    async fn end(mut self, result: Result<RunnerEnd, RunnerError>) -> Result<RunnerEnd, RunnerError> {
        let keep = self.settings.keep && matches!(result, Ok(RunnerEnd::JobDone { .. }));
        let vm_ended = self.end_vm(keep).await;
        if matches!(result, Ok(RunnerEnd::MachineLost { .. })) {
            self.tell_lost().await;
        }
        let registration_ended = self.end_registration().await;
        let files_ended =
            self.environment.clear().map_err(RunnerError::from).and_then(|()| self.end_folder(keep));
        self.events.tell(EventKind::Ended).await;
        let end = result?;
        vm_ended?;
        registration_ended?;
        files_ended?;
        Ok(end)
    }

    async fn end_vm(&mut self, keep: bool) -> Result<(), RunnerError> {
        let Some(mut vm) = self.vm.take() else { return self.end_vm_that_did_not_start().await };
        if keep {
            vm.detach();
            self.events.tell(EventKind::VmKept { folder: self.folder.clone() }).await;
            return Ok(());
        }
        self.journal.write(Step::DestroyingVm)?;
        let exit = if self.stop.order() == StopOrder::AtOnce || !self.up {
            vm.kill().await
        } else {
            vm.stop(self.settings.limits.power_off).await
        };
        vm.destroy().await?;
        self.journal.write(Step::VmGone)?;
        self.events.tell(EventKind::VmGone { exit: exit.to_string() }).await;
        Ok(())
    }

    async fn end_vm_that_did_not_start(&mut self) -> Result<(), RunnerError> {
        if crate::journal::remains(&crate::journal::read(&self.folder)?).vm {
            dayfly_vm::destroy_leftover(&self.folder).await?;
            self.journal.write(Step::VmGone)?;
        }
        Ok(())
    }

    /// Lets the forge know that nobody works on the job any more, where it is one that listens; the others find out by
    /// the runner's silence.
    async fn tell_lost(&mut self) {
        let Some(registration) = self.registration else { return };
        if let Err(error) = self.forge.tell_lost(registration).await {
            let message =
                format!("the forge does not know yet that the machine of {} is gone: {error}", self.name);
            self.events.tell(EventKind::Warning { message }).await;
        }
    }

    async fn end_registration(&mut self) -> Result<(), RunnerError> {
        let Some(registration) = self.registration else {
            return self.end_registration_by_name().await;
        };
        self.journal.write(Step::DeletingRegistration)?;
        let deadline = Instant::now() + self.settings.limits.busy_registration;
        let how = loop {
            match self.forge.delete_runner(&self.settings.principal.scope(), registration).await {
                Ok(Deletion::Deleted) => break "deleted",
                Ok(Deletion::Gone) => break "gone",
                Ok(Deletion::Busy) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_secs(2)).await
                }
                Ok(Deletion::Busy) => break "busy",
                Err(error) => {
                    let message = format!(
                        "cannot delete the registration {} (id {registration}): {error}; the next start tries again",
                        self.name
                    );
                    self.events.tell(EventKind::Warning { message }).await;
                    return Ok(());
                }
            }
        };
        if how != "busy" {
            self.journal.write(Step::RegistrationGone)?;
            self.registration = None;
        }
        self.events.tell(EventKind::RegistrationEnded { how }).await;
        Ok(())
    }

    /// A registration that was asked for, but whose answer was lost, may exist: it is looked up by its name.
    async fn end_registration_by_name(&mut self) -> Result<(), RunnerError> {
        let asked = crate::journal::remains(&crate::journal::read(&self.folder)?).registration.is_some();
        if !asked {
            return Ok(());
        }
        match self.forge.find_runner_by_name(&self.settings.principal.scope(), &self.name).await {
            Ok(Some(runner)) => {
                self.registration = Some(runner.id);
                Box::pin(self.end_registration()).await
            }
            Ok(None) => Ok(self.journal.write(Step::RegistrationGone)?),
            // Nothing more can be done now; the journal remembers it.
            Err(_) => Ok(()),
        }
    }

    /// Removes the run's folder, unless something that it tells of is still there.
    fn end_folder(&self, keep: bool) -> Result<(), RunnerError> {
        let left = crate::journal::remains(&crate::journal::read(&self.folder)?);
        if keep || left.vm || left.registration.is_some() {
            return Ok(());
        }
        std::fs::remove_dir_all(&self.folder).map_err(|source| RunnerError::State {
            what: "remove",
            path: self.folder.clone(),
            source,
        })
    }
}

fn make_folder(path: &Path) -> Result<(), RunnerError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| RunnerError::State {
        what: "make the folder",
        path: path.to_owned(),
        source,
    })
}

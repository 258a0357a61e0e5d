//! Builds a template: boots a machine, has it prepared, and freezes it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dayfly_guest::protocol::{self, GuestMessage, HostMessage, Milestone, Prepare, Source};
use tokio::time::Instant;

use super::blueprint::Blueprint;
use super::{Preparing, store};
use crate::console::BoundedFile;
use crate::fork::NEUTRAL_HOSTNAME;
use crate::fork::parts::{MachineParts, connect};
use crate::machine::spawn::{EarlyExit, Outputs, Recipe, Vmm};
use crate::machine::{Exit, MachineFolder, MachineMaker, StartError, identity};
use crate::vm_host::{Limits, VmHost};
use crate::vmm::{self, DescriptorRole, FreezeError, VmmFiles, memory};
use dayfly_host::scarcity::Scarcity;

/// Longest time that the VMM may take to write the state of its devices, which takes some hundredths of a second, and to
/// exit.
const FREEZE_LIMIT: Duration = Duration::from_secs(60);
/// Longest time that the machine may take to take on an identity and forget it again.
const REHEARSAL_LIMIT: Duration = Duration::from_secs(60);
/// Pause between the machine's last answer and the freeze.
const SETTLE: Duration = Duration::from_secs(1);
/// Number of lines of a warm-up that an error quotes.
const TAIL_LINES: usize = 20;

/// Why a template could not be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot {what} {path}: {source}")]
    Io { what: &'static str, path: String, source: io::Error },
    #[error("{what} within {} s; the console's last lines:\n{tail}", limit.as_secs())]
    TooLong { what: &'static str, limit: Duration, tail: String },
    #[error("{what}: {exit}; its last lines:\n{tail}")]
    Ended { what: &'static str, exit: String, tail: String },
    #[error("{what}: {exit}")]
    KilledForMemory { what: &'static str, exit: String },
    #[error("its agent speaks version {0} of the protocol")]
    Version(u32),
    #[error("{0}")]
    NotReady(String),
    #[error("{vmm} cannot freeze it: {0}", vmm = vmm::NAME)]
    Freeze(String),
}

impl BuildError {
    /// Returns what this host has run out of, if that is why the template was not built.
    pub(super) fn scarcity(&self) -> Option<Scarcity> {
        match self {
            Self::Start(error) => error.scarcity(),
            Self::KilledForMemory { .. } => Some(Scarcity::Memory),
            _ => Scarcity::of(self),
        }
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.display().to_string();
    move |source| BuildError::Io { what, path, source }
}

/// Builds the template into a folder: `memory`, `state`, `disk.img` and the output of the warm-up. Removes everything else
/// of the machine. A build that runs into a time limit is tried once more, because an emulated machine may hang forever
/// (seen once in some eighty builds on a loaded host, for an unknown reason).
pub(super) async fn build(
    host: &VmHost,
    blueprint: &Blueprint,
    stage: &Path,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<(), BuildError> {
    match try_to_build(host, blueprint, stage, tell).await {
        Err(error @ BuildError::TooLong { .. }) => {
            tracing::warn!("template {}: {error}\nit gets a second try", blueprint.id);
            try_to_build(host, blueprint, stage, tell).await
        }
        built => built,
    }
}

async fn try_to_build(
    host: &VmHost,
    blueprint: &Blueprint,
    stage: &Path,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<(), BuildError> {
    let run_dir = stage.join(MachineMaker::FOLDER);
    // Declared before the machine, so that it is dropped after the machine in any case.
    let folder = MachineFolder::make(run_dir.clone()).map_err(io_error("make the folder", &run_dir))?;
    let memory = freeze_one(host, blueprint, stage, folder.path(), tell).await?;
    drop(folder);
    let path = stage.join(store::MEMORY);
    let file = path.clone();
    let written = tokio::task::spawn_blocking(move || memory::write(&memory, &file)).await;
    written.map_err(io::Error::other).flatten().map_err(io_error("write", &path))
}

/// Boots the machine, prepares it, freezes it, and returns its memory.
async fn freeze_one(
    host: &VmHost,
    blueprint: &Blueprint,
    stage: &Path,
    run_dir: &Path,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<OwnedFd, BuildError> {
    let connection = connect(host, &blueprint.network, run_dir).await?;
    let name = format!("template-{}", blueprint.id);
    let parts =
        Arc::new(MachineParts::of_blueprint(host, blueprint, name, run_dir, Arc::new(connection), None));
    let files = stage.to_owned();
    let TemplateFiles { memory, state, recipe, log } =
        MachineParts::blocking(&parts, move |parts| TemplateFiles::make(parts, &files)).await?;
    let outputs = Outputs::new();
    let turn = host.pace.enter(blueprint.memory_mib).await.map_err(StartError::from)?;
    let vmm = recipe.spawn(&outputs, &Arc::new(AtomicBool::new(false))).await.map_err(StartError::from)?;
    let limits = blueprint.platform.limits(&host.limits);
    let hello_limit = limits.hello(blueprint.platform.accel);
    let mut machine =
        TemplateBuild { vmm, outputs, lines: Vec::new(), log, hello_limit, limits, said_hello: false };
    machine.get_ready(blueprint, tell).await?;
    drop(turn);
    machine.freeze(state.into()).await?;
    Ok(memory)
}

/// The files of a machine that becomes a template.
struct TemplateFiles {
    memory: OwnedFd,
    /// The file that the state of the devices is written to.
    state: File,
    recipe: Arc<Recipe>,
    /// The log of the warm-up.
    log: Option<BoundedFile>,
}

impl TemplateFiles {
    /// Creates the files in a stage. Blocks while a disk is formatted.
    fn make(parts: &MachineParts, stage: &Path) -> Result<Self, StartError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StartError::Io { what, path, source }
        };
        let memory =
            memory::make(u64::from(parts.memory_mib) << 20).map_err(failed("make memory for", stage))?;
        let state_path = stage.join(store::STATE);
        let state =
            File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&state_path);
        let state = state.map_err(failed("make", &state_path))?;
        let shared = memory.try_clone().map_err(failed("use memory of", stage))?;
        let files = VmmFiles::default().with(DescriptorRole::Memory, shared);
        let recipe = Arc::new(parts.template(&stage.join(store::DISK), files)?);
        let log = BoundedFile::append(&stage.join(store::WARM_UP_LOG)).ok();
        Ok(Self { memory, state, recipe, log })
    }
}

/// Returns the result of `Prepare` or `Forget`, if the message is an answer to one of them.
fn prepared(message: &GuestMessage) -> Option<Result<(), BuildError>> {
    match message {
        GuestMessage::Prepared { failure: None } => Some(Ok(())),
        GuestMessage::Prepared { failure: Some(failure) } => Some(Err(BuildError::NotReady(failure.clone()))),
        _ => None,
    }
}

/// A machine that becomes a template.
struct TemplateBuild {
    vmm: Vmm,
    outputs: Outputs,
    /// The last lines of the warm-up.
    lines: Vec<String>,
    /// The log of the warm-up and the agent.
    log: Option<BoundedFile>,
    hello_limit: Duration,
    limits: Limits,
    said_hello: bool,
}

impl TemplateBuild {
    /// Waits for the hello and for Docker, then has the agent prepare the machine, and rehearses.
    async fn get_ready(
        &mut self,
        blueprint: &Blueprint,
        tell: &mut (dyn FnMut(Preparing) + Send),
    ) -> Result<(), BuildError> {
        self.send(&HostMessage::Hello { version: protocol::VERSION, epoch: 1, lines_seen: 0 });
        let (hello, docker) = (self.hello_limit, self.limits.template);
        self.until("its agent said no hello", Instant::now() + hello, hello, tell, |message| match message {
            GuestMessage::Hello { version, .. } if *version != protocol::VERSION => {
                Some(Err(BuildError::Version(*version)))
            }
            GuestMessage::Hello { .. } => Some(Ok(())),
            _ => None,
        })
        .await?;
        // If the image has no Docker, nothing else has to be waited for.
        if blueprint.image.manifest().has_docker() {
            self.until_docker(docker, tell).await?;
        }
        self.send(&HostMessage::Prepare(Prepare {
            user: blueprint.user.clone(),
            dns: blueprint.dns,
            warm_up: blueprint.warm_up.as_ref().map(|warm_up| warm_up.script.clone()),
            warm_up_limit_s: self.limits.warm_up.as_secs(),
        }));
        let warm_up = blueprint.warm_up.as_ref().map_or(Duration::ZERO, |_| self.limits.warm_up);
        let limit = self.limits.template + warm_up;
        self.until("it was not ready", Instant::now() + limit, limit, tell, prepared).await?;
        self.rehearse(tell).await
    }

    async fn until_docker(
        &mut self,
        limit: Duration,
        tell: &mut (dyn FnMut(Preparing) + Send),
    ) -> Result<(), BuildError> {
        self.until("Docker did not answer", Instant::now() + limit, limit, tell, |message| match message {
            GuestMessage::Milestone { milestone: Milestone::DockerReady, .. } => Some(Ok(())),
            // A template without Docker would be worse than a cold boot.
            GuestMessage::DockerFailed { reason } => Some(Err(BuildError::NotReady(reason.clone()))),
            _ => None,
        })
        .await
    }

    /// Has the machine take on an identity and answer a host, as each fork will do, and then forget the identity. After
    /// that, forks need no work that is only done the first time, such as the first write to a page.
    async fn rehearse(&mut self, tell: &mut (dyn FnMut(Preparing) + Send)) -> Result<(), BuildError> {
        let (limit, end) = (REHEARSAL_LIMIT, Instant::now() + REHEARSAL_LIMIT);
        self.send(&HostMessage::Identify(identity(NEUTRAL_HOSTNAME, None, false)));
        self.send(&HostMessage::Hello { version: protocol::VERSION, epoch: 2, lines_seen: 0 });
        self.until("it took on no identity", end, limit, tell, |message| match message {
            GuestMessage::Milestone { milestone: Milestone::Identified, .. } => Some(Ok(())),
            GuestMessage::Fault { message: reason } | GuestMessage::DockerFailed { reason } => {
                Some(Err(BuildError::NotReady(reason.clone())))
            }
            _ => None,
        })
        .await?;
        self.send(&HostMessage::Forget);
        self.until("it did not forget its identity", end, limit, tell, prepared).await?;
        // Work that is in progress on the machine's processors would continue in each fork.
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Receives messages until `decide` returns a result for one of them.
    async fn until(
        &mut self,
        what: &'static str,
        end: Instant,
        limit: Duration,
        tell: &mut (dyn FnMut(Preparing) + Send),
        mut decide: impl FnMut(&GuestMessage) -> Option<Result<(), BuildError>> + Send,
    ) -> Result<(), BuildError> {
        loop {
            let Some(link) = &mut self.vmm.link else { return Err(self.ended(what).await) };
            let message = tokio::select! {
                message = link.next() => message,
                _ = self.vmm.process.wait() => return Err(self.ended(what).await),
                () = self.outputs.console.no_boot_device(), if !self.said_hello => {
                    return Err(self.ended(what).await);
                }
                () = tokio::time::sleep_until(end) => {
                    return Err(BuildError::TooLong { what, limit, tail: self.tail() });
                }
            };
            let Ok(message) = message else { return Err(self.ended(what).await) };
            self.said_hello |= matches!(message, GuestMessage::Hello { .. });
            match message {
                GuestMessage::Line { source: Source::WarmUp, ref text, .. } => {
                    self.remember(text);
                    tell(Preparing::Line(text.clone()));
                }
                // The reason why no runner app waits, which slows down every fork.
                GuestMessage::Line { source: Source::Agent, ref text, .. } => {
                    self.write_log(text);
                    tell(Preparing::Line(text.clone()));
                }
                _ => {}
            }
            if let Some(decided) = decide(&message) {
                return decided;
            }
        }
    }

    /// Has the VMM write the state of its devices, then has it quit. The memory stays as it was at that moment.
    async fn freeze(&mut self, state: OwnedFd) -> Result<(), BuildError> {
        let end = Instant::now() + FREEZE_LIMIT;
        let Some(monitor) = &mut self.vmm.monitor else { return Err(self.ended(vmm::NOT_FROZEN).await) };
        match tokio::time::timeout_at(end, monitor.freeze(state)).await {
            Ok(Ok(())) => monitor.quit(),
            Ok(Err(FreezeError::Failed(status))) => {
                return Err(BuildError::Freeze(format!("{status}; {}", self.tail())));
            }
            Ok(Err(FreezeError::Refused(reason))) => return Err(BuildError::Freeze(reason)),
            Ok(Err(FreezeError::Gone)) => return Err(self.ended(vmm::NOT_FROZEN).await),
            Err(_) => return Err(self.too_long(vmm::NOT_FROZEN)),
        }
        let ended = tokio::time::timeout_at(end, self.vmm.process.wait()).await;
        ended
            .map_err(|_| self.too_long(vmm::NOT_EXITED))?
            .map_err(io_error("wait for", Path::new(vmm::NAME)))?;
        self.vmm.settle();
        Ok(())
    }

    fn too_long(&self, what: &'static str) -> BuildError {
        BuildError::TooLong { what, limit: FREEZE_LIMIT, tail: self.tail() }
    }

    async fn ended(&mut self, what: &'static str) -> BuildError {
        let EarlyExit { exit, words } = self.vmm.why_ended(&self.outputs).await;
        if let Exit::OutOfMemory(_) = exit {
            return BuildError::KilledForMemory { what, exit: words };
        }
        let exit = words;
        BuildError::Ended { what, exit, tail: self.tail() }
    }

    fn send(&mut self, message: &HostMessage) {
        if let Some(link) = &mut self.vmm.link
            && let Err(error) = link.send(message)
        {
            tracing::warn!("cannot send a message to a template: {error}");
        }
    }

    fn remember(&mut self, line: &str) {
        if self.lines.len() == TAIL_LINES {
            self.lines.remove(0);
        }
        self.lines.push(line.to_owned());
        self.write_log(line);
    }

    fn write_log(&mut self, line: &str) {
        if let Some(log) = &mut self.log {
            let _ = log.write(format!("{line}\n").as_bytes());
        }
    }

    fn tail(&self) -> String {
        if self.lines.is_empty() { self.outputs.tail() } else { self.lines.join("\n") }
    }
}

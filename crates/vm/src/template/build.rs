//! A template in the making: a machine is booted, gets ready, and is frozen.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dayfly_guest::protocol::{self, GuestMessage, HostMessage, Milestone, Prepare, Source};
use tokio::time::Instant;

use super::blueprint::Blueprint;
use super::{Preparing, memory, store};
use crate::console::BoundedFile;
use crate::driver::qemu::Role;
use crate::machine::files::Files;
use crate::machine::origin::Parts;
use crate::machine::spawn::{Outputs, Vmm};
use crate::machine::{self, Limits, MachineFolder, MachineMaker, StartError, VmHost};
use crate::qmp::{Command, Event};

/// How long the VMM may take to write the state of its devices, which takes some hundredths of a second, and to end.
const FREEZE_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to become somebody and nobody again.
const REHEARSAL_LIMIT: Duration = Duration::from_secs(60);
/// From its last answer until it is frozen.
const SETTLE: Duration = Duration::from_secs(1);
/// Lines of a warm-up that a failure quotes.
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
    #[error("its agent speaks version {0} of the protocol")]
    Version(u32),
    #[error("{0}")]
    NotReady(String),
    #[error("QEMU cannot freeze it: {0}")]
    Freeze(String),
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.display().to_string();
    move |source| BuildError::Io { what, path, source }
}

/// Builds it into a folder: `memory`, `state`, `disk.img` and what its warm-up printed. Nothing of its machine is left. One
/// that comes to nothing in its time gets a second try: an emulated machine may stand still for ever (seen once in some
/// eighty builds on a loaded host; why is not known).
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
    // Goes after the machine, whatever ends this.
    let folder = MachineFolder::make(run_dir.clone()).map_err(io_error("make the folder", &run_dir))?;
    let memory = freeze_one(host, blueprint, stage, folder.path(), tell).await?;
    drop(folder);
    let path = stage.join(store::MEMORY);
    let file = path.clone();
    let written = tokio::task::spawn_blocking(move || memory::write(&memory, &file)).await;
    written.map_err(io::Error::other).flatten().map_err(io_error("write", &path))
}

/// A machine from its boot to its end; what is left is its memory.
async fn freeze_one(
    host: &VmHost,
    blueprint: &Blueprint,
    stage: &Path,
    run_dir: &Path,
    tell: &mut (dyn FnMut(Preparing) + Send),
) -> Result<OwnedFd, BuildError> {
    let connection = machine::connect(&blueprint.network, run_dir).await?;
    let name = format!("template-{}", blueprint.id);
    let parts = Parts::of_blueprint(host, blueprint, name, run_dir, Arc::new(connection), None);
    let bytes = u64::from(blueprint.memory_mib) << 20;
    let memory = memory::make(bytes).map_err(io_error("make memory for", stage))?;
    let state_path = stage.join(store::STATE);
    let state = File::create(&state_path).map_err(io_error("make", &state_path))?;
    let shared = memory.try_clone().map_err(io_error("use memory of", stage))?;
    let files = Files::default().with(Role::Memory, shared);
    let recipe = Arc::new(parts.template(&stage.join(store::DISK), files)?);
    let outputs = Outputs::new();
    let turn = host.pace.enter().await.map_err(StartError::from)?;
    let vmm = recipe.spawn(&outputs, &Arc::new(AtomicBool::new(false))).await.map_err(StartError::from)?;
    let log = BoundedFile::append(&stage.join(store::WARM_UP_LOG)).ok();
    let limits = blueprint.platform.limits(&host.limits);
    let hello_limit = limits.hello(blueprint.platform.accel);
    let mut becoming =
        Becoming { vmm, outputs, lines: Vec::new(), log, hello_limit, limits, said_hello: false };
    becoming.get_ready(blueprint, tell).await?;
    drop(turn);
    becoming.freeze(state.into()).await?;
    Ok(memory)
}

/// What an answer to `Prepare` or `Forget` means.
fn prepared(message: &GuestMessage) -> Option<Result<(), BuildError>> {
    match message {
        GuestMessage::Prepared { failure: None } => Some(Ok(())),
        GuestMessage::Prepared { failure: Some(failure) } => Some(Err(BuildError::NotReady(failure.clone()))),
        _ => None,
    }
}

/// A machine that becomes a template.
struct Becoming {
    vmm: Vmm,
    outputs: Outputs,
    /// The last lines that it was told.
    lines: Vec<String>,
    /// What its warm-up prints.
    log: Option<BoundedFile>,
    hello_limit: Duration,
    limits: Limits,
    said_hello: bool,
}

impl Becoming {
    /// From its first instruction to the answer that all is ready.
    async fn get_ready(
        &mut self,
        blueprint: &Blueprint,
        tell: &mut (dyn FnMut(Preparing) + Send),
    ) -> Result<(), BuildError> {
        self.send(&HostMessage::Hello { version: protocol::VERSION, epoch: 1 });
        let (hello, docker) = (self.hello_limit, self.limits.template);
        self.until("its agent said no hello", Instant::now() + hello, hello, tell, |message| match message {
            GuestMessage::Hello { version, .. } if *version != protocol::VERSION => {
                Some(Err(BuildError::Version(*version)))
            }
            GuestMessage::Hello { .. } => Some(Ok(())),
            _ => None,
        })
        .await?;
        // Of an image without Docker, hello is the last milestone.
        if blueprint.image.manifest().has_docker() {
            self.until_docker(docker, tell).await?;
        }
        self.send(&HostMessage::Prepare(Prepare {
            user: blueprint.user.clone(),
            dns: blueprint.dns(),
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
            // Docker that cannot start is told so; a template without it would be worse than a cold boot.
            GuestMessage::Fault { message } if message.contains("dockerd") => {
                Some(Err(BuildError::NotReady(message.clone())))
            }
            _ => None,
        })
        .await
    }

    /// Has it become somebody and answer a host, as each fork will, and then nobody again: pages that are written to for the
    /// first time since something was started, and all else that only a first time needs, are behind it.
    async fn rehearse(&mut self, tell: &mut (dyn FnMut(Preparing) + Send)) -> Result<(), BuildError> {
        let (limit, end) = (REHEARSAL_LIMIT, Instant::now() + REHEARSAL_LIMIT);
        self.send(&HostMessage::Identify(machine::identity(machine::NOBODY, None, false)));
        self.send(&HostMessage::Hello { version: protocol::VERSION, epoch: 2 });
        self.until("it took no identity on", end, limit, tell, |message| match message {
            GuestMessage::Milestone { milestone: Milestone::Identified, .. } => Some(Ok(())),
            GuestMessage::Fault { message } => Some(Err(BuildError::NotReady(message.clone()))),
            _ => None,
        })
        .await?;
        self.send(&HostMessage::Forget);
        self.until("it did not forget its identity", end, limit, tell, prepared).await?;
        // What its processors are in the middle of, each fork would go on with.
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// Hears messages until one decides.
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
            if let GuestMessage::Line { source: Source::WarmUp, text } = &message {
                self.remember(text);
                tell(Preparing::Line(text.clone()));
            }
            if let Some(decided) = decide(&message) {
                return decided;
            }
        }
    }

    /// Has the state of the devices written, and the VMM ended. The memory stays as it was at that moment.
    async fn freeze(&mut self, state: OwnedFd) -> Result<(), BuildError> {
        let end = Instant::now() + FREEZE_LIMIT;
        self.ask(Command::Freeze(state));
        loop {
            match self.next_event("QEMU did not freeze it", end).await? {
                Event::Migration(status) if status == "completed" => break,
                Event::Migration(status) if status == "failed" || status == "cancelled" => {
                    return Err(BuildError::Freeze(format!("{status}; {}", self.tail())));
                }
                Event::Refused(reason) => return Err(BuildError::Freeze(reason)),
                _ => {}
            }
        }
        self.ask(Command::Quit);
        let ended = tokio::time::timeout_at(end, self.vmm.process.wait()).await;
        ended
            .map_err(|_| self.too_long("QEMU did not end"))?
            .map_err(io_error("wait for", Path::new("QEMU")))?;
        self.vmm.settle();
        Ok(())
    }

    async fn next_event(&mut self, what: &'static str, end: Instant) -> Result<Event, BuildError> {
        let Some(monitor) = &mut self.vmm.monitor else { return Err(self.ended(what).await) };
        match tokio::time::timeout_at(end, monitor.next_event()).await {
            Ok(Some(event)) => Ok(event),
            Ok(None) => Err(self.ended(what).await),
            Err(_) => Err(self.too_long(what)),
        }
    }

    fn too_long(&self, what: &'static str) -> BuildError {
        BuildError::TooLong { what, limit: FREEZE_LIMIT, tail: self.tail() }
    }

    async fn ended(&mut self, what: &'static str) -> BuildError {
        let exit = self.vmm.why_ended(&self.outputs).await.words;
        BuildError::Ended { what, exit, tail: self.tail() }
    }

    fn send(&mut self, message: &HostMessage) {
        if let Some(link) = &mut self.vmm.link
            && let Err(error) = link.send(message)
        {
            tracing::warn!("cannot tell a template something: {error}");
        }
    }

    fn ask(&self, command: Command) {
        if let Some(monitor) = &self.vmm.monitor {
            monitor.ask(command);
        }
    }

    fn remember(&mut self, line: &str) {
        if self.lines.len() == TAIL_LINES {
            self.lines.remove(0);
        }
        self.lines.push(line.to_owned());
        if let Some(log) = &mut self.log {
            let _ = log.write(format!("{line}\n").as_bytes());
        }
    }

    fn tail(&self) -> String {
        if self.lines.is_empty() { self.outputs.tail() } else { self.lines.join("\n") }
    }
}

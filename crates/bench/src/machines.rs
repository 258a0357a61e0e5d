//! Starts the machines that are measured: the built-in image at the default size, with a command instead of the runner app.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dayfly_e2e::machines::{self, script};
use dayfly_guest::protocol::Milestone;
use dayfly_vm::{
    Accel, Driver, Egress, Entrypoint, Launcher, Machine, NetworkPolicy, Preparing, ProbeGuest, StartedFrom,
    TemplateSettings, Trust, Vm, VmEvent,
};

use crate::Error;

/// Longest time that any step may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The stage that machines are measured on.
pub(crate) struct Stage(machines::Stage);

impl Deref for Stage {
    type Target = machines::Stage;

    fn deref(&self) -> &machines::Stage {
        &self.0
    }
}

/// The goal of a machine that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Its agent answers.
    Answer,
    /// A command prints the time.
    Clock,
    /// Docker answers the agent after a boot.
    Docker,
    /// Docker answers a command.
    DockerCommand,
}

/// The times at which the steps of a machine's start were seen.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// The process id of the VMM.
    pub(crate) pid: u32,
    /// The call that starts the machine.
    pub(crate) asked: Option<Instant>,
    /// The start of the VMM.
    pub(crate) started: Option<Instant>,
    /// True if the agent has said hello, which is the last step that every start waits for.
    pub(crate) greeted: bool,
    /// The agent has answered, with its identity set.
    pub(crate) identified: Option<Instant>,
    /// Docker answers.
    pub(crate) docker: Option<Instant>,
    /// Docker has answered a command.
    pub(crate) docker_command: Option<Instant>,
    /// How far the guest's clock was behind the host's when its command printed it, in milliseconds.
    pub(crate) clock_ms: Option<f64>,
}

impl Times {
    /// Returns the milliseconds between two steps.
    pub(crate) fn between(from: Option<Instant>, to: Option<Instant>) -> Result<f64, Error> {
        match (from, to) {
            (Some(from), Some(to)) => Ok(to.duration_since(from).as_secs_f64() * 1000.0),
            _ => Err("a step of a machine's start was not seen".into()),
        }
    }
}

impl Stage {
    pub(crate) fn new(state: &Path, binary: &Path, image: &str) -> Result<Self, Error> {
        let stage = machines::Stage::new(state, binary, image, TemplateSettings::default())?;
        // The machines stay idle, so only the memory that they take matters.
        stage.host.limit_memory(Some(u64::MAX));
        Ok(Self(stage))
    }

    /// Has this launcher start its machines.
    pub(crate) fn launch_by(&mut self, launcher: Launcher) {
        self.0.host.launcher = launcher;
    }

    /// Gives its machines a network with this policy.
    pub(crate) fn connect_by(&mut self, policy: NetworkPolicy) {
        self.connect(Egress::Policy(policy));
    }

    /// Gives its machines this network.
    pub(crate) fn connect(&mut self, egress: Egress) {
        self.0.network.egress = egress;
    }

    /// Returns the accelerator of its machines.
    pub(crate) async fn accel(&self) -> Result<Accel, Error> {
        let Driver::Qemu(settings) = &self.machine.driver else { return Err("no machines of QEMU".into()) };
        let guest = ProbeGuest {
            image: &settings.image,
            guest_binary: &self.machine.guest_binary,
            cpu_model: settings.cpu_model.as_deref(),
        };
        Ok(dayfly_vm::probe(&self.host, settings.accel, guest, Trust::Remembered).await?.accel)
    }

    /// Returns the settings of a machine, with this number of spares. With `None`, the machine is booted.
    pub(crate) fn machine(&self, spares: Option<usize>) -> Machine {
        self.machine_with(spares.map(|spares| TemplateSettings { spares, ..TemplateSettings::default() }))
    }

    /// Returns the path of its image's root file system.
    pub(crate) fn root(&self) -> Result<PathBuf, Error> {
        match &self.0.machine.driver {
            Driver::Qemu(settings) => Ok(settings.image.folder().join("root.squashfs")),
            _ => Err("machines without an image".into()),
        }
    }

    /// Builds or opens the template.
    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        let failure = self.0.prepare().await.into_iter().find_map(|told| match told {
            Preparing::Failed { reason, .. } | Preparing::Cold { reason } => Some(reason),
            _ => None,
        });
        failure.map_or(Ok(()), |reason| Err(reason.into()))
    }

    /// Starts a machine, and waits until its agent has answered with its identity set, and until Docker answers if that is
    /// the goal.
    pub(crate) async fn start(&self, name: &str, machine: Machine, what: What) -> Result<(Vm, Times), Error> {
        let docker = what == What::Docker;
        let entrypoint = match what {
            What::Clock => script("echo clock=$(date +%s%N); exec sleep 600"),
            What::DockerCommand => script(
                "curl -sS --unix-socket /run/docker.sock http://localhost/_ping && echo && echo docker=answers; \
                 exec sleep 600",
            ),
            // The entrypoint does not exist, so that the machine stays as it was when it answered.
            What::Answer | What::Docker => {
                Entrypoint { program: Some("/no/entrypoint".into()), ..script("") }
            }
        };
        let mut times = Times { asked: Some(Instant::now()), ..Times::default() };
        let mut vm = self.0.start(name, machine, entrypoint).await?;
        let wait = async {
            while !times.greeted || times.identified.is_none() || (docker && times.docker.is_none()) {
                let event = vm.next_event().await.ok_or("the machine is gone")?;
                times.take(event)?;
            }
            Ok::<(), Error>(())
        };
        tokio::time::timeout(PATIENCE, wait).await??;
        Ok((vm, times))
    }

    /// Waits until the machine's command has printed what is measured.
    pub(crate) async fn hear(&self, vm: &mut Vm, times: &mut Times) -> Result<(), Error> {
        let wait = async {
            while times.clock_ms.is_none() && times.docker_command.is_none() {
                let event = vm.next_event().await.ok_or("the machine is gone")?;
                times.take(event)?;
            }
            Ok::<(), Error>(())
        };
        tokio::time::timeout(PATIENCE, wait).await?
    }
}

impl Times {
    fn take(&mut self, event: VmEvent) -> Result<(), Error> {
        let now = Instant::now();
        match event {
            VmEvent::VmmStarted { pid, from } => {
                (self.pid, self.started) = (pid, Some(now));
                // A spare has said hello before.
                self.greeted = matches!(from, StartedFrom::Spare(_));
            }
            VmEvent::Hello => self.greeted = true,
            VmEvent::Milestone { milestone: Milestone::Identified, .. } => self.identified = Some(now),
            VmEvent::Milestone { milestone: Milestone::DockerReady, .. } => self.docker = Some(now),
            VmEvent::Line { text, .. } if text.ends_with("docker=answers") => {
                self.docker_command = Some(now);
            }
            VmEvent::Line { text, .. } => {
                if let Some((_, clock)) = text.split_once("clock=") {
                    let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
                    let guest: f64 = clock.trim().parse()?;
                    self.clock_ms = Some((host.as_nanos() as f64 - guest) / 1e6);
                }
            }
            VmEvent::Cold { reason } => return Err(format!("a machine was booted: {reason}").into()),
            VmEvent::Gone { exit, console_tail } => return Err(format!("{exit}\n{console_tail}").into()),
            _ => {}
        }
        Ok(())
    }
}

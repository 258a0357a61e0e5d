//! Machines to be measured: the built-in image at the default size, with a command in place of the runner app.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dayfly_vm::image::Store;
use dayfly_vm::{
    AccelChoice, Driver, Egress, Entrypoint, Launcher, Machine, Network, Preparing, QemuSettings,
    TemplateSettings, Vm, VmEvent, VmHost, VmSpec,
};

use crate::Error;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where machines are measured.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    pub(crate) host: VmHost,
    machine: Machine,
    pub(crate) network: Network,
}

/// What is wanted of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// That it answers.
    Answer,
    /// That it tells the time.
    Clock,
    /// That its Docker answers.
    Docker,
}

/// When what was seen of a machine's start.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// The VMM's process.
    pub(crate) pid: u32,
    /// From the call that starts it.
    pub(crate) asked: Option<Instant>,
    /// The VMM runs.
    pub(crate) started: Option<Instant>,
    /// The agent has answered, with its identity set.
    pub(crate) identified: Option<Instant>,
    /// Docker answers.
    pub(crate) docker: Option<Instant>,
    /// How far the guest's clock was from the host's, milliseconds, as its command told it.
    pub(crate) clock_ms: Option<f64>,
}

impl Times {
    /// Milliseconds between two of them.
    pub(crate) fn between(from: Option<Instant>, to: Option<Instant>) -> Result<f64, Error> {
        match (from, to) {
            (Some(from), Some(to)) => Ok(to.duration_since(from).as_secs_f64() * 1000.0),
            _ => Err("a step of a machine's start was not seen".into()),
        }
    }
}

impl Stage {
    pub(crate) fn new(state: &Path, binary: &Path) -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        let launcher = Launcher { program: binary.to_owned(), args: vec!["vmm-launch".to_owned()] };
        let mut host = VmHost::new(state.to_owned(), launcher);
        host.spare_folder = Some(folder.path().join("spares"));
        let image = Store::new(state).list()?.into_iter().next().ok_or("no image: `dayfly image build`")?;
        let settings = QemuSettings {
            disk_mib: 32 * 1024,
            image,
            accel: AccelChoice::Auto,
            template: Some(TemplateSettings::default()),
        };
        let machine = Machine {
            cpus: 2,
            memory_mib: 1024,
            guest_binary: binary.with_file_name("dayfly-guest"),
            driver: Driver::Qemu(settings),
        };
        let network =
            Network { egress: Egress::Open, dns: [192, 0, 2, 53].into(), forward: None, allow: Vec::new() };
        Ok(Self { folder, host, machine, network })
    }

    /// Its machines, with this number of spares; none: booted.
    pub(crate) fn machine(&self, spares: Option<usize>) -> Machine {
        let mut machine = self.machine.clone();
        if let Driver::Qemu(settings) = &mut machine.driver {
            settings.template =
                spares.map(|spares| TemplateSettings { spares, ..TemplateSettings::default() });
        }
        machine
    }

    /// Builds or opens the template.
    pub(crate) async fn prepare(&self) -> Result<(), Error> {
        let mut failure = None;
        dayfly_vm::prepare(&self.host, &self.machine, &self.network, &[], &mut |told| {
            if let Preparing::Failed { reason, .. } | Preparing::Cold { reason } = told {
                failure = Some(reason);
            }
        })
        .await;
        failure.map_or(Ok(()), |reason| Err(reason.into()))
    }

    pub(crate) fn run_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name).join("vm")
    }

    /// Starts a machine, and waits until its agent has answered with its identity set, and Docker where that is wanted.
    pub(crate) async fn start(&self, name: &str, machine: Machine, what: What) -> Result<(Vm, Times), Error> {
        let docker = what == What::Docker;
        let environment = self.folder.path().join(name).join("environment");
        std::fs::create_dir_all(&environment)?;
        let settings = format!("RUNNER_ID=0-{name}\nRUNNER_NAME={name}\nRUNNER_SECRET=s\n");
        std::fs::write(environment.join(format!("0-{name}.env")), settings)?;
        let args = ["-u", "", "--", "/bin/bash", "-c", "echo clock=$(date +%s%N); exec sleep 600"];
        // None that is there: the machine stays as it was when it answered.
        let program = (what != What::Clock).then(|| "/no/entrypoint".into());
        let spec = VmSpec {
            name: name.to_owned(),
            runner_id: format!("0-{name}"),
            machine,
            network: self.network.clone(),
            environment,
            entrypoint: Entrypoint { program, args: args.map(str::to_owned).to_vec() },
            mounts: Vec::new(),
            shell: false,
        };
        let mut times = Times { asked: Some(Instant::now()), ..Times::default() };
        let mut vm = dayfly_vm::start(&self.host, spec, &self.run_dir(name)).await?;
        let wait = async {
            while times.identified.is_none() || (docker && times.docker.is_none()) {
                let event = vm.next_event().await.ok_or("the machine is gone")?;
                times.take(event)?;
            }
            Ok::<(), Error>(())
        };
        tokio::time::timeout(PATIENCE, wait).await??;
        Ok((vm, times))
    }

    /// Waits until the machine's command has told its clock.
    pub(crate) async fn hear_clock(&self, vm: &mut Vm, times: &mut Times) -> Result<(), Error> {
        let wait = async {
            while times.clock_ms.is_none() {
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
            VmEvent::VmmStarted { pid, .. } => (self.pid, self.started) = (pid, Some(now)),
            VmEvent::Milestone { milestone, .. } => match format!("{milestone:?}").as_str() {
                "Identified" => self.identified = Some(now),
                "DockerReady" => self.docker = Some(now),
                _ => {}
            },
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

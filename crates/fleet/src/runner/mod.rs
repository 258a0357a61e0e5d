//! One runner, from its registration to the moment when nothing of it is left.
//!
//! ```text
//!   Run::begin ──> register ──> start ──> watch ──> end
//!     folder,        JIT config,  .env,     .tkn,     entrypoint stopped or ended,
//!     journal        journalled   VM        events    VM destroyed, registration deleted, folder removed
//! ```
//!
//! Every step from `register` on can fail, and each failure goes through `end`, the only place that clears up.

mod end;
mod error;
mod watch;

use std::path::{Path, PathBuf};

use dayfly_forge::client::{Forge, JitRequest, NewRunner};
use dayfly_guest::envfile;
use dayfly_guest::environment::Suffix;
use dayfly_vm::{Egress, Entrypoint, EnvironmentDir, Forward, Network, Vm, VmHost, VmSpec};
use rand::RngExt as _;
use rand::distr::Alphanumeric;

use crate::event::{EventKind, Events};
use crate::journal::{Journal, Step};
use crate::runner_id::RunnerId;
use crate::settings::LoopSettings;
use crate::stop::{Stop, StopOrder};

pub use error::{RunnerEnd, RunnerError};

/// Length of the secret that proves who wrote a `.brk` or `.trm`.
const SECRET_LENGTH: usize = 32;

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
            network: Network {
                egress: Egress::Open,
                dns: self.settings.dns,
                forward: Some(forward),
                allow: Vec::new(),
            },
            environment: self.environment.path().to_owned(),
            entrypoint: Entrypoint::default(),
            mounts: self.settings.mounts.clone(),
            shell: self.settings.keep,
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
}

fn make_folder(path: &Path) -> Result<(), RunnerError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| RunnerError::State {
        what: "make the folder",
        path: path.to_owned(),
        source,
    })
}

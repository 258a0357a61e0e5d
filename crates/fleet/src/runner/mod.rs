//! One runner, from its registration to the moment when nothing of it is left.
//!
//! ```text
//!   Run::begin ──> pull ──> prepare ──> register ──> start ──> watch ──> end
//!     folder,       image    template    JIT config   .env,     .tkn,     entrypoint stopped or ended,
//!     journal                            or token,    VM        events    VM destroyed, registration deleted,
//!                                        journalled                       folder removed
//! ```
//!
//! Every step can fail, and each failure goes through `end`, the only place that clears up.

mod end;
mod error;
mod prepare;
mod pull;
mod reach;
mod register;
mod start;
mod watch;

use std::path::{Path, PathBuf};

use dayfly_forge::Forge;
use dayfly_vm::{EnvironmentDir, Machine, Vm, VmHost};
use rand::RngExt as _;
use rand::distr::Alphanumeric;
use tokio::time::Instant;

use crate::event::{EventSink, Events};
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
    /// Its machine, with the image that was found for it.
    machine: Machine,
    events: Events,
    stop: Stop,
    registration: Option<u64>,
    vm: Option<Vm>,
    /// When its lifetime ends.
    lifetime_ends: Option<Instant>,
    /// The runner app is about to start, or has.
    up: bool,
    /// The entrypoint has ended.
    exited: bool,
}

/// Makes one runner, waits for its end, and clears up after it.
pub(crate) async fn run_one(
    settings: &LoopSettings,
    host: &VmHost,
    forge: &Forge,
    events: &EventSink,
    stop: &Stop,
) -> Result<RunnerEnd, RunnerError> {
    let mut run = Run::begin(settings, host, forge, events, stop.clone())?;
    let mut stop = stop.clone();
    // An order to end at once does not wait for a forge that is slow or a VMM that is being started: what these may
    // have made by then is in the journal, and `end` looks for it.
    let result = tokio::select! {
        biased;
        _ = stop.above(StopOrder::Gently) => Ok(RunnerEnd::Stopped),
        result = run.live() => result,
    };
    run.end(result).await
}

impl<'a> Run<'a> {
    fn begin(
        settings: &'a LoopSettings,
        host: &'a VmHost,
        forge: &'a Forge,
        events: &EventSink,
        stop: Stop,
    ) -> Result<Self, RunnerError> {
        let id = RunnerId::random(settings.index);
        let name = id.name(&settings.prefix);
        let folder = settings.runs.join(id.as_str());
        make_folder(&folder)?;
        let mut journal = Journal::open(&folder)?;
        let environment = settings.environment.clone();
        journal.write(Step::Begun { id: id.to_string(), environment: environment.clone() })?;
        make_folder(&environment)?;
        let random = || rand::rng().sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
        Ok(Self {
            settings,
            host,
            forge,
            environment: EnvironmentDir::open(&environment, id.as_str())?,
            secret: settings.secret.clone().unwrap_or_else(random),
            journal,
            machine: settings.machine.clone(),
            events: events.of(settings.index, &id, &name),
            id,
            name,
            folder,
            stop,
            registration: None,
            vm: None,
            lifetime_ends: None,
            up: false,
            exited: false,
        })
    }

    async fn live(&mut self) -> Result<RunnerEnd, RunnerError> {
        if !self.get_ready().await? {
            return Ok(RunnerEnd::Stopped);
        }
        let reach = self.reach().await?;
        let credentials = self.register(&reach).await?;
        self.start(&credentials, &reach).await?;
        drop(credentials);
        self.watch().await
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

//! One runner, from its first preparation until its machine, its registration and its files are removed.
//!
//! ```text
//!   Run::begin ──> pull ──> prepare ──> register ──> start ──> watch ──> end
//!     folder,       image    template    JIT config   .env,   │ .tkn,     entrypoint stopped or ended,
//!     journal                            or token,    VM      │ events    VM destroyed, registration deleted,
//!                                        journalled           │           folder removed
//!   Run::resume ──> take over ────────────────────────────────┘
//!     the folder and the journal of a process that died
//! ```
//!
//! Every step can fail, and each failure goes through `end`, the only place that removes things. A step is reported as a
//! [`Fact`]; a durable fact is in the journal, on the disk, before the runner goes on.

mod end;
mod error;
mod freeze;
mod hooks;
mod liveness;
mod origin;
mod prepare;
mod pull;
mod reach;
mod register;
mod relay;
mod resume;
mod retire;
mod start;
mod watch;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_host::file;
use dayfly_host::reserve::Reserve;
use dayfly_vm::{EnvironmentDir, Machine, Vm, VmHost, shared_folder};
use rand::RngExt as _;
use rand::distr::Alphanumeric;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use crate::fact::{Fact, FactRecord, OverHow};
use crate::instance::reserve_of;
use crate::journal::{self, Journal, JournalError};
use crate::pool::Pool;
use crate::recovery::Home;
use crate::runner_id::RunnerId;
use crate::slot::Slot;
use crate::state::RunnerState;
use crate::stop::{Stop, StopOrder};
use crate::stream::{FactSink, FactWriter};

use watch::Stage;

pub use error::{RunnerEnd, RunnerError};
pub(crate) use prepare::network_of_template;
pub(crate) use relay::Relay;
pub(crate) use resume::run_inherited;

/// Name of the file in the run's folder that holds the secret, for a process that takes the runner over.
const SECRET_FILE: &str = "secret";

/// Length of the secret that proves who wrote a `.brk` or `.trm`.
const SECRET_LENGTH: usize = 32;

/// A runner that lives.
pub(crate) struct Run<'a> {
    pool: &'a Pool,
    slot: &'a Slot,
    host: &'a VmHost,
    id: RunnerId,
    name: String,
    folder: PathBuf,
    /// The instance that its folder is in, if a process that died has begun it.
    home: Option<Arc<Home>>,
    environment: EnvironmentDir,
    secret: SecretString,
    journal: Journal,
    /// The fold of the facts so far.
    state: RunnerState,
    facts: FactWriter,
    /// The machine, with the image that its name resolved to.
    machine: Machine,
    stop: Stop,
    vm: Option<Vm>,
    /// Time at which its lifetime ends.
    lifetime_ends: Option<Instant>,
    observed: watch::Observed,
    /// Time at which its app was up.
    up_since: Option<Instant>,
    /// Name of its last job.
    last_job: Option<String>,
    /// The way in which it ended, if this host ended it because its job was over or too long.
    judged: Option<OverHow>,
    /// A weakness of its folder, which its log gets before its machine starts.
    warning: Option<String>,
}

/// A runner that has ended.
pub(crate) struct EndedRunner {
    pub(crate) result: Result<RunnerEnd, RunnerError>,
    /// Time for which its app was up; none if it never was.
    pub(crate) up_for: Option<Duration>,
}

/// Creates one runner, waits for its end, and removes its machine, its registration and its files.
pub(crate) async fn run_one(
    pool: &Pool,
    slot: &Slot,
    host: &VmHost,
    facts: &FactSink,
    stop: &Stop,
) -> EndedRunner {
    match Run::begin(pool, slot, host, facts, stop.clone()) {
        Ok(run) => run_to_end(run).await,
        Err(error) => EndedRunner { result: Err(error), up_for: None },
    }
}

/// Goes on with a runner from the point at which it is.
async fn run_to_end(mut run: Run<'_>) -> EndedRunner {
    let mut stop = run.stop.clone();
    // An order to stop at once does not wait for a slow forge or for a VMM that starts. The journal lists everything that
    // these steps may have created by then, and `end` removes it.
    let result = tokio::select! {
        biased;
        _ = stop.above(StopOrder::Gently) => Ok(RunnerEnd::Stopped),
        result = run.live() => result,
    };
    Box::pin(end(run, result)).await
}

async fn end(run: Run<'_>, result: Result<RunnerEnd, RunnerError>) -> EndedRunner {
    let up_for = run.up_since.map(|since| since.elapsed());
    if matches!(result, Ok(RunnerEnd::Stopped)) && run.stop.order() == StopOrder::HandOver {
        return EndedRunner { result: run.hand_over().await, up_for };
    }
    let runs = run.pool.runs.clone();
    let result = run.end(result).await;
    // Its end may have used the reserve, and has freed space.
    reserve_of(&runs).keep();
    EndedRunner { result, up_for }
}

impl<'a> Run<'a> {
    fn begin(
        pool: &'a Pool,
        slot: &'a Slot,
        host: &'a VmHost,
        facts: &FactSink,
        stop: Stop,
    ) -> Result<Self, RunnerError> {
        let id = RunnerId::random(slot.index);
        let folder = pool.runs.join(id.as_str());
        make_folder(&folder)?;
        reserve_of(&pool.runs).keep();
        Self::begin_in(folder.clone(), id, (pool, slot, host), facts, stop).inspect_err(|_| {
            // Nothing exists that its journal would describe, and a full disk would otherwise collect such folders.
            let _ = remove_run(&folder);
        })
    }

    fn begin_in(
        folder: PathBuf,
        id: RunnerId,
        (pool, slot, host): (&'a Pool, &'a Slot, &'a VmHost),
        facts: &FactSink,
        stop: Stop,
    ) -> Result<Self, RunnerError> {
        let name = id.name(&pool.spec.prefix);
        let mut journal = Journal::open(&folder)?;
        let facts = facts.of(slot.index, &id, &name);
        let mut state = RunnerState::default();
        let shares = pool.machine.driver.shares_environment();
        let environment = environment_of(shares, &folder, &slot.environment);
        let api = pool.forge.base().url().to_string();
        let begun = facts.record(journal::begun(environment.clone(), api, pool.spec.scope.clone()));
        journal.write(&begun)?;
        state.take(&begun);
        let warning = match shares {
            true => make_shared(&environment)?,
            false => make_folder(&environment).map(|()| None)?,
        };
        let secret = pool.secret.clone().unwrap_or_else(random_secret);
        let path = folder.join(SECRET_FILE);
        file::replace(&path, secret.expose_secret().as_bytes()).map_err(|source| RunnerError::State {
            what: "write",
            path,
            source,
        })?;
        Ok(Self {
            pool,
            slot,
            host,
            environment: EnvironmentDir::open(&environment, id.as_str())?,
            secret,
            journal,
            state,
            facts,
            machine: pool.machine.clone(),
            id,
            name,
            folder,
            home: None,
            stop,
            vm: None,
            lifetime_ends: None,
            observed: watch::Observed::new(Instant::now()),
            up_since: None,
            last_job: None,
            judged: None,
            warning,
        })
    }

    /// Takes a fact into the runner's state, and into the journal if it is durable. Readers of the stream do not get it.
    ///
    /// # Errors
    /// The journal cannot be written; the caller must then not do what the fact announces.
    fn record(&mut self, fact: Fact) -> Result<FactRecord, RunnerError> {
        let record = self.facts.record(fact);
        if record.fact.is_durable() {
            self.journal.write(&record)?;
        } else if record.fact.is_noted() {
            // A process that takes the runner over knows less without it, and asks the forge.
            let _ = self.journal.note(&record);
        }
        if let Fact::JobStarted { job } = &record.fact {
            self.last_job = Some(job.clone());
        }
        self.state.take(&record);
        Ok(record)
    }

    /// Records a fact, then sends it to the readers of the stream.
    ///
    /// # Errors
    /// As for [`Run::record`]. A fact that is not durable causes no error.
    async fn tell(&mut self, fact: Fact) -> Result<(), RunnerError> {
        let record = self.record(fact)?;
        self.facts.send(record).await;
        Ok(())
    }

    /// Records a fact of the runner's end, without sending it. If the journal cannot be written, e.g. because the disk is
    /// full, the instance's reserve of space is given up for it. If that does not help, the end goes on, because it frees space.
    async fn record_end(&mut self, fact: Fact) -> FactRecord {
        let record = self.facts.record(fact);
        if let Some(error) =
            take_end(&mut self.journal, &mut self.state, &record, &reserve_of(&self.pool.runs))
        {
            let message = format!("{error}; the runner is removed nevertheless");
            let warning = self.facts.record(Fact::Warning { message });
            self.facts.send(warning).await;
        }
        record
    }

    /// Records a fact of the runner's end, then sends it to the readers of the stream.
    async fn tell_end(&mut self, fact: Fact) {
        let record = self.record_end(fact).await;
        self.facts.send(record).await;
    }

    async fn live(&mut self) -> Result<RunnerEnd, RunnerError> {
        if self.vm.is_some() {
            return self.live_on().await;
        }
        if let Some(message) = self.warning.take() {
            self.tell(Fact::Warning { message }).await?;
        }
        // On the heap, so that a thousand runners that wait hold no room for the steps of their start.
        if let ControlFlow::Break(end) = Box::pin(self.begin_machine()).await? {
            return Ok(end);
        }
        self.watch(Stage::Booting).await
    }

    async fn begin_machine(&mut self) -> Result<ControlFlow<RunnerEnd>, RunnerError> {
        if let ControlFlow::Break(end) = self.get_ready().await? {
            return Ok(ControlFlow::Break(end));
        }
        let reach = self.reach().await?;
        let credentials = self.register(&reach).await?;
        self.start(&credentials, &reach).await?;
        Ok(ControlFlow::Continue(()))
    }
}

fn random_secret() -> SecretString {
    let letters = rand::rng().sample_iter(Alphanumeric).take(SECRET_LENGTH).map(char::from);
    letters.collect::<String>().into()
}

/// Takes a fact of the runner's end into its state, whether or not the journal can be written. Returns the journal's error.
/// A later start that reads the journal without this fact repeats a step, which changes nothing.
fn take_end(
    journal: &mut Journal,
    state: &mut RunnerState,
    record: &FactRecord,
    reserve: &Reserve,
) -> Option<JournalError> {
    let mut written = if record.fact.is_durable() { journal.write(record) } else { Ok(()) };
    if written.is_err() && reserve.release() {
        written = journal.write(record);
    }
    state.take(record);
    written.err()
}

/// Returns the environment directory of a run: the loop's, or one of its own if its machine `shares` the directory, so that
/// nothing passes from one job to the next.
fn environment_of(shares: bool, run: &Path, of_loop: &Path) -> PathBuf {
    if shares { shared_in(run) } else { of_loop.to_owned() }
}

/// Returns the folder that a run's machine shares with it, in the run's folder.
fn shared_in(run: &Path) -> PathBuf {
    run.join("environment")
}

/// Makes the folder that a run's machine shares with it. The journal names it already. Returns a warning if its size is not
/// limited.
fn make_shared(path: &Path) -> Result<Option<String>, RunnerError> {
    let made = shared_folder::make(path).map_err(|source| RunnerError::State {
        what: "make the folder",
        path: path.to_owned(),
        source,
    })?;
    Ok(made.map(|why| {
        let path = path.display();
        format!(
            "a job can fill the disk through {path}, whose size this host does not let dayfly limit: {why}"
        )
    }))
}

/// Removes a run's folder, and first the one that its machine shared with it, which may be a mount.
pub(crate) fn remove_run(folder: &Path) -> std::io::Result<()> {
    shared_folder::remove(&shared_in(folder))?;
    std::fs::remove_dir_all(folder)
}

fn make_folder(path: &Path) -> Result<(), RunnerError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| RunnerError::State {
        what: "make the folder",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
#[expect(unsafe_code, reason = "a thread enters a namespace")]
mod tests {
    use super::*;
    use crate::fact::RegistrationEnd;
    use crate::fact::tests::record;
    use dayfly_host::left_out::root_may;

    #[test]
    fn two_runs_of_a_loop_share_no_folder_if_their_machines_write_it() {
        let folders = |shares| {
            ["/runs/1-a", "/runs/1-b"]
                .map(|run| environment_of(shares, Path::new(run), Path::new("/e/p-001")))
        };
        assert_eq!(folders(true), ["/runs/1-a/environment", "/runs/1-b/environment"].map(PathBuf::from));
        assert_eq!(folders(false), ["/e/p-001", "/e/p-001"].map(PathBuf::from));
    }

    #[test]
    fn a_runner_ends_although_its_journal_cannot_be_written() {
        let mut journal = Journal::on_a_full_disk();
        let mut state = RunnerState::default();
        for begun in [Fact::Registering, Fact::Registered { registration: 7 }, Fact::StartingVm] {
            state.take(&record(begun));
        }
        assert!(!state.is_over());
        for fact in [
            Fact::DestroyingVm,
            Fact::VmGone { exit: "x".to_owned() },
            Fact::DeletingRegistration,
            Fact::RegistrationEnded { how: RegistrationEnd::Deleted },
        ] {
            let error = take_end(
                &mut journal,
                &mut state,
                &record(fact),
                &reserve_of(Path::new("/nonexistent/runs")),
            )
            .expect("the disk is full")
            .to_string();
            assert!(error.contains("No space left on device"), "{error}");
        }
        assert!(state.is_over(), "its folder is removed: {state:?}");
    }

    /// Runs work in a folder that is a file system of 4 MiB.
    fn on_small_disk(work: impl FnOnce(&Path) + Send + 'static) {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        if !root_may("mount a small file system") {
            return;
        }
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().to_owned();
        let done = std::thread::spawn(move || {
            // SAFETY: the thread keeps no descriptor whose meaning depends on a mount namespace, and exits after this.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
                .expect("a namespace");
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
            mount("tmpfs", &path, "tmpfs", MountFlags::empty(), c"size=4m").expect("a small file system");
            work(&path);
        });
        done.join().expect("no panic");
    }

    #[test]
    fn the_reserve_is_given_up_for_the_journal_of_a_runner_that_ends_on_a_full_disk() {
        on_small_disk(|disk| {
            let runs = disk.join("runs");
            let run = runs.join("0-aaaaaaa");
            std::fs::create_dir_all(&run).expect("folder");
            let reserve = reserve_of(&runs);
            reserve.keep();
            let mut journal = Journal::open(&run).expect("a journal");
            let mut state = RunnerState::default();
            for begun in [Fact::Registering, Fact::Registered { registration: 7 }, Fact::StartingVm] {
                journal.write(&record(begun.clone())).expect("written");
                state.take(&record(begun));
            }
            let mut filler = std::fs::File::create(disk.join("filler")).expect("created");
            while std::io::Write::write_all(&mut filler, &[7; 4096]).is_ok() {}
            // Longer than what is left of the journal's last block, so that a part of the first line is written.
            let gone = Fact::VmGone { exit: "x".repeat(10_000) };
            for fact in [Fact::DestroyingVm, gone, Fact::DeletingRegistration] {
                let error = take_end(&mut journal, &mut state, &record(fact), &reserve);
                assert!(error.is_none(), "{error:?}");
            }
            assert!(!reserve.release(), "it was given up");
            let read = RunnerState::of(&journal::read(&run).expect("read"));
            assert_eq!((read.vm, read.registration), (state.vm, state.registration));
            assert_eq!(read.vm, crate::state::VmState::None);
        });
    }
}

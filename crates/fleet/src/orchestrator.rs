//! Many loops side by side: started one after another, replaced when they die, ended together.
//!
//! ```text
//!   waiting ──start──> starting ──.tkn, or its limit──> running ──> finished   (-r, -k, a signal)
//!                                                          └─────> due again   (died, or `.brk` from inside a VM)
//! ```
//!
//! A loop is a task of its own: a panic in one never touches another. What is decided is in [`Roster`], without any I/O.

mod roster;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_forge::Forge;
use dayfly_vm::VmHost;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::fact::{Fact, FactRecord};
use crate::settings::{LoopSettings, environment_of_loop};
use crate::stop::{Stop, StopOrder};
use crate::stream::FactSink;
use crate::{LoopEnd, RunnerEnd, recovery, run_loop};
pub use roster::StartOrder;
use roster::{Roster, Verdict};

/// Many loops.
#[derive(Debug, Clone)]
pub struct Orchestration {
    /// How many; they are numbered from 1.
    pub loops: u32,
    /// In which order they start.
    pub start: StartOrder,
    /// What they have in common; each gets a number and an environment directory of its own.
    pub settings: LoopSettings,
    /// The common environment directory.
    pub environment: PathBuf,
}

/// Runs loops until all of them have finished; `stop` ends them.
pub async fn orchestrate(
    orchestration: Orchestration,
    host: &VmHost,
    forge: &Forge,
    facts: &FactSink,
    stop: Stop,
) {
    let (up_sender, up) = mpsc::unbounded_channel();
    let roster = Roster::new(orchestration.loops, orchestration.start, orchestration.settings.limits);
    Orchestrator {
        settings: orchestration.settings,
        environment: orchestration.environment,
        host: host.clone(),
        forge: forge.clone(),
        facts: facts.with_decisive(up_sender),
        roster,
        up,
        tasks: JoinSet::new(),
        loops: HashMap::new(),
        stop,
    }
    .run()
    .await;
}

struct Orchestrator {
    settings: LoopSettings,
    environment: PathBuf,
    host: VmHost,
    forge: Forge,
    facts: FactSink,
    roster: Roster,
    up: mpsc::UnboundedReceiver<FactRecord>,
    tasks: JoinSet<LoopEnd>,
    /// Which loop each task is.
    loops: HashMap<Id, u32>,
    stop: Stop,
}

/// What happened, named before anybody decides about it.
enum Happening {
    Told(FactRecord),
    Ended(Result<(Id, LoopEnd), JoinError>),
    Ordered,
    Due,
}

impl Orchestrator {
    async fn run(mut self) {
        let mut stopping = false;
        loop {
            for index in self.roster.start(Instant::now()) {
                self.start(index).await;
            }
            if self.roster.is_finished() {
                return;
            }
            match self.next_happening(stopping).await {
                Happening::Told(record) if record.fact == Fact::RunnerUp => {
                    self.roster.is_up(record.loop_index)
                }
                Happening::Told(_) => {}
                Happening::Ended(ended) => self.take_end(ended, stopping).await,
                Happening::Ordered => {
                    stopping = true;
                    self.roster.close();
                }
                Happening::Due => self.warn_of_slow_starts().await,
            }
        }
    }

    async fn next_happening(&mut self, stopping: bool) -> Happening {
        let due = self.roster.next_due();
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.stop.above(StopOrder::None), if !stopping => Happening::Ordered,
            Some(record) = self.up.recv() => Happening::Told(record),
            Some(ended) = self.tasks.join_next_with_id() => Happening::Ended(ended),
            () = due => Happening::Due,
        }
    }

    async fn start(&mut self, index: u32) {
        self.facts.of_loop(index).tell(Fact::LoopStarted).await;
        let environment = environment_of_loop(&self.environment, &self.settings.prefix, index);
        let settings = LoopSettings { index, environment, patient: true, ..self.settings.clone() };
        let (host, forge) = (self.host.clone(), self.forge.clone());
        let (facts, stop) = (self.facts.clone(), self.stop.clone());
        let task = self.tasks.spawn(async move { run_loop(settings, &host, &forge, &facts, stop).await });
        self.loops.insert(task.id(), index);
    }

    async fn take_end(&mut self, ended: Result<(Id, LoopEnd), JoinError>, stopping: bool) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(index) = self.loops.remove(&id) else { return };
        let verdict = match ended {
            Ok((_, end)) => judge(&end, stopping),
            Err(error) => {
                self.clear_up_after(index).await;
                Verdict::Replace(format!("it died of a bug in dayfly: {error}"))
            }
        };
        let mut facts = self.facts.of_loop(index);
        match self.roster.ended(index, verdict, Instant::now()) {
            roster::Fate::Finished(how) => {
                // One that is not empty, or is not there, is left to whoever knows about it.
                let _ =
                    std::fs::remove_dir(environment_of_loop(&self.environment, &self.settings.prefix, index));
                facts.tell(Fact::LoopEnded { how }).await;
            }
            roster::Fate::Replaced { why, count, pause } => {
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                facts.tell(Fact::LoopReplaced { why, count, pause_ms }).await;
            }
        }
    }

    /// A loop that panicked has cleared up nothing: its machine went with it, its registration and files did not.
    async fn clear_up_after(&mut self, index: u32) {
        let sweep = recovery::sweep_loop(&self.settings.runs, index, &self.forge).await;
        for (run, why) in sweep.left {
            let message = format!("{} is left for the next start: {why}", run.display());
            self.facts.of_loop(index).tell(Fact::Warning { message }).await;
        }
    }

    async fn warn_of_slow_starts(&mut self) {
        for (index, waited) in self.roster.give_up_waiting(Instant::now()) {
            let message = format!(
                "no runner of loop {index} is up after {} s; the next loop is started all the same",
                waited.as_secs()
            );
            self.facts.of_loop(index).tell(Fact::Warning { message }).await;
        }
    }
}

/// What an end of a loop means.
fn judge(end: &LoopEnd, stopping: bool) -> Verdict {
    match end {
        LoopEnd::Finished(RunnerEnd::LifetimeOver) => Verdict::Finished("its lifetime is over".to_owned()),
        LoopEnd::Finished(RunnerEnd::MachineLost { exit }) => Verdict::Finished(format!(
            "it has made its runners; the machine of the last one was lost: {exit}"
        )),
        LoopEnd::Finished(_) => Verdict::Finished("it has made its runners".to_owned()),
        LoopEnd::Stopped => Verdict::Finished("it was stopped".to_owned()),
        LoopEnd::Broken if stopping => Verdict::Finished("it was stopped".to_owned()),
        LoopEnd::Failed(error) if stopping => Verdict::Finished(format!("it was stopped; {error}")),
        // Whoever is root in a VM can forge one: it costs the loop a restart, and nobody else anything.
        LoopEnd::Broken => Verdict::Replace(
            "it was ended from inside its VM, which nobody on this host asked for".to_owned(),
        ),
        LoopEnd::Failed(error) => Verdict::Replace(error.to_string()),
    }
}

/// How long a loop may take until a runner of it is up, before the next one is started all the same. A cold boot under
/// emulation on a busy host takes a minute.
pub const UP_LIMIT: Duration = Duration::from_secs(300);

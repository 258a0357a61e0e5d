//! Goes on with a runner of a process that died, whose machine lives.

use std::time::Duration;

use dayfly_vm::{EnvironmentDir, TakeOver, VmHost};
use secrecy::SecretString;
use tokio::time::Instant;

use super::watch::{Observed, Stage};
use super::{
    EndedRunner, Run, RunnerEnd, RunnerError, SECRET_FILE, end, make_folder, random_secret, run_to_end,
};
use crate::fact::{Fact, FactRecord, Moment};
use crate::instance::machine_of;
use crate::journal::{self, Journal};
use crate::pool::Pool;
use crate::reaper::Leftover;
use crate::recovery::Inherited;
use crate::run_log;
use crate::slot::Slot;
use crate::state::{Phase, RunnerState};
use crate::stop::Stop;
use crate::stream::FactSink;

/// Takes over an inherited runner, waits for its end, and removes its machine, its registration and its files. If its machine
/// cannot be taken over, it goes on, and is removed once the forge says that the runner has no job.
pub(crate) async fn run_inherited(
    inherited: &Inherited,
    (pool, slot, host): (&Pool, &Slot, &VmHost),
    facts: &FactSink,
    stop: &Stop,
) -> EndedRunner {
    let resumed = match Run::resume(inherited, (pool, slot, host), facts, stop.clone()).await {
        Ok(mut run) => run.take_over(inherited.lines_told).await.map(|is_alive| (run, is_alive)),
        Err(error) => Err(error),
    };
    match resumed {
        Ok((run, true)) => run_to_end(run).await,
        Ok((run, false)) => {
            let exit = "it has ended while no process of dayfly ran".to_owned();
            end(run, Ok(RunnerEnd::MachineLost { exit })).await
        }
        Err(error) => {
            pool.leftovers.add(Leftover { run: inherited.folder.clone(), home: inherited.home.clone() });
            EndedRunner { result: Err(error), up_for: None }
        }
    }
}

impl<'a> Run<'a> {
    async fn resume(
        inherited: &Inherited,
        (pool, slot, host): (&'a Pool, &'a Slot, &'a VmHost),
        facts: &FactSink,
        stop: Stop,
    ) -> Result<Self, RunnerError> {
        let (folder, runner) = (inherited.folder.clone(), &inherited.runner);
        let records = journal::read(&folder)?;
        let mut journal = Journal::open(&folder)?;
        let facts = facts.of(slot.index, &runner.id, &runner.name);
        let environment = slot.environment.clone();
        let resuming = facts.record(Fact::Resuming { environment: environment.clone() });
        journal.write(&resuming)?;
        let mut state = RunnerState::of(&records);
        state.take(&resuming);
        make_folder(&environment)?;
        let secret = std::fs::read_to_string(folder.join(SECRET_FILE));
        let secret = secret.ok().filter(|secret| !secret.is_empty()).map(SecretString::from);
        let secret_is_lost = secret.is_none();
        let since = |fact: fn(&Fact) -> bool| age(records.iter().find(|record| fact(&record.fact)));
        let lifetime = pool.spec.lifetime.map(|lifetime| {
            let lived = since(|fact| *fact == Fact::StartingVm).unwrap_or_default();
            Instant::now() + lifetime.saturating_sub(lived)
        });
        let up_for = since(|fact| *fact == Fact::RunnerUp);
        let mut run = Self {
            pool,
            slot,
            host,
            environment: EnvironmentDir::open(&environment, runner.id.as_str())?,
            secret: secret.unwrap_or_else(random_secret),
            journal,
            state,
            facts,
            machine: pool.machine.clone(),
            id: runner.id.clone(),
            name: runner.name.clone(),
            folder,
            home: inherited.home.clone(),
            stop,
            vm: None,
            lifetime_ends: lifetime,
            observed: Observed::new(Instant::now()),
            up_since: up_for.and_then(|age| Instant::now().checked_sub(age)),
            last_job: None,
            judged: None,
            warning: None,
        };
        if secret_is_lost {
            let path = run.folder.join(SECRET_FILE);
            let message = format!(
                "{} cannot be read: the runner goes on, but if it is stopped, its machine is killed after {} s",
                path.display(),
                pool.limits.gentle_stop.as_secs()
            );
            run.tell(Fact::Warning { message }).await?;
        }
        Ok(run)
    }

    /// Takes the machine over. Returns false if it has ended meanwhile. `lines_told` is the number of the last line that this
    /// process has told; the log may not have it yet.
    async fn take_over(&mut self, lines_told: u64) -> Result<bool, RunnerError> {
        let forward = self.reach().await?.forward;
        let take_over = TakeOver {
            runner_id: self.id.to_string(),
            environment: self.environment.path().to_owned(),
            lines_seen: run_log::last_line(&self.host.state, self.id.as_str()).max(lines_told),
            forward,
        };
        self.vm = dayfly_vm::take_over(take_over, &machine_of(&self.folder)).await?;
        Ok(self.vm.is_some())
    }

    /// Watches the runner whose machine was taken over.
    pub(super) async fn live_on(&mut self) -> Result<RunnerEnd, RunnerError> {
        let stage = match self.state.was_up() {
            true => Stage::up_already(self.liveness_rule(), self.state.phase == Phase::Busy),
            false => Stage::Booting,
        };
        self.watch(stage).await
    }
}

/// Returns the time since a fact; none if there is no such fact.
fn age(record: Option<&FactRecord>) -> Option<Duration> {
    record.map(|record| Duration::from_millis(Moment::now().ms().saturating_sub(record.at.ms())))
}

//! `dayfly thaw`: brings back the machine of a failed job that a pool has kept, for as long as a session in it.
//!
//! ```text
//!   kept machine, locked ──> started from its state ──> hello ──> session ──> destroyed; kept as before, or removed (--rm)
//! ```
//!
//! This process owns the machine meanwhile. If it dies, the next thaw removes what is left, or a process that runs loops
//! ([`dayfly_fleet::kept`]).

use std::io::IsTerminal as _;
use std::ops::ControlFlow;

use dayfly_fleet::fact::{Fact, FactRecord, Moment, RunnerRef};
use dayfly_fleet::run_log::RunLogs;
use dayfly_host::quantity::quantity;
use dayfly_vm::kept::{self, KeptMachine, LockedMachine};
use dayfly_vm::{NetworkPolicy, Vm, VmEvent};
use serde_json::json;

use super::logs::runner_id;
use super::{machine, session};
use crate::cli::ThawArgs;
use crate::exit::{Failure, Outcome, Result, Signal};
use crate::printer::{self, Column, Task};
use crate::settings::Places;
use crate::signals::Signals;
use crate::units::{mebibytes, plain};

pub(crate) async fn run(places: &Places, args: ThawArgs) -> Result<Outcome> {
    let Some(wanted) = &args.id else { return list(places, args.json) };
    let id = runner_id(wanted)?;
    let found = kept::find(&places.state, id.as_str()).map_err(Failure::cannot)?;
    let kept = found.ok_or_else(|| {
        Failure::cannot(format!("no machine of a runner {id} is kept on this host"))
            .hint("`dayfly thaw` lists those that are; a pool keeps machines with keep_failed")
    })?;
    if args.discard {
        let kept = kept.lock().await.map_err(Failure::cannot)?;
        kept.remove().await.map_err(Failure::cannot)?;
        return Ok(Outcome::Success);
    }
    if args.network && kept.manifest().about.network == NetworkPolicy::None {
        return Err(
            Failure::cannot("the pool of the machine has network = \"none\"").hint("leave --network out")
        );
    }
    let has_terminal = std::io::stdin().is_terminal();
    if args.command.is_empty() && !has_terminal {
        return Err(Failure::usage("standard input is no terminal, which a shell needs")
            .hint("`dayfly thaw RUNNER -- COMMAND` needs no terminal"));
    }
    let is_tty = args.command.is_empty() || (has_terminal && std::io::stdout().is_terminal());
    let kept = kept.lock().await.map_err(Failure::cannot)?;
    let outcome = match start(places, &kept, args.network).await {
        Ok(ControlFlow::Continue(vm)) => {
            let program = session::program(args.session, args.command);
            with_session(places, &kept, vm, program, is_tty).await
        }
        Ok(ControlFlow::Break(signal)) => Ok(Outcome::StoppedBy(signal)),
        Err(failure) => Err(failure),
    };
    let cleared = kept.clear().await;
    if args.rm && matches!(outcome, Ok(Outcome::Program(_))) {
        kept.remove().await.map_err(Failure::cannot)?;
    } else {
        cleared.map_err(Failure::cannot)?;
    }
    outcome
}

/// Starts the machine, and waits until its agent answers. Breaks with a signal that came first.
async fn start(places: &Places, kept: &LockedMachine, has_network: bool) -> Result<ControlFlow<Signal, Vm>> {
    let mut signals = Signals::take_over()?;
    let host = machine::host(places)?;
    let about = &kept.machine().manifest().about;
    let task = Task::begin(&format!("thawing the machine of {}", plain(&about.name)), false);
    let up = async {
        let mut vm = kept::thaw(&host, kept, has_network).await.map_err(Failure::cannot)?;
        loop {
            match vm.next_event().await {
                Some(VmEvent::Hello) => break,
                Some(VmEvent::Gone { exit, console_tail }) => {
                    return Err(Failure::cannot(format!("the machine has ended: {exit}\n{console_tail}")));
                }
                Some(_) => {}
                None => return Err(Failure::cannot("the machine has ended")),
            }
        }
        if has_network {
            vm.connect();
        }
        Ok(vm)
    };
    let vm = tokio::select! {
        vm = up => vm?,
        signal = signals.next() => return Ok(ControlFlow::Break(signal)),
    };
    drop(task);
    Ok(ControlFlow::Continue(vm))
}

/// Runs the program in the machine, and writes each use to the log of the runner. Ends the machine.
async fn with_session(
    places: &Places,
    kept: &LockedMachine,
    mut vm: Vm,
    program: dayfly_guest::protocol::session::SessionProgram,
    is_tty: bool,
) -> Result<Outcome> {
    let mut log = Log::open(places, kept.machine())?;
    let run_dir = vm.run_dir().to_owned();
    let in_it = session::run_in(&run_dir, program, is_tty);
    tokio::pin!(in_it);
    let outcome = loop {
        tokio::select! {
            outcome = &mut in_it => break outcome,
            Some(event) = vm.next_event() => log.take(event),
        }
    };
    while let Ok(Some(event)) =
        tokio::time::timeout(std::time::Duration::from_millis(100), vm.next_event()).await
    {
        log.take(event);
    }
    vm.destroy().await.map_err(Failure::cannot)?;
    outcome
}

/// The log of the runner, to which sessions are added.
struct Log {
    logs: RunLogs,
    runner: RunnerRef,
    pool: Option<String>,
    /// Number of the loop, with which the id of a runner begins.
    loop_index: u32,
}

impl Log {
    fn open(places: &Places, kept: &KeptMachine) -> Result<Self> {
        let about = &kept.manifest().about;
        let runner = RunnerRef { id: runner_id(&about.runner)?, name: about.name.clone() };
        let logs = RunLogs::open(&places.state).map_err(Failure::cannot)?;
        let number = about.runner.split('-').next().and_then(|number| number.parse().ok());
        Ok(Self { logs, runner, pool: about.pool.clone(), loop_index: number.unwrap_or_default() })
    }

    fn take(&mut self, event: VmEvent) {
        let fact = match event {
            VmEvent::SessionOpened { session, uid, user, command, has_terminal: terminal } => {
                Fact::SessionOpened { session, uid, user, command: format!("(thawed) {command}"), terminal }
            }
            VmEvent::SessionEnded { session, how } => Fact::SessionEnded { session, how },
            _ => return,
        };
        let (at, pool, runner) = (Moment::now(), self.pool.clone(), Some(self.runner.clone()));
        let record = FactRecord { at, pool, loop_index: self.loop_index, runner, fact };
        if let Err(error) = self.logs.take(&record) {
            tracing::warn!("the log of {} is not written: {error}", self.runner.name);
        }
    }
}

const COLUMNS: [Column; 6] = [
    Column::whole("RUNNER"),
    Column::cut("POOL"),
    Column::cut("JOB"),
    Column::whole("KEPT"),
    Column::whole("UNTIL"),
    Column::whole("SPACE"),
];

/// Lists the kept machines, the oldest first.
fn list(places: &Places, is_json: bool) -> Result<Outcome> {
    let machines = kept::list(&places.state).map_err(Failure::cannot)?;
    if is_json {
        machines.iter().for_each(|machine| {
            let mut value = json!(machine.manifest().about);
            value["kept_s"] = machine.manifest().kept_s.into();
            value["bytes"] = machine.bytes().into();
            printer::json(&value);
        });
    } else if machines.is_empty() {
        printer::note("no machine is kept; a pool keeps those of failed jobs with keep_failed = \"3d\"");
    } else {
        let rows: Vec<_> = machines.iter().map(cells).collect();
        printer::fitted(&COLUMNS, &rows, printer::columns()).into_iter().for_each(printer::line);
    }
    Ok(Outcome::Success)
}

/// Returns a time for people.
fn time(seconds: i64) -> String {
    let at = jiff::Timestamp::from_second(seconds).ok();
    at.map(|at| at.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

/// The machines that are kept, for the commands that say what a host has and leave them alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptSummary {
    /// The ids of their runners, of which there is at least one.
    pub(crate) runners: Vec<String>,
    /// The space that they take together, bytes.
    pub(crate) bytes: u64,
    /// The time until which the last one is kept, seconds since 1970-01-01 UTC.
    pub(crate) until_s: i64,
}

impl KeptSummary {
    /// Returns the summary; none if no machine is kept.
    pub(crate) fn of(machines: &[KeptMachine]) -> Option<Self> {
        let until_s = machines.iter().map(|machine| machine.manifest().about.until_s).max()?;
        Some(Self {
            runners: machines.iter().map(|machine| plain(&machine.manifest().about.runner)).collect(),
            bytes: machines.iter().map(KeptMachine::bytes).fold(0, u64::saturating_add),
            until_s,
        })
    }

    /// Returns how many there are, how large, and until when.
    pub(crate) fn sentence(&self) -> String {
        let kept = quantity(
            self.runners.len(),
            "machine of a failed job is kept",
            "machines of failed jobs are kept",
        );
        format!("{kept}, {}, until {} UTC at the latest", mebibytes(self.bytes), time(self.until_s))
    }

    /// Returns the command that removes one of them, and the one that lists them if there are more.
    pub(crate) fn advice(&self) -> String {
        match &self.runners[..] {
            [only] => format!("dayfly thaw {only} --discard removes it"),
            _ => "dayfly thaw lists them, and dayfly thaw RUNNER --discard removes one".to_owned(),
        }
    }
}

fn cells(machine: &KeptMachine) -> [String; 6] {
    let about = &machine.manifest().about;
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), plain);
    [
        plain(&about.runner),
        text(&about.pool),
        text(&about.job),
        time(machine.manifest().kept_s),
        time(about.until_s),
        mebibytes(machine.bytes()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_machines_are_told_with_their_space_their_time_and_the_command_that_removes_them() {
        let of = |runners: &[&str]| {
            let runners = runners.iter().map(|&runner| runner.to_owned()).collect();
            let summary = KeptSummary { runners, bytes: 300 << 20, until_s: 1_800_000_000 };
            format!("{}: {}", summary.sentence(), summary.advice())
        };
        assert_eq!(KeptSummary::of(&[]), None);
        insta::assert_snapshot!([of(&["1-aaaaaaa"]), of(&["1-aaaaaaa", "2-bbbbbbb"])].join("\n"));
    }
}

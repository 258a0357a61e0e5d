//! The task that owns a machine which shares its environment directory (podman-krun, krunvm).
//!
//! The tool has a process that runs as long as the machine. Its output and its exit status are those of the entrypoint. The
//! entrypoint's first step, removing `<id>.env`, serves as the hello. If the process exits before that step, the machine has
//! failed. If it exits after, its exit status is the entrypoint's.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dayfly_guest::environment::Suffix;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::exit::{EndReason, ExitDemand, ExitEvidence, classify};
use super::record;
use super::spawn::Outputs;
use super::supervisor::VmOrder;
use super::{Exit, StartError, StartedFrom, VmEvent};
use crate::console::{BoundedFile, Lines};
use crate::driver::mounted::Plan;
use crate::environment::EnvironmentDir;
use crate::process::{Ending, Process};
use dayfly_host::tool;

/// Longest time that a tool may take to pass an order on. The machine's own deadline keeps running meanwhile.
const ORDER_LIMIT: Duration = Duration::from_secs(60);
/// Longest time that the killed process of the tool is waited for.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// Longest time, after the machine has ended, that its last lines are waited for. An owner may be slow to fetch them.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(10);

/// Owner of a machine. See the module's documentation.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) plan: Plan,
    pub(super) run_dir: PathBuf,
    pub(super) hello_limit: Duration,
    pub(super) environment: EnvironmentDir,
    pub(super) outputs: Outputs,
    pub(super) events: mpsc::Sender<VmEvent>,
    pub(super) orders: mpsc::Receiver<VmOrder>,
    pub(super) detached: Arc<AtomicBool>,
}

/// The tool's process, and the tasks that read its output.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
    drains: JoinSet<()>,
    run_dir: PathBuf,
    ended: bool,
    detached: Arc<AtomicBool>,
}

impl Drop for Running {
    /// Kills the tool's process and the machine's other processes, unless the machine was detached. No tool is called,
    /// because nothing could wait for it here. If a container is left, the record leads to it.
    fn drop(&mut self) {
        if !self.ended && !self.detached.load(Ordering::Relaxed) {
            self.process.kill();
            let _ = record::signal_marked(&self.run_dir, Signal::KILL);
            self.process.reap();
        }
    }
}

/// The next thing that happened to a machine, before it is handled.
enum MountedInput {
    Ended(std::io::Result<Ending>),
    Ordered(Option<VmOrder>),
    EnvironmentChanged,
    DeadlinePassed,
}

/// The stage of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MountedStage {
    /// The entrypoint has not removed its `.env` file yet, and has time until then.
    Starting { until: Instant },
    /// The entrypoint has removed its `.env` file.
    Greeted,
}

/// The step of ending a machine, with the time at which the next step follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MountedEnd {
    No,
    Asked { until: Instant },
    Killed { reason: EndReason, demand: ExitDemand, until: Instant },
}

/// The progress of the machine.
struct MountedProgress {
    stage: MountedStage,
    end: MountedEnd,
    /// Running calls of the tool. They are aborted when this is dropped.
    calls: JoinSet<()>,
}

impl MountedProgress {
    fn is_greeted(&self) -> bool {
        self.stage == MountedStage::Greeted
    }

    fn deadline(&self) -> Option<Instant> {
        match (self.end, self.stage) {
            (MountedEnd::Asked { until } | MountedEnd::Killed { until, .. }, _) => Some(until),
            (MountedEnd::No, MountedStage::Starting { until }) => Some(until),
            (MountedEnd::No, MountedStage::Greeted) => None,
        }
    }

    fn evidence(&self) -> ExitEvidence {
        let (reason, demand) = match self.end {
            MountedEnd::No => (None, ExitDemand::None),
            MountedEnd::Asked { .. } => (Some(EndReason::Ordered), ExitDemand::Quit),
            MountedEnd::Killed { reason, demand, .. } => (Some(reason), demand),
        };
        ExitEvidence { reason, demand, ..ExitEvidence::default() }
    }
}

/// The exit of a machine, with the entrypoint's exit status if the machine's end is the entrypoint's.
fn exit_of(
    ending: std::io::Result<Ending>,
    is_greeted: bool,
    evidence: &ExitEvidence,
    hello_limit: Duration,
) -> (Exit, Option<i32>) {
    match ending {
        Err(_) => (classify(ending, evidence), None),
        Ok(_) if evidence.reason == Some(EndReason::HelloMissed) => {
            (Exit::NoHello { attempts: 1, limit: hello_limit }, None)
        }
        // The machine was killed, but the tool still exited by itself.
        Ok(_) if evidence.demand.is_kill() => (Exit::Killed, None),
        Ok(Ending::Exited(code)) if is_greeted => (Exit::PoweredOff, Some(code)),
        // The entrypoint has not even begun, whatever the tool's status says.
        Ok(Ending::Exited(code)) if evidence.reason.is_none() => (Exit::Failed { code }, None),
        Ok(_) => (classify(ending, evidence), None),
    }
}

impl Mounted {
    /// Starts the machine, which was created before.
    pub(super) fn start(&self) -> Result<Running, StartError> {
        let start = &self.plan.start;
        let failed =
            |source| StartError::Tool(tool::ToolError::Run { program: start.program.clone(), source });
        let mut command = start.command();
        command.envs([record::mark(&self.run_dir)]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let pipes = (child.stdout.take(), child.stderr.take());
        let process = Process::new(child).map_err(failed)?;
        let mut running = Running {
            process,
            drains: JoinSet::new(),
            run_dir: self.run_dir.clone(),
            ended: false,
            detached: Arc::clone(&self.detached),
        };
        let log = |name| BoundedFile::append(&self.run_dir.join(name)).ok();
        let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd;
        if let (Some(output), Some(complaint)) = pipes {
            let output = pipe(output.into()).map_err(failed)?;
            let lines = Lines::new(self.events.clone());
            running.drains.spawn(self.outputs.console.clone().relay(output, log(record::CONSOLE_LOG), lines));
            let complaint = pipe(complaint.into()).map_err(failed)?;
            running.drains.spawn(self.outputs.vmm.clone().drain(complaint, log(record::VMM_LOG)));
        }
        Ok(running)
    }

    /// Runs the machine until it has ended. The last event is [`VmEvent::Gone`].
    pub(super) async fn run(mut self, running: Running) -> Exit {
        let exit = self.live(running).await;
        let console_tail = self.outputs.tail();
        self.tell(VmEvent::Gone { exit: exit.clone(), console_tail }).await;
        exit
    }

    async fn live(&mut self, mut running: Running) -> Exit {
        self.tell(VmEvent::VmmStarted { pid: running.process.id(), from: StartedFrom::Boot }).await;
        let stage = MountedStage::Starting { until: Instant::now() + self.hello_limit };
        let mut state = MountedProgress { stage, end: MountedEnd::No, calls: JoinSet::new() };
        self.check_env(&mut state).await;
        loop {
            match self.next_input(&mut running, &mut state).await {
                MountedInput::Ended(ending) => return self.settle(running, state, ending).await,
                MountedInput::Ordered(Some(VmOrder::Stop(grace))) => self.stop(&mut state, grace),
                MountedInput::Ordered(Some(VmOrder::LetGo)) => {
                    self.detached.store(true, Ordering::Relaxed);
                    return Exit::LetGo;
                }
                // No more orders can arrive, because the machine was detached.
                MountedInput::Ordered(None) if self.detached.load(Ordering::Relaxed) => {}
                // Only machines with a monitor get these.
                MountedInput::Ordered(Some(VmOrder::Freeze(_) | VmOrder::Connect)) => {}
                MountedInput::Ordered(Some(VmOrder::Kill) | None) => {
                    self.kill(&running, &mut state, EndReason::Ordered)
                }
                MountedInput::EnvironmentChanged => self.check_env(&mut state).await,
                MountedInput::DeadlinePassed => match state.end {
                    MountedEnd::Killed { .. } => {
                        tracing::warn!(pid = running.process.id(), "a killed process does not exit");
                        return self.settle(running, state, Ok(Ending::Signalled(9))).await;
                    }
                    MountedEnd::Asked { .. } => self.kill(&running, &mut state, EndReason::Ordered),
                    MountedEnd::No => self.kill(&running, &mut state, EndReason::HelloMissed),
                },
            }
        }
    }

    async fn next_input(&mut self, running: &mut Running, state: &mut MountedProgress) -> MountedInput {
        let deadline = state.deadline();
        let passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let killed = matches!(state.end, MountedEnd::Killed { .. });
        let detached = self.detached.load(Ordering::Relaxed);
        tokio::select! {
            ending = running.process.wait() => MountedInput::Ended(ending),
            order = self.orders.recv(), if !killed && !detached => MountedInput::Ordered(order),
            () = self.environment.changed(), if !state.is_greeted() => MountedInput::EnvironmentChanged,
            () = passed => MountedInput::DeadlinePassed,
        }
    }

    /// Checks whether the entrypoint has removed its `.env` file, which counts as its hello.
    async fn check_env(&mut self, state: &mut MountedProgress) {
        match self.environment.read(Suffix::Env) {
            Ok(None) if !state.is_greeted() => {
                state.stage = MountedStage::Greeted;
                self.tell(VmEvent::Hello).await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    fn stop(&self, state: &mut MountedProgress, grace: Duration) {
        if state.end != MountedEnd::No {
            return;
        }
        match &self.plan.stop {
            Some(stop) => {
                let stop = stop.clone();
                state.calls.spawn(async move {
                    if let Err(error) = tool::run(&stop, ORDER_LIMIT).await {
                        tracing::warn!("cannot tell a machine to stop: {error}");
                    }
                });
            }
            None => {
                if let Err(error) = record::signal_marked(&self.run_dir, Signal::TERM) {
                    tracing::warn!("cannot tell a machine to stop: {error}");
                }
            }
        }
        state.end = MountedEnd::Asked { until: Instant::now() + grace };
    }

    /// Kills the tool's process. [`Mounted::settle`] removes the rest of the machine.
    fn kill(&self, running: &Running, state: &mut MountedProgress, reason: EndReason) {
        let demand = state.evidence().demand.then_kill();
        running.process.kill();
        state.end = MountedEnd::Killed { reason, demand, until: Instant::now() + KILL_LIMIT };
    }

    /// Reads the remaining output, removes the rest of the machine, then determines the machine's exit.
    async fn settle(
        &mut self,
        mut running: Running,
        mut state: MountedProgress,
        ending: std::io::Result<Ending>,
    ) -> Exit {
        running.ended = true;
        let deadline = Instant::now() + LAST_LINES_LIMIT;
        let lines = async {
            let read_all = async { while running.drains.join_next().await.is_some() {} };
            tokio::time::timeout_at(deadline, read_all).await.is_ok()
        };
        if !lines.await {
            tracing::warn!("the last lines of a machine are not waited for any longer");
        }
        self.check_env(&mut state).await;
        if let Err(error) = record::end(&self.run_dir).await {
            self.tell(VmEvent::Fault { message: error.to_string() }).await;
        }
        let (exit, code) = exit_of(ending, state.is_greeted(), &state.evidence(), self.hello_limit);
        if let Some(code) = code {
            self.tell(VmEvent::EntrypointExited { code: Some(code), signal: None }).await;
        }
        exit
    }

    async fn tell(&self, event: VmEvent) {
        let _ = self.events.send(event).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_status_is_the_entrypoints_only_if_the_entrypoint_has_begun() {
        let limit = Duration::from_secs(60);
        let none = ExitEvidence::default();
        let evidence =
            |reason, demand| ExitEvidence { reason: Some(reason), demand, ..ExitEvidence::default() };
        let asked = evidence(EndReason::Ordered, ExitDemand::Quit);
        let killed = evidence(EndReason::Ordered, ExitDemand::Kill);
        let hung = evidence(EndReason::HelloMissed, ExitDemand::Kill);
        for (ending, is_greeted, evidence, expected) in [
            (Ending::Exited(0), true, &none, (Exit::PoweredOff, Some(0))),
            (Ending::Exited(7), true, &asked, (Exit::PoweredOff, Some(7))),
            (Ending::Exited(0), false, &none, (Exit::Failed { code: 0 }, None)),
            (Ending::Exited(126), false, &none, (Exit::Failed { code: 126 }, None)),
            (Ending::Exited(0), false, &asked, (Exit::Quit, None)),
            (Ending::Exited(137), true, &killed, (Exit::Killed, None)),
            (Ending::Signalled(9), false, &hung, (Exit::NoHello { attempts: 1, limit }, None)),
            (Ending::Signalled(9), true, &none, (Exit::Signalled { signal: 9 }, None)),
        ] {
            assert_eq!(exit_of(Ok(ending), is_greeted, evidence, limit), expected, "{ending:?} {evidence:?}");
        }
    }
}

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

use super::exit::{Knowledge, classify};
use super::record;
use super::spawn::Outputs;
use super::supervisor::Order;
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
    pub(super) orders: mpsc::Receiver<Order>,
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

/// The step of stopping a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    Asked(Instant),
    Killed(Instant),
}

/// The next thing that happened, before it is handled.
enum Happening {
    Ended(std::io::Result<Ending>),
    Ordered(Option<Order>),
    EnvironmentChanged,
    DeadlinePassed,
}

/// The progress of the machine.
struct State {
    greeted: bool,
    hello_missed: bool,
    hello_deadline: Instant,
    stopping: Stopping,
    knowledge: Knowledge,
    /// Running calls of the tool. They are aborted when this is dropped.
    calls: JoinSet<()>,
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
        let mut state = State {
            greeted: false,
            hello_missed: false,
            hello_deadline: Instant::now() + self.hello_limit,
            stopping: Stopping::No,
            knowledge: Knowledge::default(),
            calls: JoinSet::new(),
        };
        self.check_env(&mut state).await;
        loop {
            match self.next_happening(&mut running, &mut state).await {
                Happening::Ended(ending) => return self.settle(running, state, ending).await,
                Happening::Ordered(Some(Order::Stop(grace))) => self.stop(&mut state, grace),
                // No more orders can arrive, because the machine was detached.
                Happening::Ordered(None) if self.detached.load(Ordering::Relaxed) => {}
                Happening::Ordered(Some(Order::Kill) | None) => self.kill(&running, &mut state),
                Happening::EnvironmentChanged => self.check_env(&mut state).await,
                Happening::DeadlinePassed => match state.stopping {
                    Stopping::Killed(_) => {
                        tracing::warn!(pid = running.process.id(), "a killed process does not exit");
                        return self.settle(running, state, Ok(Ending::Signalled(9))).await;
                    }
                    Stopping::Asked(_) => self.kill(&running, &mut state),
                    Stopping::No => {
                        state.hello_missed = true;
                        self.kill(&running, &mut state);
                    }
                },
            }
        }
    }

    async fn next_happening(&mut self, running: &mut Running, state: &mut State) -> Happening {
        let deadline = match state.stopping {
            Stopping::Asked(at) | Stopping::Killed(at) => Some(at),
            Stopping::No => (!state.greeted).then_some(state.hello_deadline),
        };
        let passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let killed = matches!(state.stopping, Stopping::Killed(_));
        let detached = self.detached.load(Ordering::Relaxed);
        tokio::select! {
            ending = running.process.wait() => Happening::Ended(ending),
            order = self.orders.recv(), if !killed && !detached => Happening::Ordered(order),
            () = self.environment.changed(), if !state.greeted => Happening::EnvironmentChanged,
            () = passed => Happening::DeadlinePassed,
        }
    }

    /// Checks whether the entrypoint has removed its `.env` file, which counts as its hello.
    async fn check_env(&mut self, state: &mut State) {
        match self.environment.read(Suffix::Env) {
            Ok(None) if !state.greeted => {
                state.greeted = true;
                self.tell(VmEvent::Hello).await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    fn stop(&self, state: &mut State, grace: Duration) {
        if state.stopping != Stopping::No {
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
        state.knowledge.asked_to_quit = true;
        state.stopping = Stopping::Asked(Instant::now() + grace);
    }

    /// Kills the tool's process. [`Mounted::settle`] removes the rest of the machine.
    fn kill(&self, running: &Running, state: &mut State) {
        state.knowledge.killed = true;
        running.process.kill();
        state.stopping = Stopping::Killed(Instant::now() + KILL_LIMIT);
    }

    /// Reads the remaining output, removes the rest of the machine, then determines the machine's exit.
    async fn settle(
        &mut self,
        mut running: Running,
        mut state: State,
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
        match ending {
            Err(error) => Exit::NotStarted { reason: format!("its process cannot be waited for: {error}") },
            Ok(_) if state.hello_missed => Exit::NoHello { attempts: 1, limit: self.hello_limit },
            Ok(Ending::Exited(code)) if state.greeted && !state.knowledge.killed => {
                self.tell(VmEvent::EntrypointExited { code: Some(code), signal: None }).await;
                Exit::PoweredOff
            }
            // The machine was killed, but the tool still exited by itself.
            Ok(_) if state.knowledge.killed => Exit::Killed,
            Ok(ending) => classify(ending, &state.knowledge),
        }
    }

    async fn tell(&self, event: VmEvent) {
        let _ = self.events.send(event).await;
    }
}

//! The one task that owns a machine which shares its environment directory (podman-krun, krunvm).
//!
//! The tool's process that lasts as long as the machine stands for it: its output is the entrypoint's, its exit status too.
//! That the entrypoint lives shows by its first act: it takes `<id>.env` away. What never came so far has failed as a
//! machine; what did has run, and its exit status is the entrypoint's.

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
use super::{Exit, StartError, VmEvent};
use crate::console::{BoundedFile, Lines};
use crate::driver::mounted::Plan;
use crate::environment::EnvironmentDir;
use crate::process::{Ending, Process};
use crate::template::StartedFrom;
use dayfly_host::tool;

/// How long a tool may take to hand an order on; the machine's own deadline goes on meanwhile.
const ORDER_LIMIT: Duration = Duration::from_secs(60);
/// From killing the tool's process until nobody waits any more.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// From the machine's end until its last lines are given up: an owner may be slow to take them.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(10);

/// Owns a machine. See the module's text.
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

/// The tool's process, and what listens to it.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
    drains: JoinSet<()>,
    run_dir: PathBuf,
    ended: bool,
    detached: Arc<AtomicBool>,
}

impl Drop for Running {
    /// A machine that nobody watches any more is ended, unless it was let go on purpose. There is nobody to wait for a tool
    /// here; a container that is left is in the record.
    fn drop(&mut self) {
        if !self.ended && !self.detached.load(Ordering::Relaxed) {
            self.process.kill();
            let _ = record::signal_marked(&self.run_dir, Signal::KILL);
            self.process.reap();
        }
    }
}

/// How the machine is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    Asked(Instant),
    Killed(Instant),
}

/// What happened, named before anybody decides about it.
enum Happening {
    Ended(std::io::Result<Ending>),
    Ordered(Option<Order>),
    EnvironmentChanged,
    DeadlinePassed,
}

/// How far it has come.
struct State {
    greeted: bool,
    hello_missed: bool,
    hello_deadline: Instant,
    stopping: Stopping,
    knowledge: Knowledge,
    /// Calls of the tool that are under way; they end with this.
    calls: JoinSet<()>,
}

impl Mounted {
    /// Starts the machine that was created.
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

    /// Owns the machine to its end. The last event is [`VmEvent::Gone`].
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
                // Nobody can order any more, because the machine was let go on purpose.
                Happening::Ordered(None) if self.detached.load(Ordering::Relaxed) => {}
                Happening::Ordered(Some(Order::Kill) | None) => self.kill(&running, &mut state),
                Happening::EnvironmentChanged => self.check_env(&mut state).await,
                Happening::DeadlinePassed => match state.stopping {
                    Stopping::Killed(_) => {
                        tracing::warn!(pid = running.process.id(), "a killed process does not end");
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

    /// Looks whether the entrypoint has taken its settings.
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
                        tracing::warn!("cannot tell a machine to end: {error}");
                    }
                });
            }
            None => {
                if let Err(error) = record::signal_marked(&self.run_dir, Signal::TERM) {
                    tracing::warn!("cannot tell a machine to end: {error}");
                }
            }
        }
        state.knowledge.asked_to_quit = true;
        state.stopping = Stopping::Asked(Instant::now() + grace);
    }

    /// Ends the tool's process; what is behind it is removed by [`Mounted::settle`].
    fn kill(&self, running: &Running, state: &mut State) {
        state.knowledge.killed = true;
        running.process.kill();
        state.stopping = Stopping::Killed(Instant::now() + KILL_LIMIT);
    }

    /// Hears what was said before the end, removes what is left, then judges it.
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
            // It was killed, and the tool had still time to say so by itself.
            Ok(_) if state.knowledge.killed => Exit::Killed,
            Ok(ending) => classify(ending, &state.knowledge),
        }
    }

    async fn tell(&self, event: VmEvent) {
        let _ = self.events.send(event).await;
    }
}

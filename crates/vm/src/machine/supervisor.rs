//! The task that owns a machine with an agent while it lives.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dayfly_guest::environment::{Suffix, file_name};
use dayfly_guest::protocol::{self, GuestMessage, HostMessage, Start};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::exit::{Knowledge, LAST_WORDS_LIMIT, classify};
use super::handshake::{Action, Beginning, Handshake};
use super::source::{StartSource, Started};
use super::spawn::{Outputs, Vmm};
use super::{Exit, StartedFrom, VmEvent, identity, unix_time_ns};
use crate::environment::EnvironmentDir;
use crate::pace::Turn;
use crate::process::Ending;
use crate::spec::Entrypoint;
use crate::vmm::MonitorEvent;

/// Number of boots after which a machine is given up.
const BOOTS: u32 = 2;
/// Time between asking the VMM to quit and killing it.
const QUIT_LIMIT: Duration = Duration::from_secs(3);
/// Longest time that a killed VMM is waited for.
const KILL_LIMIT: Duration = Duration::from_secs(30);
/// Most events that one message of the guest causes.
const EVENTS_PER_MESSAGE: usize = 4;

/// An order of the machine's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Power the machine off. After this time, ask the VMM to quit.
    Stop(Duration),
    /// Kill the VMM at once.
    Kill,
}

/// The settings that a machine gets from the host, and its time limits.
#[derive(Debug)]
pub(crate) struct MachineRole {
    pub(crate) hostname: String,
    pub(crate) runner_id: String,
    pub(crate) entrypoint: Entrypoint,
    pub(crate) shares: Vec<protocol::Share>,
    /// Additional variables of the entrypoint.
    pub(crate) env: Vec<(String, String)>,
    /// The DNS server.
    pub(crate) dns: Option<Ipv4Addr>,
    /// Whether the console offers a root shell.
    pub(crate) shell: bool,
    pub(crate) hello_limit: Duration,
    /// The same limit for a fork, until the fork has its identity.
    pub(crate) fork_limit: Duration,
    /// `None` if the agent starts no Docker.
    pub(crate) docker_limit: Option<Duration>,
}

/// Owner of a machine. See the diagram of the parent module.
#[derive(Debug)]
pub(super) struct Supervisor<S> {
    pub(super) source: S,
    pub(super) role: MachineRole,
    pub(super) environment: EnvironmentDir,
    pub(super) outputs: Outputs,
    pub(super) events: mpsc::Sender<VmEvent>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// True if the owner has detached the machine, which then outlives this process.
    pub(super) detached: Arc<AtomicBool>,
    /// The entrypoint's environment, once it was taken from its file. It is stored because a second start of the machine
    /// needs it too.
    pub(super) env: Option<String>,
}

/// The next thing that happened, before it is handled.
enum Happening {
    Ended(std::io::Result<Ending>),
    Message(std::io::Result<GuestMessage>),
    Monitor(Option<MonitorEvent>),
    Ordered(Option<Order>),
    EnvironmentChanged,
    NoBootDevice,
    DeadlinePassed,
}

/// The step of stopping a machine. Each step has a deadline, after which the next step follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    PoweringOff(Instant),
    Quitting(Instant),
    Killed(Instant),
}

/// One start of a machine.
struct Attempt {
    vmm: Vmm,
    /// Held until the machine is up, because other machines wait for a turn.
    turn: Option<Turn>,
    is_up: bool,
    handshake: Handshake,
    started_at: Instant,
    stopping: Stopping,
    knowledge: Knowledge,
    /// True once the entrypoint was started. From then on `<id>.trm` is carried to the guest.
    mirrors: bool,
    /// Content of the last `.trm` that was carried.
    trm_sent: Option<String>,
    monitor_gone: bool,
    wrong_version: Option<u32>,
    hello_missed: bool,
    /// True if the firmware found no kernel.
    no_boot_device: bool,
    /// True if the owner has ordered the machine to stop.
    ordered: bool,
    hello_limit: Duration,
}

impl Attempt {
    fn new(vmm: Vmm, turn: Option<Turn>, beginning: Beginning, role: &MachineRole) -> Self {
        let monitor_gone = vmm.monitor.is_none();
        Self {
            vmm,
            handshake: Handshake::of(beginning, role.docker_limit.is_some()),
            turn,
            is_up: false,
            started_at: Instant::now(),
            stopping: Stopping::No,
            knowledge: Knowledge::default(),
            mirrors: false,
            trm_sent: None,
            monitor_gone,
            wrong_version: None,
            hello_missed: false,
            no_boot_device: false,
            ordered: false,
            hello_limit: match beginning {
                Beginning::Boot => role.hello_limit,
                Beginning::Fork | Beginning::Spare => role.fork_limit,
            },
        }
    }

    fn send(&mut self, message: &HostMessage) {
        if let Some(link) = &mut self.vmm.link
            && let Err(error) = link.send(message)
        {
            tracing::warn!("cannot send a message to a guest: {error}");
        }
    }

    fn kill(&mut self) {
        self.knowledge.killed = true;
        self.vmm.process.kill();
        self.stopping = Stopping::Killed(Instant::now() + KILL_LIMIT);
    }

    fn quit(&mut self) {
        let Some(monitor) = &self.vmm.monitor else { return self.kill() };
        self.knowledge.asked_to_quit = true;
        monitor.quit();
        self.stopping = Stopping::Quitting(Instant::now() + QUIT_LIMIT);
    }

    fn stop(&mut self, grace: Duration) {
        if self.stopping != Stopping::No {
            return;
        }
        if !self.handshake.greeted() || self.vmm.link.is_none() {
            return self.quit();
        }
        self.send(&HostMessage::PowerOff);
        self.stopping = Stopping::PoweringOff(Instant::now() + grace);
    }

    /// Returns the time until which the next step must have happened.
    fn deadline(&self, role: &MachineRole) -> Option<Instant> {
        match self.stopping {
            Stopping::PoweringOff(at) | Stopping::Quitting(at) | Stopping::Killed(at) => Some(at),
            Stopping::No if !self.handshake.is_up() => Some(self.started_at + self.hello_limit),
            Stopping::No if self.handshake.waits_for_docker() => {
                role.docker_limit.map(|docker| self.started_at + self.hello_limit + docker)
            }
            Stopping::No => None,
        }
    }
}

/// Waits until the owner stops or drops a machine that is still queued. Waits forever if the machine was detached.
async fn end_is_wanted(orders: &mut mpsc::Receiver<Order>, detached: &AtomicBool) {
    let is_let_go = orders.recv().await.is_none() && detached.load(Ordering::Relaxed);
    if is_let_go {
        std::future::pending().await
    }
}

impl<S: StartSource> Supervisor<S> {
    /// Runs the machine until it has ended. The last event is [`VmEvent::Gone`].
    pub(super) async fn run(mut self, started: Started) -> Exit {
        let exit = self.live(started).await;
        // Dropped on a blocking thread: this closes the last descriptor of the network card, whose removal takes the kernel
        // a while.
        let source = self.source;
        drop(tokio::task::spawn_blocking(move || drop(source)));
        let console_tail = self.outputs.tail();
        let _ = self.events.send(VmEvent::Gone { exit: exit.clone(), console_tail }).await;
        exit
    }

    async fn live(&mut self, mut started: Started) -> Exit {
        let mut boots = 0;
        loop {
            let beginning = match started.from {
                StartedFrom::Boot => Beginning::Boot,
                StartedFrom::Fork(_) => Beginning::Fork,
                StartedFrom::Spare(_) => Beginning::Spare,
            };
            boots += u32::from(beginning == Beginning::Boot);
            if let Some(reason) = started.cold {
                self.tell(VmEvent::Cold { reason }).await;
            }
            let pid = started.vmm.process.id();
            self.tell(VmEvent::VmmStarted { pid, from: started.from }).await;
            let mut attempt = Attempt::new(started.vmm, started.turn, beginning, &self.role);
            let exit = self.watch(&mut attempt).await;
            if attempt.is_up || attempt.ordered {
                return exit;
            }
            if beginning != Beginning::Boot {
                // Whatever the reason was, the next start boots, so that a template never makes things worse than a cold
                // boot.
                self.source.fork_failed(&self.why_unusable(&attempt, &exit));
            } else if !attempt.hello_missed {
                return exit;
            } else if boots == BOOTS {
                return Exit::NoHello { attempts: boots, limit: attempt.hello_limit };
            } else {
                let reason = self.why_unusable(&attempt, &exit);
                self.tell(VmEvent::Restarted { reason }).await;
            }
            // This drops the turn, too. If machines that start again held all turns, each of them would wait forever for
            // another turn.
            drop(attempt);
            let turn = tokio::select! {
                biased;
                () = end_is_wanted(&mut self.orders, &self.detached) => return Exit::Killed,
                turn = self.source.turn() => turn,
            };
            let spawned = match turn {
                Ok(turn) => self.source.spawn(turn, &self.outputs, &self.detached).await,
                Err(error) => Err(error),
            };
            started = match spawned {
                Ok(started) => started,
                Err(error) => return Exit::NotStarted { reason: error.to_string() },
            };
        }
    }

    fn why_unusable(&self, attempt: &Attempt, exit: &Exit) -> String {
        let what = if attempt.hello_missed {
            let limit = attempt.hello_limit.as_secs();
            let word = if attempt.handshake.greeted() { "took on no identity" } else { "said no hello" };
            format!("the agent in the machine {word} within {limit} s")
        } else {
            exit.to_string()
        };
        format!("{what}; the console's last lines:\n{}", self.outputs.tail())
    }

    /// Watches one start of the machine until its VMM has exited.
    async fn watch(&mut self, attempt: &mut Attempt) -> Exit {
        let actions = attempt.handshake.begin();
        self.carry_out(attempt, actions).await;
        loop {
            match self.next_happening(attempt).await {
                Happening::Ended(ending) => return self.settle(attempt, ending).await,
                Happening::Message(Ok(message)) => self.take_message(attempt, message).await,
                Happening::Message(Err(error)) => {
                    tracing::debug!("the agent's connection has ended: {error}");
                    attempt.vmm.link = None;
                }
                Happening::Monitor(event) => note(attempt, event),
                Happening::Ordered(Some(Order::Stop(grace))) => {
                    attempt.ordered = true;
                    attempt.stop(grace);
                }
                // No more orders can arrive, because the machine was detached.
                Happening::Ordered(None) if self.detached.load(Ordering::Relaxed) => {}
                Happening::Ordered(Some(Order::Kill) | None) => {
                    attempt.ordered = true;
                    attempt.kill();
                }
                Happening::EnvironmentChanged => self.carry_trm(attempt),
                Happening::NoBootDevice => {
                    attempt.no_boot_device = true;
                    attempt.kill();
                }
                Happening::DeadlinePassed => {
                    if let Some(exit) = self.pass_deadline(attempt).await {
                        return exit;
                    }
                }
            }
        }
    }

    async fn next_happening(&mut self, attempt: &mut Attempt) -> Happening {
        let deadline = attempt.deadline(&self.role);
        let passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let killed = matches!(attempt.stopping, Stopping::Killed(_));
        let detached = self.detached.load(Ordering::Relaxed);
        let (monitor_gone, mirrors) = (attempt.monitor_gone, attempt.mirrors);
        // Only before the hello, because later the guest could print the firmware's message.
        let boots = !killed && !attempt.handshake.greeted();
        let Vmm { process, link, monitor, .. } = &mut attempt.vmm;
        let linked = link.is_some();
        let monitored = async {
            match monitor {
                Some(monitor) => monitor.next_event().await,
                None => std::future::pending().await,
            }
        };
        let events = &self.events;
        let message = async {
            // A message is read only if the queue has room for its events, so that a flood of messages waits in the guest.
            let room = events.reserve_many(EVENTS_PER_MESSAGE).await.is_ok();
            match link {
                Some(link) if room => link.next().await,
                // Either the link has ended, or the owner has closed the queue and needs no more messages.
                Some(_) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = message, if linked => Happening::Message(message),
            event = monitored, if !monitor_gone => Happening::Monitor(event),
            order = self.orders.recv(), if !killed && !detached => Happening::Ordered(order),
            () = self.environment.changed(), if mirrors => Happening::EnvironmentChanged,
            () = self.outputs.console.no_boot_device(), if boots => Happening::NoBootDevice,
            () = passed => Happening::DeadlinePassed,
            ending = process.wait() => Happening::Ended(ending),
        }
    }

    async fn take_message(&mut self, attempt: &mut Attempt, message: GuestMessage) {
        let actions = attempt.handshake.take(message, &self.role.runner_id);
        if attempt.handshake.is_up() && !std::mem::replace(&mut attempt.is_up, true) {
            attempt.turn = None;
            self.source.succeeded();
        }
        self.carry_out(attempt, actions).await;
    }

    async fn carry_out(&mut self, attempt: &mut Attempt, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell(event) => self.tell(event).await,
                Action::Greet => {
                    attempt.send(&HostMessage::Hello { version: protocol::VERSION, epoch: 1 });
                }
                Action::Identify => {
                    let MachineRole { hostname, dns, shell, .. } = &self.role;
                    attempt.send(&HostMessage::Identify(identity(hostname, *dns, *shell)));
                }
                Action::SetClock => attempt.send(&HostMessage::Clock { unix_time_ns: unix_time_ns() }),
                Action::Start => self.start_entrypoint(attempt).await,
                Action::WriteFile { suffix, content } => {
                    if let Err(error) = self.environment.write(suffix, &content) {
                        self.tell(VmEvent::Fault { message: error.to_string() }).await;
                    }
                }
                Action::WrongVersion { version } => {
                    attempt.wrong_version = Some(version);
                    attempt.kill();
                }
            }
        }
    }

    async fn start_entrypoint(&mut self, attempt: &mut Attempt) {
        let taken = match self.env.clone() {
            Some(content) => Ok(Some(content)),
            None => self.environment.take(Suffix::Env),
        };
        match taken {
            Ok(Some(content)) => {
                self.env = Some(content.clone());
                attempt.send(&HostMessage::PutFile { name: self.file_name(Suffix::Env), content });
            }
            Ok(None) => {
                let path = self.environment.path().join(self.file_name(Suffix::Env));
                let message = format!("{} is not there: the entrypoint gets no environment", path.display());
                self.tell(VmEvent::Fault { message }).await;
            }
            Err(error) => self.tell(VmEvent::Fault { message: error.to_string() }).await,
        }
        let MachineRole { runner_id, entrypoint, shares, env, .. } = &self.role;
        let args = ["-i", runner_id].into_iter().map(str::to_owned).chain(entrypoint.args.iter().cloned());
        let start = Start {
            runner_id: runner_id.clone(),
            program: entrypoint.program.as_ref().map(|path| path.to_string_lossy().into_owned()),
            args: args.collect(),
            shares: shares.clone(),
            env: env.clone(),
        };
        attempt.send(&HostMessage::Start(start));
        attempt.mirrors = true;
        self.carry_trm(attempt);
    }

    /// Carries `<id>.trm` to the guest, and again whenever its content changes, because a person may write the file in two
    /// steps or correct it.
    fn carry_trm(&mut self, attempt: &mut Attempt) {
        match self.environment.read(Suffix::Trm) {
            Ok(Some(content)) if attempt.trm_sent.as_ref() != Some(&content) => {
                let name = self.file_name(Suffix::Trm);
                attempt.send(&HostMessage::PutFile { name, content: content.clone() });
                attempt.trm_sent = Some(content);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    fn file_name(&self, suffix: Suffix) -> String {
        file_name(&self.role.runner_id, suffix)
    }

    /// Takes the step that follows a deadline. Returns an exit if no step is left.
    async fn pass_deadline(&mut self, attempt: &mut Attempt) -> Option<Exit> {
        match attempt.stopping {
            Stopping::PoweringOff(_) => attempt.quit(),
            Stopping::Quitting(_) => attempt.kill(),
            Stopping::Killed(_) => {
                tracing::warn!(pid = attempt.vmm.process.id(), "a killed VMM does not exit");
                return Some(Exit::Killed);
            }
            Stopping::No if attempt.handshake.is_up() => {
                let actions = attempt.handshake.give_up_docker();
                self.carry_out(attempt, actions).await;
            }
            Stopping::No => {
                attempt.hello_missed = true;
                attempt.kill();
            }
        }
        None
    }

    /// Reads the remaining messages, events and output of a VMM that has exited, then determines the machine's exit.
    async fn settle(&mut self, attempt: &mut Attempt, ending: std::io::Result<Ending>) -> Exit {
        attempt.vmm.settle();
        let deadline = Instant::now() + LAST_WORDS_LIMIT;
        while let Some(monitor) = &mut attempt.vmm.monitor
            && let Ok(Some(event)) = tokio::time::timeout_at(deadline, monitor.next_event()).await
        {
            note(attempt, Some(event));
        }
        while let Some(link) = &mut attempt.vmm.link
            && let Ok(Ok(message)) = tokio::time::timeout_at(deadline, link.next()).await
        {
            for action in attempt.handshake.take(message, &self.role.runner_id) {
                if let Action::Tell(event) = action {
                    let _ = self.events.try_send(event);
                }
            }
        }
        while let Ok(Some(_)) = tokio::time::timeout_at(deadline, attempt.vmm.drains.join_next()).await {}
        attempt.knowledge.panic_message = self.outputs.console.panic_message();
        match (attempt.wrong_version, ending) {
            (Some(guest), _) => Exit::WrongVersion { guest, host: protocol::VERSION },
            (None, Ok(_)) if attempt.no_boot_device => Exit::NoBootDevice,
            (None, Ok(ending)) => classify(ending, &attempt.knowledge),
            (None, Err(error)) => {
                Exit::NotStarted { reason: format!("its process cannot be waited for: {error}") }
            }
        }
    }

    async fn tell(&self, event: VmEvent) {
        let _ = self.events.send(event).await;
    }
}

/// Stores what the monitor reports about the machine's end.
fn note(attempt: &mut Attempt, event: Option<MonitorEvent>) {
    match event {
        Some(MonitorEvent::ShuttingDown(cause)) => attempt.knowledge.shutdown = Some(cause),
        Some(MonitorEvent::Refused(reason)) => {
            tracing::warn!("the monitor refused a command: {reason}");
            // Only the commands that restore a fork can be refused. Nothing ever runs in that fork then.
            if !attempt.handshake.greeted() {
                attempt.kill();
            }
        }
        Some(MonitorEvent::Paused | MonitorEvent::Frozen(_)) => {}
        None => attempt.monitor_gone = true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_a_turn_gives_up_when_ordered_and_not_when_let_go() {
        for (order, is_let_go, ends) in [
            (Some(Order::Kill), false, true),
            (Some(Order::Stop(KILL_LIMIT)), false, true),
            (None, false, true),
            (None, true, false),
        ] {
            let (sender, mut orders) = mpsc::channel(1);
            if let Some(order) = order {
                sender.try_send(order).expect("room");
            }
            drop(sender);
            let detached = AtomicBool::new(is_let_go);
            let waited =
                tokio::time::timeout(Duration::from_millis(50), end_is_wanted(&mut orders, &detached)).await;
            assert_eq!(waited.is_ok(), ends, "{order:?}, let go: {is_let_go}");
        }
    }
}

//! The task that owns a machine with an agent while it lives.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dayfly_guest::environment::{Suffix, file_name};
use dayfly_guest::origin::START;
use dayfly_guest::protocol::{self, GuestMessage, HostMessage, Start};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc;

use super::attempt::{AfterAttempt, Attempt, BegunEnd, EndStep};
use super::exit::{EndReason, ExitDemand, ExitEvidence, classify};
use super::handshake::{Action, InitialState};
use super::owned::Owned;
use super::sessions::{Passed, Request, Sessions};
use super::source::{StartSource, Started};
use super::spawn::{Outputs, Vmm};
use super::{Exit, VmEvent, identity, unix_time_ns};
use crate::environment::EnvironmentDir;
use crate::process::Ending;
use crate::spec::Entrypoint;
use crate::vmm::MonitorEvent;

/// Most events that one message of the guest causes.
const EVENTS_PER_MESSAGE: usize = 4;

/// An order of the machine's owner.
#[derive(Debug)]
pub(super) enum VmOrder {
    /// Power the machine off. After this time, ask the VMM to quit.
    Stop(Duration),
    /// Kill the VMM at once.
    Kill,
    /// Own the machine no longer. It goes on.
    LetGo,
    /// Write the machine to a file.
    Freeze(Freezing),
    /// Connect the network card of a machine that was kept.
    Connect,
}

/// The order to write a machine to a file.
#[derive(Debug)]
pub(super) struct Freezing {
    /// The file.
    pub(super) state: OwnedFd,
    /// Longest time that it may take.
    pub(super) limit: Duration,
}

/// The settings that a machine gets from the host, and its time limits.
#[derive(Debug)]
pub(crate) struct MachineRole {
    pub(crate) hostname: String,
    pub(crate) runner_id: String,
    /// The settings of the entrypoint.
    pub(crate) settings: SecretString,
    pub(crate) entrypoint: Entrypoint,
    pub(crate) shares: Vec<protocol::Share>,
    /// Additional variables of the entrypoint.
    pub(crate) env: Vec<(String, String)>,
    /// The DNS server.
    pub(crate) dns: Option<Ipv4Addr>,
    /// True if the console offers a root shell.
    pub(crate) shell: bool,
    pub(crate) hello_limit: Duration,
    /// The same limit for a fork, until the fork has its identity.
    pub(crate) fork_limit: Duration,
    /// `None` if the agent starts no Docker.
    pub(crate) docker_limit: Option<Duration>,
}

impl MachineRole {
    /// Returns the role of a machine in which the entrypoint was started already, so that only its agent is spoken with.
    pub(super) fn of_running(runner_id: String) -> Self {
        Self {
            hostname: String::new(),
            runner_id,
            settings: SecretString::default(),
            entrypoint: Entrypoint::default(),
            shares: Vec::new(),
            env: Vec::new(),
            dns: None,
            shell: false,
            hello_limit: Duration::ZERO,
            fork_limit: Duration::ZERO,
            docker_limit: None,
        }
    }
}

/// Owner of a machine. See the diagram of the parent module.
#[derive(Debug)]
pub(super) struct Supervisor<S> {
    pub(super) source: S,
    pub(super) role: MachineRole,
    pub(super) environment: EnvironmentDir,
    pub(super) outputs: Outputs,
    pub(super) events: mpsc::Sender<VmEvent>,
    pub(super) orders: mpsc::Receiver<VmOrder>,
    /// True if the owner has detached the machine, which then outlives this process.
    pub(super) detached: Arc<AtomicBool>,
    pub(super) owned: Owned,
    pub(super) sessions: Sessions,
}

/// The way in which this process gets a machine.
#[derive(Debug)]
pub(super) enum Beginning {
    /// It has started the machine.
    Start(Started),
    /// It takes the machine over from a process that died.
    TakeOver {
        vmm: Vmm,
        /// Number of the last line that the process that died has kept.
        lines_seen: u64,
    },
}

/// The next thing that happened to a machine, before it is handled.
enum SupervisorInput {
    Ended(std::io::Result<Ending>),
    Message(std::io::Result<GuestMessage>),
    Monitor(MonitorEvent),
    Ordered(Option<VmOrder>),
    EnvironmentChanged,
    Session(Request),
    NoBootDevice,
    DeadlinePassed,
}

/// Waits until the owner stops or drops a machine that is still queued. Waits forever if the machine was detached.
async fn end_is_wanted(orders: &mut mpsc::Receiver<VmOrder>, detached: &AtomicBool) {
    let is_let_go = orders.recv().await.is_none() && detached.load(Ordering::Relaxed);
    if is_let_go {
        std::future::pending().await
    }
}

impl<S: StartSource> Supervisor<S> {
    /// Runs the machine until it has ended. The last event is [`VmEvent::Gone`].
    pub(super) async fn run(mut self, begin: Beginning) -> Exit {
        let exit = self.live(begin).await;
        for event in self.sessions.end_all() {
            self.tell(event).await;
        }
        // Dropped on a blocking thread: this closes the last descriptor of the network card, whose removal takes the kernel
        // a while.
        let (source, owned) = (self.source, self.owned);
        let drop_both = move || {
            drop(source);
            drop(owned);
        };
        drop(tokio::task::spawn_blocking(drop_both));
        let console_tail = self.outputs.tail();
        let _ = self.events.send(VmEvent::Gone { exit: exit.clone(), console_tail }).await;
        exit
    }

    async fn live(&mut self, mut begin: Beginning) -> Exit {
        let mut boots = 0;
        loop {
            let (start, mut attempt) = self.begin(begin).await;
            boots += u32::from(start == InitialState::Boot);
            let exit = self.watch(&mut attempt).await;
            if exit == Exit::LetGo {
                return exit;
            }
            match AfterAttempt::of(start, attempt.is_up(), attempt.reason(), &exit, boots) {
                AfterAttempt::Finished => return exit,
                AfterAttempt::BootInstead => self.source.fork_failed(&self.why_unusable(&attempt, &exit)),
                AfterAttempt::GivenUp => {
                    return Exit::NoHello { attempts: boots, limit: attempt.hello_limit };
                }
                AfterAttempt::BootAgain => {
                    let reason = self.why_unusable(&attempt, &exit);
                    self.tell(VmEvent::Restarted { reason }).await;
                }
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
            begin = match spawned {
                Ok(started) => Beginning::Start(started),
                Err(error) => return Exit::NotStarted { reason: error.to_string() },
            };
        }
    }

    async fn begin(&self, begin: Beginning) -> (InitialState, Attempt) {
        let (start, vmm, turn, origin) = match begin {
            Beginning::Start(Started { vmm, from, turn, cold }) => {
                if let Some(reason) = cold {
                    self.tell(VmEvent::Cold { reason }).await;
                }
                let start = InitialState::from(&from);
                self.tell(VmEvent::VmmStarted { pid: vmm.process.id(), from: from.clone() }).await;
                if let Some(group) = &vmm.group {
                    self.tell(VmEvent::Limited(group.limits().clone())).await;
                }
                if let Some(walls) = vmm.walls.clone() {
                    self.tell(VmEvent::Jailed(walls)).await;
                }
                (start, vmm, turn, Some(from))
            }
            Beginning::TakeOver { vmm, lines_seen } => {
                self.tell(VmEvent::TakenOver { pid: vmm.process.id() }).await;
                (InitialState::TakenOver { epoch: unix_time_ns(), lines_seen }, vmm, None, None)
            }
        };
        let mut attempt = Attempt::new(vmm, turn, start, &self.role);
        attempt.from = origin;
        (start, attempt)
    }

    fn why_unusable(&self, attempt: &Attempt, exit: &Exit) -> String {
        let what = if attempt.reason() == Some(EndReason::HelloMissed) {
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
            match self.next_input(attempt).await {
                SupervisorInput::Ended(ending) => return self.settle(attempt, ending).await,
                SupervisorInput::Message(Ok(message)) => self.take_message(attempt, message).await,
                SupervisorInput::Message(Err(error)) => {
                    tracing::debug!("the agent's connection has ended: {error}");
                    attempt.vmm.link = None;
                }
                SupervisorInput::Monitor(event) => self.take_monitor_event(attempt, event).await,
                SupervisorInput::Ordered(Some(VmOrder::Stop(grace))) => attempt.stop(grace),
                SupervisorInput::Ordered(Some(VmOrder::LetGo)) => {
                    self.detached.store(true, Ordering::Relaxed);
                    attempt.vmm.end_forward().await;
                    return Exit::LetGo;
                }
                SupervisorInput::Ordered(Some(VmOrder::Freeze(freezing))) => attempt.freeze(freezing),
                SupervisorInput::Ordered(Some(VmOrder::Connect)) => {
                    if let Some(monitor) = &attempt.vmm.monitor {
                        monitor.connect();
                    }
                }
                // No more orders can arrive, because the machine was detached.
                SupervisorInput::Ordered(None) if self.detached.load(Ordering::Relaxed) => {}
                SupervisorInput::Ordered(Some(VmOrder::Kill) | None) => attempt.kill(EndReason::Ordered),
                SupervisorInput::EnvironmentChanged => self.carry_trm(attempt),
                SupervisorInput::Session(request) => {
                    let passed = self.sessions.take_request(request, attempt.refusal_of_sessions());
                    self.pass_on(attempt, passed).await;
                }
                SupervisorInput::NoBootDevice => attempt.kill(EndReason::NoBootDevice),
                SupervisorInput::DeadlinePassed => {
                    if let Some(exit) = self.pass_deadline(attempt).await {
                        return exit;
                    }
                }
            }
        }
    }

    async fn next_input(&mut self, attempt: &mut Attempt) -> SupervisorInput {
        let deadline = attempt.deadline(&self.role);
        let passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let killed = attempt.is_killed();
        let detached = self.detached.load(Ordering::Relaxed);
        // From then on `<id>.trm` is carried to the guest.
        let mirrors = attempt.handshake.has_started();
        // Only before the hello, because later the guest could print the firmware's message.
        let boots = !killed && !attempt.handshake.greeted();
        let Vmm { process, link, monitor, .. } = &mut attempt.vmm;
        let linked = link.is_some();
        let monitored = async {
            let event = match monitor {
                Some(monitor) => monitor.next_event().await,
                None => None,
            };
            match event {
                Some(event) => event,
                // There is no monitor, or it is gone.
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
            message = message, if linked => SupervisorInput::Message(message),
            event = monitored => SupervisorInput::Monitor(event),
            order = self.orders.recv(), if !killed && !detached => SupervisorInput::Ordered(order),
            () = self.environment.changed(), if mirrors => SupervisorInput::EnvironmentChanged,
            request = self.sessions.next() => SupervisorInput::Session(request),
            () = self.outputs.console.no_boot_device(), if boots => SupervisorInput::NoBootDevice,
            () = passed => SupervisorInput::DeadlinePassed,
            ending = process.wait() => SupervisorInput::Ended(ending),
        }
    }

    async fn take_message(&mut self, attempt: &mut Attempt, message: GuestMessage) {
        let (actions, has_come_up) = attempt.take(message, &self.role.runner_id);
        if has_come_up {
            self.source.succeeded();
        }
        self.carry_out(attempt, actions).await;
    }

    async fn take_monitor_event(&mut self, attempt: &mut Attempt, event: MonitorEvent) {
        match event {
            // A machine that its owner has detached is ended by a person.
            MonitorEvent::Paused if self.detached.load(Ordering::Relaxed) => return,
            MonitorEvent::DiskFailed(ref reason) => {
                self.tell(VmEvent::DiskFailed { reason: reason.clone() }).await;
            }
            _ => {}
        }
        attempt.note(event);
    }

    async fn carry_out(&mut self, attempt: &mut Attempt, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell(event) => self.tell(event).await,
                Action::Greet { epoch, lines_seen } => {
                    attempt.send(&HostMessage::Hello { version: protocol::VERSION, epoch, lines_seen });
                }
                Action::Identify => {
                    let MachineRole { hostname, dns, shell, .. } = &self.role;
                    attempt.send(&HostMessage::Identify(identity(hostname, *dns, *shell)));
                }
                Action::Session { session, output } => {
                    let passed = self.sessions.take_output(session, output);
                    self.pass_on(attempt, passed).await;
                }
                Action::SetClock => attempt.send(&HostMessage::Clock { unix_time_ns: unix_time_ns() }),
                Action::Start => self.start_entrypoint(attempt).await,
                Action::WriteFile { suffix, content } => {
                    if let Err(error) = self.environment.write(suffix, &content) {
                        self.tell(VmEvent::Fault { message: error.to_string() }).await;
                    }
                }
                Action::WrongVersion { version } => attempt.kill(EndReason::WrongVersion(version)),
                Action::LetBe => attempt.let_be(),
                Action::NeverStarted => attempt.kill(EndReason::NeverStarted),
            }
        }
    }

    async fn start_entrypoint(&mut self, attempt: &mut Attempt) {
        let settings = self.role.settings.expose_secret().to_owned();
        attempt.send(&HostMessage::PutFile { name: self.file_name(Suffix::Env), content: settings });
        let MachineRole { runner_id, entrypoint, shares, env, .. } = &self.role;
        let args = ["-i", runner_id].into_iter().map(str::to_owned).chain(entrypoint.args.iter().cloned());
        let origin = attempt.from.as_ref().map(|from| (START.to_owned(), from.to_string()));
        let start = Start {
            runner_id: runner_id.clone(),
            program: entrypoint.program.as_ref().map(|path| path.to_string_lossy().into_owned()),
            args: args.collect(),
            shares: shares.clone(),
            env: env.iter().cloned().chain(origin).collect(),
        };
        attempt.send(&HostMessage::Start(start));
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
        match attempt.end {
            Some(BegunEnd { reason, step: EndStep::PoweringOff(_), .. }) => attempt.quit(reason),
            Some(BegunEnd { reason, step: EndStep::Quitting(_) | EndStep::Freezing(_), .. }) => {
                attempt.kill(reason);
            }
            Some(BegunEnd { reason, demand, step: EndStep::Killed(_) }) => {
                tracing::warn!(pid = attempt.vmm.process.id(), "a killed VMM does not exit");
                let evidence = ExitEvidence { reason: Some(reason), demand, ..ExitEvidence::default() };
                return Some(classify(Ok(Ending::Signalled(9)), &evidence));
            }
            None if attempt.handshake.waits_for_docker() => {
                let actions = attempt.handshake.give_up_docker();
                self.carry_out(attempt, actions).await;
            }
            None if attempt.handshake.is_up() => {
                // Nothing is read if the owner's queue is full, or the owner has detached the machine.
                let listens = !self.events.is_closed() && self.events.capacity() >= EVENTS_PER_MESSAGE;
                attempt.beat(listens);
            }
            None if attempt.is_taken_over() => attempt.kill(EndReason::Silent(attempt.hello_limit)),
            None => attempt.kill(EndReason::HelloMissed),
        }
        None
    }

    /// Determines the exit of a VMM whose process has ended.
    async fn settle(&mut self, attempt: &mut Attempt, ending: std::io::Result<Ending>) -> Exit {
        let Attempt { vmm, handshake, end, shutdown, disk_failure, frozen, .. } = attempt;
        let evidence = ExitEvidence {
            reason: end.map(|end| end.reason),
            demand: end.map_or(ExitDemand::None, |end| end.demand),
            shutdown: *shutdown,
            disk_failure: disk_failure.clone(),
            frozen: frozen.clone(),
            memory_kill: None,
            panic_message: None,
        };
        vmm.exit_of(ending, evidence, &self.outputs, |message| {
            for action in handshake.take(message, &self.role.runner_id) {
                if let Action::Tell(event) = action {
                    let _ = self.events.try_send(event);
                }
            }
        })
        .await
    }

    /// Passes a message of a session on. The owner learns of it first, so that it knows of each program before that runs.
    async fn pass_on(&self, attempt: &mut Attempt, passed: Passed) {
        if let Some(event) = passed.event {
            self.tell(event).await;
        }
        if let Some(message) = passed.message {
            attempt.send(&message);
        }
        if let (1.., Some(link)) = (passed.asked_for, &mut attempt.vmm.link) {
            link.was_asked_for(passed.asked_for);
        }
    }

    async fn tell(&self, event: VmEvent) {
        let _ = self.events.send(event).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StartError, StartedFrom};
    use super::*;
    use crate::pace::Turn;
    use crate::process::Process;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use dayfly_guest::protocol::frame::{Decoder, Encoder};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Returns the role of a machine whose starts have this limit.
    fn role(limit: Duration) -> MachineRole {
        MachineRole { hello_limit: limit, fork_limit: limit, ..MachineRole::of_running("0-abc".to_owned()) }
    }

    #[tokio::test]
    async fn whoever_waits_for_a_turn_gives_up_when_ordered_and_not_when_let_go() {
        for (order, is_let_go, ends) in [
            (Some(VmOrder::Kill), false, true),
            (Some(VmOrder::Stop(Duration::from_secs(30))), false, true),
            (None, false, true),
            (None, true, false),
        ] {
            let (sender, mut orders) = mpsc::channel(1);
            let shown = format!("{order:?}");
            if let Some(order) = order {
                sender.try_send(order).expect("room");
            }
            drop(sender);
            let detached = AtomicBool::new(is_let_go);
            let waited =
                tokio::time::timeout(Duration::from_millis(50), end_is_wanted(&mut orders, &detached)).await;
            assert_eq!(waited.is_ok(), ends, "{shown}, let go: {is_let_go}");
        }
    }

    /// The starts of a machine that a test plans: the origin of each, and the shell script that replaces the VMM.
    #[derive(Debug)]
    struct PlannedStarts {
        next: VecDeque<(StartedFrom, &'static str)>,
        /// The supervisor's reports.
        reports: Arc<Mutex<Vec<String>>>,
        /// Number of pings that the guest of each start answers after its hello; none: it says no hello.
        pongs: Option<usize>,
    }

    /// Plays an agent that says hello, answers so many pings, and then reads on in silence. Reports each ping.
    async fn answer(agent: tokio::net::UnixStream, pongs: usize, reports: Arc<Mutex<Vec<String>>>) {
        let (mut reader, mut writer) = agent.into_split();
        let (mut decoder, mut encoder, mut pings) = (Decoder::new(), Encoder::new(), 0);
        let hello = GuestMessage::Hello {
            version: protocol::VERSION,
            epoch: 1,
            build: String::new(),
            started: false,
        };
        writer.write_all(&encoder.encode(&hello).expect("encode")).await.expect("write");
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            decoder.push(&buffer[..count]);
            while let Some(message) = decoder.next::<HostMessage>() {
                let HostMessage::Ping { number } = message.expect("valid") else { continue };
                pings += 1;
                reports.lock().expect("no panic").push("ping".to_owned());
                if pings <= pongs {
                    let pong = encoder.encode(&GuestMessage::Pong { number }).expect("encode");
                    writer.write_all(&pong).await.expect("write");
                }
            }
        }
    }

    impl PlannedStarts {
        fn report(&self, text: &str) {
            self.reports.lock().expect("no panic").push(text.lines().next().unwrap_or_default().to_owned());
        }
    }

    impl StartSource for PlannedStarts {
        async fn turn(&self) -> Result<Option<Turn>, StartError> {
            Ok(None)
        }

        async fn spawn(
            &mut self,
            turn: Option<Turn>,
            _outputs: &Outputs,
            detached: &Arc<AtomicBool>,
        ) -> Result<Started, StartError> {
            let (from, script) = self.next.pop_front().expect("a planned start");
            let child = std::process::Command::new("sh").args(["-c", script]).spawn().expect("spawn");
            let (agent, guest) = tokio::net::UnixStream::pair().expect("pair");
            if let Some(pongs) = self.pongs {
                tokio::spawn(answer(guest, pongs, Arc::clone(&self.reports)));
            }
            let vmm = Vmm::new(Process::new(child).expect("process"), agent, detached);
            Ok(Started { vmm, from, turn, cold: None })
        }

        fn succeeded(&self) {
            self.report("up");
        }

        fn fork_failed(&mut self, reason: &str) {
            self.report(reason);
        }
    }

    /// Runs a machine to its end. Returns its exit, the origins of its starts, and what its source was told.
    async fn run(starts: &[(StartedFrom, &'static str)]) -> (Exit, Vec<StartedFrom>, Vec<String>) {
        run_with(starts, None).await
    }

    async fn run_with(
        starts: &[(StartedFrom, &'static str)],
        pongs: Option<usize>,
    ) -> (Exit, Vec<StartedFrom>, Vec<String>) {
        let folder = tempfile::tempdir().expect("folder");
        let (event_sender, mut events) = mpsc::channel(64);
        let (_orders, order_receiver) = mpsc::channel(4);
        let reports = Arc::default();
        let mut source =
            PlannedStarts { next: starts.iter().cloned().collect(), reports: Arc::clone(&reports), pongs };
        let (outputs, detached) = (Outputs::new(), Arc::default());
        let started = source.spawn(None, &outputs, &detached).await.expect("started");
        let limit = Duration::from_millis(300);
        let role = role(limit);
        let environment = EnvironmentDir::open(folder.path(), "0-abc").expect("environment");
        let supervisor = Supervisor {
            source,
            role,
            environment,
            outputs,
            events: event_sender,
            orders: order_receiver,
            detached,
            owned: Owned::new(folder.path()),
            sessions: Sessions::open(folder.path()),
        };
        let exit = supervisor.run(Beginning::Start(started)).await;
        let mut origins = Vec::new();
        while let Some(event) = events.recv().await {
            if let VmEvent::VmmStarted { from, .. } = event {
                origins.push(from);
            }
        }
        let reports = reports.lock().expect("no panic").clone();
        (exit, origins, reports)
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_answers_no_more_is_killed_with_that_reason() {
        let (exit, _, reports) = run_with(&[(StartedFrom::Boot, "exec sleep 600")], Some(40)).await;
        assert_eq!(exit, Exit::Silent { limit: Duration::from_secs(300) });
        let pings = reports.iter().filter(|report| *report == "ping").count();
        assert_eq!(pings, 50, "it lived as long as it answered");
    }

    #[tokio::test]
    async fn a_fork_that_fails_is_followed_by_a_boot_whatever_the_reason_was() {
        let fork = || StartedFrom::Fork("t".to_owned());
        for (script, reason) in [
            ("exit 1", "the VMM failed with exit status 1; the console's last lines:"),
            ("exit 0", "the machine powered off; the console's last lines:"),
            ("exec sleep 60", "the agent in the machine said no hello within 0 s; the console's last lines:"),
        ] {
            let (exit, origins, reports) = run(&[(fork(), script), (StartedFrom::Boot, "exit 0")]).await;
            assert_eq!(exit, Exit::PoweredOff, "{script}");
            assert_eq!(origins, [fork(), StartedFrom::Boot], "{script}");
            assert_eq!(reports, [reason], "{script}");
        }
    }

    #[tokio::test]
    async fn a_boot_that_ends_is_not_repeated_and_one_that_hangs_is_repeated_once() {
        let boot = |script| (StartedFrom::Boot, script);
        let (exit, origins, reports) = run(&[boot("exit 3")]).await;
        assert_eq!((exit, origins.len(), reports.len()), (Exit::Failed { code: 3 }, 1, 0));
        let (exit, origins, reports) = run(&[boot("exec sleep 60"), boot("exec sleep 60")]).await;
        let limit = Duration::from_millis(300);
        assert_eq!((exit, origins.len(), reports.len()), (Exit::NoHello { attempts: 2, limit }, 2, 0));
    }

    /// A machine that starts once, as the process of a shell script.
    #[derive(Debug)]
    struct OneStart;

    impl StartSource for OneStart {
        async fn spawn(
            &mut self,
            _turn: Option<Turn>,
            _outputs: &Outputs,
            _detached: &Arc<AtomicBool>,
        ) -> Result<Started, StartError> {
            unreachable!("it starts once")
        }
    }

    /// Plays a monitor that sends these events.
    async fn send_events(mut monitor: tokio::net::UnixStream, events: &[&str]) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        monitor.write_all(b"{\"QMP\": {}}\n").await.expect("greet");
        monitor.read_u8().await.expect("asked");
        monitor.write_all(b"{\"return\": {}}\n").await.expect("answer");
        for event in events {
            monitor.write_all(format!("{event}\n").as_bytes()).await.expect("event");
        }
        // It stays open until the VMM's process has ended.
        let _ = monitor.read_to_end(&mut Vec::new()).await;
    }

    #[tokio::test]
    async fn a_machine_that_its_vmm_has_paused_ends_with_the_reason() {
        let folder = tempfile::tempdir().expect("folder");
        let (event_sender, mut events) = mpsc::channel(64);
        let (_orders, orders) = mpsc::channel(4);
        let (outputs, detached) = (Outputs::new(), Arc::default());
        let child = std::process::Command::new("sleep").arg("60").spawn().expect("spawn");
        let (agent, _guest) = tokio::net::UnixStream::pair().expect("pair");
        let (ours, theirs) = tokio::net::UnixStream::pair().expect("pair");
        let mut vmm = Vmm::new(Process::new(child).expect("process"), agent, &detached);
        vmm.monitor = Some(crate::vmm::Monitor::start(ours, None));
        let played = tokio::spawn(send_events(
            theirs,
            &[
                r#"{"event": "BLOCK_IO_ERROR", "data": {"nospace": true, "reason": "No space left on device"}}"#,
                r#"{"event": "STOP"}"#,
            ],
        ));
        let limit = Duration::from_secs(60);
        let role = role(limit);
        let environment = EnvironmentDir::open(folder.path(), "0-abc").expect("environment");
        let supervisor = Supervisor {
            source: OneStart,
            role,
            environment,
            outputs,
            events: event_sender,
            orders,
            detached,
            owned: Owned::new(folder.path()),
            sessions: Sessions::open(folder.path()),
        };
        let started = Started { vmm, from: StartedFrom::Boot, turn: None, cold: None };
        let exit = supervisor.run(Beginning::Start(started)).await;
        insta::assert_snapshot!(exit, @"the VMM paused the machine for good: No space left on device");
        let mut faults = Vec::new();
        while let Some(event) = events.recv().await {
            faults.extend(if let VmEvent::DiskFailed { reason } = event { Some(reason) } else { None });
        }
        assert_eq!(faults, ["No space left on device"]);
        played.await.expect("played");
    }
}

//! The agent: carries out the host's messages in a machine, and reports to the host.
//!
//! It consists of plain threads, each with one job, that share a few values:
//!
//! ```text
//!   port reader --HostMessage--> Agent ----> identity, folder, entrypoint, power
//!                                  |
//!   Docker, entrypoint, watcher ---+---> Outbox (bounded) ---> port writer
//!
//!   main thread: reaps
//! ```
//!
//! A host may disconnect at any time, and another one may connect. The agent repeats facts (milestones, files, faults, the
//! entrypoint's exit) to each host that says hello, and the last lines of output from the one on that the host names.

mod children;
mod docker;
mod identity;
mod out_of_memory;
mod outbox;
mod port;
mod prepare;
mod session;
mod shell;
mod standby;
mod tree;

pub(crate) use tree::run as run_on_host;

use crate::boot::personal::Personal;
use crate::entrypoint::outside::Outside;
use crate::folder::{Folder, FolderError, Watch};
use crate::{console, memory};
use children::Children;
use dayfly_guest::envfile;
use dayfly_guest::environment::{self, Suffix};
use dayfly_guest::protocol::{
    GuestMessage, HostMessage, Identity, Milestone, Prepare, Source, Start, VERSION,
};
use identity::Identities;
use outbox::Outbox;
use session::Sessions;
use standby::Standby;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Name of the guest binary in the list of processes.
const NAME: &str = "dayfly-guest";

/// Longest wait for the last lines of an entrypoint that has exited. The wait is bounded because a process that the
/// entrypoint left behind may hold the pipe open forever.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);

/// The failure that an agent on a host reports for [`HostMessage::Prepare`] and [`HostMessage::Forget`].
const NOT_FROZEN: &str = "a tree of processes cannot be frozen";

/// Longest time that [`greet_once`] waits for a host.
const GREETING_MAX: Duration = Duration::from_secs(2);

/// The system that the agent runs in.
#[derive(Debug)]
enum Surroundings {
    /// A machine, whose process 1 is the agent.
    Machine(Identities),
    /// A host. The agent has its own process tree and environment directory, and leaves the rest of the host unchanged.
    Host {
        /// The environment directory.
        environment: PathBuf,
        /// The guest binary.
        program: PathBuf,
    },
}

/// A handle of the agent, cheap to clone. There is one agent per machine.
#[derive(Clone)]
pub(crate) struct Agent {
    surroundings: Arc<Surroundings>,
    outbox: Arc<Outbox>,
    children: Arc<Children>,
    /// Id of the runner whose files are sent to the host; set when its entrypoint is started.
    runner_id: Arc<Mutex<Option<String>>>,
    /// Set when the host powers the machine off. From then on no faults are reported, because all processes are killed.
    ending: Arc<AtomicBool>,
    /// True while the machine has an identity. No entrypoint is started without one.
    identified: Arc<AtomicBool>,
    /// Set once the machine is prepared, or its preparation has begun.
    prepared: Arc<AtomicBool>,
    /// Set once a shell is offered on the console.
    shell: Arc<AtomicBool>,
    docker: Arc<Mutex<docker::Docker>>,
    /// The standby entrypoint, if one was started.
    standby: Arc<Mutex<Option<Standby>>>,
    sessions: Arc<Sessions>,
}

impl Agent {
    /// Creates the agent of a machine with these personal files.
    pub(crate) fn new(personal: Personal) -> std::io::Result<Self> {
        Ok(Self::within(Surroundings::Machine(Identities::new(personal)?)))
    }

    fn within(surroundings: Surroundings) -> Self {
        Self {
            surroundings: Arc::new(surroundings),
            outbox: Arc::default(),
            children: Arc::default(),
            runner_id: Arc::default(),
            ending: Arc::default(),
            identified: Arc::default(),
            prepared: Arc::default(),
            shell: Arc::default(),
            docker: Arc::default(),
            standby: Arc::default(),
            sessions: Arc::default(),
        }
    }

    /// Starts to serve the protocol on the machine's port, and to watch the environment directory.
    pub(crate) fn open_port(&self) {
        self.serve(port::ListenAddress::Virtio);
    }

    fn serve(&self, place: port::ListenAddress) {
        // The watch starts before a host can start an entrypoint, because that may write its first note within milliseconds.
        let watched =
            Folder::open(self.environment()).and_then(|folder| folder.watch().map(|watch| (folder, watch)));
        let agent = self.clone();
        port::serve(place, Arc::clone(&self.outbox), move |message| agent.handle(message));
        let agent = self.clone();
        std::thread::spawn(move || agent.send_as_written(watched));
    }

    /// Starts Docker and reports when it answers.
    pub(crate) fn start_docker(&self) {
        let agent = self.clone();
        std::thread::spawn(move || docker::run(&agent));
    }

    /// Reports each process that the kernel kills because the machine's memory is used up.
    pub(crate) fn watch_memory(&self) {
        let agent = self.clone();
        std::thread::spawn(move || out_of_memory::watch(&agent));
    }

    /// Offers a shell on the console until the machine is powered off.
    fn start_shell(&self) {
        let agent = self.clone();
        std::thread::spawn(move || shell::run(&agent));
    }

    /// Reaps child processes forever.
    pub(crate) fn reap(&self) -> ! {
        self.children.reap()
    }

    /// Reports to the host that a step is done.
    pub(crate) fn reached(&self, milestone: Milestone) {
        self.outbox.fact(GuestMessage::Milestone { milestone, uptime_ms: uptime_ms() });
    }

    /// Reports a failure to the host and on the console, unless the machine is being powered off.
    fn fault(&self, message: String) {
        if self.ending.load(Ordering::SeqCst) {
            return;
        }
        console::say(&message);
        self.outbox.fact(GuestMessage::Fault { message });
    }

    /// Reports like [`Agent::fault`] that there is no Docker daemon, although the image has one.
    fn docker_failed(&self, reason: String) {
        if self.ending.load(Ordering::SeqCst) {
            return;
        }
        console::say(&reason);
        self.outbox.fact(GuestMessage::DockerFailed { reason });
    }

    /// Reports something that is no failure to the host and on the console.
    fn tell(&self, text: &str) {
        console::say(text);
        self.line(Source::Agent, text);
    }

    fn line(&self, source: Source, text: &str) {
        self.outbox.line(source, text);
    }

    fn handle(&self, message: HostMessage) {
        match message {
            HostMessage::Hello { version, epoch, lines_seen } => {
                if version != VERSION {
                    self.fault(format!(
                        "the host speaks version {version} of the protocol, this guest {VERSION}"
                    ));
                }
                self.sessions.hang_up_all();
                self.outbox.greet(epoch, lines_seen);
            }
            HostMessage::Identify(identity) => self.identify(&identity),
            HostMessage::PutFile { name, content } => self.put_file(&name, &content),
            HostMessage::Start(start) => self.start_entrypoint(&start),
            HostMessage::Prepare(prepare) => self.prepare(prepare),
            HostMessage::Forget => self.forget(),
            HostMessage::Clock { unix_time_ns } => self.set_clock(unix_time_ns),
            HostMessage::Ping { number } => self.outbox.answer(GuestMessage::Pong { number }),
            HostMessage::Session { session, input } => session::handle(self, session, input),
            HostMessage::PowerOff => {
                self.ending.store(true, Ordering::SeqCst);
                match *self.surroundings {
                    Surroundings::Machine(_) => crate::boot::power::off(),
                    // When process 1 exits, the kernel kills all other processes of its namespace.
                    Surroundings::Host { .. } => std::process::exit(0),
                }
            }
        }
    }

    fn identify(&self, identity: &Identity) {
        let taken_on = match &*self.surroundings {
            Surroundings::Machine(identities) => identities.take_on(identity),
            // Host name, clock and random number generator belong to the host and stay unchanged.
            Surroundings::Host { .. } => Ok(()),
        };
        match taken_on {
            Ok(()) => {
                self.identified.store(true, Ordering::SeqCst);
                self.reached(Milestone::Identified);
                if identity.shell && !self.shell.swap(true, Ordering::SeqCst) {
                    self.start_shell();
                }
            }
            Err(error) => self.fault(format!("cannot take on the identity: {error}")),
        }
    }

    /// Prepares the machine on a new thread, because a warm-up takes long and the host may power the machine off meanwhile.
    fn prepare(&self, prepare: Prepare) {
        let agent = self.clone();
        std::thread::spawn(move || {
            let failure = match &*agent.surroundings {
                Surroundings::Machine(identities) => {
                    agent.claim_preparation().and_then(|()| prepare::run(&agent, identities, &prepare))
                }
                Surroundings::Host { .. } => Err(NOT_FROZEN.to_owned()),
            };
            agent.outbox.answer(GuestMessage::Prepared { failure: failure.err() });
        });
    }

    /// Records that the machine is prepared. The error says why it must not be prepared now. A machine is prepared once,
    /// because a second preparation would start a second standby entrypoint, and would find Docker stopped.
    fn claim_preparation(&self) -> Result<(), String> {
        if self.identified.load(Ordering::SeqCst) {
            return Err("this machine has an identity already".to_owned());
        }
        if self.prepared.swap(true, Ordering::SeqCst) {
            return Err("this machine was prepared already".to_owned());
        }
        Ok(())
    }

    /// Removes the identity after a rehearsal. Fails if an entrypoint was started for a runner.
    fn forget(&self) {
        let started = self.runner_id.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let forgotten = match &*self.surroundings {
            Surroundings::Machine(_) if started => Err("a runner's entrypoint was started in it".to_owned()),
            Surroundings::Machine(identities) => identities.forget().map_err(|error| error.to_string()),
            Surroundings::Host { .. } => Err(NOT_FROZEN.to_owned()),
        };
        self.identified.store(false, Ordering::SeqCst);
        self.outbox.retract(Milestone::Identified);
        self.outbox.answer(GuestMessage::Prepared { failure: forgotten.err() });
    }

    fn set_standby(&self, standby: Standby) {
        *self.standby.lock().unwrap_or_else(PoisonError::into_inner) = Some(standby);
    }

    fn set_clock(&self, unix_time_ns: u64) {
        if let Surroundings::Machine(_) = *self.surroundings
            && let Err(error) = identity::set_clock(unix_time_ns)
        {
            self.fault(format!("cannot set the clock: {error}"));
        }
    }

    fn environment(&self) -> &Path {
        match &*self.surroundings {
            Surroundings::Machine(_) => Path::new(environment::DIRECTORY),
            Surroundings::Host { environment, .. } => environment,
        }
    }

    /// Returns a command that runs the guest binary.
    fn own_command(&self) -> Command {
        match &*self.surroundings {
            Surroundings::Machine(_) => Command::new(crate::boot::PROGRAM),
            Surroundings::Host { program, .. } => {
                let mut command = Command::new(program);
                command.arg0(NAME);
                command
            }
        }
    }

    /// Writes a file of the environment directory.
    fn put_file(&self, name: &str, content: &str) {
        if environment::parse_file_name(name).is_none() {
            return self.fault(format!("{name:?} is no file of the environment directory"));
        }
        let folder = Folder::open(self.environment());
        if let Err(error) = folder.and_then(|folder| folder.write(name, content)) {
            self.fault(error.to_string());
        }
        if let (Some((_, Suffix::Env)), Surroundings::Machine(_)) =
            (environment::parse_file_name(name), &*self.surroundings)
        {
            self.give_docker_proxies(content);
        }
    }

    /// Gives Docker's daemon, which was started before its runner was known, the proxies of the runner's file.
    fn give_docker_proxies(&self, file: &str) {
        // The entrypoint reports what is wrong with the file.
        let Ok(variables) = envfile::parse(file) else { return };
        if let Ok(outside) = Outside::resolve(|name| variables.get(name).filter(|value| !value.is_empty())) {
            docker::give_proxies(self, &outside);
        }
    }

    /// Sends each note of the current runner when it is written.
    fn send_as_written(&self, watched: Result<(Folder, Watch), FolderError>) {
        match watched {
            Ok((folder, watch)) => {
                let error = watch.for_each(|name| match name {
                    "" => self.send_notes(&folder),
                    name => self.send_note(&folder, name),
                });
                self.fault(format!("the environment directory is no longer watched: {error}"));
            }
            Err(error) => self.fault(format!("cannot watch the environment directory: {error}")),
        }
    }

    fn send_notes(&self, folder: &Folder) {
        let runner_id = self.runner_id.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for suffix in [Suffix::Tkn, Suffix::Brk] {
            if let Some(id) = &runner_id {
                self.send_note(folder, &environment::file_name(id, suffix));
            }
        }
    }

    fn send_note(&self, folder: &Folder, name: &str) {
        let Some((id, Suffix::Tkn | Suffix::Brk)) = environment::parse_file_name(name) else { return };
        let current = self.runner_id.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() != Some(id) {
            return;
        }
        match folder.read_note(name) {
            Ok(content) => self.outbox.fact(GuestMessage::File { name: name.to_owned(), content }),
            Err(error) if error.is_absent() => {}
            Err(error) => self.fault(format!("a note is not sent: {error}")),
        }
    }

    fn start_entrypoint(&self, start: &Start) {
        if !self.identified.load(Ordering::SeqCst) {
            return self.fault("the machine has no identity yet: no entrypoint is started in it".to_owned());
        }
        if !environment::is_runner_id(&start.runner_id) {
            return self.fault(format!("{:?} is no id of a runner", start.runner_id));
        }
        let mut current = self.runner_id.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = &*current {
            return self.fault(format!("the entrypoint was started already, for runner {id}"));
        }
        *current = Some(start.runner_id.clone());
        drop(current);
        self.outbox.entrypoint_started();
        if let Err(error) = self.try_start_entrypoint(start) {
            self.fault(format!("cannot start the entrypoint: {error}"));
            self.outbox.fact(GuestMessage::EntrypointExited { code: Some(127), signal: None });
        }
    }

    fn spawn_entrypoint(
        &self,
        start: &Start,
    ) -> std::io::Result<(std::io::PipeReader, Receiver<ExitStatus>)> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = start.program.as_ref().map_or_else(|| self.own_command(), Command::new);
        command.arg("entrypoint").args(&start.args).env_clear().current_dir("/");
        command.envs(start.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let (pid, ended) = self.children.spawn(command)?;
        memory::protect_entrypoint(pid);
        Ok((reader, ended))
    }

    fn try_start_entrypoint(&self, start: &Start) -> std::io::Result<()> {
        crate::boot::shares::mount_all(&start.shares).map_err(std::io::Error::other)?;
        // The standby entrypoint runs the guest binary. If another program is requested, or if the standby entrypoint has
        // exited, a new process is started.
        let standby = match &start.program {
            Some(program) => std::fs::metadata(program).map(|_| None)?,
            None => self.standby.lock().unwrap_or_else(PoisonError::into_inner).take(),
        };
        let begun = standby.and_then(|standby| standby.begin(start).ok());
        let (reader, ended) = begun.map_or_else(|| self.spawn_entrypoint(start), Ok)?;
        let agent = self.clone();
        let relay = std::thread::spawn(move || {
            crate::lines::for_each(reader, |line| agent.line(Source::Entrypoint, line));
        });
        let agent = self.clone();
        std::thread::spawn(move || {
            // The reaper always sends a status before it drops a sender, so this returns when the process exits.
            let Ok(status) = ended.recv() else { return };
            let end = Instant::now();
            while !relay.is_finished() && end.elapsed() < LAST_LINES_MAX {
                std::thread::sleep(Duration::from_millis(2));
            }
            agent
                .outbox
                .fact(GuestMessage::EntrypointExited { code: status.code(), signal: status.signal() });
        });
        Ok(())
    }
}

/// Says hello once, if there is a port and a host. A probe sends nothing else.
pub(crate) fn greet_once() {
    let outbox = Arc::new(Outbox::default());
    port::serve(port::ListenAddress::Virtio, Arc::clone(&outbox), |_| {});
    let start = Instant::now();
    while !outbox.is_empty() && start.elapsed() < GREETING_MAX {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the milliseconds since the kernel started.
fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_prepared_once_and_only_before_it_has_an_identity() {
        let nowhere = PathBuf::from("/nonexistent");
        let agent =
            || Agent::within(Surroundings::Host { environment: nowhere.clone(), program: nowhere.clone() });
        let fresh = agent();
        assert_eq!(fresh.claim_preparation(), Ok(()));
        // A rehearsal takes the identity on and forgets it again.
        fresh.identified.store(true, Ordering::SeqCst);
        fresh.identified.store(false, Ordering::SeqCst);
        assert_eq!(fresh.claim_preparation(), Err("this machine was prepared already".to_owned()));
        let identified = agent();
        identified.identified.store(true, Ordering::SeqCst);
        assert_eq!(identified.claim_preparation(), Err("this machine has an identity already".to_owned()));
    }
}

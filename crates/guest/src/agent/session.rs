//! Sessions: programs that a person on the host starts beside the machine's job.
//!
//! ```text
//!   host ──Data──> queue ──> writer ──> program ──> readers ──> gate ──Data──> host
//!        ──Taken──────────────────────────────────────────────────^
//! ```
//!
//! Each session has a thread for its input, one for each of its outputs, and one that waits for its end. Output that no host
//! wants any more is read and dropped, because a program that a session has left behind must not be stopped by a full pipe.

mod gate;
mod program;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dayfly_guest::protocol::GuestMessage;
use dayfly_guest::protocol::session::{
    OutputStream, PIECE_MAX, Piece, SESSIONS_MAX, SessionEnd, SessionInput, SessionOutput, SessionProgram,
    WINDOW,
};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Agent;
use gate::Gate;
use program::Running;

/// Time without output after which the output of a program that has exited is over. A process that it has left behind may hold
/// the pipe or the terminal open for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);
/// Time between the signals that hang a program up and kill it.
const KILL_AFTER: Duration = Duration::from_secs(3);
/// The character that ends the input of a terminal.
const END_OF_TRANSMISSION: u8 = 4;

/// The sessions of the current host.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<BTreeMap<u64, Arc<Session>>>,
}

/// One session.
struct Session {
    gate: Gate,
    input: SyncSender<InputPart>,
    leader: Pid,
    has_exited: AtomicBool,
    terminal: Option<OwnedFd>,
}

/// A part of a program's standard input.
enum InputPart {
    Bytes(Vec<u8>),
    End,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, number: u64) -> Option<Arc<Session>> {
        self.lock().get(&number).cloned()
    }

    /// Hangs all programs up, because their host is gone.
    pub(super) fn hang_up_all(&self) {
        let all = std::mem::take(&mut *self.lock());
        all.into_values().for_each(Session::hang_up);
    }
}

impl Session {
    /// Hangs the program up, and kills it if it goes on. Its further output is dropped.
    fn hang_up(self: Arc<Self>) {
        self.gate.close();
        self.signal(Signal::HUP);
        // A program that was stopped gets the other signal only if it goes on.
        self.signal(Signal::CONT);
        std::thread::spawn(move || {
            std::thread::sleep(KILL_AFTER);
            self.signal(Signal::KILL);
        });
    }

    fn signal(&self, signal: Signal) {
        if !self.has_exited.load(Ordering::SeqCst) {
            // It may have just exited.
            let _ = kill_process_group(self.leader, signal);
        }
    }
}

/// Carries out a message of the host.
pub(super) fn handle(agent: &Agent, number: u64, input: SessionInput) {
    let session = match input {
        SessionInput::Open(program) => {
            if let Err(why) = open(agent, number, &program) {
                say(agent, number, SessionOutput::Ended(SessionEnd::Refused(why)));
            }
            return;
        }
        // The session may have just ended.
        _ => match agent.sessions.find(number) {
            Some(session) => session,
            None => return,
        },
    };
    match input {
        SessionInput::Open(_) => {}
        SessionInput::Data(Piece(bytes)) => give(&session, InputPart::Bytes(bytes)),
        SessionInput::End => give(&session, InputPart::End),
        SessionInput::Taken => session.gate.give(),
        SessionInput::Resize(size) => {
            if let Some(terminal) = &session.terminal {
                // The terminal may be gone.
                let _ = program::resize(terminal, size);
            }
        }
        SessionInput::HangUp => session.hang_up(),
    }
}

/// Queues a part of the input. A host that sends more than it may loses its session.
fn give(session: &Arc<Session>, part: InputPart) {
    if session.input.try_send(part).is_err() {
        Arc::clone(session).hang_up();
    }
}

fn say(agent: &Agent, session: u64, output: SessionOutput) {
    agent.outbox.session(GuestMessage::Session { session, output });
}

/// Starts the program of a new session, and its threads. The error is a text for people.
fn open(agent: &Agent, number: u64, program: &SessionProgram) -> Result<(), String> {
    if !agent.identified.load(Ordering::SeqCst) {
        return Err("the machine has no identity yet; try again in a moment".to_owned());
    }
    let mut open = agent.sessions.lock();
    if open.len() >= SESSIONS_MAX {
        return Err(format!("the machine has {SESSIONS_MAX} sessions already, which are the most"));
    }
    let Running { leader, ended, input, outputs, terminal } = program::start(program, &agent.children)?;
    // One more for the end of the input.
    let (sender, parts) = sync_channel(WINDOW + 1);
    let has_terminal = terminal.is_some();
    let has_exited = AtomicBool::new(false);
    let session = Arc::new(Session { gate: Gate::new(), input: sender, leader, has_exited, terminal });
    open.insert(number, Arc::clone(&session));
    drop(open);
    say(agent, number, SessionOutput::Opened);
    let writer = agent.clone();
    std::thread::spawn(move || write(&writer, number, input, &parts, has_terminal));
    let readers = outputs.into_iter().map(|(stream, output)| {
        let (agent, session) = (agent.clone(), Arc::clone(&session));
        std::thread::spawn(move || read(&agent, number, &session, stream, output))
    });
    let readers: Vec<_> = readers.collect();
    let agent = agent.clone();
    std::thread::spawn(move || wait(&agent, number, &session, &ended, &readers));
    Ok(())
}

/// Writes the input until its end. The host learns of each piece, also if the program does not read any more.
fn write(agent: &Agent, number: u64, mut input: File, parts: &Receiver<InputPart>, has_terminal: bool) {
    while let Ok(part) = parts.recv() {
        match part {
            InputPart::Bytes(bytes) => {
                let _ = input.write_all(&bytes);
                say(agent, number, SessionOutput::Taken);
            }
            InputPart::End if has_terminal => {
                let _ = input.write_all(&[END_OF_TRANSMISSION]);
            }
            InputPart::End => return,
        }
    }
}

/// Reads one output of the program to its end.
fn read(agent: &Agent, number: u64, session: &Session, stream: OutputStream, mut output: File) {
    let mut buffer = vec![0; PIECE_MAX];
    // A terminal that no process has open any more gives an error.
    while let Ok(length @ 1..) = output.read(&mut buffer) {
        if session.gate.pass() {
            let piece = Piece(buffer[..length].to_vec());
            say(agent, number, SessionOutput::Data { stream, piece });
        }
    }
}

/// Waits until the program has exited and its last output was sent, then ends the session.
fn wait(
    agent: &Agent,
    number: u64,
    session: &Session,
    ended: &Receiver<ExitStatus>,
    readers: &[JoinHandle<()>],
) {
    // The reaper always sends a status before it drops a sender, so this returns when the process exits.
    let Ok(status) = ended.recv() else { return };
    session.has_exited.store(true, Ordering::SeqCst);
    let (mut before, mut since) = (session.gate.progress(), Instant::now());
    while readers.iter().any(|reader| !reader.is_finished()) && since.elapsed() < LAST_OUTPUT {
        std::thread::sleep(LOOK);
        let now = session.gate.progress();
        // Output that waits for the host's room is no silence of the program.
        if now.waits || now != before {
            (before, since) = (now, Instant::now());
        }
    }
    session.gate.close();
    // After a hang-up, no host knows the session.
    if agent.sessions.lock().remove(&number).is_some() {
        say(agent, number, SessionOutput::Ended(end_of(status)));
    }
}

fn end_of(status: ExitStatus) -> SessionEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => SessionEnd::Exited(code),
        (None, signal) => SessionEnd::Killed(signal.unwrap_or_default()),
    }
}

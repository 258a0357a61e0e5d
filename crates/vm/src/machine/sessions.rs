//! Sessions in a machine, as its owner sees them: programs that a person on this host starts beside the job.
//!
//! ```text
//!   Session::open ──> session.sock ──> door ──Request──> Sessions ──HostMessage──> agent
//!       (another process)               <──SessionOutput──        <──GuestMessage──
//! ```
//!
//! The supervisor owns the machine's link, so it passes all messages on. Each session is reported to the owner of the
//! machine before its program starts and after its end.

mod client;
mod door;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;

use dayfly_guest::protocol::HostMessage;
use dayfly_guest::protocol::session::{
    SESSIONS_MAX, SessionEnd, SessionInput, SessionOutput, SessionProgram,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::VmEvent;
use super::unix_time_ns;
use crate::console::one_line;
use door::RequestKind;

pub use client::{Session, SessionError};
pub(super) use door::Request;

/// Most characters of a command in a report.
const COMMAND_SHOWN_MAX: usize = 500;
/// Most characters of a guest's reason in a report.
const REASON_MAX: usize = 500;

/// The sessions of one machine.
#[derive(Debug)]
pub(super) struct Sessions {
    requests: mpsc::Receiver<Request>,
    open: BTreeMap<u64, mpsc::Sender<SessionOutput>>,
    /// The task of the door, which ends when this is dropped.
    _door: JoinSet<()>,
}

/// The consequence of a message: a message for the machine, and an event for its owner.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) message: Option<HostMessage>,
    pub(super) event: Option<VmEvent>,
    /// Number of bytes from the machine that its person has room for.
    pub(super) asked_for: usize,
}

impl Sessions {
    /// Opens the door of a machine. Without it, the machine works all the same.
    pub(super) fn open(run_dir: &Path) -> Self {
        let mut tasks = JoinSet::new();
        // Numbers are used once in the life of a machine, although its owners change.
        let requests = match door::open(run_dir, unix_time_ns() / 1_000_000) {
            Ok((requests, serve)) => {
                tasks.spawn(async { match serve.await {} });
                requests
            }
            Err(error) => {
                tracing::warn!("no session is possible in the machine of {}: {error}", run_dir.display());
                mpsc::channel(1).1
            }
        };
        Self { requests, open: BTreeMap::new(), _door: tasks }
    }

    /// Waits for the next request. Safe to be cancelled.
    pub(super) async fn next(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }

    /// Takes a request. `refusal` is why the machine can have no new session now, if it cannot.
    pub(super) fn take_request(&mut self, request: Request, refusal: Option<&str>) -> Passed {
        let Request { session, kind } = request;
        match kind {
            RequestKind::Open { program, uid, outputs } => {
                let full = format!("the machine has {SESSIONS_MAX} sessions already, which are the most");
                let refusal = refusal.or((self.open.len() >= SESSIONS_MAX).then_some(&full));
                if let Some(why) = refusal {
                    // The queue is new, so it has room.
                    let _ = outputs.try_send(SessionOutput::Ended(SessionEnd::Refused(why.to_owned())));
                    return Passed::default();
                }
                self.open.insert(session, outputs);
                let event = opened(session, uid, &program);
                Passed::of(session, SessionInput::Open(program), Some(event))
            }
            RequestKind::Input(SessionInput::Open(_)) => Passed::default(),
            RequestKind::Input(input) if self.open.contains_key(&session) => Passed::of(session, input, None),
            RequestKind::Gone if self.open.remove(&session).is_some() => {
                let how = "the person's end is gone, so its program was hung up";
                Passed::of(session, SessionInput::HangUp, Some(ended(session, how)))
            }
            // The session has just ended.
            RequestKind::Input(_) | RequestKind::Gone => Passed::default(),
        }
    }

    /// Takes a message of the machine. The guest may be hostile: a session that gets more than its window is cut off.
    pub(super) fn take_output(&mut self, session: u64, output: SessionOutput) -> Passed {
        let Some(outputs) = self.open.get(&session) else { return Passed::default() };
        let asked_for = match &output {
            SessionOutput::Data { piece, .. } => piece.0.len(),
            _ => 0,
        };
        let end = match &output {
            SessionOutput::Ended(end) => Some(in_words(end)),
            _ => None,
        };
        match outputs.try_send(output) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.open.remove(&session);
                let how = "the machine has sent more than it may";
                Passed::of(session, SessionInput::HangUp, Some(ended(session, how)))
            }
            // If the person's end is gone, the door says so.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => match end {
                Some(how) => {
                    self.open.remove(&session);
                    Passed { event: Some(ended(session, &how)), ..Passed::default() }
                }
                None => Passed { asked_for, ..Passed::default() },
            },
        }
    }

    /// Ends all sessions, because the machine has ended or goes to another owner. Returns the events.
    pub(super) fn end_all(&mut self) -> Vec<VmEvent> {
        let all = std::mem::take(&mut self.open);
        all.into_keys()
            .map(|session| ended(session, "its machine has ended, or has another owner now"))
            .collect()
    }
}

impl Passed {
    fn of(session: u64, input: SessionInput, event: Option<VmEvent>) -> Self {
        Self { message: Some(HostMessage::Session { session, input }), event, asked_for: 0 }
    }
}

fn opened(session: u64, uid: u32, program: &SessionProgram) -> VmEvent {
    let command = match program.command.as_slice() {
        [] => "(a login shell)".to_owned(),
        words => words.join(" "),
    };
    let command = one_line(&command).chars().take(COMMAND_SHOWN_MAX).collect();
    let user = program.user.clone().unwrap_or_else(|| "root".to_owned());
    VmEvent::SessionOpened { session, uid, user, command, has_terminal: program.terminal.is_some() }
}

fn ended(session: u64, how: &str) -> VmEvent {
    VmEvent::SessionEnded { session, how: how.to_owned() }
}

fn in_words(end: &SessionEnd) -> String {
    let reason = |why: &str| one_line(why).chars().take(REASON_MAX).collect::<String>();
    match end {
        SessionEnd::Exited(code) => format!("its program has exited with status {code}"),
        SessionEnd::Killed(signal) => format!("signal {signal} has killed its program"),
        SessionEnd::Refused(why) => format!("its program was not started: {}", reason(why)),
        SessionEnd::Lost(why) => format!("it was cut off: {}", reason(why)),
    }
}

#[cfg(test)]
mod tests {
    use dayfly_guest::protocol::session::{OutputStream, Piece, WINDOW};

    use super::*;

    fn sessions() -> Sessions {
        Sessions { requests: mpsc::channel(1).1, open: BTreeMap::new(), _door: JoinSet::new() }
    }

    fn open(session: u64) -> (Request, mpsc::Receiver<SessionOutput>) {
        let (outputs, receiver) = mpsc::channel(2 * WINDOW + 2);
        let command = ["echo", "a\u{1b}[2Jb"].map(str::to_owned).to_vec();
        let program = SessionProgram { command, ..SessionProgram::default() };
        (Request { session, kind: RequestKind::Open { program, uid: 1000, outputs } }, receiver)
    }

    fn words(passed: &Passed) -> Option<&str> {
        match &passed.event {
            Some(VmEvent::SessionEnded { how, .. }) => Some(how),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_session_is_told_before_its_program_starts_and_after_its_end() {
        let mut sessions = sessions();
        let (request, mut outputs) = open(7);
        let passed = sessions.take_request(request, None);
        let event = passed.event.expect("told");
        insta::assert_debug_snapshot!(event);
        assert!(matches!(
            passed.message,
            Some(HostMessage::Session { session: 7, input: SessionInput::Open(_) })
        ));
        assert_eq!(sessions.take_output(7, SessionOutput::Opened), Passed::default());
        let end = SessionOutput::Ended(SessionEnd::Exited(3));
        let passed = sessions.take_output(7, end.clone());
        assert_eq!((words(&passed), &passed.message), (Some("its program has exited with status 3"), &None));
        assert_eq!(outputs.recv().await, Some(SessionOutput::Opened));
        assert_eq!(outputs.recv().await, Some(end));
        assert_eq!(outputs.recv().await, None, "it is over");
        let late = Request { session: 7, kind: RequestKind::Input(SessionInput::Taken) };
        assert_eq!(sessions.take_request(late, None), Passed::default());
    }

    #[test]
    fn a_refused_session_gets_the_reason_and_neither_machine_nor_owner_hears_of_it() {
        let mut sessions = sessions();
        let refused = |sessions: &mut Sessions, refusal| {
            let (request, mut outputs) = open(100);
            assert_eq!(sessions.take_request(request, refusal), Passed::default());
            outputs.try_recv().expect("an answer")
        };
        let because = |why: &str| SessionOutput::Ended(SessionEnd::Refused(why.to_owned()));
        assert_eq!(refused(&mut sessions, Some("it ends")), because("it ends"));
        let kept: Vec<_> = (0..8).map(open).collect();
        let (requests, _outputs): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        requests.into_iter().for_each(|request| drop(sessions.take_request(request, None)));
        let full = "the machine has 8 sessions already, which are the most";
        assert_eq!(refused(&mut sessions, None), because(full));
    }

    #[test]
    fn a_guest_that_floods_a_session_loses_it_and_one_whose_person_is_gone_is_hung_up() {
        let mut sessions = sessions();
        let (request, _outputs) = open(1);
        sessions.take_request(request, None);
        let data = SessionOutput::Data { stream: OutputStream::Out, piece: Piece(vec![0]) };
        let passed = std::iter::repeat_with(|| sessions.take_output(1, data.clone()));
        let (count, passed) =
            passed.enumerate().find(|(_, passed)| passed.message.is_some()).expect("it ends");
        assert_eq!((count, words(&passed)), (2 * WINDOW + 2, Some("the machine has sent more than it may")));
        let hang_up = |session| Some(HostMessage::Session { session, input: SessionInput::HangUp });
        assert_eq!(passed.message, hang_up(1));
        let (request, outputs) = open(2);
        sessions.take_request(request, None);
        drop(outputs);
        assert_eq!(sessions.take_output(2, data), Passed { asked_for: 1, ..Passed::default() });
        let passed = sessions.take_request(Request { session: 2, kind: RequestKind::Gone }, None);
        assert_eq!(passed.message, hang_up(2));
        assert!(words(&passed).is_some_and(|how| how.contains("hung up")));
    }

    #[test]
    fn the_sessions_of_a_machine_end_with_it() {
        let mut sessions = sessions();
        let (requests, _outputs): (Vec<_>, Vec<_>) = [open(1), open(2)].into_iter().unzip();
        requests.into_iter().for_each(|request| drop(sessions.take_request(request, None)));
        assert_eq!(sessions.end_all().len(), 2);
        assert_eq!(sessions.end_all(), []);
    }
}

//! `dayfly exec`, `dayfly shell` and `dayfly cp`: run a program in the machine of a runner, beside its job.
//!
//! ```text
//!   this terminal <──> Session <── session.sock ──> the process that owns the machine <──> agent <──> program
//! ```
//!
//! The owner of the machine passes everything on, and logs each use as a fact of the runner. A program is hung up when this
//! command ends.

mod copy;
mod escape;
mod terminal;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use dayfly_fleet::instance;
use dayfly_guest::protocol::session::{
    OutputStream, Piece, SessionEnd, SessionInput, SessionOutput, SessionProgram, WINDOW,
};
use dayfly_vm::{Session, SessionError};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::logs::runner_id;
use crate::cli::{ExecArgs, SessionArgs, ShellArgs};
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::{self, Places};
use crate::signals::Signals;
use crate::units::plain;
pub(crate) use copy::run as cp;
use escape::Escape;
use terminal::{RawTerminal, Typed};

/// The status of a program that SIGPIPE has killed, as a shell reports it: the reader of the output has exited.
const BROKEN_PIPE: u8 = 141;
/// Hint if standard input is no terminal.
const USE_EXEC: &str = "`dayfly exec RUNNER -- COMMAND` needs no terminal";

pub(crate) async fn exec(places: &Places, args: ExecArgs) -> Result<Outcome> {
    let ExecArgs { id, tty, session, command } = args;
    run(places, &id, program(session, command), tty).await
}

pub(crate) async fn shell(places: &Places, args: ShellArgs) -> Result<Outcome> {
    let ShellArgs { id, session } = args;
    run(places, &id, program(session, Vec::new()), true).await
}

pub(super) fn program(args: SessionArgs, command: Vec<String>) -> SessionProgram {
    let SessionArgs { user, workdir: folder, env } = args;
    SessionProgram { command, user, folder, env, terminal: None }
}

/// Runs a program in the machine of a runner, and returns its status.
async fn run(places: &Places, runner: &str, program: SessionProgram, tty: bool) -> Result<Outcome> {
    run_in(&machine_of(places, runner)?, program, tty).await
}

/// Runs a program in a machine, between standard input and output, and returns its status.
pub(super) async fn run_in(machine: &Path, mut program: SessionProgram, tty: bool) -> Result<Outcome> {
    if tty {
        let size = terminal::size();
        program.terminal = Some(size.ok_or_else(|| {
            Failure::usage("standard input is no terminal, which the program needs").hint(USE_EXEC)
        })?);
        if let Some(kind) = settings::terminal_kind() {
            program.env.insert(0, ("TERM".to_owned(), kind));
        }
    }
    let mut signals = Signals::take_over()?;
    let session = Session::open(machine, program).await.map_err(failure)?;
    let typed = Typed::start().map_err(Failure::cannot)?;
    let ends =
        Ends { escape: tty.then(Escape::default), ..Ends::new(session, Some(typed), Output::Standard) };
    // Restored before anything else is printed, whatever the end is.
    let raw = tty.then(RawTerminal::enter).transpose().map_err(Failure::cannot)?;
    let ended = ends.run(&mut signals).await;
    drop(raw);
    ended
}

/// Starts a program in the machine of a runner.
async fn open(places: &Places, runner: &str, program: SessionProgram) -> Result<Session> {
    Session::open(&machine_of(places, runner)?, program).await.map_err(failure)
}

/// Returns the folder of the machine of a runner.
fn machine_of(places: &Places, runner: &str) -> Result<PathBuf> {
    let id = runner_id(runner)?;
    let machine = instance::machine_of_runner(&places.state, &id).map_err(Failure::cannot)?;
    machine.ok_or_else(|| {
        Failure::cannot(format!("no machine of a runner {id} is on this host"))
            .hint("`dayfly ps` lists the runners that are there; the machine of a runner goes with its job")
    })
}

/// Returns a failure with the step that helps.
fn failure(error: SessionError) -> Failure {
    match &error {
        SessionError::NoDoor(source) if source.kind() == io::ErrorKind::NotFound => Failure::cannot(
            "the machine of this runner takes no sessions: it is not up yet, or it has no agent",
        )
        .hint("machines of the drivers podman-krun and krunvm have none: use `podman exec`"),
        SessionError::NoDoor(source) if source.kind() == io::ErrorKind::ConnectionRefused => {
            Failure::cannot("the process of dayfly that has this runner has died")
                .hint("the next start of dayfly takes the runner over; `dayfly ps` says more")
        }
        SessionError::Refused(why) => Failure::cannot(plain(why)),
        _ => Failure::cannot(error),
    }
}

/// Both ends of a session that runs.
struct Ends {
    session: Session,
    /// The keys that end it; none without a terminal.
    escape: Option<Escape>,
    /// Number of pieces of input that the machine has room for.
    room: usize,
    /// None once the input is at its end.
    typed: Option<Typed>,
    output: Output,
}

/// The place that a program's standard output goes to.
enum Output {
    /// That of this process.
    Standard,
    File(File),
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Standard => printer::output(bytes),
            Self::File(file) => file.write_all(bytes),
        }
    }
}

/// The next event of a session.
enum Next {
    Output(io::Result<SessionOutput>),
    Typed(io::Result<Option<Vec<u8>>>),
    Resized,
    Signal(crate::exit::Signal),
}

impl Ends {
    fn new(session: Session, typed: Option<Typed>, output: Output) -> Self {
        Self { session, escape: None, room: WINDOW, typed, output }
    }

    /// Passes input and output on until the program has ended. A session without input begins with its end.
    async fn run(mut self, signals: &mut Signals) -> Result<Outcome> {
        let mut resizes = signal(SignalKind::window_change()).map_err(Failure::cannot)?;
        if self.typed.is_none() {
            self.send(SessionInput::End).await?;
        }
        loop {
            let done = match self.next(signals, &mut resizes).await {
                Next::Output(Ok(output)) => self.take(output).await?,
                Next::Output(Err(error)) => return Err(lost(&error)),
                Next::Typed(Ok(Some(bytes))) => self.give(&bytes).await?,
                Next::Typed(Err(error)) => {
                    let _ = self.session.send(&SessionInput::HangUp).await;
                    return Err(Failure::cannot(format!("cannot read the program's input: {error}")));
                }
                Next::Typed(Ok(None)) => {
                    self.typed = None;
                    self.send(SessionInput::End).await?;
                    None
                }
                Next::Resized => {
                    if let (Some(_), Some(size)) = (self.escape, terminal::size()) {
                        self.send(SessionInput::Resize(size)).await?;
                    }
                    None
                }
                Next::Signal(signal) => {
                    // The machine hangs the program up also if this message is lost.
                    let _ = self.session.send(&SessionInput::HangUp).await;
                    Some(Outcome::StoppedBy(signal))
                }
            };
            if let Some(outcome) = done {
                return Ok(outcome);
            }
        }
    }

    async fn next(&mut self, signals: &mut Signals, resizes: &mut Stream) -> Next {
        let (typed, has_room) = (&mut self.typed, self.room > 0);
        let piece = async {
            match typed {
                Some(typed) if has_room => typed.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            output = self.session.next() => Next::Output(output),
            bytes = piece => Next::Typed(bytes),
            Some(()) = resizes.recv() => Next::Resized,
            signal = signals.next() => Next::Signal(signal),
        }
    }

    /// Takes a message of the program. Returns the outcome with the last one.
    async fn take(&mut self, output: SessionOutput) -> Result<Option<Outcome>> {
        match output {
            SessionOutput::Opened => {}
            SessionOutput::Taken => self.room = (self.room + 1).min(WINDOW),
            SessionOutput::Data { stream, piece: Piece(bytes) } => {
                let written = match stream {
                    OutputStream::Out => self.output.write(&bytes),
                    OutputStream::Err => printer::error_output(&bytes),
                };
                if let Err(error) = written {
                    let _ = self.session.send(&SessionInput::HangUp).await;
                    return match error.kind() {
                        io::ErrorKind::BrokenPipe => Ok(Some(Outcome::Program(BROKEN_PIPE))),
                        _ => Err(Failure::cannot(format!("cannot write the program's output: {error}"))),
                    };
                }
                self.send(SessionInput::Taken).await?;
            }
            SessionOutput::Ended(end) => return outcome(&end).map(Some),
        }
        Ok(None)
    }

    /// Passes on what was typed. Returns the outcome if it ends the session.
    async fn give(&mut self, bytes: &[u8]) -> Result<Option<Outcome>> {
        let (passed, ends) = match &mut self.escape {
            Some(escape) => escape.take(bytes),
            None => (bytes.to_vec(), false),
        };
        if !passed.is_empty() {
            self.room -= 1;
            self.send(SessionInput::Data(Piece(passed))).await?;
        }
        if !ends {
            return Ok(None);
        }
        let _ = self.session.send(&SessionInput::HangUp).await;
        Ok(Some(Outcome::NotSucceeded))
    }

    async fn send(&mut self, input: SessionInput) -> Result<()> {
        self.session.send(&input).await.map_err(|error| lost(&error))
    }
}

/// Returns the failure of a session whose connection has ended.
fn lost(error: &io::Error) -> Failure {
    Failure::cannot(format!(
        "the session was cut off ({error}): the machine has ended with its job, or its process of dayfly has ended"
    ))
    .hint("`dayfly logs RUNNER` says more")
}

fn outcome(end: &SessionEnd) -> Result<Outcome> {
    let status = |code: i32| Outcome::Program(u8::try_from(code & 0xff).unwrap_or(1));
    match end {
        SessionEnd::Exited(code) => Ok(status(*code)),
        SessionEnd::Killed(signal) => Ok(status(128 + signal)),
        SessionEnd::Refused(why) | SessionEnd::Lost(why) => Err(Failure::cannot(plain(why))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_program_as_a_shell_reports_it() {
        for (end, expected) in [
            (SessionEnd::Exited(0), 0),
            (SessionEnd::Exited(7), 7),
            (SessionEnd::Killed(9), 137),
            (SessionEnd::Killed(15), 143),
        ] {
            assert_eq!(outcome(&end).expect("a status"), Outcome::Program(expected), "{end:?}");
        }
        let refused = outcome(&SessionEnd::Refused("no \u{1b}[2Jshell".to_owned())).expect_err("a failure");
        assert_eq!((refused.code(), refused.to_string().as_str()), (3, "no [2Jshell"));
    }

    #[test]
    fn a_machine_without_a_door_and_a_process_that_died_have_advice() {
        let shown = |kind: io::ErrorKind| {
            let failure = failure(SessionError::NoDoor(kind.into()));
            format!("{failure}\n  {}", failure.what_to_do().unwrap_or_default())
        };
        insta::assert_snapshot!(
            [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused, io::ErrorKind::PermissionDenied]
                .map(shown)
                .join("\n")
        );
    }
}

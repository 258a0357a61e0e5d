//! The person's end of a session.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use dayfly_guest::protocol::session::{SessionEnd, SessionInput, SessionOutput, SessionProgram};
use dayfly_host::socket::SocketFolder;
use tokio::time::timeout;

use super::super::record::SESSION_SOCKET;
use super::wire::Wire;

/// Longest time until a program has started. An emulated machine on a busy host takes a second.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Why a session could not begin.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The machine has no door for sessions.
    #[error("its machine takes no sessions: {0}")]
    NoDoor(#[source] io::Error),
    /// The machine or its owner refuses the session.
    #[error("{0}")]
    Refused(String),
    /// The connection has ended before the program has started.
    #[error("the connection to the machine has ended: {0}")]
    Lost(#[source] io::Error),
    /// No answer came in time.
    #[error(
        "the agent in the machine has not answered within {} s; it hangs, or an older version of dayfly has started it",
        START_LIMIT.as_secs()
    )]
    Silent,
}

/// The person's end of a session whose program has started.
#[derive(Debug)]
pub struct Session {
    wire: Wire,
}

impl Session {
    /// Starts a program in the machine of a run folder. Its owner may be another process.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn open(run_dir: &Path, program: SessionProgram) -> Result<Self, SessionError> {
        program.check().map_err(SessionError::Refused)?;
        let stream = match SocketFolder::open(run_dir) {
            Ok(folder) => folder.connect(SESSION_SOCKET).await,
            Err(error) => Err(error),
        };
        let mut wire = Wire::new(stream.map_err(SessionError::NoDoor)?);
        wire.send(&SessionInput::Open(program)).await.map_err(SessionError::Lost)?;
        match timeout(START_LIMIT, wire.next()).await {
            Err(_) => Err(SessionError::Silent),
            Ok(Err(error)) => Err(SessionError::Lost(error)),
            Ok(Ok(SessionOutput::Ended(SessionEnd::Refused(why) | SessionEnd::Lost(why)))) => {
                Err(SessionError::Refused(why))
            }
            Ok(Ok(SessionOutput::Opened)) => Ok(Self { wire }),
            Ok(Ok(output)) => {
                let text = format!("the machine begins with {output:?}");
                Err(SessionError::Lost(io::Error::new(ErrorKind::InvalidData, text)))
            }
        }
    }

    /// Sends a message to the program. No more than a window of data may be on the way. If the program has ended, the message is
    /// dropped: [`Session::next`] has its last messages and the end.
    ///
    /// # Errors
    /// The message cannot be sent, although the connection is there.
    pub async fn send(&mut self, input: &SessionInput) -> io::Result<()> {
        match self.wire.send(input).await {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            sent => sent,
        }
    }

    /// Returns the next message of the program. Safe to be cancelled.
    ///
    /// # Errors
    /// The connection has ended: with the machine, or with the process that owns it.
    pub async fn next(&mut self) -> io::Result<SessionOutput> {
        self.wire.next().await
    }
}

//! The messages of sessions: programs that a person on the host starts in a machine beside its job (`dayfly exec`).
//!
//! ```text
//!   dayfly exec ──SessionInput──> owner of the machine ──HostMessage::Session──> agent ──> program
//!               <─SessionOutput──                      <─GuestMessage::Session──
//! ```
//!
//! Neither side sends more than [`WINDOW`] pieces of data that the other side has not acknowledged by `Taken`. So a session
//! fills no buffer between both ends, whatever its program prints, and the machine's other messages go on beside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most pieces of data of one direction that are not acknowledged.
pub const WINDOW: usize = 16;

/// Most bytes of one piece.
pub const PIECE_MAX: usize = 4096;

/// Most sessions of a machine at once.
pub const SESSIONS_MAX: usize = 8;

/// Most bytes of a program's arguments and variables together.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024;

/// A message to a session's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionInput {
    /// Start the program. The first message of a session, and only that. Answered by [`SessionOutput::Opened`] or
    /// [`SessionOutput::Ended`].
    Open(SessionProgram),
    /// A piece of the program's standard input.
    Data(Piece),
    /// The end of the standard input. A terminal has none, so it gets Ctrl-D instead.
    End,
    /// One piece of output was written, so that one more may come.
    Taken,
    /// The person's terminal has another size.
    Resize(TerminalSize),
    /// No person listens any more: hang the program up, and kill it if it goes on.
    HangUp,
}

/// A message from a session's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionOutput {
    /// The program was started.
    Opened,
    /// A piece of output.
    Data {
        /// The descriptor that the program wrote to.
        stream: OutputStream,
        /// The bytes.
        piece: Piece,
    },
    /// One piece of standard input was written, so that one more may come.
    Taken,
    /// The session is over. Always the last message.
    Ended(SessionEnd),
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// The program has exited with this status.
    Exited(i32),
    /// This signal has killed the program.
    Killed(i32),
    /// The program could not be started, or this session is not possible, for this reason.
    Refused(String),
    /// The session was cut off, for this reason. Its program may go on.
    Lost(String),
}

/// The output of a program: to a terminal, everything is [`OutputStream::Out`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The program of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionProgram {
    /// The program and its arguments; empty: the user's shell, as a login shell.
    pub command: Vec<String>,
    /// Name of the user; none: root in a machine, and the user of the agent on a host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The folder that it starts in; none: the user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Additional variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
    /// The size of its terminal; none: it has pipes and no terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
}

impl SessionProgram {
    /// Returns why the program is refused, if it is too long for a message.
    pub fn check(&self) -> Result<(), String> {
        let words = self.command.iter().map(String::len);
        let variables = self.env.iter().map(|(name, value)| name.len() + value.len());
        let bytes: usize = words.chain(variables).sum();
        match bytes <= COMMAND_BYTES_MAX {
            true => Ok(()),
            false => Err(format!(
                "its arguments and variables have {bytes} bytes; {COMMAND_BYTES_MAX} are the most"
            )),
        }
    }
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Bytes of a session, base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece(pub Vec<u8>);

impl Serialize for Piece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Piece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        match bytes.len() <= PIECE_MAX {
            true => Ok(Self(bytes)),
            false => Err(serde::de::Error::custom(format!("a piece has more than {PIECE_MAX} bytes"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_come_back_and_more_than_a_piece_may_have_are_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..PIECE_MAX + 9),
        ) {
            let text = serde_json::to_string(&Piece(bytes.clone())).expect("json");
            let read = serde_json::from_str::<Piece>(&text);
            if bytes.len() <= PIECE_MAX {
                prop_assert_eq!(read.expect("a piece"), Piece(bytes));
            } else {
                prop_assert!(read.is_err());
            }
        }
    }

    #[test]
    fn the_messages_of_sessions_are_frozen() {
        let program = SessionProgram {
            command: vec!["ls".to_owned()],
            user: Some("runner".to_owned()),
            folder: Some("/".to_owned()),
            env: vec![("A".to_owned(), "b".to_owned())],
            terminal: Some(TerminalSize { rows: 24, columns: 80 }),
        };
        let inputs = [
            SessionInput::Open(program),
            SessionInput::Open(SessionProgram::default()),
            SessionInput::Data(Piece(b"x\n".to_vec())),
            SessionInput::End,
            SessionInput::Taken,
            SessionInput::Resize(TerminalSize { rows: 1, columns: 2 }),
            SessionInput::HangUp,
        ];
        let outputs = [
            SessionOutput::Opened,
            SessionOutput::Data { stream: OutputStream::Out, piece: Piece(vec![0xff]) },
            SessionOutput::Data { stream: OutputStream::Err, piece: Piece(Vec::new()) },
            SessionOutput::Taken,
            SessionOutput::Ended(SessionEnd::Exited(3)),
            SessionOutput::Ended(SessionEnd::Killed(9)),
            SessionOutput::Ended(SessionEnd::Refused("x".to_owned())),
            SessionOutput::Ended(SessionEnd::Lost("x".to_owned())),
        ];
        let mut lines = Vec::new();
        for input in inputs {
            let line = serde_json::to_string(&input).expect("json");
            assert_eq!(serde_json::from_str::<SessionInput>(&line).expect("read"), input);
            lines.push(line);
        }
        for output in outputs {
            let line = serde_json::to_string(&output).expect("json");
            assert_eq!(serde_json::from_str::<SessionOutput>(&line).expect("read"), output);
            lines.push(line);
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_command_that_fits_into_no_message_is_refused_with_its_length() {
        let of = |length| SessionProgram { command: vec!["x".repeat(length)], ..SessionProgram::default() };
        assert_eq!(of(COMMAND_BYTES_MAX).check(), Ok(()));
        assert!(of(COMMAND_BYTES_MAX + 1).check().is_err_and(|why| why.contains("65537")));
    }
}

//! A client of a VMM's monitor (QMP): a few commands, and the events that report why a machine stops.
//!
//! Wire facts (QEMU 7.2): one JSON object per line. After the greeting `{"QMP": ..}` the monitor accepts only
//! `qmp_capabilities`. Answers are `{"return": ..}` or `{"error": {"class", "desc"}}`, in order. Events
//! `{"event": NAME, "data": ..}` arrive between them.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Longest line that is read, bytes. It is limited because a guest may have taken over the VMM.
const LINE_MAX: usize = 64 * 1024;
/// Name of the descriptor that a frozen machine's state is written to.
const STATE: &str = "state";
/// Longest time that the first exchange with the monitor may take.
const GREETING_LIMIT: Duration = Duration::from_secs(30);

/// A line from the monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// The monitor is ready.
    Greeting,
    /// A command was carried out.
    Done,
    /// A command was not carried out.
    Refused(String),
    /// Something happened.
    Event(Event),
}

/// A message that the monitor sends by itself, or the refusal of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The machine shuts down, with QEMU's word for the reason, e.g. `guest-shutdown`.
    Shutdown(String),
    /// The guest reported that it panicked.
    GuestPanicked,
    /// The virtual processors have stopped.
    Stopped,
    /// The virtual processors run again.
    Resumed,
    /// A disk could not be read or written, for this reason.
    DiskFailed(String),
    /// Progress of writing the machine's state, in QEMU's words; `completed` and `failed` are the last ones.
    Migration(String),
    /// A command was refused.
    Refused(String),
    /// Any other event, by its name.
    Other(String),
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "QMP")]
    greeting: Option<serde::de::IgnoredAny>,
    // `{"return": null}` counts too.
    #[serde(rename = "return", default, deserialize_with = "present")]
    done: bool,
    error: Option<WireError>,
    event: Option<String>,
    #[serde(default)]
    data: WireData,
}

#[derive(Deserialize)]
struct WireError {
    #[serde(default)]
    desc: String,
}

#[derive(Default, Deserialize)]
struct WireData {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    status: String,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Parses one line of the monitor; `None` if it is not a message.
fn parse(line: &[u8]) -> Option<Message> {
    let wire: Wire = serde_json::from_slice(line).ok()?;
    Some(match wire {
        Wire { event: Some(event), data, .. } => Message::Event(match event.as_str() {
            "SHUTDOWN" => Event::Shutdown(data.reason),
            "GUEST_PANICKED" => Event::GuestPanicked,
            "STOP" => Event::Stopped,
            "RESUME" => Event::Resumed,
            // Its `reason` is the host's message, e.g. "No space left on device".
            "BLOCK_IO_ERROR" => Event::DiskFailed(data.reason),
            "MIGRATION" => Event::Migration(data.status),
            _ => Event::Other(event),
        }),
        Wire { error: Some(error), .. } => Message::Refused(error.desc),
        Wire { greeting: Some(_), .. } => Message::Greeting,
        Wire { done: true, .. } => Message::Done,
        _ => return None,
    })
}

/// A command for the monitor.
#[derive(Debug)]
pub(super) enum Command {
    /// Exit at once, without asking the guest.
    Quit,
    /// Stop the virtual processors.
    Stop,
    /// Resume the virtual processors.
    Continue,
    /// Write the state of all devices, without the memory, to this file. [`Event::Migration`] reports the progress; in the
    /// end the machine is stopped.
    Freeze(OwnedFd),
    /// Cut the network card off, and write the state of all devices and the memory to this file, as [`Self::Freeze`] does.
    Keep(OwnedFd),
    /// Read the state from an inherited descriptor, and continue as the machine that wrote it.
    Restore {
        /// The descriptor.
        state: i32,
        /// True if the memory is present already, so that it is not part of the state.
        has_memory: bool,
    },
    /// Connect the network card again.
    Connect,
}

impl Command {
    /// Returns the command as one JSON object per line. The lines are short because the monitor reads byte by byte.
    fn lines(&self) -> String {
        match self {
            Self::Quit => simple("quit"),
            Self::Stop => simple("stop"),
            Self::Continue => simple("cont"),
            Self::Freeze(_) => {
                capabilities(&[("x-ignore-shared", true), ("events", true)]) + &with_uri("migrate", STATE)
            }
            Self::Keep(_) => {
                link(false)
                    + &capabilities(&[("x-ignore-shared", false), ("events", true)])
                    + AT_ONCE
                    + &with_uri("migrate", STATE)
            }
            Self::Restore { state, has_memory } => {
                capabilities(&[("x-ignore-shared", *has_memory)])
                    + QUIET
                    + &with_uri("migrate-incoming", &state.to_string())
            }
            Self::Connect => link(true),
        }
    }
}

/// Turns off the announcement by which a restored network card, and its guest too, tell the neighbours that the card has
/// moved. A fork has no neighbours that knew the card before, and the announcement would be a fifth of all work of its guest
/// until the guest answers.
const QUIET: &str = "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"announce-rounds\":0}}\n";

/// Lets the whole memory be written at once, at any speed, while the virtual processors stand still. By default QEMU would let
/// them run and write what they change again and again.
const AT_ONCE: &str = "{\"execute\":\"migrate-set-parameters\",\"arguments\":\
    {\"max-bandwidth\":1000000000000,\"downtime-limit\":2000000}}\n";

/// Returns the command that connects the network card, or cuts it off.
fn link(is_up: bool) -> String {
    format!("{{\"execute\":\"set_link\",\"arguments\":{{\"name\":\"net0\",\"up\":{is_up}}}}}\n")
}

fn simple(command: &str) -> String {
    format!("{{\"execute\":\"{command}\"}}\n")
}

fn with_uri(command: &str, descriptor: &str) -> String {
    format!("{{\"execute\":\"{command}\",\"arguments\":{{\"uri\":\"fd:{descriptor}\"}}}}\n")
}

/// Returns the command that turns capabilities on or off. With `x-ignore-shared`, memory that is a file is not part of the state.
fn capabilities(states: &[(&str, bool)]) -> String {
    let state = |(name, is_on): &(&str, bool)| format!("{{\"capability\":\"{name}\",\"state\":{is_on}}}");
    let states: Vec<_> = states.iter().map(state).collect();
    let arguments = format!("{{\"capabilities\":[{}]}}", states.join(","));
    format!("{{\"execute\":\"migrate-set-capabilities\",\"arguments\":{arguments}}}\n")
}

/// A connection to the monitor, after its greeting.
#[derive(Debug)]
pub(super) struct Client {
    reader: Reader,
    writer: OwnedWriteHalf,
}

#[derive(Debug)]
struct Reader {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    /// True if the line at the start of the buffer is too long and is skipped to its end.
    skipping: bool,
}

impl Reader {
    /// Returns the next message, and skips lines that are none. Cancel-safe.
    async fn next(&mut self) -> io::Result<Message> {
        loop {
            while let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let skipped = std::mem::take(&mut self.skipping);
                if !skipped && let Some(message) = parse(&line) {
                    return Ok(message);
                }
            }
            if self.buffer.len() > LINE_MAX {
                self.buffer.clear();
                self.skipping = true;
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl Client {
    /// Takes over a connection and negotiates capabilities. The first command, if any, is sent in the same write.
    pub(super) async fn open(stream: UnixStream, first: Option<Command>) -> io::Result<Self> {
        let (stream, writer) = stream.into_split();
        let reader = Reader { stream, buffer: Vec::new(), skipping: false };
        let mut monitor = Self { reader, writer };
        let greeting = async {
            // The socket buffers what is written before the monitor reads.
            let opening =
                simple("qmp_capabilities") + &first.as_ref().map(Command::lines).unwrap_or_default();
            monitor.writer.write_all(opening.as_bytes()).await?;
            while monitor.reader.next().await? != Message::Greeting {}
            while monitor.reader.next().await? != Message::Done {}
            Ok::<(), io::Error>(())
        };
        tokio::time::timeout(GREETING_LIMIT, greeting)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(monitor)
    }

    /// Returns the next event, and skips answers other than refusals. Cancel-safe.
    pub(super) async fn next_event(&mut self) -> io::Result<Event> {
        loop {
            match self.reader.next().await? {
                Message::Event(event) => return Ok(event),
                Message::Refused(reason) => return Ok(Event::Refused(reason)),
                Message::Greeting | Message::Done => {}
            }
        }
    }

    /// Sends a command.
    pub(super) async fn send(&mut self, command: Command) -> io::Result<()> {
        if let Command::Freeze(state) | Command::Keep(state) = &command {
            self.hand_over(state).await?;
        }
        self.writer.write_all(command.lines().as_bytes()).await
    }
}

impl Client {
    /// Passes a descriptor to the VMM under the name [`STATE`], because QEMU 7.2 cannot write its state to an inherited one.
    async fn hand_over(&mut self, file: &OwnedFd) -> io::Result<()> {
        let line = format!("{{\"execute\":\"getfd\",\"arguments\":{{\"fdname\":\"{STATE}\"}}}}\n");
        let stream = self.writer.as_ref();
        loop {
            stream.writable().await?;
            let sent = stream.try_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                let rights = [file.as_fd()];
                ancillary.push(SendAncillaryMessage::ScmRights(&rights));
                let text = [IoSlice::new(line.as_bytes())];
                Ok(rustix::net::sendmsg(stream, &text, &mut ancillary, SendFlags::NOSIGNAL)?)
            });
            match sent {
                Ok(count) if count == line.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_qemu_7_2_writes_them_are_understood() {
        let check =
            |line: &str, message: Message| assert_eq!(parse(line.as_bytes()), Some(message), "{line}");
        check(
            r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}"#,
            Message::Greeting,
        );
        check(r#"{"return": {}}"#, Message::Done);
        check(r#"{"return": null}"#, Message::Done);
        check(
            r#"{"error": {"class": "CommandNotFound", "desc": "The command x has not been found"}}"#,
            Message::Refused("The command x has not been found".to_owned()),
        );
        check(
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
            Message::Event(Event::Shutdown("guest-reset".to_owned())),
        );
        check(
            r#"{"event": "GUEST_PANICKED", "data": {"action": "pause"}}"#,
            Message::Event(Event::GuestPanicked),
        );
        check(
            r#"{"event": "BLOCK_IO_ERROR", "data": {"device": "", "nospace": true, "node-name": "scratch", "reason": "No space left on device", "operation": "write", "action": "report"}}"#,
            Message::Event(Event::DiskFailed("No space left on device".to_owned())),
        );
        check(r#"{"event": "RESUME"}"#, Message::Event(Event::Resumed));
        check(
            r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#,
            Message::Event(Event::Migration("completed".to_owned())),
        );
    }

    #[test]
    fn what_is_no_message_is_passed_over() {
        for line in ["", "{}", "[]", "null", "{\"event\": 7}", "\u{7}", "{\"return\""] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn commands_are_what_qemu_7_2_takes() {
        let [state, kept] = [(); 2].map(|()| std::fs::File::open("/dev/null").expect("open").into());
        let all = [
            Command::Quit,
            Command::Stop,
            Command::Continue,
            Command::Freeze(state),
            Command::Keep(kept),
            Command::Connect,
            Command::Restore { state: 7, has_memory: true },
            Command::Restore { state: 7, has_memory: false },
        ];
        let text: String = all.iter().map(Command::lines).collect();
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON");
        }
        insta::assert_snapshot!(text);
    }

    #[tokio::test]
    async fn a_line_without_end_is_skipped_and_the_next_one_is_heard() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let server = tokio::spawn(async move {
            let (mut read, mut write) = theirs.into_split();
            write.write_all(b"{\"QMP\": {}}\n").await.expect("greet");
            let mut asked = vec![0; 64];
            let count = read.read(&mut asked).await.expect("read");
            assert_eq!(&asked[..count], b"{\"execute\":\"qmp_capabilities\"}\n");
            write.write_all(b"{\"return\": {}}\n").await.expect("answer");
            write.write_all(&vec![b'x'; 5 * LINE_MAX]).await.expect("flood");
            write.write_all(b"\n{\"event\": \"STOP\"}\n").await.expect("event");
        });
        let mut monitor = Client::open(ours, None).await.expect("open");
        assert_eq!(monitor.next_event().await.expect("event"), Event::Stopped);
        server.await.expect("server");
        assert_eq!(monitor.next_event().await.expect_err("end").kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! The monitor of a VMM (QMP): a few commands, and the events that tell why a machine ends.
//!
//! Wire facts (QEMU 7.2): one JSON object a line. The greeting is `{"QMP": ..}`, then nothing but
//! `qmp_capabilities` is accepted; answers are `{"return": ..}` or `{"error": {"class", "desc"}}`, in order; events
//! `{"event": NAME, "data": ..}` come between them.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Longest line that is read, bytes. The monitor speaks for a program that a guest may have taken over.
const LINE_MAX: usize = 64 * 1024;
/// Name of the descriptor that a frozen machine's state is written to.
const STATE: &str = "state";
/// How long the monitor may take over the first exchange.
const GREETING_LIMIT: Duration = Duration::from_secs(30);

/// A line from the monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// It is ready.
    Greeting,
    /// A command was carried out.
    Done,
    /// A command was not carried out.
    Refused(String),
    /// Something happened.
    Event(Event),
}

/// What the monitor tells by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The machine ends, with QEMU's word for the reason, e.g. `guest-shutdown`.
    Shutdown(String),
    /// The guest told that it panicked.
    GuestPanicked,
    /// The machine stands still.
    Stopped,
    /// It goes on.
    Resumed,
    /// How far writing its state has come, in QEMU's words: `completed` and `failed` are the last ones.
    Migration(String),
    /// A command was refused.
    Refused(String),
    /// Anything else.
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

/// One line of the monitor; `None` where it makes no sense.
fn parse(line: &[u8]) -> Option<Message> {
    let wire: Wire = serde_json::from_slice(line).ok()?;
    Some(match wire {
        Wire { event: Some(event), data, .. } => Message::Event(match event.as_str() {
            "SHUTDOWN" => Event::Shutdown(data.reason),
            "GUEST_PANICKED" => Event::GuestPanicked,
            "STOP" => Event::Stopped,
            "RESUME" => Event::Resumed,
            "MIGRATION" => Event::Migration(data.status),
            _ => Event::Other(event),
        }),
        Wire { error: Some(error), .. } => Message::Refused(error.desc),
        Wire { greeting: Some(_), .. } => Message::Greeting,
        Wire { done: true, .. } => Message::Done,
        _ => return None,
    })
}

/// What the monitor is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// End at once, without asking the guest.
    Quit,
    /// Let the virtual processors stand still.
    Stop,
    /// Let them go on.
    Continue,
    /// Write the state of all devices, without the memory, to this file; [`Event::Migration`] tells how it goes, and the
    /// machine stands still in the end.
    Freeze(OwnedFd),
    /// Read that state from an inherited descriptor, for a machine whose memory is there, and go on as the one that wrote it
    /// did.
    Restore(i32),
}

impl Command {
    /// One JSON object a line. The monitor reads byte by byte, so they are short.
    fn lines(&self) -> String {
        match self {
            Self::Quit => simple("quit"),
            Self::Stop => simple("stop"),
            Self::Continue => simple("cont"),
            Self::Freeze(_) => capabilities(&["x-ignore-shared", "events"]) + &with_uri("migrate", STATE),
            Self::Restore(descriptor) => {
                capabilities(&["x-ignore-shared"])
                    + QUIET
                    + &with_uri("migrate-incoming", &descriptor.to_string())
            }
        }
    }
}

/// A restored network card tells its neighbours that it has moved, and has the guest do so too. A fork's has none that knew
/// it before, and its guest has better things to do (a fifth of all that it does on its way to an answer).
const QUIET: &str = "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"announce-rounds\":0}}\n";

fn simple(command: &str) -> String {
    format!("{{\"execute\":\"{command}\"}}\n")
}

fn with_uri(command: &str, descriptor: &str) -> String {
    format!("{{\"execute\":\"{command}\",\"arguments\":{{\"uri\":\"fd:{descriptor}\"}}}}\n")
}

/// `x-ignore-shared` keeps memory that is a file out of what is written and read.
fn capabilities(names: &[&str]) -> String {
    let states: Vec<_> =
        names.iter().map(|name| format!("{{\"capability\":\"{name}\",\"state\":true}}")).collect();
    let arguments = format!("{{\"capabilities\":[{}]}}", states.join(","));
    format!("{{\"execute\":\"migrate-set-capabilities\",\"arguments\":{arguments}}}\n")
}

/// A connection to the monitor, past its greeting.
#[derive(Debug)]
pub(crate) struct Monitor {
    reader: Reader,
    writer: OwnedWriteHalf,
}

#[derive(Debug)]
struct Reader {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    /// The line at the start of the buffer is too long, and skipped to its end.
    skipping: bool,
}

impl Reader {
    /// The next line that makes sense. Safe to be cancelled.
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

impl Monitor {
    /// Takes a connection over and agrees on capabilities. The first command, if any, is asked for in the same breath.
    pub(crate) async fn open(stream: UnixStream, first: Option<Command>) -> io::Result<Self> {
        let (stream, writer) = stream.into_split();
        let reader = Reader { stream, buffer: Vec::new(), skipping: false };
        let mut monitor = Self { reader, writer };
        let greeting = async {
            // What is written before the monitor is there waits for it.
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

    /// The next event; answers are passed over. Safe to be cancelled.
    pub(crate) async fn next_event(&mut self) -> io::Result<Event> {
        loop {
            match self.reader.next().await? {
                Message::Event(event) => return Ok(event),
                Message::Refused(reason) => return Ok(Event::Refused(reason)),
                Message::Greeting | Message::Done => {}
            }
        }
    }

    /// Asks for something.
    pub(crate) async fn send(&mut self, command: Command) -> io::Result<()> {
        if let Command::Freeze(state) = &command {
            self.hand_over(state).await?;
        }
        self.writer.write_all(command.lines().as_bytes()).await
    }
}

impl Monitor {
    /// Gives the VMM a descriptor under the name [`STATE`]: for what it writes it takes no inherited one (QEMU 7.2).
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
        let state = std::fs::File::open("/dev/null").expect("open").into();
        let all =
            [Command::Quit, Command::Stop, Command::Continue, Command::Freeze(state), Command::Restore(7)];
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
        let mut monitor = Monitor::open(ours, None).await.expect("open");
        assert_eq!(monitor.next_event().await.expect("event"), Event::Stopped);
        server.await.expect("server");
        assert_eq!(monitor.next_event().await.expect_err("end").kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! The ledger of a gate: the names that its machine has asked for, and the connections that it has decided about.
//!
//! A gate may open no file and outlives dayfly, so it gets the descriptor of a file in the run folder, whose length is limited. It
//! writes the whole ledger into one half of the file and then into the other one, so that a kill in the middle of a write leaves
//! the ledger before it. A guest that took the gate over would write what it likes; the reader bounds it again.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::network::used::Reason;

/// Name of the file in the run folder.
pub(in crate::network) const FILE_NAME: &str = "network-ledger";
/// Length of each half of the file.
const HALF: usize = 256 * 1024;
/// Length of the file.
pub(in crate::network) const FILE_MAX: u64 = 2 * HALF as u64;
/// Most names that were resolved, and again most that were refused; the same for connections.
const ROWS_MAX: usize = 128;
/// Longest text of each of these four lists, bytes.
const TEXT_MAX: usize = 16 * 1024;
/// Most addresses of a name.
const ADDRESSES_MAX: usize = 4;
/// Shortest time between two writes.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);

/// The content of a ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::network) struct Ledger {
    /// The names, in the order of the first questions.
    pub(in crate::network) names: Vec<Asked>,
    /// The connections, in the order of the first ones.
    pub(in crate::network) connections: Vec<Passed>,
    /// Number of questions and connections without a row, because there were too many.
    pub(in crate::network) left_out: u64,
    /// Bytes of the guest in all connections.
    #[serde(default)]
    pub(in crate::network) sent: u64,
    /// Bytes of the servers in all connections.
    #[serde(default)]
    pub(in crate::network) received: u64,
    /// True if the gate has ended by itself, or because it was asked to.
    pub(in crate::network) has_ended: bool,
}

/// A name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::network) struct Asked {
    pub(in crate::network) name: String,
    /// The reason why it was refused, or would have been without an audit.
    pub(in crate::network) reason: Option<Reason>,
    pub(in crate::network) times: u64,
    /// Its addresses, the first ones of the first answers.
    pub(in crate::network) addresses: Vec<Ipv4Addr>,
}

/// Connections to one address and port by one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::network) struct Passed {
    /// The name that the client has said, or one that has led to the address.
    pub(in crate::network) name: Option<String>,
    pub(in crate::network) address: Ipv4Addr,
    pub(in crate::network) port: u16,
    /// The reason why it was refused, or would have been without an audit.
    pub(in crate::network) reason: Option<Reason>,
    pub(in crate::network) times: u64,
    /// Bytes of the guest.
    pub(in crate::network) sent: u64,
    /// Bytes of the server.
    pub(in crate::network) received: u64,
}

impl Ledger {
    /// Returns names that have led to an address.
    pub(in crate::network) fn names_of(&self, address: Ipv4Addr) -> impl Iterator<Item = &str> {
        let of_address = self.names.iter().filter(move |asked| asked.addresses.contains(&address));
        of_address.map(|asked| asked.name.as_str())
    }

    /// Adds a question.
    fn ask(&mut self, name: &str, reason: Option<Reason>, addresses: &[IpAddr]) {
        let known = self.names.iter().position(|asked| asked.name == name && asked.reason == reason);
        let row = known.or_else(|| {
            let others = self.names.iter().filter(|asked| asked.reason.is_some() == reason.is_some());
            if !has_room(others.map(|asked| asked.name.len()), name.len()) {
                return None;
            }
            self.names.push(Asked { name: name.to_owned(), reason, times: 0, addresses: Vec::new() });
            Some(self.names.len() - 1)
        });
        let Some(asked) = row.and_then(|row| self.names.get_mut(row)) else {
            self.left_out += 1;
            return;
        };
        asked.times += 1;
        for address in addresses {
            if let IpAddr::V4(address) = address.to_canonical()
                && asked.addresses.len() < ADDRESSES_MAX
                && !asked.addresses.contains(&address)
            {
                asked.addresses.push(address);
            }
        }
    }

    /// Adds a connection. Returns the number of its row, if there is room for one.
    fn pass(&mut self, to: SocketAddrV4, name: Option<&str>, reason: Option<Reason>) -> Option<usize> {
        let is_same = |passed: &Passed| {
            (passed.address, passed.port, passed.name.as_deref(), passed.reason)
                == (*to.ip(), to.port(), name, reason)
        };
        let row = self.connections.iter().position(is_same).or_else(|| {
            let others = self.connections.iter().filter(|passed| passed.reason.is_some() == reason.is_some());
            let texts = others.map(|passed| passed.name.as_deref().map_or(0, str::len));
            if !has_room(texts, name.map_or(0, str::len)) {
                return None;
            }
            self.connections.push(Passed {
                name: name.map(str::to_owned),
                address: *to.ip(),
                port: to.port(),
                reason,
                times: 0,
                sent: 0,
                received: 0,
            });
            Some(self.connections.len() - 1)
        });
        match row.and_then(|row| self.connections.get_mut(row)) {
            Some(passed) => passed.times += 1,
            None => self.left_out += 1,
        }
        row
    }
}

/// Returns true if a list whose rows have texts of these lengths has room for one more.
fn has_room(texts: impl Iterator<Item = usize>, text: usize) -> bool {
    let (rows, bytes) = texts.fold((0, 0), |(rows, bytes), text| (rows + 1, bytes + text));
    rows < ROWS_MAX && bytes + text <= TEXT_MAX
}

/// A ledger that the parts of a gate write into.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    ledger: Arc<Mutex<Ledger>>,
    changed: Arc<Notify>,
}

impl Book {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.changed.notify_one();
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a question for a name.
    pub(super) fn ask(&self, name: &str, reason: Option<Reason>, addresses: &[IpAddr]) {
        self.ledger().ask(name, reason, addresses);
    }

    /// Adds a connection. Returns its row, for its bytes.
    pub(super) fn pass(&self, to: SocketAddrV4, name: Option<&str>, reason: Option<Reason>) -> Option<usize> {
        self.ledger().pass(to, name, reason)
    }

    /// Adds the bytes of a connection.
    pub(super) fn count(&self, row: Option<usize>, sent: usize, received: usize) {
        let mut ledger = self.ledger();
        ledger.sent = ledger.sent.saturating_add(sent as u64);
        ledger.received = ledger.received.saturating_add(received as u64);
        if let Some(passed) = row.and_then(|row| ledger.connections.get_mut(row)) {
            passed.sent = passed.sent.saturating_add(sent as u64);
            passed.received = passed.received.saturating_add(received as u64);
        }
    }

    /// Writes the ledger when it has changed, without end.
    pub(super) async fn keep(&self, writer: &mut Writer) -> io::Result<()> {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(WRITE_INTERVAL).await;
            let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // A disk without room costs the record, and not the machine's names.
            let _ = writer.write(&ledger);
        }
    }

    /// Writes the ledger for the last time.
    pub(super) fn end(&self, writer: &mut Writer) {
        let mut ledger = self.ledger();
        ledger.has_ended = true;
        let _ = writer.write(&ledger);
    }
}

/// Writes a ledger into its file.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    turn: u64,
}

impl Writer {
    /// Returns a writer into a new file.
    pub(super) fn new(file: File) -> Self {
        Self { file, turn: 0 }
    }

    fn write(&mut self, ledger: &Ledger) -> io::Result<()> {
        self.turn += 1;
        let bytes = encode(self.turn, ledger)?;
        let half = if self.turn.is_multiple_of(2) { HALF as u64 } else { 0 };
        self.file.write_all_at(&bytes, half)
    }
}

/// Returns a ledger as it is in one half of the file: a line with turn and length, the JSON, and the turn again.
fn encode(turn: u64, ledger: &Ledger) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(ledger)?;
    let mut bytes = format!("{turn} {}\n", json.len()).into_bytes();
    bytes.extend(json);
    bytes.extend(format!("\n{turn}\n").bytes());
    // The bounds of the lists do not allow it.
    if bytes.len() > HALF { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Reads one half of the file; none if no whole ledger is in it.
fn decode(half: &[u8]) -> Option<(u64, Ledger)> {
    let end = half.iter().take(64).position(|&byte| byte == b'\n')?;
    let (turn, length) = std::str::from_utf8(&half[..end]).ok()?.split_once(' ')?;
    let (turn, length): (u64, usize) = (turn.parse().ok()?, length.parse().ok()?);
    let (json, after) = half[end + 1..].split_at_checked(length)?;
    after.starts_with(format!("\n{turn}\n").as_bytes()).then_some(())?;
    Some((turn, serde_json::from_slice(json).ok()?))
}

/// Reads the last whole ledger of a file; none if there is none.
///
/// # Errors
/// The file exists and cannot be read.
pub(in crate::network) fn read(path: &Path) -> io::Result<Option<Ledger>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(bytes.chunks(HALF).filter_map(decode).max_by_key(|(turn, _)| *turn).map(|(_, ledger)| ledger))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to(text: &str) -> SocketAddrV4 {
        text.parse().expect("an address")
    }

    #[test]
    fn repeated_questions_and_connections_are_counted_in_one_row() {
        let mut ledger = Ledger::default();
        let addresses: Vec<IpAddr> = (1..9).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        ledger.ask("a.example", None, &addresses);
        ledger.ask("a.example", None, &addresses);
        ledger.ask("a.example", Some(Reason::Shut), &[]);
        assert_eq!(ledger.names.iter().map(|asked| asked.times).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(ledger.names[0].addresses.len(), ADDRESSES_MAX);
        assert_eq!(ledger.names_of(Ipv4Addr::new(192, 0, 2, 1)).collect::<Vec<_>>(), ["a.example"]);
        let pass = |ledger: &mut Ledger, name| ledger.pass(to("192.0.2.1:443"), name, None);
        let first = pass(&mut ledger, Some("a.example"));
        assert_eq!(pass(&mut ledger, Some("a.example")), first);
        assert_ne!(pass(&mut ledger, None), first);
    }

    #[test]
    fn a_flood_of_one_kind_leaves_room_for_the_other_and_for_the_file() {
        let book = Book::default();
        for number in 0..1000 {
            let name = format!("{number}.{}", "x".repeat(200));
            book.ask(&name, Some(Reason::Unlisted), &[]);
            book.pass(to("192.0.2.1:443"), Some(&name), Some(Reason::Unlisted));
        }
        book.ask("good.example", None, &[]);
        let row = book.pass(to("192.0.2.1:443"), Some("good.example"), None);
        book.count(row, 3, 4);
        book.count(None, 1, 1);
        let ledger = book.ledger().clone();
        assert!(ledger.names.iter().any(|asked| asked.name == "good.example"));
        assert_eq!(ledger.connections.last().map(|passed| (passed.sent, passed.received)), Some((3, 4)));
        assert!(ledger.left_out > 1500);
        assert_eq!((ledger.sent, ledger.received), (4, 5), "also those without a row");
        encode(u64::MAX, &ledger).expect("it fits");
    }

    #[test]
    fn a_torn_write_leaves_the_ledger_before_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(FILE_NAME);
        assert_eq!(read(&path).expect("no file"), None);
        let mut writer = Writer::new(File::create(&path).expect("create"));
        let of = |left_out| Ledger { left_out, ..Ledger::default() };
        for left_out in 1..=3 {
            writer.write(&of(left_out)).expect("write");
            assert_eq!(read(&path).expect("read"), Some(of(left_out)));
        }
        let torn = encode(4, &of(400_000)).expect("short");
        let file = File::options().write(true).open(&path).expect("open");
        file.write_all_at(&torn[..torn.len() - 4], HALF as u64).expect("write");
        assert_eq!(read(&path).expect("read"), Some(of(3)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[&b"1 9999999\n"[..], &bytes].concat());
        }
    }
}

//! Collects a machine's output: the last bytes in memory, the first bytes in a file. Both are bounded, because a guest can
//! print any amount.

use std::collections::VecDeque;
use std::fs::File;
use std::future;
use std::io::{self, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};

use dayfly_guest::protocol::Source;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::machine::VmEvent;
use crate::throttle::Throttle;
use crate::vmm::NO_BOOT_DEVICE;

/// Bytes of output kept in memory.
pub(crate) const RING_BYTES_MAX: usize = 64 * 1024;
/// Most bytes that one read of a stream takes.
const READ_MAX: usize = 8 * 1024;
/// Bytes of output kept in the file.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Most bytes of a line that are sent to a machine's owner: as many as an agent sends.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The text that begins Linux's last message.
const PANIC: &str = "Kernel panic";

/// Returns the lines that are not empty, without trailing white space.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty())
}

/// The last bytes of a stream.
#[derive(Debug)]
struct Ring {
    bytes: VecDeque<u8>,
    bytes_max: usize,
}

impl Ring {
    /// Returns true if an occurrence of `words` ends within the last `count` bytes.
    fn ends_within(&self, words: &[u8], count: usize) -> bool {
        let kept = self.bytes.len();
        let from = kept.saturating_sub(count + words.len() - 1);
        let last: Vec<u8> = self.bytes.range(from..).copied().collect();
        last.windows(words.len()).any(|window| window == words)
    }

    fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(self.bytes_max)..];
        let excess = (self.bytes.len() + bytes.len()).saturating_sub(self.bytes_max);
        self.bytes.drain(..excess);
        self.bytes.extend(bytes);
    }
}

/// A stream's output, shared by the task that reads the stream and the code that quotes its last lines.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    ring: Arc<Mutex<Ring>>,
    no_boot_device: Arc<Notify>,
}

impl Output {
    pub(crate) fn new() -> Self {
        let ring = Ring { bytes: VecDeque::new(), bytes_max: RING_BYTES_MAX };
        Self { ring: Arc::new(Mutex::new(ring)), no_boot_device: Arc::default() }
    }

    /// Waits until the firmware reports that it found no kernel. Each report ends one wait. A guest can print the same text,
    /// so a report counts only before the agent has said hello.
    pub(crate) async fn no_boot_device(&self) {
        self.no_boot_device.notified().await;
    }

    /// Returns the last lines, at most `lines_max`, without control characters. If they do not contain the kernel's panic
    /// message, it comes first, because the trace after it is long.
    pub(crate) fn tail(&self, lines_max: usize) -> String {
        let text = self.text();
        let lines: Vec<&str> = lines(&text).collect();
        let (before, last) = lines.split_at(lines.len().saturating_sub(lines_max));
        let panic = before.iter().rev().find(|line| line.contains(PANIC));
        panic.map(|line| format!("{line}\n...\n")).unwrap_or_default() + &last.join("\n")
    }

    /// Returns the message that the guest's kernel printed when it panicked.
    pub(crate) fn panic_message(&self) -> Option<String> {
        let text = self.text();
        let message = lines(&text).filter_map(|line| line.split_once(PANIC)).last()?.1;
        Some(message.trim_start_matches([' ', '-', ':']).to_owned())
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.bytes.iter().copied().collect()
        };
        plain(&String::from_utf8_lossy(&bytes))
    }

    /// Reads a stream to its end, no faster than a [`Throttle`] allows. `file` receives the first [`FILE_BYTES_MAX`] bytes, and a note if the rest is cut.
    pub(crate) async fn drain(self, stream: impl AsyncRead + Unpin, file: Option<BoundedFile>) {
        self.read(stream, file, None).await;
    }

    /// Reads a stream like [`Output::drain`], and sends each line to the machine's owner. An owner that does not receive its
    /// events blocks the stream.
    pub(crate) async fn relay(self, stream: impl AsyncRead + Unpin, file: Option<BoundedFile>, lines: Lines) {
        self.read(stream, file, Some(lines)).await;
    }

    fn take(&self, bytes: &[u8]) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.push(bytes);
        if ring.ends_within(NO_BOOT_DEVICE.as_bytes(), bytes.len()) {
            self.no_boot_device.notify_one();
        }
    }

    async fn read(
        self,
        mut stream: impl AsyncRead + Unpin,
        mut file: Option<BoundedFile>,
        mut lines: Option<Lines>,
    ) {
        let mut throttle = Throttle::new(Instant::now());
        loop {
            let bytes = &next_bytes(&mut stream).await;
            if bytes.is_empty() {
                break;
            }
            throttle.took(bytes.len(), Instant::now());
            self.take(bytes);
            // If the disk is full, only the file ends; the machine continues.
            if file.as_mut().is_some_and(|file| file.write(bytes).is_err()) {
                file = None;
            }
            if let Some(lines) = &mut lines {
                lines.take(bytes).await;
            }
            throttle.ready().await;
        }
        if let Some(lines) = &mut lines {
            lines.end().await;
        }
    }
}

/// Waits for bytes of a stream, and returns them; none at its end. Until they come it holds no buffer, because a thousand idle
/// consoles would hold one each.
async fn next_bytes(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    future::poll_fn(|context| {
        let mut space = [0; READ_MAX];
        let mut buffer = ReadBuf::new(&mut space);
        let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
        Poll::Ready(read.map_or_else(|_| Vec::new(), |()| buffer.filled().to_vec()))
    })
    .await
}

/// The sender of a stream's lines to the owner of a machine.
#[derive(Debug)]
pub(crate) struct Lines {
    events: mpsc::Sender<VmEvent>,
    /// The line that has not ended yet.
    begun: Vec<u8>,
    /// True if the line is longer than [`LINE_BYTES_MAX`], so that its end is left out.
    is_cut: bool,
}

impl Lines {
    pub(crate) fn new(events: mpsc::Sender<VmEvent>) -> Self {
        Self { events, begun: Vec::new(), is_cut: false }
    }

    async fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match part {
                [text @ .., b'\n'] => (text, true),
                text => (text, false),
            };
            let room = LINE_BYTES_MAX.saturating_sub(self.begun.len());
            self.is_cut |= text.len() > room;
            self.begun.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.tell().await;
            }
        }
    }

    /// Sends the last line if the stream has ended without a line end.
    async fn end(&mut self) {
        if !self.begun.is_empty() {
            self.tell().await;
        }
    }

    async fn tell(&mut self) {
        let begun = std::mem::take(&mut self.begun);
        let mut text = one_line(String::from_utf8_lossy(&begun).trim_end_matches('\r'));
        if std::mem::take(&mut self.is_cut) {
            text.push_str(" (cut)");
        }
        // If the owner is gone, the line is lost.
        let _ = self.events.send(VmEvent::Line { number: 0, source: Source::Entrypoint, text }).await;
    }
}

/// A file that stops growing at [`FILE_BYTES_MAX`] bytes and a note.
#[derive(Debug)]
pub(crate) struct BoundedFile {
    file: File,
    left: u64,
}

impl BoundedFile {
    /// Opens a file to append to, and creates it if it is missing. Bytes that it already holds count towards the limit.
    pub(crate) fn append(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let left = FILE_BYTES_MAX.saturating_sub(file.metadata()?.len());
        Ok(Self { file, left })
    }

    /// Appends as many of the bytes as the limit allows.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        let count = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.file.write_all(&bytes[..count])?;
        self.left -= count as u64;
        if self.left == 0 {
            self.file.write_all(b"\n(the rest is not kept)\n")?;
        }
        Ok(())
    }
}

/// Makes line ends in a line from a guest visible, so that the line cannot pretend to be several lines of a log.
pub(crate) fn one_line(text: &str) -> String {
    text.replace('\n', "\u{240a}").replace('\r', "\u{240d}")
}

/// Removes everything from a guest's text that could steer a terminal: escape sequences, and control characters other than
/// line ends and tabs.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                // A control sequence ends with a letter; anything else after ESC is one character.
                if characters.next() == Some('[') {
                    characters.by_ref().find(|c| ('@'..='~').contains(c));
                }
            }
            '\n' | '\t' => plain.push(character),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_kept_to_its_bounds_in_memory_and_on_disk() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("console.log");
        let output = Output::new();
        let flood = "x".repeat(63) + "\n";
        let flood = flood.repeat(50_000) + "the end\n";
        let file = BoundedFile::append(&path).expect("file");
        output.clone().drain(flood.as_bytes(), Some(file)).await;
        assert_eq!(output.ring.lock().expect("lock").bytes.len(), RING_BYTES_MAX);
        assert!(output.tail(1).ends_with("the end"));
        let kept = std::fs::metadata(&path).expect("file").len();
        assert!((FILE_BYTES_MAX..FILE_BYTES_MAX + 64).contains(&kept), "{kept}");
        let mut again = BoundedFile::append(&path).expect("file");
        again.write(b"more").expect("write");
        assert_eq!(std::fs::metadata(&path).expect("file").len(), kept);
    }

    #[test]
    fn what_a_guest_prints_cannot_steer_a_terminal() {
        assert_eq!(plain("\u{1b}[2J\u{1b}]0;x\u{7}red \u{1b}[31mtext\u{1b}[0m\r\n"), "0;xred text\n");
    }

    #[test]
    fn the_tail_is_made_of_whole_lines() {
        let output = Output::new();
        output.ring.lock().expect("lock").push(b"one\r\ntwo\n\nthree");
        assert_eq!(output.tail(2), "two\nthree");
        assert_eq!(output.tail(9), "one\ntwo\nthree");
    }

    #[tokio::test]
    async fn a_firmware_that_finds_no_kernel_is_noticed_however_its_words_arrive() {
        let heard = async |pieces: &[&str]| {
            let output = Output::new();
            pieces.iter().for_each(|piece| output.take(piece.as_bytes()));
            tokio::time::timeout(std::time::Duration::from_millis(20), output.no_boot_device()).await.is_ok()
        };
        assert!(heard(&["Booting from ROM...\r\nNo bootable device.\r\n"]).await);
        assert!(heard(&["No boot", "able device", ".\r\n"]).await);
        assert!(heard(&"No bootable device.".split_inclusive(|_| true).collect::<Vec<_>>()).await);
        assert!(!heard(&["Booting from ROM...", "[    0.000000] Linux version 6.1\n"]).await);
    }

    #[test]
    fn a_panic_message_is_found_above_its_trace() {
        let output = Output::new();
        assert_eq!(output.panic_message(), None);
        let panic = b"[    2.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n";
        output.ring.lock().expect("lock").push(panic);
        output.ring.lock().expect("lock").push(b"trace\n".repeat(50).as_slice());
        assert_eq!(
            output.panic_message().as_deref(),
            Some("not syncing: Attempted to kill init! exitcode=0x00000100")
        );
        assert!(output.tail(2).starts_with("[    2.5] Kernel panic"));
        assert!(output.tail(2).ends_with("...\ntrace\ntrace"));
    }

    #[tokio::test]
    async fn lines_are_told_whole_each_once_and_bounded() {
        let (sender, mut events) = mpsc::channel(16);
        let long = "x".repeat(LINE_BYTES_MAX + 9);
        let text = format!("one\r\n\n{long}\nla\rst");
        Output::new().relay(text.as_bytes(), None, Lines::new(sender)).await;
        let mut told = Vec::new();
        while let Some(VmEvent::Line { text, .. }) = events.recv().await {
            told.push(text);
        }
        let cut = format!("{} (cut)", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(told, ["one", "", &cut, "la\u{240d}st"]);
    }
}

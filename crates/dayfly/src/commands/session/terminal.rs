//! The terminal of the person who has a session.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dayfly_guest::protocol::session::{PIECE_MAX, TerminalSize};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

/// Size of a terminal that does not know its own, e.g. one over a serial line.
const SIZE_DEFAULT: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// The terminal in raw mode: each key goes to the machine at once, Ctrl-C too. Dropping it restores the former mode.
#[derive(Debug)]
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Returns the size of the terminal at standard input; none if that is no terminal.
pub(super) fn size() -> Option<TerminalSize> {
    if !isatty(rustix::stdio::stdin()) {
        return None;
    }
    let size = tcgetwinsize(rustix::stdio::stdin()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    Some(size.map_or(SIZE_DEFAULT, |size| TerminalSize { rows: size.ws_row, columns: size.ws_col }))
}

/// The input of a program, read piece by piece.
pub(super) struct Typed {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    /// Asks the thread for the next piece.
    next: SyncSender<()>,
    is_asked: bool,
}

impl Typed {
    /// Reads standard input.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self::of(rustix::stdio::stdin().try_clone_to_owned()?))
    }

    /// Starts the thread that reads. It is left behind at the end of the process, because a read of a terminal cannot be
    /// cancelled.
    pub(super) fn of(input: OwnedFd) -> Self {
        let (sender, pieces) = mpsc::channel(1);
        let (next, asked) = sync_channel(1);
        std::thread::spawn(move || read(&input, &asked, &sender));
        Self { pieces, next, is_asked: false }
    }

    /// Returns the next bytes; none at the end. Nothing is read that is not asked for, so that it is left to later programs.
    /// Safe to be cancelled.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !self.is_asked {
            if self.next.try_send(()).is_err() {
                return Ok(None);
            }
            self.is_asked = true;
        }
        let piece = self.pieces.recv().await;
        self.is_asked = false;
        piece.transpose()
    }
}

/// Reads one piece each time it is asked, until the end of the input.
fn read(input: &OwnedFd, asked: &Receiver<()>, pieces: &mpsc::Sender<io::Result<Vec<u8>>>) {
    // One byte less, because a key that was held back may come with the next ones.
    let mut buffer = vec![0; PIECE_MAX - 1];
    while asked.recv().is_ok() {
        let read = rustix::io::retry_on_intr(|| rustix::io::read(input, &mut buffer));
        let is_last = !matches!(read, Ok(1..));
        let piece = match read {
            Ok(0) => return,
            Ok(length) => Ok(buffer[..length].to_vec()),
            // A terminal whose other end is gone.
            Err(rustix::io::Errno::IO) => return,
            Err(error) => Err(error.into()),
        };
        if pieces.blocking_send(piece).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn input_comes_piece_by_piece_until_its_end_and_an_error_is_told() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![7; PIECE_MAX]).expect("written");
        std::io::Seek::rewind(&mut file).expect("at its begin");
        let mut typed = Typed::of(file.into());
        let mut lengths = Vec::new();
        while let Some(piece) = typed.next().await.expect("read") {
            lengths.push(piece.len());
        }
        assert_eq!(lengths, [PIECE_MAX - 1, 1]);
        let mut folder = Typed::of(File::open("/").expect("a folder").into());
        assert!(folder.next().await.is_err_and(|error| error.kind() == io::ErrorKind::IsADirectory));
        assert!(matches!(folder.next().await, Ok(None)));
    }
}

//! The lab's memory across restarts: one file of JSON lines, appended to before an answer goes out.
//!
//! Each line replaces what an earlier one said of the same thing. On opening, the lines are read back and the file is
//! written anew with what is still true, through a rename. A process that is killed loses nothing that it answered;
//! after a power failure the last lines may be missing, which a lab can bear.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::state::{Group, JobRecord, Registration, Repository, RunRecord, StoredEvent};

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    Repository(Repository),
    Group(Group),
    Runner(Registration),
    RunnerGone(u64),
    Run(RunRecord),
    RunEvent {
        run: u64,
        at_ms: i64,
        event: StoredEvent,
    },
    /// The run with its jobs.
    RunGone(u64),
    Job(JobRecord),
    /// The highest id given out, so that none comes twice.
    LastId(u64),
}

/// The file.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// What goes out with the next [`Journal::flush`].
    waiting: Vec<u8>,
    written_bytes: u64,
}

impl Journal {
    /// Opens the file and hands every record to `take`, in order.
    pub(crate) fn open(path: &Path, mut take: impl FnMut(Record)) -> io::Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(record) => take(record),
                // A process killed in the middle of a write leaves half a line at the end.
                Err(error) => {
                    tracing::warn!(%error, "a line of the lab's journal cannot be read and is left out")
                }
            }
        }
        let file = private_file().append(true).create(true).open(path)?;
        Ok(Self { path: path.to_owned(), file, waiting: Vec::new(), written_bytes: text.len() as u64 })
    }

    /// Adds a record to what the next [`Journal::flush`] writes.
    pub(crate) fn append(&mut self, record: &Record) {
        serde_json::to_writer(&mut self.waiting, record).expect("records are plain data");
        self.waiting.push(b'\n');
    }

    /// Writes what waits; to be called before the answer that rests on it goes out.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.file.write_all(&self.waiting)?;
            self.written_bytes += self.waiting.len() as u64;
            self.waiting.clear();
        }
        Ok(())
    }

    /// Bytes in the file.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Puts `records` in the place of everything so far.
    pub(crate) fn replace(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        self.waiting.clear();
        records.for_each(|record| self.append(&record));
        let next = self.path.with_extension("next");
        let mut file = private_file().write(true).create(true).truncate(true).open(&next)?;
        file.write_all(&self.waiting)?;
        fs::rename(&next, &self.path)?;
        self.written_bytes = self.waiting.len() as u64;
        self.waiting.clear();
        self.file = private_file().append(true).open(&self.path)?;
        Ok(())
    }
}

/// Files of the lab hold secrets of repositories and are nobody else's.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

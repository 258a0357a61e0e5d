//! The lab's journal, which preserves its state across restarts: one file of JSON lines, appended to before an answer is
//! sent.
//!
//! Each line replaces what an earlier line recorded about the same object. When the lab opens the journal, it reads the
//! lines back and rewrites the file with the current state only, through a rename. If the process is killed, nothing that
//! it has confirmed is lost. After a power failure the last lines may be missing, which is acceptable for a lab.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use dayfly_host::file;

use super::state::{Group, JobRecord, Registration, Repository, RunRecord, StoredEvent};

/// One line of the journal.
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
    /// The run and its jobs were removed.
    RunGone(u64),
    Job(JobRecord),
    /// The highest id that was assigned, so that no id is used twice.
    LastId(u64),
}

/// The journal file.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// Records that the next [`Journal::flush`] writes.
    waiting: Vec<u8>,
    written_bytes: u64,
}

impl Journal {
    /// Opens the file and passes every record to `take`, in order.
    pub(crate) fn open(path: &Path, mut take: impl FnMut(Record)) -> io::Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(record) => take(record),
                // A process that is killed during a write leaves half a line at the end.
                Err(error) => {
                    tracing::warn!(%error, "a line of the lab's journal cannot be read and is left out")
                }
            }
        }
        let file = private_file().append(true).create(true).open(path)?;
        Ok(Self { path: path.to_owned(), file, waiting: Vec::new(), written_bytes: text.len() as u64 })
    }

    /// Adds a record to those that the next [`Journal::flush`] writes.
    pub(crate) fn append(&mut self, record: &Record) {
        serde_json::to_writer(&mut self.waiting, record).expect("records are plain data");
        self.waiting.push(b'\n');
    }

    /// Writes the waiting records. Must be called before an answer that depends on them is sent.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.file.write_all(&self.waiting)?;
            self.written_bytes += self.waiting.len() as u64;
            self.waiting.clear();
        }
        Ok(())
    }

    /// Returns the number of bytes in the file.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Replaces the content of the file by `records`.
    pub(crate) fn replace(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        self.waiting.clear();
        records.for_each(|record| self.append(&record));
        file::replace(&self.path, &self.waiting)?;
        self.written_bytes = self.waiting.len() as u64;
        self.waiting.clear();
        self.file = private_file().append(true).open(&self.path)?;
        Ok(())
    }
}

/// Returns options for a file with mode 0600, because the lab's files hold secrets of repositories.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

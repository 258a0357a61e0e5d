//! The files of job logs.
//!
//! `logs/<job>.jsonl` holds each line as it was published to subscribers. `logs/<job>.txt` holds the log that the runner
//! uploaded as a whole. If the second file exists, users get that one, because it has the runner's own times.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::journal::private_file;

/// A line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredLine {
    /// The line's time in RFC 3339.
    #[serde(rename = "t")]
    pub(crate) time: String,
    /// The step's GUID.
    #[serde(rename = "s")]
    pub(crate) step: String,
    #[serde(rename = "l")]
    pub(crate) line: String,
}

/// The folder of the logs.
#[derive(Clone)]
pub(crate) struct LogFiles {
    folder: PathBuf,
}

impl LogFiles {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn told(&self, job: u64) -> PathBuf {
        self.folder.join(format!("{job}.jsonl"))
    }

    fn uploaded(&self, job: u64) -> PathBuf {
        self.folder.join(format!("{job}.txt"))
    }

    /// Appends lines that were published to subscribers.
    pub(crate) fn append_told(&self, job: u64, lines: &[StoredLine]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        private_file().append(true).create(true).open(self.told(job))?.write_all(&text)
    }

    /// Appends a piece of the uploaded log.
    pub(crate) fn append_uploaded(&self, job: u64, text: &str) -> io::Result<()> {
        private_file().append(true).create(true).open(self.uploaded(job))?.write_all(text.as_bytes())
    }

    /// Returns the lines that were published to subscribers.
    pub(crate) fn read_told(&self, job: u64) -> Vec<StoredLine> {
        let text = fs::read_to_string(self.told(job)).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Returns the uploaded log.
    pub(crate) fn read_uploaded(&self, job: u64) -> Option<String> {
        fs::read(self.uploaded(job)).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    /// Returns the log as users get it, or `None` if there is none yet.
    pub(crate) fn read(&self, job: u64) -> Option<String> {
        self.read_uploaded(job).or_else(|| {
            let lines = self.read_told(job);
            (!lines.is_empty())
                .then(|| lines.iter().map(|line| format!("{} {}\n", line.time, line.line)).collect())
        })
    }

    /// Removes the files of a job's log.
    pub(crate) fn remove(&self, job: u64) {
        for path in [self.told(job), self.uploaded(job)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a log cannot be removed");
                }
                _ => {}
            }
        }
    }
}

//! The files of job logs and job summaries.
//!
//! `logs/<job>.jsonl` holds each line as it was published to subscribers. `logs/<job>.txt` holds the log that the runner
//! uploaded as a whole. If the second file exists, users get that one, because it has the runner's own times.
//! `logs/<job>.summaries/<step>.md` holds the summary of a step.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use dayfly_host::file;
use serde::{Deserialize, Serialize};

use super::journal::private_file;

/// Most steps of a job whose summary is stored. GitHub shows 20.
const SUMMARIES_MAX: usize = 20;

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
    /// True if the line stands behind the end of its step and belongs to the runner app's own last step.
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) completes: bool,
}

/// The summary of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSummary {
    /// The step's GUID.
    pub(crate) step: String,
    pub(crate) text: String,
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

    fn summaries(&self, job: u64) -> PathBuf {
        self.folder.join(format!("{job}.summaries"))
    }

    /// Appends lines that were published to subscribers.
    pub(crate) fn append_told(&self, job: u64, lines: &[StoredLine]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        append(&self.told(job), text)
    }

    /// Appends whole lines of the uploaded log.
    pub(crate) fn append_uploaded(&self, job: u64, text: &str) -> io::Result<()> {
        append(&self.uploaded(job), text.into())
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

    /// Stores the summary of a step in place of an earlier one. `step` is a GUID, because it names the file. Does nothing if
    /// as many steps as allowed have a summary.
    pub(crate) fn write_summary(&self, job: u64, step: &str, text: &str) -> io::Result<()> {
        let folder = self.summaries(job);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let path = folder.join(format!("{step}.md"));
        if !path.exists() && fs::read_dir(&folder)?.count() >= SUMMARIES_MAX {
            return Ok(());
        }
        file::replace(&path, text.as_bytes())
    }

    /// Returns the summaries of a job's steps, in no particular order.
    pub(crate) fn read_summaries(&self, job: u64) -> Vec<StoredSummary> {
        let Ok(files) = fs::read_dir(self.summaries(job)) else { return Vec::new() };
        let summary = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let text = fs::read_to_string(entry.path()).ok()?;
            Some(StoredSummary { step: name.strip_suffix(".md")?.to_owned(), text })
        };
        files.flatten().filter_map(summary).collect()
    }

    /// Removes the files of a job's log and summary.
    pub(crate) fn remove(&self, job: u64) {
        let (told, uploaded, summaries) = (self.told(job), self.uploaded(job), self.summaries(job));
        let removals = [
            (fs::remove_file(&told), told),
            (fs::remove_file(&uploaded), uploaded),
            (fs::remove_dir_all(&summaries), summaries),
        ];
        for (removed, path) in removals {
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a log cannot be removed");
                }
                _ => {}
            }
        }
    }
}

/// Appends whole lines to a file. A failed write leaves no part of them. Lines behind the half line of a killed process
/// begin on a line of their own.
fn append(path: &Path, mut lines: Vec<u8>) -> io::Result<()> {
    let mut file = private_file().read(true).append(true).create(true).open(path)?;
    let length = file.metadata()?.len();
    if let Some(last) = length.checked_sub(1) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, last)?;
        if byte != *b"\n" {
            lines.insert(0, b'\n');
        }
    }
    let written = file.write_all(&lines);
    if written.is_err() {
        file.set_len(length)?;
    }
    written
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::journal::tests::{limit_files, on_a_full_disk};

    fn lines(texts: &[&str]) -> Vec<StoredLine> {
        let line = |text: &&str| StoredLine {
            time: String::new(),
            step: String::new(),
            line: (*text).to_owned(),
            completes: false,
        };
        texts.iter().map(line).collect()
    }

    #[test]
    fn a_full_disk_loses_only_the_lines_that_it_had_no_room_for() {
        on_a_full_disk(
            "log_file::tests::a_full_disk_loses_only_the_lines_that_it_had_no_room_for",
            |folder| {
                let files = LogFiles::new(folder.to_owned());
                files.append_told(1, &lines(&["before"])).unwrap();
                limit_files(Some(fs::metadata(files.told(1)).unwrap().len() + 10));
                files.append_told(1, &lines(&["lost"])).unwrap_err();
                limit_files(None);
                files.append_told(1, &lines(&["after"])).unwrap();
                assert_eq!(files.read_told(1), lines(&["before", "after"]));
            },
        );
    }

    #[test]
    fn lines_behind_a_half_line_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let files = LogFiles::new(folder.path().to_owned());
        fs::write(files.told(1), "{\"t\":\"").unwrap();
        files.append_told(1, &lines(&["after"])).unwrap();
        files.append_told(1, &lines(&["more"])).unwrap();
        assert_eq!(files.read_told(1), lines(&["after", "more"]));
    }
}

//! The lab's journal, which preserves its state across restarts: one file of JSON lines, appended to before an answer is
//! sent.
//!
//! Each line replaces what an earlier line recorded about the same object. When the lab opens the journal, it reads the
//! lines back and rewrites the file with the current state only, through a rename. If the process is killed, nothing that
//! it has confirmed is lost. After a power failure the last lines may be missing, which is acceptable for a lab.
//!
//! Each write starts behind the last whole line. A write that fails in the middle, on a full disk for example, is undone
//! and repeated as a whole by the next flush, so that no record is broken or doubled. While the disk stays full, the waiting
//! records have a bound. Beyond it they are dropped, and the next write that succeeds has to be [`Journal::replace`], which
//! writes the whole state.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use dayfly_host::file;

use super::state::{
    App, Group, HookRecord, JobRecord, Notice, Registration, Repository, RunRecord, ScaleSetRecord,
    StoredEvent,
};

/// One line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    Repository(Repository),
    Group(Group),
    App(App),
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
    ScaleSet(ScaleSetRecord),
    ScaleSetGone(u64),
    Hook(HookRecord),
    HookGone(u64),
    /// Messages about jobs that the listener of a scale set has acknowledged.
    Told(Vec<Notice>),
    /// The highest id that was assigned, so that no id is used twice.
    LastId(u64),
}

/// Most bytes of records that wait while the file cannot be written.
const WAITING_MAX: usize = 4 * 1024 * 1024;

/// The journal file.
pub(crate) struct Journal {
    path: PathBuf,
    /// The open file. `None` after [`Journal::replace`] has put a new file in its place.
    file: Option<File>,
    /// Records that the next [`Journal::flush`] writes.
    waiting: Vec<u8>,
    /// True if records were dropped because too many waited, so that the file has to be replaced.
    is_behind: bool,
    /// Length of the whole lines in the file.
    written_bytes: u64,
    /// True if a part of a line may follow the whole lines.
    is_torn: bool,
}

impl Journal {
    /// Opens the file and passes every record to `take`, in order.
    pub(crate) fn open(path: &Path, mut take: impl FnMut(Record)) -> io::Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // A process that is killed during a write leaves a part of a line, which it has not confirmed.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(record) => take(record),
                Err(error) => {
                    tracing::warn!(%error, "a line of the lab's journal cannot be read and is left out")
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file: Some(open(path)?),
            waiting: Vec::new(),
            is_behind: false,
            written_bytes: whole as u64,
            is_torn: whole < text.len(),
        })
    }

    /// Adds a record to those that the next [`Journal::flush`] writes.
    pub(crate) fn append(&mut self, record: &Record) {
        if !self.is_behind {
            write_line(&mut self.waiting, record);
        }
    }

    /// Returns true if records are missing, so that only [`Journal::replace`] makes the file complete.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Writes the waiting records. Must be called before an answer that depends on them is sent. After an error all of
    /// them still wait.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open(&self.path)?),
        };
        if self.is_torn {
            file.set_len(self.written_bytes)?;
        }
        self.is_torn = true;
        if let Err(error) = file.write_all(&self.waiting) {
            self.is_torn = file.set_len(self.written_bytes).is_err();
            if self.waiting.len() > WAITING_MAX {
                (self.waiting, self.is_behind) = (Vec::new(), true);
            }
            return Err(error);
        }
        self.is_torn = false;
        self.written_bytes += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Returns the number of bytes in the file.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Replaces the content of the file and the waiting records by `records`. After an error both are unchanged.
    pub(crate) fn replace(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        let mut content = Vec::new();
        records.for_each(|record| write_line(&mut content, &record));
        file::replace(&self.path, &content)?;
        self.written_bytes = content.len() as u64;
        self.waiting.clear();
        (self.file, self.is_torn, self.is_behind) = (None, false, false);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    private_file().append(true).create(true).open(path)
}

fn write_line(lines: &mut Vec<u8>, record: &Record) {
    serde_json::to_writer(&mut *lines, record).expect("records are plain data");
    lines.push(b'\n');
}

/// Returns options for a file with mode 0600, because the lab's files hold secrets of repositories.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use std::process::Command;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// Environment variable of [`on_a_full_disk`]: the folder in which a process of the test works.
    const FOLDER: &str = "DAYFLY_TEST_FULL_DISK";

    /// Runs `check` in a process of its own, whose files cannot grow beyond the limit that `check` sets. `test` is the
    /// full name of the test that calls this function.
    pub(crate) fn on_a_full_disk(test: &str, check: impl FnOnce(&Path)) {
        if let Some(folder) = std::env::var_os(FOLDER) {
            return check(Path::new(&folder));
        }
        let folder = tempfile::tempdir().unwrap();
        // Without the ignored signal, a write beyond the limit would end the process.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        command.args(["--exact", test]).env(FOLDER, folder.path());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    /// Sets the length beyond which no file of this process grows.
    pub(crate) fn limit_files(bytes: Option<u64>) {
        let maximum = getrlimit(Resource::Fsize).maximum;
        setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
    }

    fn ids(path: &Path) -> Vec<u64> {
        let mut ids = Vec::new();
        let take = |record| match record {
            Record::LastId(id) => ids.push(id),
            other => panic!("{other:?}"),
        };
        Journal::open(path, take).unwrap();
        ids
    }

    #[test]
    fn a_full_disk_neither_breaks_nor_doubles_a_record() {
        on_a_full_disk("journal::tests::a_full_disk_neither_breaks_nor_doubles_a_record", |folder| {
            let path = folder.join("journal.jsonl");
            let mut journal = Journal::open(&path, |_| {}).unwrap();
            journal.append(&Record::LastId(1));
            journal.flush().unwrap();
            let line = fs::read_to_string(&path).unwrap();
            limit_files(Some(line.len() as u64 * 5 / 2));
            (2..=4).for_each(|id| journal.append(&Record::LastId(id)));
            journal.flush().unwrap_err();
            assert_eq!(fs::read_to_string(&path).unwrap(), line, "the half write was undone");
            journal.flush().unwrap_err();
            journal.replace((1..=9).map(Record::LastId)).unwrap_err();
            assert_eq!(ids(&path), [1]);

            limit_files(None);
            journal.append(&Record::LastId(5));
            journal.flush().unwrap();
            assert_eq!(ids(&path), [1, 2, 3, 4, 5]);
            assert_eq!(journal.written_bytes(), fs::metadata(&path).unwrap().len());
            journal.replace([Record::LastId(6)].into_iter()).unwrap();
            journal.append(&Record::LastId(7));
            journal.flush().unwrap();
            assert_eq!(ids(&path), [6, 7]);
        });
    }

    #[test]
    fn the_records_that_wait_for_a_full_disk_are_bounded_and_then_the_whole_state_is_written() {
        let test = "journal::tests::the_records_that_wait_for_a_full_disk_are_bounded_and_then_the_whole_state_is_written";
        on_a_full_disk(test, |folder| {
            let path = folder.join("journal.jsonl");
            let mut journal = Journal::open(&path, |_| {}).unwrap();
            limit_files(Some(10));
            for id in 0..500_000 {
                journal.append(&Record::LastId(id));
                if id % 1000 == 0 {
                    let _ = journal.flush();
                }
                assert!(journal.waiting.len() < WAITING_MAX + 100_000);
            }
            assert!(journal.is_behind());
            limit_files(None);
            journal.append(&Record::LastId(7));
            journal.flush().unwrap();
            assert!(ids(&path).is_empty(), "a record after the missing ones alone would mislead");
            journal.replace([Record::LastId(9)].into_iter()).unwrap();
            assert!(!journal.is_behind());
            assert_eq!(ids(&path), [9]);
        });
    }

    #[test]
    fn records_behind_the_half_line_of_a_killed_process_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        fs::write(&path, "{\"last_id\":1}\n{\"last_i").unwrap();
        let mut journal = Journal::open(&path, |_| {}).unwrap();
        journal.append(&Record::LastId(2));
        journal.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"last_id\":1}\n{\"last_id\":2}\n");
    }
}

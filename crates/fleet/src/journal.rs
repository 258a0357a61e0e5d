//! The journal of one runner: the durable facts, on the disk before the runner goes on. Only its loop writes it.
//!
//! If a process dies between any two lines, the next start reads here what may exist at the forge and on the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::fact::{self, Fact, FactRecord};

/// Name of the file in the run's folder.
pub const FILE_NAME: &str = "journal.jsonl";

/// Longest journal that is read, bytes. A run writes some dozens of short lines.
const READ_MAX: u64 = 1024 * 1024;

/// Length of a journal up to which facts that are not durable are written, bytes. A guest can cause one each second.
const NOTED_MAX: u64 = READ_MAX / 2;

/// Most characters of an unknown fact's name that an error shows.
const EVENT_SHOWN_MAX: usize = 40;

/// Errors of a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be written or read.
    #[error("cannot {what} the journal {}: {source}; is the disk full or read-only?", path.display())]
    Io {
        /// The attempted operation.
        what: &'static str,
        /// Path of the journal.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Another version of dayfly wrote the journal in another vocabulary.
    #[error(
        "the journal {} was written by another version of dayfly ({found}; this one reads facts of version {}); start that \
         version once more to remove what it describes, or remove the runner's registration and machine by hand, and then \
         its folder",
        path.display(), fact::VERSION
    )]
    Version {
        /// Path of the journal.
        path: PathBuf,
        /// The vocabulary that was found, in words.
        found: String,
    },
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// True if the last write has failed, and may have left a part of its line.
    is_torn: bool,
}

impl Journal {
    /// Opens the journal in a run's folder. Creates it if it does not exist, and flushes its name to the disk.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn open(run_dir: &Path) -> Result<Self, JournalError> {
        let path = run_dir.join(FILE_NAME);
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(&path).and_then(|file| {
            // Without these, a power cut could take the file or its folder away although its lines were flushed.
            File::open(run_dir)?.sync_all()?;
            run_dir.parent().map_or(Ok(()), |runs| File::open(runs)?.sync_all())?;
            end_torn_line(&path, file)
        });
        match file {
            Ok(file) => Ok(Self { path, file, is_torn: false }),
            Err(source) => Err(JournalError::Io { what: "open", path, source }),
        }
    }

    /// Appends a fact and flushes it to the disk before it returns.
    ///
    /// # Errors
    /// The line cannot be written; the caller must then not do what the fact announces.
    pub fn write(&mut self, record: &FactRecord) -> Result<(), JournalError> {
        self.append(record)?;
        self.file.sync_data().map_err(|error| self.error(error))
    }

    fn append(&mut self, record: &FactRecord) -> Result<(), JournalError> {
        let mut line = serde_json::to_vec(record).map_err(|error| self.error(error.into()))?;
        line.push(b'\n');
        if std::mem::replace(&mut self.is_torn, true) {
            line.insert(0, b'\n');
        }
        // One write for the whole line, so that a reader never sees half of it unless the disk is full.
        self.file.write_all(&line).map_err(|error| self.error(error))?;
        self.is_torn = false;
        Ok(())
    }

    /// Appends a fact without flushing it, if there is room. It is there after the death of this process, but may be lost with
    /// the host, and with it the machine that it is about.
    ///
    /// # Errors
    /// As for [`Journal::write`].
    pub fn note(&mut self, record: &FactRecord) -> Result<(), JournalError> {
        match self.file.metadata() {
            Ok(metadata) if metadata.len() > NOTED_MAX => Ok(()),
            _ => self.append(record),
        }
    }

    fn error(&self, source: io::Error) -> JournalError {
        JournalError::Io { what: "write", path: self.path.clone(), source }
    }
}

/// Appends the lines of `text` to a file, each whole: a line that a crash or a full disk has cut is ended first. Returns after the
/// lines are on the disk.
pub(crate) fn append_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file = end_torn_line(path, file)?;
    file.write_all(text)?;
    file.sync_data()?;
    match path.parent() {
        Some(folder) if is_new => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Ends the last line if a crash has cut it. The next line would otherwise join it, and both would be lost.
fn end_torn_line(path: &Path, mut file: File) -> io::Result<File> {
    let mut read = File::open(path)?;
    let mut last = [b'\n'];
    if read.metadata()?.len() > 0 {
        read.seek(SeekFrom::End(-1))?;
        read.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// The parts of a line that tell which version wrote it.
#[derive(Deserialize)]
struct Marks {
    /// Lines of the first format, which had steps in place of facts.
    step: Option<String>,
    version: Option<u32>,
    event: Option<String>,
}

/// The content of a journal.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JournalContent {
    /// The facts.
    pub records: Vec<FactRecord>,
    /// True if a line before the last one is damaged, or if the journal does not tell whose it is, as after a power cut: it may
    /// lack the fact that says what exists.
    pub is_damaged: bool,
}

/// Reads the facts of the journal in a run's folder; see [`read_content`].
///
/// # Errors
/// As for [`read_content`].
pub fn read(run_dir: &Path) -> Result<Vec<FactRecord>, JournalError> {
    read_content(run_dir).map(|content| content.records)
}

/// Reads the journal in a run's folder; a folder without a journal has no facts. Skips a last line that a crash has cut:
/// the step that it announced never began, because the line had not been flushed.
///
/// # Errors
/// The file cannot be read, or another version of dayfly wrote it.
pub fn read_content(run_dir: &Path) -> Result<JournalContent, JournalError> {
    let path = run_dir.join(FILE_NAME);
    let failed = |source| JournalError::Io { what: "read", path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(JournalContent::default()),
        Err(source) => return Err(failed(source)),
    };
    let mut text = Vec::new();
    file.take(READ_MAX).read_to_end(&mut text).map_err(failed)?;
    parse(&path, &text)
}

/// Reads the text of a journal. `path` is for errors.
pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<JournalContent, JournalError> {
    let version = |found| JournalError::Version { path: path.to_owned(), found };
    let mut content = JournalContent::default();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if let Some(found) = other_version(line) {
            return Err(version(found));
        }
        match (serde_json::from_slice::<FactRecord>(line), serde_json::from_slice::<Marks>(line)) {
            (Ok(record), _) => content.records.push(record),
            // A whole line: a later version has written it, and its fact may be the one that says what exists.
            (Err(_), Ok(Marks { event: Some(event), .. })) => {
                let found = format!("the fact {:?}", event.chars().take(EVENT_SHOWN_MAX).collect::<String>());
                return Err(version(found));
            }
            (Err(_), _) => content.is_damaged |= !is_cut(line),
        }
    }
    // Only the first fact says where the registration is, and it is flushed before anything exists.
    let is_nameless =
        content.records.first().is_some_and(|record| !matches!(record.fact, Fact::Begun { .. }));
    content.is_damaged |= is_nameless;
    Ok(content)
}

/// Returns true if a line has only its beginning, because a process died as it wrote the line, or the disk was full. The step that
/// it announced never began. A file system that has lost blocks, but not the length, gives zeros.
fn is_cut(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_err_and(|error| error.is_eof())
}

/// Returns the version of a line in words if this version of dayfly cannot read the line.
fn other_version(line: &[u8]) -> Option<String> {
    match serde_json::from_slice(line) {
        Ok(Marks { step: Some(_), .. }) => Some("steps instead of facts".to_owned()),
        Ok(Marks { version: Some(version), .. }) if version != fact::VERSION => {
            Some(format!("facts of version {version}"))
        }
        _ => None,
    }
}

/// Returns the first fact of a runner's journal.
pub(crate) fn begun(environment: PathBuf, forge: String, scope: dayfly_forge::RunnerScope) -> Fact {
    Fact::Begun { version: fact::VERSION, environment, forge, scope }
}

#[cfg(test)]
impl Journal {
    /// Returns a journal each write to which fails.
    pub(crate) fn on_a_full_disk() -> Self {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().write(true).open(&path).expect("open");
        Self { path, file, is_torn: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::tests::record;
    use crate::state::{RegistrationState, RunnerState, VmState};

    fn append(folder: &Path, text: &str) {
        let mut file =
            OpenOptions::new().create(true).append(true).open(folder.join(FILE_NAME)).expect("open");
        file.write_all(text.as_bytes()).expect("write");
    }

    #[test]
    fn what_was_written_is_read_back_and_folded() {
        let folder = tempfile::tempdir().expect("folder");
        let mut journal = Journal::open(folder.path()).expect("open");
        for fact in [Fact::Registering, Fact::Registered { registration: 7 }, Fact::StartingVm] {
            journal.write(&record(fact)).expect("write");
        }
        let state = RunnerState::of(&read(folder.path()).expect("read"));
        assert_eq!((state.vm, state.registration), (VmState::MayRun, RegistrationState::Exists(7)));
    }

    #[test]
    fn a_line_cut_by_a_crash_is_left_out() {
        let folder = tempfile::tempdir().expect("folder");
        let mut journal = Journal::open(folder.path()).expect("open");
        journal.write(&record(Fact::StartingVm)).expect("write");
        append(folder.path(), "{\"at_ms\":1,\"event\":\"vm_g");
        assert_eq!(RunnerState::of(&read(folder.path()).expect("read")).vm, VmState::MayRun);
    }

    #[test]
    fn a_damaged_journal_is_known_as_such_and_a_line_that_a_crash_has_cut_is_no_damage() {
        let folder = tempfile::tempdir().expect("folder");
        let scope = dayfly_forge::RunnerScope::Organization("o".to_owned());
        let begun = record(begun("/nonexistent".into(), "http://f/".to_owned(), scope));
        let begun = format!("{}\n", serde_json::to_string(&begun).expect("json"));
        let other = format!("{}\n", serde_json::to_string(&record(Fact::StartingVm)).expect("json"));
        for (content, is_damaged) in [
            (String::new(), false),
            ("{\"at_ms\":1,\"ev".to_owned(), false),
            (format!("{begun}{other}"), false),
            (format!("{begun}{other}{{\"at_m"), false),
            (format!("{begun}{{\"at_m\n{other}"), false),
            (format!("{begun}\0\0\0\n{other}"), true),
            (format!("\0\0\0\0\n{other}"), true),
            (other.clone(), true),
            ("\0".repeat(4096), true),
        ] {
            std::fs::write(folder.path().join(FILE_NAME), &content).expect("write");
            assert_eq!(read_content(folder.path()).expect("read").is_damaged, is_damaged, "{content:?}");
        }
    }

    #[test]
    fn a_line_after_one_that_a_crash_has_cut_is_not_lost() {
        let folder = tempfile::tempdir().expect("folder");
        append(folder.path(), "{\"at_ms\":1,\"event\":\"vm_g");
        for _ in 0..2 {
            let mut journal = Journal::open(folder.path()).expect("open");
            journal.write(&record(Fact::StartingVm)).expect("write");
        }
        assert_eq!(read(folder.path()).expect("read").len(), 2);
    }

    #[test]
    fn a_fact_of_a_later_version_is_not_left_out_in_silence() {
        let folder = tempfile::tempdir().expect("folder");
        append(folder.path(), "{\"at_ms\":1,\"loop\":0,\"event\":\"moved_elsewhere\"}\n");
        let error = read(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("the fact \"moved_elsewhere\""), "{error}");
    }

    #[test]
    fn a_journal_of_another_version_is_refused_with_its_place_and_a_way_out() {
        let folder = tempfile::tempdir().expect("folder");
        append(folder.path(), "{\"at_ms\":1,\"step\":\"registering\",\"name\":\"n\"}\n");
        let error = read(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("steps instead of facts") && error.contains("start that version"), "{error}");
        std::fs::remove_file(folder.path().join(FILE_NAME)).expect("remove");
        append(folder.path(), "{\"at_ms\":1,\"event\":\"begun\",\"version\":99}\n");
        let error = read(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("facts of version 99"), "{error}");
    }

    #[test]
    fn a_journal_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("folder");
        Journal::open(folder.path()).expect("open");
        let mode = std::fs::metadata(folder.path().join(FILE_NAME)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

//! The journal of one runner: append-only, written by its loop alone, flushed before each call that it announces.
//!
//! Whatever dies between two lines, the next start reads here what may exist at the forge and on the host.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use dayfly_forge::RunnerScope;
use serde::{Deserialize, Serialize};

/// Name of the file in the run's folder.
pub const FILE_NAME: &str = "journal.jsonl";

/// Longest journal that is read back, bytes. A run writes some dozens of short lines.
const READ_MAX: u64 = 1024 * 1024;

/// What a loop is about to do, or has seen done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The runner begins.
    Begun {
        /// Its id.
        id: String,
        /// Its loop's environment directory, where its files may be.
        environment: PathBuf,
    },
    /// A registration of this name will be asked for: from here on it may exist.
    Registering {
        /// Base URL of the forge's API.
        forge: String,
        /// Where the runner belongs.
        scope: RunnerScope,
        /// Name of the registration.
        name: String,
    },
    /// It exists under this id.
    Registered {
        /// Id at the forge.
        registration: u64,
    },
    /// A VM will be started in this run's folder: from here on one may run.
    StartingVm,
    /// The VM will be destroyed.
    DestroyingVm,
    /// The VM is gone.
    VmGone,
    /// The registration will be deleted.
    DeletingRegistration,
    /// The registration is gone.
    RegistrationGone,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The step.
    #[serde(flatten)]
    pub step: Step,
}

/// A journal that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the journal {}: {source}; is the disk full or read-only?", path.display())]
pub struct JournalError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal of a run's folder, making it where it is not there yet.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn open(run_dir: &Path) -> Result<Self, JournalError> {
        let path = run_dir.join(FILE_NAME);
        match OpenOptions::new().create(true).append(true).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(JournalError { what: "open", path, source }),
        }
    }

    /// Appends a step and flushes it to the disk before it returns.
    ///
    /// # Errors
    /// The line cannot be written; what it announces must then not be done.
    pub fn write(&mut self, step: Step) -> Result<(), JournalError> {
        let entry = Entry { at_ms: crate::event::unix_ms(), step };
        let mut line = serde_json::to_vec(&entry).map_err(|error| self.error("write", error.into()))?;
        line.push(b'\n');
        // One write for the whole line: a reader never sees half of it unless the disk is full.
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| self.error("write", error))
    }

    fn error(&self, what: &'static str, source: io::Error) -> JournalError {
        JournalError { what, path: self.path.clone(), source }
    }
}

/// Reads the journal of a run's folder. A last line that was cut by a crash is left out; what it announced was
/// never begun, since it had not been flushed.
///
/// # Errors
/// The file cannot be read.
pub fn read(run_dir: &Path) -> Result<Vec<Entry>, JournalError> {
    let path = run_dir.join(FILE_NAME);
    let open = File::open(&path);
    let file = match open {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(JournalError { what: "read", path, source }),
    };
    let mut entries = Vec::new();
    for line in BufReader::new(file.take(READ_MAX)).split(b'\n') {
        let line = line.map_err(|source| JournalError { what: "read", path: path.clone(), source })?;
        if let Ok(entry) = serde_json::from_slice(&line) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// What may be left of a run, by its journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remains {
    /// A registration that may exist.
    pub registration: Option<RegistrationRemains>,
    /// A VM may run.
    pub vm: bool,
    /// Files of this runner may be in this environment directory.
    pub environment: Option<(PathBuf, String)>,
}

/// A registration that may exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationRemains {
    /// Base URL of the forge's API.
    pub forge: String,
    /// Where the runner belongs.
    pub scope: RunnerScope,
    /// Name of the registration.
    pub name: String,
    /// Its id, where the answer that told it was seen.
    pub id: Option<u64>,
}

/// Folds a journal into what may be left.
pub fn remains(entries: &[Entry]) -> Remains {
    let mut remains = Remains::default();
    for entry in entries {
        match &entry.step {
            Step::Begun { id, environment } => remains.environment = Some((environment.clone(), id.clone())),
            Step::Registering { forge, scope, name } => {
                remains.registration = Some(RegistrationRemains {
                    forge: forge.clone(),
                    scope: scope.clone(),
                    name: name.clone(),
                    id: None,
                });
            }
            Step::Registered { registration } => {
                if let Some(remains) = &mut remains.registration {
                    remains.id = Some(*registration);
                }
            }
            Step::StartingVm => remains.vm = true,
            Step::VmGone => remains.vm = false,
            Step::RegistrationGone => remains.registration = None,
            Step::DestroyingVm | Step::DeletingRegistration => {}
        }
    }
    remains
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registering() -> Step {
        let scope = RunnerScope::Organization("o".into());
        Step::Registering { forge: "http://f".into(), scope, name: "n".into() }
    }

    #[test]
    fn what_was_written_is_read_back_and_folded() {
        let dir = tempfile::tempdir().expect("folder");
        let mut journal = Journal::open(dir.path()).expect("open");
        for step in [registering(), Step::Registered { registration: 7 }, Step::StartingVm] {
            journal.write(step).expect("write");
        }
        let remains = remains(&read(dir.path()).expect("read"));
        assert!(remains.vm);
        assert_eq!(remains.registration.expect("one").id, Some(7));
    }

    #[test]
    fn a_registration_whose_answer_was_lost_is_remembered_by_name() {
        let entry = Entry { at_ms: 0, step: registering() };
        let left = remains(&[entry]).registration.expect("one");
        assert_eq!((left.name.as_str(), left.id), ("n", None));
    }

    #[test]
    fn a_line_cut_by_a_crash_is_left_out() {
        let dir = tempfile::tempdir().expect("folder");
        let mut journal = Journal::open(dir.path()).expect("open");
        journal.write(Step::StartingVm).expect("write");
        std::fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join(FILE_NAME))
            .and_then(|mut file| file.write_all(b"{\"at_ms\":1,\"step\":\"vm_g"))
            .expect("half a line");
        assert!(remains(&read(dir.path()).expect("read")).vm);
    }

    #[test]
    fn after_both_are_gone_nothing_remains() {
        let steps = [registering(), Step::StartingVm, Step::VmGone, Step::RegistrationGone];
        let entries: Vec<_> = steps.into_iter().map(|step| Entry { at_ms: 0, step }).collect();
        assert_eq!(remains(&entries), Remains::default());
    }
}

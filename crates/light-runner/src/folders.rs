//! The folders and files of one job.

use std::io;
use std::path::{Path, PathBuf};

/// Longest file of commands that is read, in bytes. GitHub takes summaries of 1 MiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The folders of a job, which are removed when this value is dropped.
///
/// actions/runner has one work folder beside `bin`. Many light runners share one installation, so each has a folder of its
/// own in it, by its name.
#[derive(Debug)]
pub(crate) struct Folders {
    own: PathBuf,
    pub(crate) workspace: PathBuf,
    pub(crate) temp: PathBuf,
    pub(crate) tools: PathBuf,
}

impl Folders {
    /// Creates the folders. `repository` is `OWNER/NAME`.
    pub(crate) fn create(work: &Path, runner: &str, repository: &str) -> io::Result<Self> {
        let own = work.join(runner);
        let name = repository.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("repository");
        let folders = Self {
            workspace: own.join(name).join(name),
            temp: own.join("_temp"),
            tools: own.join("_tool"),
            own,
        };
        for folder in [&folders.workspace, &folders.temp, &folders.tools] {
            std::fs::create_dir_all(folder)?;
        }
        Ok(folders)
    }

    /// Writes a file in the folder for temporary files.
    pub(crate) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.temp.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Reads a file in the folder for temporary files. A file that a step removed is empty.
    pub(crate) fn read(&self, name: &str) -> io::Result<String> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        match std::fs::File::open(self.temp.join(name)) {
            Ok(file) => file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        // Files that a job has made unremovable stay; the folder of the installation is removed with its test.
        let _ = std::fs::remove_dir_all(&self.own);
    }
}

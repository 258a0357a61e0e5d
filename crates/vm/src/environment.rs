//! The environment directory of a loop: the loop and the entrypoint in the VM communicate through its files.
//!
//! | file | written by | meaning |
//! | --- | --- | --- |
//! | `<id>.env` | loop | options and the loop's secret; read and removed before anything else |
//! | `<id>.tkn` | entrypoint | the runner is about to start |
//! | `<id>.brk` | entrypoint | the loop should stop |
//! | `<id>.trm` | loop | the runner should stop |
//!
//! A driver may share the directory with a VM, so its files are untrusted: each is opened without following links, must be
//! a regular file, and is read up to 4 KiB only (`.env`: up to the longest allowed one).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dayfly_guest::environment::{NOTE_LENGTH_MAX, Suffix, file_name};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::folder_watch::FolderWatch;

/// An error of the directory or of a file in it.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The directory or file cannot be opened, read, written, removed or watched.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation that failed.
        what: &'static str,
        /// Path of the directory or file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The content is too long, so a reader would cut it.
    #[error("{} would hold {length} bytes, more than {most}", path.display())]
    TooLong {
        /// Path of the file.
        path: PathBuf,
        /// Length of the content, bytes.
        length: usize,
        /// Longest allowed content, bytes.
        most: usize,
    },
}

/// Returns the length limit of the file with this suffix, bytes. `.env` may be longer, because it comes from the loop and
/// holds a whole JIT config.
pub(crate) fn bytes_max(suffix: Suffix) -> usize {
    if suffix == Suffix::Env { dayfly_guest::envfile::LENGTH_MAX } else { NOTE_LENGTH_MAX }
}

/// The files of one runner in a loop's environment directory.
#[derive(Debug)]
pub struct EnvironmentDir {
    path: PathBuf,
    folder: OwnedFd,
    id: String,
    watch: FolderWatch,
}

impl EnvironmentDir {
    /// Opens an existing directory for the files of the runner `id`.
    ///
    /// # Errors
    /// The path is not a directory, or it cannot be opened or watched.
    pub fn open(path: &Path, id: &str) -> Result<Self, EnvironmentError> {
        let failed =
            |what| move |source: io::Error| EnvironmentError::Io { what, path: path.to_owned(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())
            .map_err(io::Error::from)
            .map_err(failed("open the environment directory"))?;
        check_owner(&folder).map_err(failed("use the environment directory"))?;
        let watch = FolderWatch::new(path).map_err(failed("watch the environment directory"))?;
        Ok(Self { path: path.to_owned(), folder, id: id.to_owned(), watch })
    }

    /// Makes [`EnvironmentDir::changed`] report removed files too, because an entrypoint that shares the directory shows by
    /// a removal that it runs.
    ///
    /// # Errors
    /// The directory cannot be watched.
    pub(crate) fn watch_removals(&self) -> Result<(), EnvironmentError> {
        self.watch.watch_removals(&self.path).map_err(|source| {
            let what = "watch the environment directory";
            EnvironmentError::Io { what, path: self.path.clone(), source }
        })
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of this runner's file with a suffix.
    fn name(&self, suffix: Suffix) -> String {
        file_name(&self.id, suffix)
    }

    fn failed(&self, what: &'static str, suffix: Suffix) -> impl FnOnce(io::Error) -> EnvironmentError {
        let path = self.path.join(self.name(suffix));
        move |source| EnvironmentError::Io { what, path, source }
    }

    /// Returns the content of the file with this suffix; none if there is no such regular file. Content beyond the length
    /// limit is cut, and bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// The file exists but cannot be read.
    pub fn read(&self, suffix: Suffix) -> Result<Option<String>, EnvironmentError> {
        self.read_file(suffix).map_err(self.failed("read", suffix))
    }

    fn read_file(&self, suffix: Suffix) -> io::Result<Option<String>> {
        // Non-blocking, so that opening a FIFO does not wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.folder, self.name(suffix), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // The file is missing, a link, or a socket.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(bytes_max(suffix) as u64).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Reads the file with this suffix and removes it.
    ///
    /// # Errors
    /// The file exists but cannot be read or removed.
    pub fn take(&self, suffix: Suffix) -> Result<Option<String>, EnvironmentError> {
        let content = self.read(suffix)?;
        if content.is_some() {
            self.remove(suffix)?;
        }
        Ok(content)
    }

    /// Writes the file with this suffix, readable by its owner only. A failure leaves the old file unchanged.
    ///
    /// # Errors
    /// The disk is full, the directory is not writable, or the content is longer than the limit.
    pub fn write(&self, suffix: Suffix, content: &str) -> Result<(), EnvironmentError> {
        let most = bytes_max(suffix);
        if content.len() > most {
            let path = self.path.join(self.name(suffix));
            return Err(EnvironmentError::TooLong { path, length: content.len(), most });
        }
        self.write_file(suffix, content).map_err(self.failed("write", suffix))
    }

    fn write_file(&self, suffix: Suffix, content: &str) -> io::Result<()> {
        let name = self.name(suffix);
        let new = format!(".{name}.new");
        remove_if_there(&self.folder, &new)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.folder, &new, flags, Mode::RUSR | Mode::WUSR)?);
        let written = file
            .write_all(content.as_bytes())
            .and_then(|()| Ok(rustix::fs::renameat(&self.folder, &new, &self.folder, &name)?));
        if written.is_err() {
            let _ = remove_if_there(&self.folder, &new);
        }
        written
    }

    /// Removes the file with this suffix. A missing file is not an error.
    ///
    /// # Errors
    /// The file exists but cannot be removed.
    pub fn remove(&self, suffix: Suffix) -> Result<(), EnvironmentError> {
        remove_if_there(&self.folder, &self.name(suffix)).map_err(self.failed("remove", suffix))
    }

    /// Removes all files of this runner.
    ///
    /// # Errors
    /// A file cannot be removed. The others are removed nevertheless.
    pub fn clear(&self) -> Result<(), EnvironmentError> {
        Suffix::ALL.into_iter().map(|suffix| self.remove(suffix)).fold(Ok(()), Result::and)
    }

    /// Waits until something in the directory has changed since the last call (or since it was opened). Cancel-safe. It may
    /// also return if no file of this runner changed.
    pub async fn changed(&self) {
        self.watch.changed().await;
    }
}

fn remove_if_there(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        // A directory has this name, which this crate did not create. It is removed only if it is empty.
        Err(rustix::io::Errno::ISDIR) => Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?),
        Err(error) => Err(error.into()),
    }
}

/// Refuses a directory that another user owns or can write to: who can put files into it can stop runners, and reads the
/// secrets of those drivers that share the directory.
fn check_owner(folder: &OwnedFd) -> io::Result<()> {
    let found = rustix::fs::fstat(folder)?;
    let own = rustix::process::geteuid();
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if found.st_uid != own.as_raw() {
        return refused(format!("it belongs to the user {}, and not to {}", found.st_uid, own.as_raw()));
    }
    let mode = found.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return refused(format!("its mode {mode:04o} lets other users write to it; chmod go-w it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    fn open(folder: &tempfile::TempDir) -> EnvironmentDir {
        EnvironmentDir::open(folder.path(), "0-abc").expect("open")
    }

    #[tokio::test]
    async fn files_are_private_whole_and_gone_once_taken() {
        let folder = tempfile::tempdir().expect("folder");
        let dir = open(&folder);
        assert_eq!(dir.read(Suffix::Tkn).expect("read"), None);
        dir.write(Suffix::Env, "A=1\n").expect("write");
        dir.write(Suffix::Env, "A=2\n").expect("write again");
        let path = folder.path().join("0-abc.env");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(dir.take(Suffix::Env).expect("take").as_deref(), Some("A=2\n"));
        assert_eq!(dir.take(Suffix::Env).expect("take"), None);
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
        assert!(matches!(
            dir.write(Suffix::Trm, &"x".repeat(4097)),
            Err(EnvironmentError::TooLong { length: 4097, .. })
        ));
        // A JIT config is longer than a note.
        dir.write(Suffix::Env, &"x".repeat(4097)).expect("write");
        assert_eq!(dir.take(Suffix::Env).expect("take").map(|text| text.len()), Some(4097));
    }

    #[tokio::test]
    async fn a_directory_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        for (mode, is_good) in [(0o700, true), (0o755, true), (0o775, false), (0o1777, false)] {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).expect("mode");
            let opened = EnvironmentDir::open(folder.path(), "0-abc");
            assert_eq!(opened.is_ok(), is_good, "{mode:o}");
            if let Err(EnvironmentError::Io { source, .. }) = opened {
                assert!(source.to_string().contains(&format!("its mode {mode:04o}")), "{source}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_not_there() {
        let folder = tempfile::tempdir().expect("folder");
        let dir = open(&folder);
        let path = folder.path().join("0-abc.tkn");
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("link");
        assert_eq!(dir.take(Suffix::Tkn).expect("link"), None);
        dir.remove(Suffix::Tkn).expect("remove the link");
        assert!(Path::new("/etc/passwd").exists());
        let _socket = std::os::unix::net::UnixListener::bind(&path).expect("socket");
        assert_eq!(dir.read(Suffix::Tkn).expect("socket"), None);
        dir.remove(Suffix::Tkn).expect("remove");
        std::fs::create_dir(&path).expect("directory");
        assert_eq!(dir.read(Suffix::Tkn).expect("directory"), None);
        dir.clear().expect("removes an empty directory");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success());
        assert_eq!(dir.read(Suffix::Tkn).expect("fifo without a writer"), None);
        dir.clear().expect("clear");
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
    }

    #[tokio::test]
    async fn of_a_file_of_one_gibibyte_four_kibibytes_are_read() {
        let folder = tempfile::tempdir().expect("folder");
        let file = File::create(folder.path().join("0-abc.brk")).expect("file");
        file.set_len(1 << 30).expect("sparse");
        assert_eq!(open(&folder).read(Suffix::Brk).expect("read").map(|text| text.len()), Some(4096));
    }

    #[tokio::test]
    async fn a_link_instead_of_the_directory_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).expect("link");
        assert!(EnvironmentDir::open(&link, "x").is_err());
    }

    #[tokio::test]
    async fn a_directory_of_another_user_or_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let refusal = || EnvironmentDir::open(folder.path(), "x").map(|_| ()).map_err(error_text);
        let set = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode));
        for mode in [0o770, 0o702, 0o1777] {
            set(mode).expect("mode");
            let text = refusal().expect_err("refused");
            assert!(text.contains(&format!("its mode {mode:04o} lets other users write to it")), "{text}");
        }
        set(0o755).expect("mode");
        refusal().expect("its owner alone writes to it");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(12345), None).expect("owner");
            let text = refusal().expect_err("refused");
            assert!(text.contains("it belongs to the user 12345, and not to 0"), "{text}");
        }
    }

    /// Returns an error with its causes.
    fn error_text(error: EnvironmentError) -> String {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            text += &format!(": {next}");
            cause = next.source();
        }
        text
    }

    #[tokio::test]
    async fn a_change_between_two_looks_is_not_missed() {
        let folder = tempfile::tempdir().expect("folder");
        let dir = open(&folder);
        let soon = Duration::from_millis(30);
        assert!(tokio::time::timeout(soon, dir.changed()).await.is_err());
        std::fs::write(folder.path().join("0-abc.tkn"), "x").expect("write");
        tokio::time::timeout(Duration::from_secs(5), dir.changed()).await.expect("told");
        assert_eq!(dir.take(Suffix::Tkn).expect("take").as_deref(), Some("x"));
        // The file is created, then written: the second event may end one more wait, but not a third one.
        let told_again = tokio::time::timeout(soon, dir.changed()).await.is_ok();
        assert!(!told_again || tokio::time::timeout(soon, dir.changed()).await.is_err());
    }
}

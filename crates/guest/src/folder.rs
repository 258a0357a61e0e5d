//! A folder on disk to which jobs may write, above all the environment directory. Its files are read and written without
//! following links.

use dayfly_guest::environment::NOTE_LENGTH_MAX;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most entries of a folder that [`Folder::newest`] looks at.
const ENTRIES_MAX: usize = 10_000;

/// An open folder. Files are looked up in this folder even if its path changes.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

/// An error with a file of the folder.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub(crate) struct FolderError {
    path: PathBuf,
    problem: Problem,
}

impl FolderError {
    /// Returns true if there is no such file.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(&self.problem, Problem::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Io(io::Error),
    #[error("not a regular file")]
    NotAFile,
    #[error("a file with more than one name")]
    TwoNames,
    #[error("longer than {0} bytes")]
    TooLong(usize),
}

impl From<Errno> for Problem {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Folder {
    /// Opens an existing folder.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { path: path.to_owned(), fd }),
            Err(errno) => Err(FolderError { path: path.to_owned(), problem: errno.into() }),
        }
    }

    fn with<T>(&self, name: &str, result: Result<T, Problem>) -> Result<T, FolderError> {
        result.map_err(|problem| FolderError { path: self.path.join(name), problem })
    }

    /// Reads a regular file of at most `length_max` bytes. Never follows a link and never blocks (on a FIFO).
    pub(crate) fn read(&self, name: &str, length_max: usize) -> Result<String, FolderError> {
        self.with(name, self.try_read(name, length_max))
    }

    fn try_read(&self, name: &str, length_max: usize) -> Result<String, Problem> {
        let mut content = Vec::new();
        File::from(self.open_regular(name)?).take(length_max as u64 + 1).read_to_end(&mut content)?;
        if content.len() > length_max {
            return Err(Problem::TooLong(length_max));
        }
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Opens a folder in this folder. Never follows a link.
    pub(crate) fn inner(&self, name: &str) -> Result<Self, FolderError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty());
        Ok(Self { fd: self.with(name, fd.map_err(Problem::from))?, path: self.path.join(name) })
    }

    /// Returns the name of the regular file that was written last, of those that `is_meant` accepts. Looks at
    /// [`ENTRIES_MAX`] entries at most.
    pub(crate) fn newest(&self, is_meant: impl Fn(&str) -> bool) -> Result<Option<String>, FolderError> {
        self.with("", self.try_newest(is_meant))
    }

    fn try_newest(&self, is_meant: impl Fn(&str) -> bool) -> Result<Option<String>, Problem> {
        let mut newest = None;
        for entry in Dir::read_from(&self.fd)?.take(ENTRIES_MAX) {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !is_meant(&name) {
                continue;
            }
            // A file that was removed meanwhile is skipped.
            let Ok(stat) = rustix::fs::statat(&self.fd, &*name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                newest = newest.max(Some((stat.st_mtime, stat.st_mtime_nsec, name)));
            }
        }
        Ok(newest.map(|(_, _, name)| name))
    }

    /// Reads the last `length_max` bytes of a regular file, and returns them with true if they are the whole file. Like
    /// [`Folder::read`], it never follows a link and never blocks. A file with a second name is refused, because a job
    /// may have linked another user's file into the folder.
    pub(crate) fn read_end(&self, name: &str, length_max: usize) -> Result<(Vec<u8>, bool), FolderError> {
        self.with(name, self.try_read_end(name, length_max))
    }

    fn try_read_end(&self, name: &str, length_max: usize) -> Result<(Vec<u8>, bool), Problem> {
        let fd = self.open_regular(name)?;
        let stat = rustix::fs::fstat(&fd)?;
        if stat.st_nlink != 1 {
            return Err(Problem::TwoNames);
        }
        let start = stat.st_size.unsigned_abs().saturating_sub(length_max as u64);
        let (mut file, mut content) = (File::from(fd), Vec::new());
        file.seek(SeekFrom::Start(start))?;
        file.take(length_max as u64).read_to_end(&mut content)?;
        Ok((content, start == 0))
    }

    /// Opens a regular file for reading. Never follows a link and never blocks.
    fn open_regular(&self, name: &str) -> Result<OwnedFd, Problem> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(fd),
            _ => Err(Problem::NotAFile),
        }
    }

    /// Reads a note: like [`Folder::read`], bounded by [`NOTE_LENGTH_MAX`].
    pub(crate) fn read_note(&self, name: &str) -> Result<String, FolderError> {
        self.read(name, NOTE_LENGTH_MAX)
    }

    /// Writes a file that only its owner can read. It has another name until it is complete, so that it appears whole or not
    /// at all.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<(), FolderError> {
        self.with(name, self.try_write(name, content))
    }

    fn try_write(&self, name: &str, content: &str) -> Result<(), Problem> {
        self.write_draft(name, content, |_| Ok(()))
    }

    /// Replaces a regular file like [`Folder::write`], with the owner and the access rights of the old file.
    pub(crate) fn replace(&self, name: &str, content: &str) -> Result<(), FolderError> {
        self.with(name, self.try_replace(name, content))
    }

    fn try_replace(&self, name: &str, content: &str) -> Result<(), Problem> {
        let old = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(old.st_mode) != FileType::RegularFile {
            return Err(Problem::NotAFile);
        }
        self.write_draft(name, content, |draft| {
            rustix::fs::fchown(draft, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)))?;
            Ok(rustix::fs::fchmod(draft, Mode::from_raw_mode(old.st_mode & 0o777))?)
        })
    }

    /// Writes a file under another name, completes it with `finish`, and renames it. Leaves nothing if that fails.
    fn write_draft(
        &self,
        name: &str,
        content: &str,
        finish: impl FnOnce(&File) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let draft = format!(".{name}.draft");
        self.try_remove(&draft)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, &draft, flags, Mode::RUSR | Mode::WUSR)?;
        // The file is closed before the rename, so that a watch sees its last name last.
        let complete = |mut file: File| -> Result<(), Problem> {
            file.write_all(content.as_bytes())?;
            finish(&file)
        };
        let renamed =
            complete(fd.into()).and_then(|()| Ok(rustix::fs::renameat(&self.fd, &draft, &self.fd, name)?));
        if renamed.is_err() {
            let _ = self.try_remove(&draft);
        }
        renamed
    }

    /// Removes a file. A file that does not exist is no error.
    pub(crate) fn remove(&self, name: &str) -> Result<(), FolderError> {
        self.with(name, self.try_remove(name))
    }

    fn try_remove(&self, name: &str) -> Result<(), Problem> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Starts to watch the folder. [`Watch::for_each`] sees every file that is written from now on.
    pub(crate) fn watch(&self) -> Result<Watch, FolderError> {
        self.with("", self.try_watch())
    }

    fn try_watch(&self) -> Result<Watch, Problem> {
        match inotify::init(CreateFlags::CLOEXEC) {
            Ok(fd) => {
                inotify::add_watch(&fd, &self.path, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO)?;
                Ok(Watch::Told(fd))
            }
            // A user usually has 128 inotify instances. If more entrypoints run as processes of one host, the others poll.
            Err(Errno::MFILE) => self.look(),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Watches by polling.
    fn look(&self) -> Result<Watch, Problem> {
        let folder = rustix::fs::openat(&self.fd, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let seen = look_at(&folder)?;
        Ok(Watch::Looking { folder, seen })
    }
}

/// Shortest interval at which a folder without inotify is polled: that after a change.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Longest interval. It doubles with each poll that finds no change, because a thousand runners that wait on one host would
/// otherwise use a third of two processors.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// Most files that are polled. A runner has four.
const FILES_MAX: usize = 1024;

/// The state of a file in one poll: inode number, length, and time of the last write (seconds, nanoseconds).
type Look = (u64, i64, i64, u64);

fn look_at(folder: &OwnedFd) -> rustix::io::Result<HashMap<String, Look>> {
    let mut seen = HashMap::new();
    for entry in Dir::read_from(folder)?.take(FILES_MAX) {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        // A file that was removed meanwhile is skipped.
        if let Ok(stat) = rustix::fs::statat(folder, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            seen.insert(name, (stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec));
        }
    }
    Ok(seen)
}

/// A watch for files that are written to a folder.
#[derive(Debug)]
pub(crate) enum Watch {
    /// The kernel reports their names.
    Told(OwnedFd),
    /// They are found by polling.
    Looking {
        /// The folder.
        folder: OwnedFd,
        /// The files of the last poll.
        seen: HashMap<String, Look>,
    },
}

impl Watch {
    /// Calls `each` with the name of every file that is written or moved into the folder. Returns only on an error.
    /// An empty name means that some files were missed, so that the caller must read all of them.
    pub(crate) fn for_each(self, each: impl FnMut(&str)) -> io::Error {
        match self {
            Self::Told(fd) => Self::listen(&fd, each),
            Self::Looking { folder, seen } => Self::look_on(&folder, seen, each),
        }
    }

    fn listen(fd: &OwnedFd, mut each: impl FnMut(&str)) -> io::Error {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => each(""),
                Ok(event) => each(&event.file_name().map(|name| name.to_string_lossy()).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(errno) => return errno.into(),
            }
        }
    }

    fn look_on(folder: &OwnedFd, mut seen: HashMap<String, Look>, mut each: impl FnMut(&str)) -> io::Error {
        let mut pause = LOOK_AGAIN;
        loop {
            std::thread::sleep(pause);
            let now = match look_at(folder) {
                Ok(now) => now,
                Err(errno) => return errno.into(),
            };
            pause = if now == seen { LOOK_AGAIN_MAX.min(pause * 2) } else { LOOK_AGAIN };
            now.iter().filter(|(name, look)| seen.get(*name) != Some(look)).for_each(|(name, _)| each(name));
            seen = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let directory = tempfile::tempdir().expect("temporary folder");
        let folder = Folder::open(directory.path()).expect("just made");
        (directory, folder)
    }

    #[test]
    fn what_was_written_is_read_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let (directory, folder) = folder();
        folder.write("1.tkn", "old").expect("first");
        folder.write("1.tkn", "new").expect("over the first");
        assert_eq!(folder.read_note("1.tkn").expect("there"), "new");
        let mode = std::fs::metadata(directory.path().join("1.tkn")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        folder.remove("1.tkn").expect("there");
        folder.remove("1.tkn").expect("not there is no error");
        assert!(folder.read_note("1.tkn").expect_err("gone").is_absent());
        assert_eq!(std::fs::read_dir(directory.path()).expect("folder").count(), 0);
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode_and_a_link_is_not_replaced() {
        use std::os::unix::fs::PermissionsExt as _;
        let (directory, folder) = folder();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "old").expect("file");
        std::fs::set_permissions(path("file"), std::fs::Permissions::from_mode(0o640)).expect("changed");
        folder.replace("file", "new").expect("replaced");
        assert_eq!(folder.read_note("file").expect("there"), "new");
        let mode = std::fs::metadata(path("file")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        std::os::unix::fs::symlink("file", path("link")).expect("link");
        assert!(folder.replace("link", "x").expect_err("a link").to_string().contains("not a regular file"));
        assert!(folder.replace("absent", "x").expect_err("nothing").is_absent());
        assert_eq!(std::fs::read_dir(directory.path()).expect("folder").count(), 2, "no draft is left");
    }

    #[test]
    fn links_fifos_folders_and_long_files_are_refused() {
        let (directory, folder) = folder();
        let path = |name: &str| directory.path().join(name);
        std::os::unix::fs::symlink("/etc/passwd", path("1.tkn")).expect("link");
        rustix::fs::mknodat(rustix::fs::CWD, path("2.tkn"), FileType::Fifo, Mode::RUSR, 0).expect("fifo");
        std::fs::create_dir(path("3.tkn")).expect("folder");
        std::fs::write(path("4.tkn"), "x".repeat(NOTE_LENGTH_MAX + 1)).expect("file");
        for (name, problem) in [
            ("1.tkn", "Too many levels of symbolic links"),
            ("2.tkn", "not a regular file"),
            ("3.tkn", "not a regular file"),
            ("4.tkn", "longer than 4096 bytes"),
        ] {
            let error = folder.read_note(name).expect_err(name).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn the_newest_file_is_found_among_links_folders_and_others() {
        let (directory, folder) = folder();
        assert_eq!(folder.newest(|_| true).expect("empty"), None);
        let path = |name: &str| directory.path().join(name);
        for (name, age_s) in [("a-3", 30), ("a-1", 10), ("a-2", 20), ("b", 1)] {
            let file = File::create(path(name)).expect("file");
            let at = std::time::SystemTime::now() - Duration::from_secs(age_s);
            file.set_modified(at).expect("time");
        }
        std::os::unix::fs::symlink("b", path("a-4")).expect("link");
        std::fs::create_dir(path("a-5")).expect("folder");
        let newest = folder.newest(|name| name.starts_with("a-")).expect("a folder");
        assert_eq!(newest.as_deref(), Some("a-1"));
    }

    #[test]
    fn the_end_of_a_file_is_read_and_of_nothing_else() {
        let (directory, folder) = folder();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("log"), "0123456789").expect("file");
        assert_eq!(folder.read_end("log", 4).expect("there"), (b"6789".to_vec(), false));
        assert_eq!(folder.read_end("log", 10).expect("there"), (b"0123456789".to_vec(), true));
        std::fs::write(path("other"), "x").expect("file");
        std::fs::hard_link(path("other"), path("linked")).expect("link");
        std::os::unix::fs::symlink("log", path("link")).expect("link");
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("fifo");
        for (name, problem) in [
            ("linked", "a file with more than one name"),
            ("link", "Too many levels of symbolic links"),
            ("fifo", "not a regular file"),
            ("..", "not a regular file"),
        ] {
            let error = folder.read_end(name, 4).expect_err(name).to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_link_is_no_inner_folder() {
        let (directory, folder) = folder();
        std::fs::create_dir(directory.path().join("real")).expect("folder");
        std::os::unix::fs::symlink("real", directory.path().join("link")).expect("link");
        std::fs::write(directory.path().join("real/log"), "x").expect("file");
        let inner = folder.inner("real").expect("a folder");
        assert_eq!(inner.newest(|_| true).expect("a folder").as_deref(), Some("log"));
        assert!(folder.inner("link").is_err() && folder.inner("none").expect_err("none").is_absent());
    }

    #[test]
    fn a_watch_sees_files_that_are_written_and_moved_in() {
        let (directory, folder) = folder();
        let watch = folder.watch().expect("inotify");
        std::fs::write(directory.path().join("a"), "1").expect("write");
        folder.write("b", "2").expect("write");
        let (sender, names) = std::sync::mpsc::channel();
        std::thread::spawn(move || watch.for_each(|name| sender.send(name.to_owned()).unwrap_or_default()));
        let seen: Vec<_> = names.iter().take(3).collect();
        assert_eq!(seen, ["a", ".b.draft", "b"]);
    }

    #[test]
    fn without_a_word_from_the_kernel_files_are_found_by_looking() {
        let (directory, folder) = folder();
        folder.write("old", "1").expect("write");
        let watch = folder.look().expect("a look");
        folder.write("a", "1").expect("write");
        let (sender, names) = std::sync::mpsc::channel();
        std::thread::spawn(move || watch.for_each(|name| sender.send(name.to_owned()).unwrap_or_default()));
        assert_eq!(names.recv().expect("the new one"), "a");
        std::fs::write(directory.path().join("a"), "22").expect("write");
        assert_eq!(names.recv().expect("written again"), "a");
    }
}

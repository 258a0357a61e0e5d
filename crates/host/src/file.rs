//! Replaces a small file in one step, so that a reader finds the old content or the new one, never half of either.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Replaces the content of a file, or creates the file, with mode 0600.
///
/// The content survives the end of this process, but a power cut may bring the old content back, because nothing is
/// flushed to the disk. That is right for caches, counts and snapshots; see [`replace_durably`] for the rest.
///
/// # Errors
/// No space, or no right to write into the folder. The old content is untouched then, and no other file is left.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, content, Flush::Never)
}

/// Replaces the content of a file like [`replace`], and returns only after the content and the name are on the disk.
///
/// # Errors
/// As for [`replace`].
pub fn replace_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, content, Flush::BeforeReturn)
}

/// Says what happens to a file that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced.
    Replace,
    /// It stays, and writing is an error.
    Keep,
}

/// Creates a file that every user may read (mode 0644, whatever the umask is), or replaces it, like [`replace_durably`].
///
/// # Errors
/// As for [`replace`]; and [`io::ErrorKind::AlreadyExists`] if the file exists and has to stay, even if another process has
/// just created it.
pub fn publish(path: &Path, content: &[u8], existing: Existing) -> io::Result<()> {
    let new = new_name(path);
    let written = write_new(&new, content, Flush::BeforeReturn)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(0o644)));
    let published = written.and_then(|()| match existing {
        Existing::Replace => fs::rename(&new, path),
        // A link, unlike a rename, never replaces anything.
        Existing::Keep => fs::hard_link(&new, path),
    });
    if published.is_err() || existing == Existing::Keep {
        let _ = fs::remove_file(&new);
    }
    published?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Creates a file with mode 0600, and returns after the content and the name are on the disk.
///
/// # Errors
/// As for [`replace`]; and [`io::ErrorKind::AlreadyExists`] if the file exists, even if another process has just created it.
pub fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = new_name(path);
    // A link, unlike a rename, never replaces anything.
    let created = write_new(&new, content, Flush::BeforeReturn).and_then(|()| fs::hard_link(&new, path));
    let _ = fs::remove_file(&new);
    created?;
    path.parent().map_or(Ok(()), sync_folder)
}

#[derive(Clone, Copy, PartialEq)]
enum Flush {
    Never,
    BeforeReturn,
}

fn replace_with(path: &Path, content: &[u8], flush: Flush) -> io::Result<()> {
    let new = new_name(path);
    let replaced = write_new(&new, content, flush).and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        // A full disk leaves half a file, and no later replacement would use its name again.
        let _ = fs::remove_file(&new);
    }
    replaced?;
    match path.parent() {
        Some(folder) if flush == Flush::BeforeReturn => sync_folder(folder),
        _ => Ok(()),
    }
}

fn write_new(new: &Path, content: &[u8], flush: Flush) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
    file.write_all(content)?;
    match flush {
        Flush::Never => Ok(()),
        Flush::BeforeReturn => file.sync_all(),
    }
}

/// Flushes the names in a folder to the disk. An empty path is the current folder.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// Returns a name beside `path` that no other writer uses: neither one in this process nor one in another.
fn new_name(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.new", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).expect("read").map(|entry| entry.expect("entry").file_name());
        names.map(|name| name.into_string().expect("plain")).collect()
    }

    #[test]
    fn a_file_is_created_and_replaced_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("counts.json");
        replace(&path, b"one").expect("create");
        replace_durably(&path, b"two").expect("replace");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["counts.json"]);
    }

    #[test]
    fn a_published_file_is_for_everyone_and_is_replaced_only_if_it_may_be() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("dayfly.toml");
        publish(&path, b"one", Existing::Keep).expect("create");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o644);
        let refusal = publish(&path, b"two", Existing::Keep).expect_err("it is there");
        assert_eq!(refusal.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("read"), b"one");
        publish(&path, b"two", Existing::Replace).expect("replace");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(names(folder.path()), ["dayfly.toml"]);
    }

    #[test]
    fn a_private_file_is_its_owners_alone_and_replaces_none() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("app.pem");
        create_private(&path, b"one").expect("create");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let refusal = create_private(&path, b"two").expect_err("it is there");
        assert_eq!(refusal.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            (fs::read(&path).expect("read"), names(folder.path())),
            (b"one".to_vec(), vec!["app.pem".to_owned()])
        );
    }

    #[test]
    fn a_failure_leaves_the_old_content_and_no_other_file() {
        let folder = tempfile::tempdir().expect("folder");
        // A folder cannot be replaced by a file, so the rename fails after the new file was written.
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("full")).expect("folder");
        replace(&path, b"new").expect_err("taken");
        replace_durably(&path, b"new").expect_err("taken");
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn writers_at_the_same_time_never_mix_their_content() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("shared");
        let path = &path;
        std::thread::scope(|scope| {
            for letter in [b'a', b'b', b'c', b'd'] {
                scope.spawn(move || (0..50).for_each(|_| replace(path, &[letter; 4096]).expect("replace")));
            }
        });
        let content = fs::read(path).expect("read");
        assert!(content.len() == 4096 && content.iter().all(|byte| *byte == content[0]));
        assert_eq!(names(folder.path()), ["shared"]);
    }
}

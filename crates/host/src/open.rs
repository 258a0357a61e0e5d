//! Opens files that others may have put there: no FIFO is waited for, and no link leads elsewhere.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Opens a regular file for reading. A FIFO does not block the caller.
///
/// # Errors
/// The file cannot be opened, or is not regular.
pub fn regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    check(OpenOptions::new().read(true).custom_flags(flags).open(path)?)
}

/// Opens a regular file below a folder for reading. Links may lead to other files below the folder.
///
/// # Errors
/// The file cannot be opened, is not regular, or a link leads out of the folder.
pub fn regular_below(folder: &Path, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let base: OwnedFd =
        openat2(CWD, folder, flags | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::empty())?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(&base, name, flags, Mode::empty(), beneath) {
        Ok(file) => check(file.into()),
        Err(Errno::XDEV) => Err(io::Error::other(
            "a link leads out of the folder; copy the folder with `cp -rL` to have its files",
        )),
        Err(error) => Err(error.into()),
    }
}

fn check(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_regular_files_below_the_folder_are_opened() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("blobs")).expect("folder");
        std::fs::write(path("blobs/file"), "content").expect("written");
        symlink("../blobs/file", path("blobs/inside")).expect("link");
        symlink("/etc/passwd", path("blobs/absolute")).expect("link");
        symlink("../../../../../../etc/passwd", path("blobs/relative")).expect("link");
        symlink("/etc", path("etc")).expect("link");
        rustix::fs::mknodat(CWD, path("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .expect("a FIFO");
        for name in ["blobs/file", "blobs/inside"] {
            let mut text = String::new();
            regular_below(folder.path(), name).expect(name).read_to_string(&mut text).expect("read");
            assert_eq!(text, "content");
        }
        for (name, why) in [
            ("blobs/absolute", "leads out of the folder"),
            ("blobs/relative", "leads out of the folder"),
            ("etc/passwd", "leads out of the folder"),
            ("../x", "leads out of the folder"),
            ("fifo", "no regular file"),
            ("blobs", "no regular file"),
            ("missing", "No such file"),
        ] {
            let error = regular_below(folder.path(), name).expect_err(name).to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        assert!(regular(&path("fifo")).expect_err("a FIFO").to_string().contains("no regular file"));
        regular(&path("blobs/file")).expect("opened");
    }
}

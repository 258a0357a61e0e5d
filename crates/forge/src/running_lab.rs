//! Checks that the files which a lab names belong to a lab that runs on this host. See [`crate::proof`].

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use thiserror::Error;

use crate::proof::{LOCK_FILE, is_token};

const TOKEN_BYTES_MAX: u64 = 256;

/// Reasons why a lab's proof is rejected. They are only logged, because a lab without a valid proof is treated like any
/// other forge.
#[derive(Debug, Error)]
pub(super) enum Disbelief {
    #[error("{path:?} is not the absolute path of a file named \"{}\"", crate::proof::TOKEN_FILE)]
    Path { path: String },
    #[error("{} cannot be opened", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not a private file of this user or root (mode {mode:o}, owner {owner})", path.display())]
    NotPrivate { path: PathBuf, mode: u32, owner: u32 },
    #[error("{} holds no token of a lab", path.display())]
    NoToken { path: PathBuf },
    #[error("no running lab holds {}", path.display())]
    NotRunning { path: PathBuf },
    #[error("its MAC was computed with another token or for another connection")]
    WrongMac,
}

/// Returns the token in the file of a lab that runs on this host. Reads files, so it may block.
pub(super) fn token_of_running_lab(path: &str) -> Result<String, Disbelief> {
    let named = || Disbelief::Path { path: path.chars().take(200).collect() };
    let path = Path::new(path);
    if !path.is_absolute() || path.file_name().is_none_or(|name| name != crate::proof::TOKEN_FILE) {
        return Err(named());
    }
    let mut text = String::new();
    let read = open_private(path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text);
    let token = text.trim();
    if read.is_err() || !is_token(token) {
        return Err(Disbelief::NoToken { path: path.to_owned() });
    }
    let lock_path = path.with_file_name(LOCK_FILE);
    let lock = open_private(&lock_path)?;
    // The kernel releases a lock when its holder exits, so a held lock means that the lab runs. The attempt is for a
    // shared lock, so that two askers do not mistake each other for a lab.
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(token.to_owned()),
        _ => Err(Disbelief::NotRunning { path: lock_path }),
    }
}

/// Opens a file whose path comes from an untrusted peer. The file is inspected before it is opened, because opening a
/// device or a FIFO may have an effect or block.
fn open_private(path: &Path) -> Result<File, Disbelief> {
    let failed = |error: rustix::io::Errno| Disbelief::Open { path: path.to_owned(), source: error.into() };
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::open(path, look, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&place).map_err(failed)?;
    if !is_private(stat.st_mode, stat.st_uid, rustix::process::geteuid().as_raw()) {
        return Err(Disbelief::NotPrivate { path: path.to_owned(), mode: stat.st_mode, owner: stat.st_uid });
    }
    let same = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place));
    let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(same, read, Mode::empty()).map(File::from).map_err(failed)
}

/// Returns true for a regular file of mode 0600 that belongs to `user` or root.
fn is_private(mode: u32, owner: u32, user: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::RegularFile
        && mode & 0o7777 == 0o600
        && (owner == user || owner == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_private_when_only_this_user_or_root_can_have_written_it() {
        const REGULAR: u32 = 0o100_600;
        assert!(is_private(REGULAR, 1000, 1000) && is_private(REGULAR, 0, 1000));
        assert!(!is_private(REGULAR, 1001, 1000) && !is_private(REGULAR, 1000, 0));
        for mode in [0o100_644, 0o100_640, 0o100_604, 0o100_400, 0o104_600, 0o040_600, 0o010_600, 0o120_600] {
            assert!(!is_private(mode, 0, 0), "{mode:o}");
        }
    }
}

//! Opens the destination of log lines that `-l` names: a descriptor that is open already, or a file.
#![expect(
    unsafe_code,
    reason = "a descriptor that the parent of this process has opened can only be named by number"
)]

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// Opens a descriptor's number, or a path to append to. Call it before anything else opens a file, so that a number
/// means the same descriptor as when this process started.
pub(crate) fn open(to: &str) -> io::Result<File> {
    match to.parse::<RawFd>() {
        Ok(number) if number >= 0 => {
            // SAFETY: this process has not opened any descriptor itself yet, and if the number is not open, the copy
            // below fails.
            let given = unsafe { BorrowedFd::borrow_raw(number) };
            Ok(given.try_clone_to_owned()?.into())
        }
        _ => File::options().append(true).create(true).mode(0o600).open(to),
    }
}

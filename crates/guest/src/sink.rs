//! Where lines go that a `-l` names: a descriptor that is open already, or a file.
#![expect(
    unsafe_code,
    reason = "a descriptor that whoever started this process has opened can only be named by number"
)]

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// A descriptor's number, or a path that is appended to. Call it before anything else opens a file, so that a number
/// means what it did when this process started.
pub(crate) fn open(to: &str) -> io::Result<File> {
    match to.parse::<RawFd>() {
        Ok(number) if number >= 0 => {
            // SAFETY: no descriptor of this process's own has been opened yet, and a number that is not open is an
            // error of the copy that is made here.
            let given = unsafe { BorrowedFd::borrow_raw(number) };
            Ok(given.try_clone_to_owned()?.into())
        }
        _ => File::options().append(true).create(true).mode(0o600).open(to),
    }
}

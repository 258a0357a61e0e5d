//! The FIFO at which an app waits.

use super::StandbyError;
use crate::entrypoint::app::{self, AppError, at};
use crate::entrypoint::process;
use crate::entrypoint::user::Account;
use crate::processes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::time::Timespec;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Pause between two looks for a reader.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Longest time that an app may leave a full FIFO unread.
const WRITE_MAX: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Makes a FIFO that only the app's user can open.
pub(super) fn make(path: &Path, account: Option<&Account>) -> Result<(), AppError> {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|errno| at("cannot make", path)(errno.into()))?;
    app::give(path, account)
}

/// Waits until the app, or a process that it has started, has opened the FIFO to read it, until `end` at most. Returns the
/// other end.
///
/// From then on the app waits: a read returns only when something is written to the returned end or when that is closed,
/// and no other process has it.
pub(super) fn wait_for_reader(
    path: &Path,
    program: &Path,
    app: Pid,
    end: Instant,
) -> Result<File, StandbyError> {
    let mut writer = None;
    loop {
        if writer.is_none() {
            writer = open(path).map_err(at("cannot open", path))?;
        }
        if let Some(open) = writer.take_if(|open| is_open_in(app, open)) {
            return Ok(open);
        }
        if process::has_ended(app) {
            return Err(StandbyError::Ended(program.to_owned()));
        }
        if Instant::now() >= end {
            return Err(StandbyError::Late(program.to_owned()));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Opens a FIFO for writing. Returns `None` if no process opens it for reading.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fifo) => Ok(Some(fifo.into())),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns true if a process or one of its descendants has opened the same file.
fn is_open_in(app: Pid, file: &File) -> bool {
    let Ok(wanted) = file.metadata() else { return false };
    processes::with_descendants(app).into_iter().any(|pid| {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
        descriptors.into_iter().flatten().flatten().any(|descriptor| {
            std::fs::metadata(descriptor.path())
                .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        })
    })
}

/// Writes a text, and closes the FIFO. Fails if the reader is gone, or does not read on.
pub(super) fn write(mut fifo: File, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match fifo.write(text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if poll(&mut [PollFd::new(&fifo, PollFlags::OUT)], Some(&WRITE_MAX))? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

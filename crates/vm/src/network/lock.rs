//! A lock, so that one process at a time changes what all machines of this host share: its rules and its links.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::NetworkError;
use super::error::step;

/// Path of the lock file. It is not in a state folder, because instances with different ones share the host's network.
const PATH: &str = "/run/dayfly-network.lock";
/// Longest wait for the lock. Each process holds it for about 20 ms.
const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// Waits for the lock. Dropping the file releases it, and so does the exit of the process.
pub(super) fn acquire() -> Result<File, NetworkError> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(PATH)
        .map_err(step("open /run/dayfly-network.lock"))?;
    let start = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(step("lock /run/dayfly-network.lock")(error));
            }
            Err(_) if start.elapsed() > WAIT_LIMIT => {
                return Err(NetworkError::Locked { path: PATH, seconds: WAIT_LIMIT.as_secs() });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

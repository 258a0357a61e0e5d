//! The limit of open files of a process.

use std::io;

use rustix::process::{Resource, Rlimit};

/// Descriptors that a machine takes in the process that runs it: its process, sockets, output, network card and files.
const PER_MACHINE: u64 = 20;
/// Descriptors of a process that do not belong to a machine.
const OWN: u64 = 64;
/// Highest limit that is set. Child processes inherit it, and some close every number up to it before they begin.
const LIMIT_MAX: u64 = 65_536;

/// Raises the limit of this process as far as its user may, up to 65536. The usual soft limit, 1024, is kept low for programs
/// that use `select`, which dayfly does not. Returns the limit.
pub fn raise_limit() -> io::Result<u64> {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let (current, raised) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX).min(LIMIT_MAX));
    if current >= raised {
        return Ok(current);
    }
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum })?;
    Ok(raised)
}

/// Returns the number of machines for which a limit of open files is enough.
pub fn machines_within(limit: u64) -> u64 {
    limit.saturating_sub(OWN) / PER_MACHINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let raised = raise_limit().expect("raised");
        let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
        assert_eq!(current.unwrap_or(u64::MAX), raised);
        assert!(raised >= LIMIT_MAX.min(maximum.unwrap_or(u64::MAX)));
        assert_eq!(raise_limit().expect("again"), raised);
    }

    #[test]
    fn the_usual_limit_is_enough_for_some_fifty_machines_only() {
        assert_eq!([1024, 65_536, 10].map(machines_within), [48, 3273, 0]);
    }
}

//! Decides in how many threads QEMU emulates a machine's virtual CPUs.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::program::{self, Known};

/// First version of QEMU whose threads translate code that another thread changes at the same time correctly.
const SOUND_FROM: (u32, u32) = (8, 1);

/// The threads in which QEMU emulates the virtual CPUs of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TcgThreads {
    /// One thread runs all of them in turn.
    Single,
    /// Each has a thread.
    Multi,
}

impl TcgThreads {
    /// Returns the threads that are sound with this QEMU.
    ///
    /// Older versions translate a page before they watch it for writes, so a thread may keep a translation of bytes that
    /// another thread has just replaced. A kernel that changes a branch of its own puts a breakpoint there for a moment; a
    /// virtual CPU that keeps the breakpoint panics ("Oops: int3 ... Fatal exception in interrupt"). With QEMU 7.2 and
    /// Linux 6.12, 1 of 26 machines did while it booted. In one thread none was seen to, and on a host whose processors are
    /// all busy it is faster too, because no virtual CPU waits for another one that has lost its processor.
    pub(super) fn of(qemu: &Path) -> Self {
        static KNOWN: Known<TcgThreads> = Known::new();
        KNOWN.of(qemu, || Self::of_version(&program::version(qemu).unwrap_or_default()))
    }

    /// Returns the threads that are sound with a QEMU of this version, such as `7.2.22 (Debian 1:7.2+dfsg-7)`.
    fn of_version(version: &str) -> Self {
        let mut numbers = version.split(['.', ' ']).map_while(|number| number.parse().ok());
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) if (major, minor) >= SOUND_FROM => Self::Multi,
            _ => Self::Single,
        }
    }

    /// Returns the value of QEMU's option.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Multi => "multi",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_whose_threads_are_not_sound_or_whose_version_is_not_known_has_one() {
        for version in ["7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", "6.2.0", "8.0.5", "", "unknown", "9"] {
            assert_eq!(TcgThreads::of_version(version), TcgThreads::Single, "{version}");
        }
        for version in ["8.1.0", "8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)", "10.0.2", "11.0.50 (v11.0.0-5-gabc)"] {
            assert_eq!(TcgThreads::of_version(version), TcgThreads::Multi, "{version}");
        }
        assert_eq!(TcgThreads::of(Path::new("/does/not/exist")), TcgThreads::Single);
    }
}

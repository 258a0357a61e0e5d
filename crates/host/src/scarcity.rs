//! Reads from the error of a call which resource this host has run out of.
//!
//! Such an error says nothing about the thing that was to be made: the same call succeeds once other processes have
//! ended, or a person has made room. So it is never held against an image or a template, and what failed is tried
//! again after a pause.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// A resource of the host that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarcity {
    /// Memory.
    Memory,
    /// Processes and threads: the limit of the user, of the control group, or of the kernel.
    Processes,
    /// Open files of this process, or of the whole host.
    Descriptors,
    /// Space on a disk.
    Space,
}

impl Scarcity {
    /// Returns the resource whose end caused an error; none if the error has another cause, or hides its cause.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                // An error in an I/O error is not among its sources; only the sources of that one are.
                let inner = error.get_ref().and_then(|inner| Self::of(inner));
                if let Some(found) = Self::of_io(error).or(inner) {
                    return Some(found);
                }
            }
            next = error.source();
        }
        None
    }

    /// Returns the resource whose end the kernel has reported by this error.
    fn of_io(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::NOMEM => Some(Self::Memory),
            // A fork says so. No call that waits without blocking is made where this is asked.
            Errno::AGAIN => Some(Self::Processes),
            Errno::MFILE | Errno::NFILE => Some(Self::Descriptors),
            Errno::NOSPC | Errno::DQUOT => Some(Self::Space),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error with a cause, as the crates of dayfly have them.
    #[derive(Debug)]
    struct Caused(io::Error);

    impl std::fmt::Display for Caused {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("it failed")
        }
    }

    impl Error for Caused {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_kernels_errors_name_the_resource_however_deep_they_are() {
        for (number, expected) in [
            (libc_of(Errno::NOMEM), Some(Scarcity::Memory)),
            (libc_of(Errno::AGAIN), Some(Scarcity::Processes)),
            (libc_of(Errno::MFILE), Some(Scarcity::Descriptors)),
            (libc_of(Errno::NFILE), Some(Scarcity::Descriptors)),
            (libc_of(Errno::NOSPC), Some(Scarcity::Space)),
            (libc_of(Errno::DQUOT), Some(Scarcity::Space)),
            (libc_of(Errno::NOENT), None),
            (libc_of(Errno::ACCESS), None),
        ] {
            let error = || io::Error::from_raw_os_error(number);
            assert_eq!(Scarcity::of(&error()), expected);
            assert_eq!(Scarcity::of(&Caused(error())), expected);
            assert_eq!(Scarcity::of(&Caused(io::Error::other(Caused(error())))), expected);
            assert_eq!(Scarcity::of(&io::Error::other(io::Error::other(error()))), expected);
        }
        assert_eq!(Scarcity::of(&io::Error::other("ENOMEM")), None, "words are no cause");
        assert_eq!(Scarcity::of(&io::Error::from(io::ErrorKind::WouldBlock)), None);
    }

    fn libc_of(error: Errno) -> i32 {
        error.raw_os_error()
    }
}

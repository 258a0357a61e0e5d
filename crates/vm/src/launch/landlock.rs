//! Limits a VMM by Landlock, the kernel's way for a process to give up rights (landlock(7)).
//!
//! Its root folder and its namespaces leave little to forbid, but they do not hold where the VMM has the same user as other
//! programs, because dayfly is not root. There Landlock alone keeps the VMM from opening its descriptors anew for writing
//! (`/proc/self/fd`; the file of an image belongs to this user), and from signalling the user's programs.
#![expect(unsafe_code, reason = "the calls of Landlock have no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, OFlags};

/// Rights to files, from linux/landlock.h.
mod fs {
    pub(super) const EXECUTE: u64 = 1 << 0;
    pub(super) const WRITE_FILE: u64 = 1 << 1;
    pub(super) const READ_FILE: u64 = 1 << 2;
    pub(super) const READ_DIR: u64 = 1 << 3;
    /// All of the first version; the rest removes and creates files.
    pub(super) const FIRST: u64 = (1 << 13) - 1;
    /// From version 2 on.
    pub(super) const REFER: u64 = 1 << 13;
    /// From version 3 on.
    pub(super) const TRUNCATE: u64 = 1 << 14;
    /// From version 5 on.
    pub(super) const IOCTL_DEVICE: u64 = 1 << 15;
}
/// `LANDLOCK_ACCESS_NET_BIND_TCP` and `LANDLOCK_ACCESS_NET_CONNECT_TCP`.
const TCP: u64 = 0b11;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `LANDLOCK_SCOPE_SIGNAL`.
const SCOPES: u64 = 0b11;
/// Asks `landlock_create_ruleset` for the version (`LANDLOCK_CREATE_RULESET_VERSION`).
const ASK_VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;

/// The rights that a program gives up unless a rule grants them: `struct landlock_ruleset_attr`. A kernel of an earlier version
/// accepts the later fields if they are zero.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GivenUp {
    files: u64,
    network: u64,
    scopes: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Rule {
    rights: u64,
    beneath: i32,
}

impl GivenUp {
    /// Returns what a program can give up in a kernel with this version of Landlock. A VMM that is the network of its machine
    /// keeps its sockets.
    fn at(version: u32, is_network: bool) -> Self {
        let from = |first: u32, rights: u64| if version >= first { rights } else { 0 };
        Self {
            files: fs::FIRST | from(2, fs::REFER) | from(3, fs::TRUNCATE) | from(5, fs::IOCTL_DEVICE),
            network: if is_network { 0 } else { from(4, TCP) },
            scopes: from(6, SCOPES),
        }
    }
}

/// Returns the version of this kernel's Landlock, which is 0 if it has none or does not use it.
pub(crate) fn version() -> u32 {
    // SAFETY: with this flag the kernel reads no memory.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<GivenUp>(), 0usize, ASK_VERSION)
    };
    u32::try_from(answer).unwrap_or(0)
}

/// Leaves to this process, and the program that replaces it: its root for reading, these devices, and of the descriptors at
/// these numbers the files, each for what it is open for. Does nothing in a kernel without Landlock.
pub(super) fn restrict(devices: &[PathBuf], descriptors: &[i32], is_network: bool) -> io::Result<()> {
    let version = version();
    if version == 0 {
        return Ok(());
    }
    let given_up = GivenUp::at(version, is_network);
    let rules = create(given_up)?;
    let grant = |beneath: BorrowedFd<'_>, rights: u64| add(&rules, beneath, rights & given_up.files);
    grant(File::open("/")?.as_fd(), fs::EXECUTE | fs::READ_FILE | fs::READ_DIR)?;
    for device in devices {
        let opened = rustix::fs::open(device, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
        grant(opened.as_fd(), fs::READ_FILE | fs::WRITE_FILE | fs::IOCTL_DEVICE)?;
    }
    for &number in descriptors {
        // SAFETY: the descriptor was placed at this number, and stays open.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if FileType::from_raw_mode(rustix::fs::fstat(descriptor)?.st_mode) != FileType::RegularFile {
            continue;
        }
        let is_writable = rustix::fs::fcntl_getfl(descriptor)?.intersects(OFlags::WRONLY | OFlags::RDWR);
        let writing = if is_writable { fs::WRITE_FILE | fs::TRUNCATE } else { 0 };
        match grant(descriptor, fs::READ_FILE | writing) {
            // A file in memory, which belongs to no file system, and which Landlock leaves alone.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {}
            granted => granted?,
        }
    }
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0u32) };
    check(result).map(|_| ())
}

fn create(given_up: GivenUp) -> io::Result<OwnedFd> {
    // SAFETY: the structure has the size that is passed.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const given_up, size_of::<GivenUp>(), 0u32)
    };
    let number = check(result)?;
    // SAFETY: the kernel has just opened it for this process. It is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn add(rules: &OwnedFd, beneath: BorrowedFd<'_>, rights: u64) -> io::Result<()> {
    let rule = Rule { rights, beneath: beneath.as_raw_fd() };
    // SAFETY: the structure is the one that belongs to this kind of rule.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, &raw const rule, 0u32)
    };
    check(result).map(|_| ())
}

fn check(result: libc::c_long) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_asked_for_no_more_than_its_version_knows() {
        let first = GivenUp::at(1, false);
        assert_eq!(first, GivenUp { files: 0x1fff, network: 0, scopes: 0 });
        assert_eq!(GivenUp::at(3, false).files, 0x7fff);
        assert_eq!(GivenUp::at(4, false), GivenUp { files: 0x7fff, network: 3, scopes: 0 });
        assert_eq!(GivenUp::at(7, false), GivenUp { files: 0xffff, network: 3, scopes: 3 });
    }

    #[test]
    fn a_vmm_that_is_a_network_keeps_its_sockets() {
        assert_eq!(GivenUp::at(7, true), GivenUp { network: 0, ..GivenUp::at(7, false) });
    }

    #[test]
    fn the_structures_are_as_long_as_those_of_the_kernel() {
        assert_eq!((size_of::<GivenUp>(), size_of::<Rule>()), (24, 12));
    }
}

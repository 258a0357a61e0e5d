//! Calls about mounts that have no safe wrapper.
#![expect(unsafe_code, reason = "entering a namespace, and a call without a safe wrapper")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

/// Attributes of what a program only reads: it opens no device, and gets no rights from a file, even if there are some already.
pub(super) const WITHOUT_RIGHTS: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Enters a mount namespace, whose changes no other one sees.
pub(super) fn enter_namespace() -> io::Result<()> {
    // SAFETY: this process has one thread, and holds no descriptor whose meaning depends on a mount namespace.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Adds attributes to a mount, and with `AT_RECURSIVE` to those below it, which a remount would not do.
pub(super) fn set_attributes(at: BorrowedFd<'_>, path: &CStr, attributes: u64, flags: i32) -> io::Result<()> {
    // `struct mount_attr` of linux/mount.h: set, clear, propagation, user namespace.
    let request = [attributes, 0, 0, 0];
    // SAFETY: the path is terminated, and the request has the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            flags,
            request.as_ptr(),
            size_of_val(&request),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

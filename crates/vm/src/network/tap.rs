//! The network card of a machine: a tap device by its descriptor.
#![expect(unsafe_code, reason = "the kind of a tap device is set by ioctl, which has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Creates a tap device in the calling thread's namespace. The device exists as long as its descriptor is open. The
/// descriptor also keeps the namespace alive, works in a process of another namespace, and needs no privileges to use.
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all zeroes is a valid `ifreq`: it is made of numbers and bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // An offload header precedes each frame, so that large TCP segments pass as a whole.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or_default();
    // SAFETY: TUNSETIFF reads and writes an `ifreq` with a terminated name and flags, which this is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result == 0 { Ok(file.into()) } else { Err(io::Error::last_os_error()) }
}

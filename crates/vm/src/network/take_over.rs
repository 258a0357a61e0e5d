//! Takes over the network of a machine whose process lives, from a process of dayfly that died.
#![expect(
    unsafe_code,
    reason = "the namespace of a tap device is asked for by ioctl, which has no safe wrapper"
)]

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use dayfly_host::retry;
use rustix::process::PidfdGetfdFlags;

use super::address::GATEWAY;
use super::error::step;
use super::record::NetworkRecord;
use super::{Attachment, NetworkError, account, upkeep};
use crate::machine::record::Found;

/// The file of a tap device, as `/proc/PID/fd` names it.
const TUN: &str = "/dev/net/tun";

/// Takes over the network of a machine, so that this process keeps its rules and serves its forwarded port; none if the machine
/// has no network of its own. The namespace has no name, so it is found through the machine's card, which its process holds.
pub(crate) fn take_over(
    run_dir: &Path,
    (pid, process): (u32, &OwnedFd),
    forward: Option<u16>,
) -> Result<Option<Attachment>, NetworkError> {
    let Found::Record(record) = NetworkRecord::read(run_dir).map_err(step("read the record"))? else {
        return Ok(None);
    };
    let number = card_of(pid).map_err(step("find the machine's card"))?;
    let tap = rustix::process::pidfd_getfd(process, number, PidfdGetfdFlags::empty())
        .map_err(step("share the machine's card"))?;
    let listener = forward.map(|port| listen_in_namespace(&tap, port)).transpose()?;
    let namespace = namespace_of(&tap).map_err(step("find the machine's namespace"))?;
    account::hold(&record.machine.link, namespace);
    upkeep::start().map_err(step("start a thread"))?;
    let _upheld = upkeep::uphold(&record.machine);
    Ok(Some(Attachment { tap, listener, _upheld }))
}

/// Returns the number of the descriptor by which a process holds its card.
fn card_of(pid: u32) -> io::Result<RawFd> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|target| target == Path::new(TUN))
            && let Some(number) = path.file_name().and_then(|name| name.to_str()?.parse().ok())
        {
            return Ok(number);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Listens on the gateway's address, in a thread that enters the namespace of a card and exits there.
fn listen_in_namespace(tap: &OwnedFd, port: u16) -> Result<TcpListener, NetworkError> {
    let namespace = namespace_of(tap).map_err(step("find the machine's namespace"))?;
    let listen = move || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), None)?;
        listen_again(SocketAddr::from((GATEWAY, port)))
    };
    let thread = std::thread::Builder::new().name("network".to_owned()).spawn(listen);
    let listener = thread.map_err(step("start a thread"))?.join();
    let panicked = |_| Err(io::Error::other("its thread has panicked"));
    listener.unwrap_or_else(panicked).map_err(step("listen on the forwarded port"))
}

/// Listens at an address at which this process may have listened before.
fn listen_again(address: SocketAddr) -> io::Result<TcpListener> {
    let mut failures = 0;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                failures += 1;
                std::thread::sleep(retry::OWN_PORT.pause_after(failures).ok_or(error)?);
            }
            bound => return bound,
        }
    }
}

/// Returns the namespace of a tap device.
fn namespace_of(tap: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: TUNGETDEVNETNS takes no argument, and returns a new descriptor or a negative number.
    let namespace = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETDEVNETNS) };
    if namespace < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and this value owns it from here on.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

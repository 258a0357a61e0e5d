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
use crate::machine::record::{Found, ProcessId};

/// The file of a tap device, as `/proc/PID/fd` names it.
const TUN: &str = "/dev/net/tun";

/// Takes over the network of a machine, so that this process keeps its rules and serves its forwarded port; none if the machine
/// has no network of its own. The namespace has no name, so it is found through the machine's card, which its process holds. Without
/// root, this process may not enter it, and takes the port from the gate.
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
    let Some(machine) = &record.machine else {
        let listener = forward.and_then(|port| listener_of_gate(&record, port));
        return Ok(Some(Attachment { tap, listener, _upheld: None }));
    };
    let listener = forward.map(|port| listen_in_namespace(&tap, port)).transpose()?;
    let namespace = namespace_of(&tap).map_err(step("find the machine's namespace"))?;
    account::hold(&machine.link, namespace);
    upkeep::start().map_err(step("start a thread"))?;
    let _upheld = Some(upkeep::uphold(machine));
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

/// Takes the listener on the forwarded port from the gate, which keeps it; none if the gate does not live.
fn listener_of_gate(record: &NetworkRecord, port: u16) -> Option<TcpListener> {
    let found = match &record.gate {
        Some(gate) => find_listener(gate, port),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    // An error of the take-over would cost the machine, which may not need the port any more.
    found.inspect_err(|error| tracing::warn!("a machine reaches its forge no more: {error}")).ok()
}

fn find_listener(gate: &ProcessId, port: u16) -> io::Result<TcpListener> {
    let process = gate.open()?.ok_or(io::ErrorKind::NotFound)?;
    for entry in fs::read_dir(gate.descriptors())? {
        let path = entry?.path();
        let is_socket =
            fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(number) = number.filter(|_| is_socket) else { continue };
        // The gate may have closed it meanwhile.
        let Ok(socket) = rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let is_listener = rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or_default();
        let listener = TcpListener::from(socket);
        if is_listener && listener.local_addr().is_ok_and(|own| own == SocketAddr::from((GATEWAY, port))) {
            return Ok(listener);
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

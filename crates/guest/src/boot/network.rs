//! Configures the machine's network: loopback, and the host's network behind `eth0`.
#![expect(unsafe_code, reason = "interfaces and routes are set by ioctl, which has no safe wrapper")]

use super::BootError;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

const CARD: &str = "eth0";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Brings up loopback, and the card if there is one. Docker configures the networks of containers.
pub(super) fn configure() -> Result<(), BootError> {
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(|errno| BootError::Network { what: "cannot make a socket", source: errno.into() })?;
    let step = |what| move |source| BootError::Network { what, source };
    bring_up(&socket, "lo").map_err(step("loopback does not come up"))?;
    if Path::new("/sys/class/net").join(CARD).exists() {
        set_address(&socket, libc::SIOCSIFADDR, ADDRESS).map_err(step("eth0 takes no address"))?;
        set_address(&socket, libc::SIOCSIFNETMASK, MASK).map_err(step("eth0 takes no net mask"))?;
        bring_up(&socket, CARD).map_err(step("eth0 does not come up"))?;
        add_default_route(&socket).map_err(step("no default route"))?;
    }
    Ok(())
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: all fields of `ifreq` are plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name is at most as long as the field without its terminating zero.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // `c_char` is signed on some architectures only.
    let [a, b, c, d] = address.octets().map(|byte| byte as libc::c_char);
    let mut data = [0; 14];
    // A `sockaddr_in` is: family, port (2 bytes), address (4 bytes in network order), zeroes.
    data[2..6].copy_from_slice(&[a, b, c, d]);
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn bring_up(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open and `request` is an `ifreq`, as SIOCSIFFLAGS wants it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
}

fn set_address(socket: &OwnedFd, what: libc::c_ulong, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request(CARD);
    request.ifr_ifru.ifru_addr = socket_address(address);
    // SAFETY: the descriptor is open and `request` is an `ifreq` that holds an address, as both calls want it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &raw const request) })
}

fn add_default_route(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: all fields of `rtentry` are plain data or a pointer, for which zero is a value.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(GATEWAY);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the descriptor is open and `route` is an `rtentry` without a device name, as SIOCADDRT wants it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, &raw const route) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_laid_out_as_the_kernel_reads_it() {
        let address = socket_address(Ipv4Addr::new(10, 0, 2, 200));
        assert_eq!(address.sa_data.map(|byte| byte as u8)[..7], [0, 0, 10, 0, 2, 200, 0]);
        assert_eq!(request("eth0").ifr_name[..6], [101, 116, 104, 48, 0, 0]);
    }
}

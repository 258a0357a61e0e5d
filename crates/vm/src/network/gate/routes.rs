//! Tells whether an address is one of this host's, for a gate that makes its connections from the host's namespace.

use std::io;
use std::net::Ipv4Addr;

use crate::network::netlink::Netlink;

/// The routes of this host, as the kernel has them at the moment.
#[derive(Debug)]
pub(super) struct Routes(Netlink);

impl Routes {
    /// Opens them in the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        Netlink::open().map(Self)
    }

    /// Returns true if a connection to the address would reach this host itself, whichever addresses it had earlier.
    pub(super) fn lead_here(&self, address: Ipv4Addr) -> io::Result<bool> {
        match self.0.is_delivered_here(address) {
            // A connection fails for the same reason.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
                ) =>
            {
                Ok(false)
            }
            answer => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_leads_here_and_an_address_of_the_internet_does_not() {
        let routes = Routes::open().expect("a socket");
        for (address, is_here) in [([127, 0, 0, 1], true), ([127, 9, 9, 9], true), ([198, 51, 100, 7], false)]
        {
            assert_eq!(routes.lead_here(address.into()).expect("an answer"), is_here, "{address:?}");
        }
    }
}

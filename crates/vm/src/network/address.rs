//! The addresses of a VM's network. Pure.

use std::net::Ipv4Addr;

/// The guest's own address. It is the same in every VM, because each VM has its own namespace.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The guest's gateway, which also has the forwarded port.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Length of the prefix of the guest's network.
pub(crate) const GUEST_PREFIX: u8 = 24;
/// The gateway's hardware address. It is the same in every VM, so that what a guest has learnt stays true in its forks.
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x02];

/// The range of the transfer networks between this host and its VMs. It belongs to 198.18.0.0/15, which RFC 2544 reserves
/// for benchmarks, so neither private networks nor the internet use it.
pub(crate) const RANGE: &str = "198.19.0.0/16";
const RANGE_BASE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);
/// Length of the prefix of a transfer network.
pub(crate) const TRANSFER_PREFIX: u8 = 30;
/// Number of transfer networks.
pub(crate) const TRANSFERS: u16 = 1 << 14;

/// The network between this host and one VM's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer(u16);

impl Transfer {
    /// Returns all transfer networks, each once, beginning at any one.
    pub(crate) fn all_from(start: u16) -> impl Iterator<Item = Self> {
        (0..TRANSFERS).map(move |offset| Self((start % TRANSFERS + offset) % TRANSFERS))
    }

    /// Returns the address of the network itself.
    pub(crate) fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(RANGE_BASE.to_bits() + u32::from(self.0) * 4)
    }

    /// Returns the address of the host's end.
    pub(crate) fn host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network().to_bits() + 1)
    }

    /// Returns the address of the namespace's end.
    pub(crate) fn namespace(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network().to_bits() + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_transfer_network_comes_once_and_stays_in_the_range() {
        for start in [0, 1, TRANSFERS - 1, u16::MAX] {
            let all: HashSet<Ipv4Addr> = Transfer::all_from(start).map(Transfer::network).collect();
            assert_eq!(all.len(), usize::from(TRANSFERS));
            assert!(all.iter().all(|network| network.octets()[..2] == [198, 19]));
        }
        let last = Transfer::all_from(TRANSFERS - 1).next().expect("one");
        assert_eq!(last.network().to_string(), "198.19.255.252");
        assert_eq!(last.host().to_string(), "198.19.255.253");
        assert_eq!(last.namespace().to_string(), "198.19.255.254");
    }
}

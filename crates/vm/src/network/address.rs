//! The addresses of a VM's network. Pure.

use std::net::Ipv4Addr;

/// The guest's own address, the same in every VM: each has a namespace to itself.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Its gateway; also where a forwarded port is.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Length of the prefix of the guest's network.
pub(crate) const GUEST_PREFIX: u8 = 24;
/// The gateway's hardware address, the same in every VM: what a guest has learnt stays true in a fork of it.
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x02];

/// Where the networks between this host and its VMs come from. It belongs to 198.18.0.0/15, which RFC 2544 sets aside for
/// benchmarks: neither private networks nor the internet use it.
pub(crate) const RANGE: &str = "198.19.0.0/16";
const RANGE_BASE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);
/// Length of the prefix of one of them.
pub(crate) const TRANSFER_PREFIX: u8 = 30;
/// How many there are.
pub(crate) const TRANSFERS: u16 = 1 << 14;

/// The network between this host and one VM's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer(u16);

impl Transfer {
    /// All of them, each once, beginning anywhere.
    pub(crate) fn all_from(start: u16) -> impl Iterator<Item = Self> {
        (0..TRANSFERS).map(move |offset| Self((start % TRANSFERS + offset) % TRANSFERS))
    }

    /// Its own address.
    pub(crate) fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(RANGE_BASE.to_bits() + u32::from(self.0) * 4)
    }

    /// The host's end.
    pub(crate) fn host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network().to_bits() + 1)
    }

    /// The namespace's end.
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

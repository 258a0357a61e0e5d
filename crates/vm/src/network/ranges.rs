//! The ranges of addresses that no guarded machine reaches. Pure.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Networks that no guarded machine reaches: private ones (this host's included), those of carriers, link-local (where clouds
/// have their metadata), multicast, and reserved ones. RFC 6890 lists them. 192.0.0.0/24 is assigned to protocols and
/// 198.18.0.0/15 to benchmarks; the latter contains the VMs' own networks. 168.63.129.16 is the address at which Azure
/// configures its VMs.
pub(super) const SHUT: [Prefix; 11] = [
    Prefix::new([0, 0, 0, 0], 8),
    Prefix::new([10, 0, 0, 0], 8),
    Prefix::new([100, 64, 0, 0], 10),
    Prefix::new([127, 0, 0, 0], 8),
    Prefix::new([168, 63, 129, 16], 32),
    Prefix::new([169, 254, 0, 0], 16),
    Prefix::new([172, 16, 0, 0], 12),
    Prefix::new([192, 0, 0, 0], 24),
    Prefix::new([192, 168, 0, 0], 16),
    Prefix::new([198, 18, 0, 0], 15),
    Prefix::new([224, 0, 0, 0], 3),
];

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prefix {
    address: Ipv4Addr,
    length: u8,
}

impl Prefix {
    const fn new([a, b, c, d]: [u8; 4], length: u8) -> Self {
        Self { address: Ipv4Addr::new(a, b, c, d), length }
    }

    /// Returns the network of this address and this length, at most 32.
    pub(super) fn of(address: Ipv4Addr, length: u8) -> Self {
        Self { address, length: length.min(32) }
    }

    /// Returns true if all addresses of another network are in this one.
    pub(super) fn contains(self, other: Self) -> bool {
        let differing = (self.address.to_bits() ^ other.address.to_bits())
            .checked_shr(32 - u32::from(self.length))
            .unwrap_or_default();
        self.length <= other.length && differing == 0
    }

    /// Returns true if its address has no bits behind its length.
    pub(super) fn is_whole(self) -> bool {
        let hosts = u32::MAX.checked_shr(self.length.into()).unwrap_or_default();
        self.address.to_bits() & hosts == 0
    }

    /// Returns its first and its last address.
    #[cfg(test)]
    pub(super) fn ends(self) -> (Ipv4Addr, Ipv4Addr) {
        let hosts = u32::MAX.checked_shr(self.length.into()).unwrap_or_default();
        let bits = self.address.to_bits();
        (Ipv4Addr::from_bits(bits & !hosts), Ipv4Addr::from_bits(bits | hosts))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length {
            32 => write!(f, "{}", self.address),
            length => write!(f, "{}/{length}", self.address),
        }
    }
}

/// Returns the networks that no guarded machine reaches on a host with these addresses, none of which contains another.
pub(super) fn shut(own: &[Prefix]) -> Vec<Prefix> {
    let mut all = SHUT.to_vec();
    let mut own = own.to_vec();
    own.sort_by_key(|prefix| (prefix.length, prefix.address));
    for prefix in own {
        if !all.iter().any(|shut| shut.contains(prefix)) {
            all.push(prefix);
        }
    }
    all
}

/// Returns true if one of the networks contains the address.
pub(super) fn contain(networks: &[Prefix], address: Ipv4Addr) -> bool {
    networks.iter().any(|network| network.contains(Prefix::of(address, 32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_hosts_addresses_only_those_are_added_that_are_not_shut_already() {
        let of = |text: &str| {
            let (address, length) = text.split_once('/').expect("a prefix");
            Prefix::of(address.parse().expect("an address"), length.parse().expect("a length"))
        };
        let own =
            ["203.0.113.9/32", "192.168.1.2/32", "127.0.0.0/8", "203.0.113.0/28", "203.0.113.9/32"].map(of);
        let added: Vec<String> = shut(&own)[SHUT.len()..].iter().map(Prefix::to_string).collect();
        assert_eq!(added, ["203.0.113.0/28"]);
        assert!(of("0.0.0.0/0").contains(of("203.0.113.9/32")));
        assert!(!of("203.0.113.8/32").contains(of("203.0.113.9/32")));
    }
}

//! The network policy of a pool, and the decisions that follow from it. Pure.
//!
//! Two walls hold each decision. The packet filter of the machine's namespace holds addresses ([`super::rules`]); the machine's
//! gate holds names ([`super::gate`]), because no address says by which name it was found.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use super::allow::AllowEntry;
use super::ranges::{self, Prefix};
use super::used::Reason;

/// The destinations that the machines of a pool reach beside their forge and its proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkPolicy {
    /// Nothing else.
    None,
    /// The internet, but neither this host nor private networks.
    #[default]
    Guarded,
    /// These destinations.
    Allow(Vec<AllowEntry>),
    /// All that an open machine reaches. Destinations that `Guarded` and `Allow` with this list would deny are recorded.
    Audit(Vec<AllowEntry>),
    /// Everything that this host reaches, and this host itself; no other machine.
    Open,
}

impl NetworkPolicy {
    /// Returns the word for the policy.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Guarded => "guarded",
            Self::Allow(_) => "allow",
            Self::Audit(_) => "audit",
            Self::Open => "open",
        }
    }

    /// Returns true if the machine's gate resolves names. An open machine asks the DNS server itself.
    pub(crate) fn has_gate(&self) -> bool {
        *self != Self::Open
    }

    /// Returns the list of a policy that lets through what it lists, and nothing else.
    pub(crate) fn list(&self) -> Option<&[AllowEntry]> {
        match self {
            Self::None => Some(&[]),
            Self::Allow(list) => Some(list),
            Self::Guarded | Self::Audit(_) | Self::Open => None,
        }
    }

    /// Returns the list that is compared with; empty for a policy without one.
    pub(crate) fn entries(&self) -> &[AllowEntry] {
        match self {
            Self::Allow(list) | Self::Audit(list) => list,
            Self::None | Self::Guarded | Self::Open => &[],
        }
    }

    /// Returns true if the machine's connections are compared with a list, which its gate does.
    pub(crate) fn has_list(&self) -> bool {
        match self {
            Self::None | Self::Allow(_) | Self::Audit(_) => true,
            Self::Guarded | Self::Open => false,
        }
    }

    /// Returns true if the machine reaches what its list and the shut ranges would deny.
    pub(crate) fn only_records(&self) -> bool {
        matches!(self, Self::Audit(_))
    }

    /// Returns true if the machine reaches this host and its networks.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Audit(_) | Self::Open)
    }
}

/// A decision about a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is let through.
    Allowed,
    /// The address is in a range that no guarded machine reaches.
    Shut,
    /// The policy does not list it.
    Unlisted,
    /// It is an IPv6 address, and machines have no IPv6.
    NoIpv6,
}

/// A decision about a connection by its address and port alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It is let through.
    Open,
    /// The address is one that no guarded machine reaches.
    Shut,
    /// The name by which the machine has found the address decides.
    ByName,
}

/// Returns true if no connection of a machine can mean this address: it is the caller's own host, any host, or many of them. A
/// gate that makes its connections from the host must not make any to it, whatever the policy.
pub(crate) fn is_nowhere(address: Ipv4Addr) -> bool {
    address.octets()[0] == 0 || address.is_loopback() || address.is_multicast() || address.is_broadcast()
}

/// Everything that decides about the destinations of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    /// The policy of its pool.
    pub(crate) policy: NetworkPolicy,
    /// Host names of its forge and of its proxies, in lower case.
    pub(crate) names: Vec<String>,
    /// Addresses and ports of its forge and of its proxies, which it reaches even if they are private.
    pub(crate) exceptions: Vec<SocketAddrV4>,
    /// The ranges that are shut on this host, its own addresses included.
    pub(super) shut: Vec<Prefix>,
}

impl Access {
    /// Decides whether the machine may reach an address that it has found by this name, or by none. With an audit, a list may
    /// decide otherwise at the address's port, and the machine reaches what is denied.
    pub(crate) fn decide(&self, destination: IpAddr, name: Option<&str>) -> Verdict {
        // An address like ::ffff:10.0.0.1 is an IPv4 address in every program that uses it. Other forms that contain one, e.g.
        // 64:ff9b::10.0.0.1, need a translator, and are IPv6 for the machine.
        let address = match destination.to_canonical() {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => return Verdict::NoIpv6,
        };
        let is_exception = self.exceptions.iter().any(|exception| *exception.ip() == address);
        if is_exception || self.policy == NetworkPolicy::Open {
            return Verdict::Allowed;
        }
        let list = self.policy.list();
        let networks = self.policy.entries().iter().filter_map(AllowEntry::network);
        let networks: Vec<Prefix> = networks.map(|(network, _)| network).collect();
        // A list that names a private network means it.
        if ranges::contain(&networks, address) {
            return Verdict::Allowed;
        }
        if ranges::contain(&self.shut, address) {
            return Verdict::Shut;
        }
        let is_listed = list.is_none() || name.is_some_and(|name| self.lists(name));
        if is_listed { Verdict::Allowed } else { Verdict::Unlisted }
    }

    /// Decides about a connection by its address and port, as far as these decide. `is_own` says that the address is one of the
    /// host's, from which the gate makes the connection.
    ///
    /// Rules hold the same decisions if the gate is in the machine's namespace. If it is not, nothing else holds them.
    pub(crate) fn passage(&self, to: SocketAddrV4, is_own: bool) -> Passage {
        let (address, port) = (*to.ip(), to.port());
        if is_nowhere(address) {
            return Passage::Shut;
        }
        if self.exceptions.contains(&to) {
            return Passage::Open;
        }
        if is_own {
            return Passage::Shut;
        }
        let mut networks = self.policy.entries().iter().filter_map(AllowEntry::network);
        if networks.any(|(network, ports)| ranges::contain(&[network], address) && ports.contain(port)) {
            return Passage::Open;
        }
        let is_shut = match self.policy {
            // No name leads to the other ports of the forge's address.
            NetworkPolicy::Guarded => ranges::contain(&self.shut, address),
            _ => self.decide(address.into(), None) == Verdict::Shut,
        };
        match self.policy.has_list() {
            _ if is_shut => Passage::Shut,
            true => Passage::ByName,
            false => Passage::Open,
        }
    }

    /// Returns true if the gate may connect the machine to a port of an address that it has found by this name.
    pub(crate) fn may_connect(&self, name: &str, address: Ipv4Addr, port: u16) -> bool {
        let list = self.policy.entries();
        // The forge may have another address than at the machine's start.
        let is_forge = self.is_forge(name) && AllowEntry::WEB_PORTS.contains(&port);
        (is_forge || list.iter().any(|entry| entry.lists_at(name, port)))
            && self.decide(address.into(), Some(name)) == Verdict::Allowed
    }

    /// Returns true if the machine may learn the addresses of a name. A name in a question can carry data out, so an unlisted
    /// one never leaves this host.
    pub(crate) fn may_resolve(&self, name: &str) -> bool {
        self.policy.list().is_none() || self.lists(name)
    }

    /// Returns the reason why a list does not have a name; none if it has, or if the policy has no list.
    pub(crate) fn reason_of_name(&self, name: &str) -> Option<Reason> {
        let has_list = self.policy.has_list();
        (has_list && !self.lists(name)).then_some(Reason::Unlisted)
    }

    fn lists(&self, name: &str) -> bool {
        self.is_forge(name) || self.policy.entries().iter().any(|entry| entry.lists(name))
    }

    fn is_forge(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORGE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 7, 7), 443);

    fn access(policy: NetworkPolicy) -> Access {
        Access {
            policy,
            names: vec!["ghes.example".to_owned()],
            exceptions: vec![FORGE],
            shut: ranges::shut(&[Prefix::of(Ipv4Addr::new(203, 0, 113, 1), 32)]),
        }
    }

    fn decide(policy: NetworkPolicy, destination: &str) -> Verdict {
        access(policy).decide(destination.parse().expect("an address"), Some("other.example"))
    }

    #[test]
    fn an_audit_denies_nothing_and_knows_what_guarded_and_its_list_would_deny() {
        let list = ["*.list.example", "10.1.0.0/16:5432"].map(|text| text.parse().expect("an entry"));
        let access = access(NetworkPolicy::Audit(list.to_vec()));
        for (to, verdict) in [
            ("198.51.100.9", Verdict::Allowed),
            ("10.1.0.1", Verdict::Allowed),
            ("10.2.0.1", Verdict::Shut),
            ("192.168.7.7", Verdict::Allowed),
        ] {
            assert_eq!(
                access.decide(to.parse().expect("an address"), Some("other.example")),
                verdict,
                "{to}"
            );
        }
        assert!(access.may_resolve("other.example"));
        assert_eq!(access.reason_of_name("other.example"), Some(Reason::Unlisted));
        assert_eq!(access.reason_of_name("www.list.example"), None);
        assert_eq!(access.reason_of_name("ghes.example"), None, "the forge");
        assert!(access.policy.only_records() && access.policy.is_open());
        let allow = NetworkPolicy::Allow(list.to_vec());
        assert!(!allow.only_records() && !allow.is_open());
    }

    #[test]
    fn a_guarded_machine_reaches_the_internet_and_its_forge() {
        for (destination, verdict) in [
            ("198.51.100.7", Verdict::Allowed),
            ("::ffff:198.51.100.7", Verdict::Allowed),
            ("192.168.7.7", Verdict::Allowed),
            ("::ffff:192.168.7.7", Verdict::Allowed),
            ("192.168.7.8", Verdict::Shut),
            ("10.0.2.2", Verdict::Shut),
            ("127.0.0.1", Verdict::Shut),
            ("::ffff:127.0.0.1", Verdict::Shut),
            ("0.0.0.0", Verdict::Shut),
            ("100.64.0.1", Verdict::Shut),
            ("168.63.129.16", Verdict::Shut),
            ("169.254.169.254", Verdict::Shut),
            ("172.31.255.255", Verdict::Shut),
            ("192.0.0.192", Verdict::Shut),
            ("198.18.0.1", Verdict::Shut),
            ("203.0.113.1", Verdict::Shut),
            ("224.0.0.251", Verdict::Shut),
            ("255.255.255.255", Verdict::Shut),
            ("::1", Verdict::NoIpv6),
            ("64:ff9b::a00:1", Verdict::NoIpv6),
            ("2002:a00:1::", Verdict::NoIpv6),
            ("fd00:ec2::254", Verdict::NoIpv6),
            ("2606:4700::1111", Verdict::NoIpv6),
        ] {
            assert_eq!(decide(NetworkPolicy::Guarded, destination), verdict, "{destination}");
        }
    }

    #[test]
    fn a_machine_with_the_policy_none_reaches_and_resolves_its_forge_alone() {
        let access = access(NetworkPolicy::None);
        assert_eq!(decide(NetworkPolicy::None, "198.51.100.7"), Verdict::Unlisted);
        assert_eq!(decide(NetworkPolicy::None, "192.168.7.7"), Verdict::Allowed);
        let elsewhere = IpAddr::from([198, 51, 100, 7]);
        assert_eq!(access.decide(elsewhere, Some("GHES.example")), Verdict::Allowed, "it has moved");
        assert_eq!(access.decide([10, 0, 0, 1].into(), Some("ghes.example")), Verdict::Shut);
        assert!(access.may_resolve("ghes.example") && access.may_resolve("GHES.Example"));
        for name in ["x.ghes.example", "ghes.example.evil.example", "evil.example", ""] {
            assert!(!access.may_resolve(name), "{name}");
        }
    }

    fn listed() -> NetworkPolicy {
        let list = ["example.com", "*.example.org:22", "10.1.0.0/16:5432"];
        NetworkPolicy::Allow(list.iter().map(|text| text.parse().expect("an entry")).collect())
    }

    #[test]
    fn a_list_lets_through_its_names_at_its_ports_and_its_networks_even_if_they_are_private() {
        let access = access(listed());
        for (name, is_listed) in [
            ("example.com", true),
            ("a.example.org", true),
            ("ghes.example", true),
            ("www.example.com", false),
            ("example.org", false),
        ] {
            assert_eq!(access.may_resolve(name), is_listed, "{name}");
        }
        let public = Ipv4Addr::new(198, 51, 100, 7);
        for (name, address, port, is_let_through) in [
            ("example.com", public, 443, true),
            ("example.com", public, 22, false),
            ("a.example.org", public, 22, true),
            ("a.example.org", public, 443, false),
            ("ghes.example", public, 443, true),
            ("ghes.example", public, 22, false),
            ("evil.example", public, 443, false),
            ("example.com", Ipv4Addr::new(10, 9, 0, 1), 443, false),
        ] {
            assert_eq!(access.may_connect(name, address, port), is_let_through, "{name} {address}:{port}");
        }
        assert_eq!(access.decide([10, 1, 2, 3].into(), None), Verdict::Allowed);
        assert_eq!(access.decide([10, 2, 2, 3].into(), None), Verdict::Shut);
        assert_eq!(access.decide(public.into(), Some("evil.example")), Verdict::Unlisted);
    }

    fn at(address: impl Into<Ipv4Addr>, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(address.into(), port)
    }

    #[test]
    fn the_forge_is_let_through_at_its_port_and_no_name_opens_its_other_ports_to_a_guarded_machine() {
        let of = |policy: NetworkPolicy, port| access(policy).passage(at(*FORGE.ip(), port), false);
        for policy in [NetworkPolicy::None, NetworkPolicy::Guarded, listed()] {
            assert_eq!(of(policy.clone(), 443), Passage::Open);
            assert_eq!(access(policy).passage(FORGE, true), Passage::Open, "it is on this host");
        }
        assert_eq!(of(NetworkPolicy::Guarded, 22), Passage::Shut);
        assert_eq!(of(listed(), 22), Passage::ByName);
    }

    #[test]
    fn a_listed_network_is_let_through_at_its_ports_unless_it_is_this_host() {
        let access = access(listed());
        for (to, is_own, passage) in [
            (at([10, 1, 2, 3], 5432), false, Passage::Open),
            (at([10, 1, 2, 3], 5432), true, Passage::Shut),
            (at([10, 1, 2, 3], 22), false, Passage::ByName),
            (at([10, 2, 2, 3], 5432), false, Passage::Shut),
            (at([198, 51, 100, 7], 443), false, Passage::ByName),
            (at([198, 51, 100, 7], 443), true, Passage::Shut),
        ] {
            assert_eq!(access.passage(to, is_own), passage, "{to} {is_own}");
        }
    }

    #[test]
    fn an_open_machine_reaches_private_addresses_too() {
        assert_eq!(decide(NetworkPolicy::Open, "10.1.2.3"), Verdict::Allowed);
        assert_eq!(decide(NetworkPolicy::Open, "::1"), Verdict::NoIpv6);
    }

    /// Addresses at random, and those at the edges of the shut ranges.
    fn addresses() -> impl Strategy<Value = Ipv4Addr> {
        let edges: Vec<u32> = ranges::SHUT
            .iter()
            .flat_map(|prefix| {
                let (first, last) = prefix.ends();
                [
                    first.to_bits().wrapping_sub(1),
                    first.to_bits(),
                    last.to_bits(),
                    last.to_bits().wrapping_add(1),
                ]
            })
            .collect();
        prop_oneof![any::<u32>(), proptest::sample::select(edges)].prop_map(Ipv4Addr::from_bits)
    }

    proptest! {
        #[test]
        fn a_shut_address_is_allowed_for_the_forge_and_for_open_machines_alone(address in addresses()) {
            let access = access(NetworkPolicy::Guarded);
            let is_shut = access.shut.iter().any(|prefix| {
                let (first, last) = prefix.ends();
                (first..=last).contains(&address)
            });
            let is_allowed = access.decide(address.into(), None) == Verdict::Allowed;
            prop_assert_eq!(is_allowed, !is_shut || address == *FORGE.ip());
        }

        #[test]
        fn by_its_address_alone_a_guarded_machine_reaches_what_is_not_shut_and_not_the_hosts_and_its_forge(
            address in prop_oneof![3 => addresses(), 1 => Just(*FORGE.ip())],
            port in prop_oneof![Just(443), any::<u16>()],
            is_own: bool,
        ) {
            let access = access(NetworkPolicy::Guarded);
            let is_shut = access.shut.iter().any(|prefix| {
                let (first, last) = prefix.ends();
                (first..=last).contains(&address)
            });
            let to = SocketAddrV4::new(address, port);
            let expected = if to == FORGE || !(is_shut || is_own) { Passage::Open } else { Passage::Shut };
            prop_assert_eq!(access.passage(to, is_own), expected);
        }

        #[test]
        fn no_policy_and_no_exception_opens_a_connection_to_the_gates_own_host_or_to_all_hosts(
            first in prop_oneof![Just(0_u8), Just(127), 224..240_u8], rest: [u8; 3], port: u16,
        ) {
            let address = Ipv4Addr::new(first, rest[0], rest[1], rest[2]);
            let to = SocketAddrV4::new(address, port);
            let list: AllowEntry = format!("{address}:*").parse().expect("an entry");
            for policy in [
                NetworkPolicy::None,
                NetworkPolicy::Guarded,
                NetworkPolicy::Allow(vec![list.clone()]),
                NetworkPolicy::Audit(vec![list]),
            ] {
                let access = Access { exceptions: vec![to], ..access(policy) };
                prop_assert_eq!(access.passage(to, false), Passage::Shut);
            }
        }

        #[test]
        fn an_address_of_the_host_is_let_through_for_its_forge_alone(address in addresses(), port: u16) {
            for policy in [NetworkPolicy::None, NetworkPolicy::Guarded, listed()] {
                let passage = access(policy).passage(SocketAddrV4::new(address, port), true);
                prop_assert_eq!(passage == Passage::Open, (address, port) == (*FORGE.ip(), FORGE.port()));
            }
        }

        #[test]
        fn the_form_of_an_address_changes_no_verdict(address in addresses()) {
            let all = [NetworkPolicy::None, NetworkPolicy::Guarded, listed(), NetworkPolicy::Open];
            for policy in all {
                let access = access(policy);
                let mapped = IpAddr::V6(address.to_ipv6_mapped());
                prop_assert_eq!(access.decide(mapped, None), access.decide(address.into(), None));
            }
        }

        #[test]
        fn none_allows_no_more_than_guarded_and_guarded_no_more_than_open(address in addresses()) {
            let is_allowed = |policy| access(policy).decide(address.into(), None) == Verdict::Allowed;
            prop_assert!(!is_allowed(NetworkPolicy::None) || is_allowed(NetworkPolicy::Guarded));
            prop_assert!(!is_allowed(NetworkPolicy::Guarded) || is_allowed(NetworkPolicy::Open));
        }
    }
}

//! The packet filter of a VM's network, as text for `nft -f -`. Pure; tests compare the text with snapshots.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::address::{GATEWAY, GUEST, RANGE};

/// Name of the guest's card in the namespace.
pub(super) const TAP: &str = "tap0";
/// Name of the namespace's link to the host.
pub(super) const UPLINK: &str = "eg0";
/// Prefix of the names of the host's ends.
pub(super) const LINK_PREFIX: &str = "dayfly";

/// Most connections that one machine has at a time to the internet, and again to its exceptions, so that neither takes the
/// place of the other. Each connection is also one entry of the host's own table, which holds 65536 on a host with 1 GiB;
/// a full table drops every new connection of the host.
const CONNECTIONS_MAX: u32 = 4096;
/// Most new connections per second of one machine to the internet, after the first [`CONNECTIONS_MAX`]. A closed connection
/// stays in the host's table for two minutes without counting as one.
const CONNECTIONS_PER_SECOND_MAX: u32 = 100;

/// Networks that no guest reaches: private ones (this host's included), those of carriers, link-local (where clouds have
/// their metadata), multicast, and reserved ones. RFC 6890 lists them. 192.0.0.0/24 is assigned to protocols and
/// 198.18.0.0/15 to benchmarks; the latter contains the VMs' own networks. 168.63.129.16 is the address at which Azure
/// configures its VMs.
const SHUT: [Prefix; 11] = [
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    fn contains(self, other: Self) -> bool {
        let differing = (self.address.to_bits() ^ other.address.to_bits())
            .checked_shr(32 - u32::from(self.length))
            .unwrap_or_default();
        self.length <= other.length && differing == 0
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

/// Returns the networks that no guest reaches on this host, none of which contains another.
fn shut(own: &[Prefix]) -> Vec<Prefix> {
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

/// A destination that is allowed even if its network is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Reachable {
    address: Ipv4Addr,
    port: u16,
    udp: bool,
}

impl Reachable {
    /// Returns the DNS server and the allowed addresses. IPv6 addresses are skipped, because guests have no IPv6.
    pub(super) fn of(dns: Ipv4Addr, allow: &[SocketAddr]) -> Vec<Self> {
        let mut all =
            vec![Self { address: dns, port: 53, udp: true }, Self { address: dns, port: 53, udp: false }];
        for allowed in allow {
            if let IpAddr::V4(address) = allowed.ip() {
                let reachable = Self { address, port: allowed.port(), udp: false };
                if !all.contains(&reachable) {
                    all.push(reachable);
                }
            }
        }
        all
    }

    fn protocol(self) -> &'static str {
        if self.udp { "udp" } else { "tcp" }
    }
}

/// The variable parts of the rules in a VM's namespace.
#[derive(Debug)]
pub(super) struct NamespaceRules<'a> {
    pub(super) reachable: &'a [Reachable],
    /// The port of the gateway that leads to a forge on this host.
    pub(super) forward: Option<u16>,
    /// Addresses of this host. Its own rules shut them too, but another program may flush those.
    pub(super) host: &'a [Prefix],
}

/// Returns the rules in a VM's namespace. The card must exist before they are set.
///
/// The chain `ingress` lets the guest's own address pass, because each other sender would get an entry in the table of
/// neighbours, which all namespaces of a host share.
pub(super) fn namespace(rules: &NamespaceRules<'_>) -> String {
    let mut input = String::new();
    if let Some(port) = rules.forward {
        let _ = write!(
            input,
            "\n    iifname \"{TAP}\" ip saddr {GUEST} ip daddr {GATEWAY} tcp dport {port} accept"
        );
    }
    let mut exceptions = String::new();
    for thing in rules.reachable {
        let (address, protocol, port) = (thing.address, thing.protocol(), thing.port);
        let _ = writeln!(exceptions, "    ip daddr {address} {protocol} dport {port} goto exception");
    }
    let shut = shut(rules.host).iter().map(Prefix::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "table netdev dayfly {{
  chain ingress {{
    type filter hook ingress device \"{TAP}\" priority filter; policy drop;
    ip saddr {GUEST} accept
    arp saddr ip {GUEST} accept
  }}
}}
table ip dayfly {{
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept{input}
    iifname \"{TAP}\" ip daddr {GATEWAY} reject with icmp type admin-prohibited
  }}
  chain exception {{
    ct state new ct count over {CONNECTIONS_MAX} drop
    accept
  }}
  chain out {{
{exceptions}    ip daddr {{ {shut} }} reject with icmp type admin-prohibited
    ct state new limit rate over {CONNECTIONS_PER_SECOND_MAX}/second burst {CONNECTIONS_MAX} packets drop
    ct state new ct count over {CONNECTIONS_MAX} drop
    accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname \"{TAP}\" oifname \"{UPLINK}\" ip saddr {GUEST} jump out
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"{UPLINK}\" masquerade
  }}
}}
"
    )
}

/// Returns the rules of this host, with the exceptions of these links. The rules are the same for all its VMs, except for the
/// set `reachable`. Each call fills the chains anew in one transaction. This restores chains that another program has flushed,
/// and does not disturb other VMs.
///
/// The rules also shut the addresses of this host, because only the host knows all of them at any time, public ones
/// included, and the broadcast addresses of its networks, at which it and its neighbours listen. They act before any
/// translation of addresses, which leads to containers whose ports this host publishes.
pub(super) fn host(machines: &[(&str, &[Reachable])]) -> String {
    let elements: Vec<String> = machines.iter().map(|(link, reachable)| elements(link, reachable)).collect();
    let elements = elements.join(", ");
    format!(
        "add table ip dayfly
add set ip dayfly reachable {{ typeof iifname . ip daddr . ip protocol . th dport; }}
add chain ip dayfly prerouting {{ type filter hook prerouting priority mangle; policy accept; }}
add chain ip dayfly forward {{ type filter hook forward priority filter; policy accept; }}
add chain ip dayfly postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain ip dayfly prerouting
flush chain ip dayfly forward
flush chain ip dayfly postrouting
add rule ip dayfly prerouting iifname \"{LINK_PREFIX}*\" iifname . ip daddr . ip protocol . th dport @reachable accept
add rule ip dayfly prerouting iifname \"{LINK_PREFIX}*\" fib daddr type {{ local, broadcast, anycast, multicast }} drop
add rule ip dayfly forward iifname \"{LINK_PREFIX}*\" oifname \"{LINK_PREFIX}*\" drop
add rule ip dayfly forward iifname \"{LINK_PREFIX}*\" ip saddr != {RANGE} drop
add rule ip dayfly forward oifname \"{LINK_PREFIX}*\" ct state established,related accept
add rule ip dayfly forward oifname \"{LINK_PREFIX}*\" drop
add rule ip dayfly postrouting ip saddr {RANGE} oifname != \"{LINK_PREFIX}*\" masquerade
add element ip dayfly reachable {{ {elements} }}
"
    )
}

/// Returns the text that removes a VM's exceptions from the host's rules.
pub(super) fn forget(link: &str, reachable: &[Reachable]) -> String {
    format!("delete element ip dayfly reachable {{ {} }}\n", elements(link, reachable))
}

/// The text that removes all of the host's rules.
pub(super) const REMOVE: &str = "add table ip dayfly\ndelete table ip dayfly\n";

fn elements(link: &str, reachable: &[Reachable]) -> String {
    let element =
        |thing: &Reachable| format!("\"{link}\" . {} . {} . {}", thing.address, thing.protocol(), thing.port);
    reachable.iter().map(element).collect::<Vec<_>>().join(", ")
}

/// Returns the rules for a host whose forwarding was off: nothing passes between the links that it had then, so that it
/// does not become a router.
pub(super) fn guard(links: &[String]) -> String {
    let quoted = links.iter().map(|link| format!("\"{link}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "add table ip dayfly-guard
delete table ip dayfly-guard
table ip dayfly-guard {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname {{ {quoted} }} oifname {{ {quoted} }} drop
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable() -> Vec<Reachable> {
        let allow = ["192.0.2.7:443", "[2001:db8::1]:443", "192.0.2.7:443"]
            .map(|text| text.parse().expect("address"));
        Reachable::of(Ipv4Addr::new(1, 1, 1, 1), &allow)
    }

    #[test]
    fn a_guest_reaches_the_internet_and_exceptions_only() {
        let host = [Prefix::of(Ipv4Addr::new(203, 0, 113, 1), 32)];
        let rules = NamespaceRules { reachable: &reachable(), forward: Some(4321), host: &host };
        insta::assert_snapshot!(namespace(&rules));
    }

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

    #[test]
    fn a_host_forwards_for_its_machines_only_and_is_shut_to_them() {
        insta::assert_snapshot!(host(&[("dayfly123456789", reachable().as_slice())]));
        insta::assert_snapshot!(forget("dayfly123456789", &reachable()), @r#"delete element ip dayfly reachable { "dayfly123456789" . 1.1.1.1 . udp . 53, "dayfly123456789" . 1.1.1.1 . tcp . 53, "dayfly123456789" . 192.0.2.7 . tcp . 443 }"#);
        insta::assert_snapshot!(guard(&["eth0".to_owned(), "eth1".to_owned()]));
    }
}

//! The packet filter of a VM's network, as text for `nft -f -`. Pure; tests compare the text with snapshots.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::address::{GATEWAY, GUEST, RANGE};

/// Name of the guest's card in the namespace.
pub(super) const TAP: &str = "tap0";
/// Name of the namespace's link to the host.
pub(super) const UPLINK: &str = "eg0";
/// Prefix of the names of the host's ends.
pub(super) const LINK_PREFIX: &str = "dayfly";

/// Networks that no guest reaches: private ones (this host's included), those of carriers, link-local (where clouds have
/// their metadata), multicast, and reserved ones. RFC 6890 lists them. 192.0.0.0/24 is assigned to protocols and
/// 198.18.0.0/15 to benchmarks; the latter contains the VMs' own networks.
const SHUT: [&str; 10] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
];

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

/// Returns the rules in a VM's namespace. `forward` is the port of the gateway that leads to a forge on this host.
pub(super) fn namespace(reachable: &[Reachable], forward: Option<u16>) -> String {
    let mut input = String::new();
    if let Some(port) = forward {
        let _ = write!(
            input,
            "\n    iifname \"{TAP}\" ip saddr {GUEST} ip daddr {GATEWAY} tcp dport {port} accept"
        );
    }
    let mut exceptions = String::new();
    for thing in reachable {
        let _ = writeln!(
            exceptions,
            "    ip daddr {} {} dport {} accept",
            thing.address,
            thing.protocol(),
            thing.port
        );
    }
    let shut = SHUT.join(", ");
    format!(
        "table ip dayfly {{
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept{input}
    iifname \"{TAP}\" ip daddr {GATEWAY} reject with icmp type admin-prohibited
  }}
  chain out {{
{exceptions}    ip daddr {{ {shut} }} reject with icmp type admin-prohibited
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

/// Returns the rules of this host. They are the same for all its VMs, except for the set `reachable`. Each call fills the
/// chains anew in one transaction. This restores chains that another program has flushed, and does not disturb other VMs.
///
/// The rules also shut the addresses of this host, because only the host knows all of them, public ones included. They act
/// before any translation of addresses, which leads to containers whose ports this host publishes.
pub(super) fn host(link: &str, reachable: &[Reachable]) -> String {
    let elements = elements(link, reachable);
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
add rule ip dayfly prerouting iifname \"{LINK_PREFIX}*\" fib daddr type local drop
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
        insta::assert_snapshot!(namespace(&reachable(), Some(4321)));
    }

    #[test]
    fn a_host_forwards_for_its_machines_only_and_is_shut_to_them() {
        insta::assert_snapshot!(host("dayfly123456789", &reachable()));
        insta::assert_snapshot!(forget("dayfly123456789", &reachable()), @r#"delete element ip dayfly reachable { "dayfly123456789" . 1.1.1.1 . udp . 53, "dayfly123456789" . 1.1.1.1 . tcp . 53, "dayfly123456789" . 192.0.2.7 . tcp . 443 }"#);
        insta::assert_snapshot!(guard(&["eth0".to_owned(), "eth1".to_owned()]));
    }
}

//! The packet filter of a VM's network, as text for `nft -f -`. Pure; tests compare the text with snapshots.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::address::{GATEWAY, GUEST, RANGE};
use super::allow::{AllowEntry, Ports};
use super::gate::STREAMS_PORT;
use super::policy::NetworkPolicy;
use super::ranges::Prefix;

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
/// Questions of one machine's gate that are not limited to [`CONNECTIONS_PER_SECOND_MAX`]: the first ones. Each is an entry of
/// the host's table for half a minute.
const NAMES_MAX: u32 = 1024;

/// The sets in which the rules count packets and bytes, by address, protocol and port. A set that is full counts no further
/// destination, and changes no verdict.
pub(super) const SENT: &str = "sent";
pub(super) const RECEIVED: &str = "received";
pub(super) const DENIED: &str = "denied";
/// Most destinations of each set.
pub(super) const COUNTED_MAX: usize = 256;

/// A destination that is allowed even if its network is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Reachable {
    address: Ipv4Addr,
    port: u16,
    udp: bool,
}

impl Reachable {
    /// Returns the DNS server, by both protocols.
    pub(super) fn dns(address: Ipv4Addr) -> [Self; 2] {
        [true, false].map(|udp| Self { address, port: 53, udp })
    }

    /// Returns the allowed addresses. IPv6 addresses are skipped, because guests have no IPv6.
    pub(super) fn of(allow: &[SocketAddr]) -> Vec<Self> {
        let mut all = Vec::new();
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

    /// Returns the address.
    pub(super) fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Returns the port.
    pub(super) fn port(self) -> u16 {
        self.port
    }

    fn protocol(self) -> &'static str {
        if self.udp { "udp" } else { "tcp" }
    }
}

/// A machine as the host's rules know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostMachine {
    /// Name of the host's end of the link to its namespace. It is random and never reused.
    pub(super) link: String,
    /// Its exceptions: its forge, and the DNS server.
    pub(super) reachable: Vec<Reachable>,
    /// True if it reaches this host too.
    #[serde(default)]
    pub(super) is_open: bool,
}

/// The variable parts of the rules in a VM's namespace.
#[derive(Debug)]
pub(super) struct NamespaceRules<'a> {
    pub(super) policy: &'a NetworkPolicy,
    /// The addresses of the forge.
    pub(super) reachable: &'a [Reachable],
    /// The DNS server. The gate asks it, or the guest if there is no gate.
    pub(super) dns: Ipv4Addr,
    /// The port of the gateway that leads to a forge on this host.
    pub(super) forward: Option<u16>,
    /// The ranges that are shut, addresses of this host included: its own rules shut these too, but another program may
    /// flush those.
    pub(super) shut: &'a [Prefix],
}

impl NamespaceRules<'_> {
    /// Returns the rules for packets of the guest to the gateway itself.
    fn input(&self) -> String {
        let mut rules = String::new();
        if self.policy.has_gate() {
            let _ = write!(
                rules,
                "\n    iifname \"{TAP}\" ip saddr {GUEST} ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 goto names"
            );
        }
        if self.policy.has_list() {
            let _ = write!(
                rules,
                "\n    iifname \"{TAP}\" ip saddr {GUEST} ip daddr {GATEWAY} tcp dport {STREAMS_PORT} goto led"
            );
        }
        if let Some(port) = self.forward {
            let _ = write!(
                rules,
                "\n    iifname \"{TAP}\" ip saddr {GUEST} ip daddr {GATEWAY} tcp dport {port} accept"
            );
        }
        rules
    }

    /// Returns the rules for packets of the guest to the world, in their order.
    fn out(&self) -> String {
        let mut rules = String::new();
        let names = Reachable::dns(self.dns).into_iter().filter(|_| !self.policy.has_gate());
        for thing in names.chain(self.reachable.iter().copied()) {
            let (address, protocol, port) = (thing.address, thing.protocol(), thing.port);
            let _ = writeln!(rules, "    ip daddr {address} {protocol} dport {port} goto exception");
        }
        for network in self.networks() {
            let _ = writeln!(rules, "    {network} goto world");
        }
        let _ = match self.policy {
            NetworkPolicy::None | NetworkPolicy::Allow(_) => {
                write!(rules, "    goto refused")
            }
            NetworkPolicy::Guarded => {
                write!(rules, "    ip daddr {{ {} }} goto refused\n    goto world", self.shut())
            }
            NetworkPolicy::Audit(_) | NetworkPolicy::Open => write!(rules, "    goto world"),
        };
        rules
    }

    fn shut(&self) -> String {
        self.shut.iter().map(Prefix::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Returns what matches packets to the networks of the list.
    fn networks(&self) -> Vec<String> {
        let networks = self.policy.entries().iter().filter_map(AllowEntry::network);
        let matching = networks.map(|(network, ports)| match ports {
            Ports::Web => format!("ip daddr {network} meta l4proto {{ tcp, udp }} th dport {{ 80, 443 }}"),
            Ports::One(port) => format!("ip daddr {network} meta l4proto {{ tcp, udp }} th dport {port}"),
            Ports::All => format!("ip daddr {network}"),
        });
        matching.collect()
    }

    /// Returns the rules for packets of the gate: it asks the DNS server, and reaches nothing else. Its questions take entries
    /// of the host's table, so that the rate is limited too.
    fn output(&self) -> String {
        if !self.policy.has_gate() {
            return String::new();
        }
        let dns = self.dns;
        format!(
            "
    ct state new limit rate over {CONNECTIONS_PER_SECOND_MAX}/second burst {NAMES_MAX} packets drop
    oifname \"{UPLINK}\" ip daddr {dns} meta l4proto {{ tcp, udp }} th dport 53 accept{}",
            self.output_of_connections()
        )
    }

    /// Returns the rules for the connections that the gate makes for the guest. The gate has judged them, and the shut ranges
    /// stay shut even if it errs. An audit has none.
    fn output_of_connections(&self) -> String {
        if !self.policy.has_list() {
            return String::new();
        }
        let shut = match self.policy.only_records() {
            true => String::new(),
            false => format!("\n    ip daddr {{ {} }} drop", self.shut()),
        };
        format!(
            "{shut}
    ct state new ct count over {CONNECTIONS_MAX} drop
    oifname \"{UPLINK}\" meta l4proto tcp accept"
        )
    }

    /// Returns the chain that leads every question of the guest to its gate, whichever server it asks; and if the policy is a
    /// list, each connection to an address that is no exception.
    fn prerouting(&self) -> String {
        if !self.policy.has_gate() {
            return String::new();
        }
        format!(
            "  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname \"{TAP}\" ip saddr {GUEST} meta l4proto {{ tcp, udp }} th dport 53 dnat to {GATEWAY}{}
  }}
",
            self.led_connections()
        )
    }

    fn led_connections(&self) -> String {
        if !self.policy.has_list() {
            return String::new();
        }
        let mut rules = String::new();
        for thing in self.reachable.iter().filter(|thing| !thing.udp) {
            let _ = write!(rules, "\n    ip daddr {} tcp dport {} return", thing.address, thing.port);
        }
        for network in self.networks() {
            let _ = write!(rules, "\n    {network} return");
        }
        let _ = write!(
            rules,
            "\n    iifname \"{TAP}\" ip saddr {GUEST} ip daddr != {GATEWAY} meta l4proto tcp dnat to {GATEWAY}:{STREAMS_PORT}"
        );
        rules
    }
}

/// The end of a packet by which it is counted.
#[derive(Debug, Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Returns the set of this name, which the rules fill.
fn counting_set(name: &str) -> String {
    format!(
        "  set {name} {{
    type ipv4_addr . inet_proto . inet_service
    size {COUNTED_MAX}
    flags dynamic
  }}
"
    )
}

/// Returns the rule that counts a packet in a set.
fn count(set: &str, side: Side) -> String {
    let (address, port) = match side {
        Side::Source => ("saddr", "sport"),
        Side::Destination => ("daddr", "dport"),
    };
    format!("meta l4proto {{ tcp, udp }} update @{set} {{ ip {address} . meta l4proto . th {port} counter }}")
}

/// Returns the table that lets packets of the guest's own address pass alone, because each other sender would get an entry in the
/// table of neighbours, which all namespaces of a host share.
fn ingress() -> String {
    format!(
        "table netdev dayfly {{
  chain ingress {{
    type filter hook ingress device \"{TAP}\" priority filter; policy drop;
    ip saddr {GUEST} accept
    arp saddr ip {GUEST} accept
  }}
}}
"
    )
}

/// Returns the rules in a VM's namespace. The card must exist before they are set.
pub(super) fn namespace(rules: &NamespaceRules<'_>) -> String {
    let (input, out, output) = (rules.input(), rules.out(), rules.output());
    let prerouting = rules.prerouting();
    let [sent, received, denied] = [SENT, RECEIVED, DENIED].map(counting_set);
    let (count_sent, count_denied) = (count(SENT, Side::Destination), count(DENIED, Side::Destination));
    let count_received = count(RECEIVED, Side::Source);
    format!(
        "{}table ip dayfly {{
{sent}{received}{denied}  chain names {{
    ct state new ct count over {CONNECTIONS_MAX} drop
    accept
  }}
  chain led {{
    ct state new ct count over {CONNECTIONS_MAX} drop
    accept
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept{input}
    iifname \"{TAP}\" ip daddr {GATEWAY} reject with icmp type admin-prohibited
  }}
  chain exception {{
    ct state new ct count over {CONNECTIONS_MAX} drop
    goto passed
  }}
  chain world {{
    ct state new limit rate over {CONNECTIONS_PER_SECOND_MAX}/second burst {CONNECTIONS_MAX} packets drop
    ct state new ct count over {CONNECTIONS_MAX} drop
    goto passed
  }}
  chain passed {{
    iifname \"{TAP}\" {count_sent}
    oifname \"{TAP}\" {count_received}
    accept
  }}
  chain refused {{
    {count_denied}
    reject with icmp type admin-prohibited
  }}
  chain out {{
{out}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related goto passed
    iifname \"{TAP}\" oifname \"{UPLINK}\" ip saddr {GUEST} jump out
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    ct state established,related accept{output}
  }}
{prerouting}  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"{UPLINK}\" masquerade
  }}
}}
",
        ingress()
    )
}

/// Returns the rules in the namespace of a VM's network that is made without root, whose only way out are the sockets of the gate
/// and the forwarded port. The card must exist before they are set.
///
/// What is no TCP is led to the gateway too, where no rule accepts it: the guest is told so at once, and nothing is forwarded.
pub(super) fn gated(forward: Option<u16>) -> String {
    let guest = format!("iifname \"{TAP}\" ip saddr {GUEST} ip daddr");
    let forwarded =
        forward.map_or_else(String::new, |port| format!("\n    {guest} {GATEWAY} tcp dport {port} accept"));
    format!(
        "{}table ip dayfly {{
  chain led {{
    ct state new limit rate over {CONNECTIONS_PER_SECOND_MAX}/second burst {NAMES_MAX} packets drop
    ct state new ct count over {CONNECTIONS_MAX} drop
    accept
  }}
  chain names {{
    ct state new ct count over {CONNECTIONS_MAX} drop
    accept
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    {guest} {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 goto names
    {guest} {GATEWAY} tcp dport {STREAMS_PORT} goto led{forwarded}
    iifname \"{TAP}\" ip daddr {GATEWAY} reject with icmp type admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    ct state established,related accept
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname \"{TAP}\" ip saddr {GUEST} meta l4proto {{ tcp, udp }} th dport 53 dnat to {GATEWAY}
    {guest} != {GATEWAY} meta l4proto tcp dnat to {GATEWAY}:{STREAMS_PORT}
    {guest} != {GATEWAY} dnat to {GATEWAY}
  }}
}}
",
        ingress()
    )
}

/// Returns the rules of this host, with the exceptions of these links. The rules are the same for all its VMs, except for the
/// set `reachable`. Each call fills the chains anew in one transaction. This restores chains that another program has flushed,
/// and does not disturb other VMs.
///
/// The rules also shut the addresses of this host, because only the host knows all of them at any time, public ones
/// included, and the broadcast addresses of its networks, at which it and its neighbours listen. They act before any
/// translation of addresses, which leads to containers whose ports this host publishes.
pub(super) fn host(machines: &[&HostMachine]) -> String {
    let sets: String = machines.iter().map(|machine| elements("add", machine)).collect();
    format!(
        "add table ip dayfly
add set ip dayfly reachable {{ typeof iifname . ip daddr . ip protocol . th dport; }}
add set ip dayfly open {{ typeof iifname; }}
add chain ip dayfly prerouting {{ type filter hook prerouting priority mangle; policy accept; }}
add chain ip dayfly forward {{ type filter hook forward priority filter; policy accept; }}
add chain ip dayfly postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain ip dayfly prerouting
flush chain ip dayfly forward
flush chain ip dayfly postrouting
add rule ip dayfly prerouting iifname \"{LINK_PREFIX}*\" iifname . ip daddr . ip protocol . th dport @reachable accept
add rule ip dayfly prerouting iifname @open accept
add rule ip dayfly prerouting iifname \"{LINK_PREFIX}*\" fib daddr type {{ local, broadcast, anycast, multicast }} drop
add rule ip dayfly forward iifname \"{LINK_PREFIX}*\" oifname \"{LINK_PREFIX}*\" drop
add rule ip dayfly forward iifname \"{LINK_PREFIX}*\" ip saddr != {RANGE} drop
add rule ip dayfly forward oifname \"{LINK_PREFIX}*\" ct state established,related accept
add rule ip dayfly forward oifname \"{LINK_PREFIX}*\" drop
add rule ip dayfly postrouting ip saddr {RANGE} oifname != \"{LINK_PREFIX}*\" masquerade
{sets}"
    )
}

/// Returns the text that removes a VM's exceptions from the host's rules.
pub(super) fn forget(machine: &HostMachine) -> String {
    elements("delete", machine)
}

/// The text that removes all of the host's rules.
pub(super) const REMOVE: &str = "add table ip dayfly\ndelete table ip dayfly\n";

/// Returns the text that adds a VM to the host's sets, or deletes it from them.
fn elements(verb: &str, machine: &HostMachine) -> String {
    let HostMachine { link, reachable, is_open } = machine;
    let element =
        |thing: &Reachable| format!("\"{link}\" . {} . {} . {}", thing.address, thing.protocol(), thing.port);
    let mut text = String::new();
    if !reachable.is_empty() {
        let all = reachable.iter().map(element).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "{verb} element ip dayfly reachable {{ {all} }}");
    }
    if *is_open {
        let _ = writeln!(text, "{verb} element ip dayfly open {{ \"{link}\" }}");
    }
    text
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
    use crate::network::ranges;

    fn reachable() -> Vec<Reachable> {
        let allow = ["192.0.2.7:443", "[2001:db8::1]:443", "192.0.2.7:443"]
            .map(|text| text.parse().expect("address"));
        Reachable::of(&allow)
    }

    fn rules_of(policy: NetworkPolicy) -> String {
        let shut = ranges::shut(&[Prefix::of(Ipv4Addr::new(203, 0, 113, 1), 32)]);
        let dns = Ipv4Addr::new(1, 1, 1, 1);
        namespace(&NamespaceRules {
            policy: &policy,
            reachable: &reachable(),
            dns,
            forward: Some(4321),
            shut: &shut,
        })
    }

    #[test]
    fn a_guest_reaches_the_internet_and_exceptions_only() {
        insta::assert_snapshot!(rules_of(NetworkPolicy::Guarded));
    }

    #[test]
    fn a_guest_with_the_policy_none_reaches_its_forge_and_its_gate() {
        insta::assert_snapshot!(rules_of(NetworkPolicy::None));
    }

    #[test]
    fn a_guest_with_a_list_reaches_its_networks_and_the_gate_alone() {
        let list = ["example.com", "10.1.0.0/16:5432", "192.0.2.0/24:*"];
        let list = list.iter().map(|text| text.parse().expect("an entry")).collect();
        insta::assert_snapshot!(rules_of(NetworkPolicy::Allow(list)));
    }

    #[test]
    fn an_audited_guest_is_led_to_the_gate_and_reaches_what_an_open_one_does() {
        let list = ["example.com", "10.1.0.0/16:5432"].iter().map(|text| text.parse().expect("an entry"));
        insta::assert_snapshot!(rules_of(NetworkPolicy::Audit(list.collect())));
    }

    #[test]
    fn an_open_guest_has_no_gate_and_no_shut_range() {
        insta::assert_snapshot!(rules_of(NetworkPolicy::Open));
    }

    #[test]
    fn a_guest_without_roots_rules_reaches_its_gate_and_the_forwarded_port_alone() {
        insta::assert_snapshot!(gated(Some(4321)));
        assert_eq!(
            gated(None),
            gated(Some(4321))
                .lines()
                .filter(|line| !line.contains("4321"))
                .fold(String::new(), |all, line| all + line + "\n")
        );
    }

    #[test]
    fn a_host_forwards_for_its_machines_only_and_is_shut_to_them() {
        let mut all = Reachable::dns(Ipv4Addr::new(1, 1, 1, 1)).to_vec();
        all.extend(reachable());
        let machine = HostMachine { link: "dayfly123456789".to_owned(), reachable: all, is_open: false };
        let open = HostMachine { link: "dayflyabcdefghi".to_owned(), reachable: Vec::new(), is_open: true };
        insta::assert_snapshot!(host(&[&machine, &open]));
        insta::assert_snapshot!(forget(&machine), @r#"delete element ip dayfly reachable { "dayfly123456789" . 1.1.1.1 . udp . 53, "dayfly123456789" . 1.1.1.1 . tcp . 53, "dayfly123456789" . 192.0.2.7 . tcp . 443 }"#);
        insta::assert_snapshot!(forget(&open), @r#"delete element ip dayfly open { "dayflyabcdefghi" }"#);
        insta::assert_snapshot!(guard(&["eth0".to_owned(), "eth1".to_owned()]));
    }
}

//! The record of a network: what a machine has reached, and what it was denied. Pure.
//!
//! ```text
//!   gate ── names and addresses, connections that it passed on (`gate::ledger`) ──┐
//!   rules ── bytes to and from each destination, denied packets (`counts`) ───────┴─ join ──> NetworkUse
//! ```
//!
//! Both sides count what a hostile guest has chosen, so each list has a bound, and the text has one. Allowed destinations
//! and the others have separate bounds, so that a guest which floods one list does not push the other one out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::allow::AllowEntry;
use super::counts::{Counted, Counts};
use super::gate::ledger::{Ledger, Passed};
use super::policy::NetworkPolicy;
use super::ranges::{self, Prefix};

/// Most destinations that were let through, and again most that were not.
const ROWS_MAX: usize = 128;
/// Most names of one destination.
const NAMES_MAX: usize = 3;
/// Longest text of all names of each of the two lists, bytes.
const TEXT_MAX: usize = 12 * 1024;
/// Longest name, characters.
const NAME_MAX: usize = 253;
/// The protocols with ports, by their numbers (IANA).
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The destinations of a machine, as its gate and the kernel have counted them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUse {
    /// The word of the machine's policy.
    pub policy: String,
    /// The destinations: the denied ones, then those that only the policy `audit` lets through, then the others, each with the
    /// most bytes first.
    pub destinations: Vec<Destination>,
    /// Number of destinations that are not listed, because there were too many. A full list of the kernel counts as one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// True if the machine's gate was killed while the machine ran: it could not resolve names from then on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gate_killed: bool,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A destination: an address and a port, or a name that was asked for and led to no packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The name that the client has said, or names that have led to the address. A guest or a stranger has chosen them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The address; none for a name that was asked for alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The protocol; none for a name alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The port; none for a name alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The decision.
    pub decision: Decision,
    /// The reason; none if the policy allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Number of questions or connections that the gate has decided about, or of packets that the rules have.
    pub times: u64,
    /// Bytes that the machine has sent: the payload if its gate made the connection, else whole packets.
    pub sent: u64,
    /// Bytes that it has received.
    pub received: u64,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Returns the word for the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn of(number: u8) -> Option<Self> {
        match number {
            TCP => Some(Self::Tcp),
            UDP => Some(Self::Udp),
            _ => None,
        }
    }
}

/// A decision about a destination, in the order in which people need to see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The machine did not reach it.
    Denied,
    /// The machine reached it, and would not have with `guarded` or `allow` in place of `audit`.
    Audited,
    /// The machine reached it.
    Allowed,
}

impl Decision {
    /// Returns the word for the decision.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Audited => "audited",
            Self::Allowed => "allowed",
        }
    }
}

/// The reason why a policy denies a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The list does not have it, or no listed name has led to the address.
    Unlisted,
    /// The address is in a range that no guarded machine reaches.
    Shut,
    /// The first bytes of the connection name no server, or another one than the name that has led to the address.
    OtherName,
}

impl Reason {
    /// Returns the reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unlisted => "not in the list",
            Self::Shut => "a shut address",
            Self::OtherName => "another name, or none",
        }
    }
}

/// The key of a destination with a port.
type Key = (Ipv4Addr, Protocol, u16, Option<Reason>);

/// Everything by which the counts of a machine's rules are judged.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    /// The machine's policy.
    pub(super) policy: &'a NetworkPolicy,
    /// The addresses and ports that the machine reaches whatever its list says.
    pub(super) exceptions: Vec<(Ipv4Addr, u16)>,
    /// The ranges that are shut.
    pub(super) shut: &'a [Prefix],
}

impl Judge<'_> {
    /// Returns the reason why packets that were let through would have been denied without an audit. The gate makes the
    /// connections of a list, so these packets need no name, or are no TCP.
    fn of_passed(&self, of: &Counted) -> Option<Reason> {
        let is_exception = self.exceptions.contains(&(of.address, of.port));
        let may_pass = !self.policy.only_records() || is_exception || lists_packets(self.policy, of);
        (!may_pass).then(|| self.of_denied(of))
    }

    /// Returns the reason why packets are denied.
    fn of_denied(&self, of: &Counted) -> Reason {
        if ranges::contain(self.shut, of.address) { Reason::Shut } else { Reason::Unlisted }
    }
}

/// Joins what the gate and the rules have counted.
pub(super) fn join(judge: &Judge<'_>, ledger: &Ledger, counts: &Counts) -> NetworkUse {
    let policy = judge.policy;
    let mut rows: Vec<Destination> =
        ledger.connections.iter().map(|passed| of_gate(policy, passed)).collect();
    rows.extend(of_rules(judge, ledger, counts));
    let reached: Vec<String> = rows.iter().flat_map(|row| row.names.clone()).collect();
    let asked =
        ledger.names.iter().filter(|asked| asked.reason.is_some() || !reached.contains(&cut(&asked.name)));
    rows.extend(asked.map(|asked| Destination {
        names: vec![cut(&asked.name)],
        address: None,
        protocol: None,
        port: None,
        decision: decision(policy, asked.reason),
        reason: asked.reason,
        times: asked.times,
        sent: 0,
        received: 0,
    }));
    let (destinations, left_out) = bounded(rows);
    let full_lists = [&counts.sent, &counts.received, &counts.denied];
    let full_lists = full_lists.iter().filter(|list| list.len() >= super::rules::COUNTED_MAX).count();
    NetworkUse {
        policy: policy.as_str().to_owned(),
        destinations,
        left_out: left_out.saturating_add(ledger.left_out).saturating_add(full_lists as u64),
        gate_killed: false,
    }
}

/// Returns the decision that a reason leads to.
fn decision(policy: &NetworkPolicy, reason: Option<Reason>) -> Decision {
    match reason {
        None => Decision::Allowed,
        Some(_) if policy.only_records() => Decision::Audited,
        Some(_) => Decision::Denied,
    }
}

fn of_gate(policy: &NetworkPolicy, passed: &Passed) -> Destination {
    Destination {
        names: passed.name.iter().map(|name| cut(name)).collect(),
        address: Some(passed.address),
        protocol: Some(Protocol::Tcp),
        port: Some(passed.port),
        decision: decision(policy, passed.reason),
        reason: passed.reason,
        times: passed.times,
        sent: passed.sent,
        received: passed.received,
    }
}

/// Returns the destinations that the rules have decided about.
fn of_rules(judge: &Judge<'_>, ledger: &Ledger, counts: &Counts) -> Vec<Destination> {
    let mut rows: BTreeMap<Key, (u64, u64, u64)> = BTreeMap::new();
    let mut add = |of: &Counted, reason: Option<Reason>, (times, sent, received): (u64, u64, u64)| {
        let Some(protocol) = Protocol::of(of.protocol) else { return };
        let row = rows.entry((of.address, protocol, of.port, reason)).or_default();
        row.0 = row.0.saturating_add(times);
        row.1 = row.1.saturating_add(sent);
        row.2 = row.2.saturating_add(received);
    };
    counts.sent.iter().for_each(|of| add(of, judge.of_passed(of), (of.packets, of.bytes, 0)));
    counts.received.iter().for_each(|of| add(of, judge.of_passed(of), (0, 0, of.bytes)));
    counts.denied.iter().for_each(|of| add(of, Some(judge.of_denied(of)), (of.packets, of.bytes, 0)));
    let row = |((address, protocol, port, reason), (times, sent, received))| Destination {
        names: ledger.names_of(address).take(NAMES_MAX).map(cut).collect(),
        address: Some(address),
        protocol: Some(protocol),
        port: Some(port),
        decision: decision(judge.policy, reason),
        reason,
        times,
        sent,
        received,
    };
    rows.into_iter().map(row).collect()
}

/// Returns true if the list has a network with this port.
fn lists_packets(policy: &NetworkPolicy, of: &Counted) -> bool {
    let mut networks = policy.entries().iter().filter_map(AllowEntry::network);
    networks.any(|(network, ports)| ranges::contain(&[network], of.address) && ports.contain(of.port))
}

/// Sorts the rows, and returns as many as the bounds allow, with the number of the others.
fn bounded(mut rows: Vec<Destination>) -> (Vec<Destination>, u64) {
    rows.sort_by_key(|row| {
        let bytes = row.sent.saturating_add(row.received);
        (row.decision, std::cmp::Reverse((bytes, row.times)), row.names.clone(), row.address, row.port)
    });
    let all = rows.len();
    let mut left = [(ROWS_MAX, TEXT_MAX); 2];
    rows.retain(|row| {
        let (rows_left, text_left) = &mut left[usize::from(row.decision == Decision::Allowed)];
        let text: usize = row.names.iter().map(String::len).sum();
        let fits = *rows_left > 0 && *text_left >= text;
        if fits {
            *rows_left -= 1;
            *text_left -= text;
        }
        fits
    });
    let left_out = (all - rows.len()) as u64;
    (rows, left_out)
}

/// Returns a name with as many characters as a name has, none of which steers a terminal.
fn cut(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::super::gate::ledger::Asked;
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    fn counted(address: Ipv4Addr, protocol: u8, port: u16, bytes: u64) -> Counted {
        Counted { address, protocol, port, packets: 2, bytes }
    }

    fn asked(name: &str, reason: Option<Reason>, addresses: &[Ipv4Addr]) -> Asked {
        Asked { name: name.to_owned(), reason, times: 1, addresses: addresses.to_vec() }
    }

    fn passed(name: &str, reason: Option<Reason>, sent: u64) -> Passed {
        Passed {
            name: Some(name.to_owned()),
            address: SERVER,
            port: 443,
            reason,
            times: 1,
            sent,
            received: 9,
        }
    }

    fn judge(policy: &NetworkPolicy) -> Judge<'_> {
        Judge { policy, exceptions: Vec::new(), shut: &ranges::SHUT }
    }

    /// Returns a line for each destination.
    fn lines(used: &NetworkUse) -> Vec<String> {
        let line = |row: &Destination| {
            let to = row.address.map_or_else(String::new, |to| to.to_string());
            let port = row.port.map_or_else(String::new, |port| port.to_string());
            let names = row.names.join(",");
            let reason = row.reason.map_or("-", Reason::as_str);
            let decision = row.decision.as_str();
            format!("{decision} ({reason}) {names} {to}:{port} {}x {}>{}<", row.times, row.sent, row.received)
        };
        used.destinations.iter().map(line).collect()
    }

    fn list(entries: &[&str]) -> Vec<AllowEntry> {
        entries.iter().map(|text| text.parse().expect("an entry")).collect()
    }

    #[test]
    fn packets_have_the_names_that_have_led_to_their_address() {
        let ledger = Ledger {
            names: vec![
                asked("www.example", None, &[SERVER]),
                asked("never.example", None, &[Ipv4Addr::new(192, 0, 2, 8)]),
                asked("rebinding.example", Some(Reason::Shut), &[]),
            ],
            ..Ledger::default()
        };
        let counts = Counts {
            sent: vec![counted(SERVER, TCP, 443, 100), counted(Ipv4Addr::new(192, 168, 7, 7), TCP, 80, 5)],
            received: vec![counted(SERVER, TCP, 443, 1000), counted(SERVER, 1, 0, 7)],
            denied: vec![counted(Ipv4Addr::new(10, 0, 0, 1), UDP, 53, 60)],
        };
        let used = join(&judge(&NetworkPolicy::Guarded), &ledger, &counts);
        insta::assert_snapshot!(lines(&used).join("\n"), @r"
        denied (a shut address)  10.0.0.1:53 2x 60>0<
        denied (a shut address) rebinding.example : 1x 0>0<
        allowed (-) www.example 192.0.2.7:443 2x 100>1000<
        allowed (-)  192.168.7.7:80 2x 5>0<
        allowed (-) never.example : 1x 0>0<
        ");
    }

    #[test]
    fn an_audit_tells_what_the_shut_ranges_and_its_list_would_have_denied() {
        let ledger = Ledger {
            names: vec![asked("other.example", Some(Reason::Unlisted), &[SERVER])],
            connections: vec![
                passed("www.example", None, 10),
                passed("other.example", Some(Reason::Unlisted), 20),
                passed("private.example", Some(Reason::Shut), 0),
            ],
            ..Ledger::default()
        };
        let forge = Ipv4Addr::new(192, 168, 7, 7);
        let counts = Counts {
            sent: vec![
                counted(SERVER, UDP, 443, 100),
                counted(Ipv4Addr::new(10, 1, 2, 3), UDP, 5432, 5),
                counted(forge, TCP, 80, 4),
            ],
            received: vec![counted(Ipv4Addr::new(10, 9, 0, 1), UDP, 123, 60)],
            ..Counts::default()
        };
        let entries = list(&["www.example", "10.1.0.0/16:5432"]);
        let of = |policy| {
            let judge = Judge { exceptions: vec![(forge, 80)], ..judge(&policy) };
            lines(&join(&judge, &ledger, &counts)).join("\n")
        };
        insta::assert_snapshot!(of(NetworkPolicy::Audit(entries.clone())), @r"
        audited (not in the list) other.example 192.0.2.7:443 2x 100>0<
        audited (a shut address)  10.9.0.1:123 0x 0>60<
        audited (not in the list) other.example 192.0.2.7:443 1x 20>9<
        audited (a shut address) private.example 192.0.2.7:443 1x 0>9<
        audited (not in the list) other.example : 1x 0>0<
        allowed (-) www.example 192.0.2.7:443 1x 10>9<
        allowed (-)  10.1.2.3:5432 2x 5>0<
        allowed (-)  192.168.7.7:80 2x 4>0<
        ");
        assert!(
            of(NetworkPolicy::Allow(entries))
                .contains("denied (not in the list) other.example 192.0.2.7:443")
        );
    }

    #[test]
    fn a_flood_of_denied_destinations_does_not_hide_the_allowed_ones_and_names_are_cut() {
        let long = format!("\u{1b}[2J{}", "x".repeat(1000));
        let ledger = Ledger {
            names: (0..500)
                .map(|number| asked(&format!("{number}.{long}"), Some(Reason::Unlisted), &[]))
                .collect(),
            connections: vec![passed("good.example", None, 1)],
            left_out: 7,
            ..Ledger::default()
        };
        let used = join(&judge(&NetworkPolicy::Allow(Vec::new())), &ledger, &Counts::default());
        assert!(lines(&used).iter().any(|line| line.contains("good.example")));
        assert_eq!(used.destinations.len() as u64 + used.left_out, 501 + 7);
        assert!(serde_json::to_string(&used).expect("JSON").len() < 64 * 1024);
        assert!(used.destinations.iter().flat_map(|row| &row.names).all(|name| !name.contains('\u{1b}')));
    }
}

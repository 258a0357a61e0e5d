//! DNS messages (RFC 1035), as far as a forwarder needs them. Pure.
//!
//! Both sides are hostile: guests send questions, and anybody who has a domain sends answers. Each function reads forward
//! through a message once. Names are never decompressed, so no pointer is followed; an answer is passed on as it came, without
//! its additional section, because pointers lead backwards only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

/// Length of a header.
const HEADER: usize = 12;
/// Longest name, with lengths and the root, bytes.
const NAME_MAX: usize = 255;
/// Longest message by UDP for a client that has named no limit.
const UDP_PLAIN: usize = 512;
/// Longest message by UDP for any client: what passes every link in one packet (the flag day of 2020).
const UDP_MAX: usize = 1232;
/// The class of the internet.
const INTERNET: u16 = 1;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION: u16 = 0x0100;
const FLAG_RECURSES: u16 = 0x0080;
const OPCODE: u16 = 0x7800;

/// The types of records that are treated specially.
pub(super) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
    /// The first of the types that ask for more than one record: transfers of zones, and any type.
    pub(crate) const FIRST_OF_MANY: u16 = 249;
    /// The last of them.
    pub(crate) const LAST_OF_MANY: u16 = 255;
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The name exists, and has no such record.
    Empty = 0,
    /// The message cannot be read.
    Malformed = 1,
    /// No answer could be had.
    Failed = 2,
    /// There is no such name.
    NoName = 3,
    /// Such questions are not answered.
    Unsupported = 4,
    /// Such questions are not answered here.
    Refused = 5,
}

/// A question of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    id: u16,
    flags: u16,
    /// The section of the question, as it came.
    question: Vec<u8>,
    /// The name in lower case without the last dot. A byte that no host name has is `?`.
    pub(super) name: String,
    /// The type of the records.
    pub(super) kind: u16,
    /// True if the class is that of the internet.
    pub(super) is_internet: bool,
    /// The longest answer by UDP that the client takes, if it has said so.
    udp_max: Option<usize>,
}

/// A message that is no query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoQuery {
    /// It deserves no answer, because an answer could be one to an answer.
    Ignored,
    /// The answer.
    Answered(Vec<u8>),
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Reads a name without pointers. Returns it, and the place behind it.
fn name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut text, mut at) = (String::new(), start);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return (at - start <= NAME_MAX).then_some((text, at));
        }
        if length > 63 {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        for byte in bytes.get(at..at + length)? {
            let is_plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            text.push(if is_plain { char::from(byte.to_ascii_lowercase()) } else { '?' });
        }
        at += length;
        if at - start > NAME_MAX {
            return None;
        }
    }
}

/// Returns the place behind a name, which may end with a pointer.
fn behind_name(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + length,
            192..=255 => return bytes.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
        if at - start > NAME_MAX {
            return None;
        }
    }
}

/// A record, whose fields are in the message that it was read from.
struct Record {
    kind: u16,
    class: u16,
    /// Time for which it holds, seconds.
    lifetime_s: u32,
    data: Range<usize>,
}

fn record(bytes: &[u8], start: usize) -> Option<Record> {
    let at = behind_name(bytes, start)?;
    let data = at + 10..at + 10 + usize::from(number(bytes, at + 8)?);
    bytes.get(data.clone())?;
    let lifetime_s = u32::from_be_bytes(bytes.get(at + 4..at + 8)?.try_into().ok()?);
    Some(Record { kind: number(bytes, at)?, class: number(bytes, at + 2)?, lifetime_s, data })
}

impl Query {
    /// Reads a query.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, NoQuery> {
        let (Some(id), Some(flags), true) = (number(bytes, 0), number(bytes, 2), bytes.len() >= HEADER)
        else {
            return Err(NoQuery::Ignored);
        };
        if flags & FLAG_RESPONSE != 0 {
            return Err(NoQuery::Ignored);
        }
        let bare = Self {
            id,
            flags,
            question: Vec::new(),
            name: String::new(),
            kind: 0,
            is_internet: false,
            udp_max: None,
        };
        if flags & OPCODE != 0 {
            return Err(NoQuery::Answered(bare.ends(Outcome::Unsupported)));
        }
        bare.with_sections(bytes).ok_or_else(|| NoQuery::Answered(bare.ends(Outcome::Malformed)))
    }

    fn with_sections(&self, bytes: &[u8]) -> Option<Self> {
        let counts = [4, 6, 8, 10].map(|at| number(bytes, at));
        // A query has one question, no answer, and beside it at most what EDNS and signatures of messages add.
        let [Some(1), Some(0), Some(0), Some(additional @ 0..=2)] = counts else { return None };
        let (name, behind) = name(bytes, HEADER)?;
        let mut at = behind + 4;
        let question = bytes.get(HEADER..at)?.to_vec();
        let mut udp_max = None;
        for _ in 0..additional {
            let Record { kind, class, data, .. } = record(bytes, at)?;
            // The class of this record is a length (RFC 6891).
            udp_max = if kind == kind::OPT { Some(usize::from(class)) } else { udp_max };
            at = data.end;
        }
        Some(Self {
            question,
            name,
            kind: number(bytes, behind)?,
            is_internet: number(bytes, behind + 2)? == INTERNET,
            udp_max,
            ..self.clone()
        })
    }

    /// Returns the question as it is sent to the DNS server, which may answer with as much as the longest message by UDP.
    pub(super) fn asked_as(&self, id: u16) -> Vec<u8> {
        let mut message = header(id, FLAG_RECURSION, [1, 0, 0, 1]);
        message.extend_from_slice(&self.question);
        message.extend(edns());
        message
    }

    /// Returns an answer without records.
    pub(super) fn ends(&self, outcome: Outcome) -> Vec<u8> {
        let flags = FLAG_RESPONSE | FLAG_RECURSES | self.flags & (OPCODE | FLAG_RECURSION) | outcome as u16;
        let counts = [u16::from(!self.question.is_empty()), 0, 0, u16::from(self.udp_max.is_some())];
        let mut message = header(self.id, flags, counts);
        message.extend_from_slice(&self.question);
        message.extend(self.udp_max.into_iter().flat_map(|_| edns()));
        message
    }

    /// Returns the answer with the records of a reply. By UDP it may be too long; then it says so, and the client asks again
    /// by TCP.
    pub(super) fn answer(&self, reply: &Reply, is_udp: bool) -> Vec<u8> {
        let mut message = reply.records.clone();
        let counts = [1, reply.answers, reply.authorities, u16::from(self.udp_max.is_some())];
        let flags = reply.flags & !FLAG_TRUNCATED;
        message[..HEADER].copy_from_slice(&header(self.id, flags, counts));
        message.extend(self.udp_max.into_iter().flat_map(|_| edns()));
        let longest = self.udp_max.unwrap_or(UDP_PLAIN).clamp(UDP_PLAIN, UDP_MAX);
        if is_udp && message.len() > longest {
            message = self.ends(Outcome::Empty);
            message[2..4].copy_from_slice(&(flags | FLAG_TRUNCATED).to_be_bytes());
        }
        message
    }
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [id, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes).collect()
}

/// Returns the record that names the longest message by UDP (RFC 6891).
fn edns() -> Vec<u8> {
    let fields = [kind::OPT, UDP_MAX as u16, 0, 0, 0];
    std::iter::once(0).chain(fields.into_iter().flat_map(u16::to_be_bytes)).collect()
}

/// A reply of the DNS server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    flags: u16,
    /// The message up to the end of its authority section.
    records: Vec<u8>,
    answers: u16,
    authorities: u16,
    /// The addresses in it.
    pub(super) addresses: Vec<IpAddr>,
    /// Time for which the addresses hold.
    pub(super) lifetime: Duration,
}

impl Reply {
    /// Reads the reply to a question that was sent with this id; none if it is the reply to another question, or damaged.
    pub(super) fn parse(bytes: &[u8], query: &Query, id: u16) -> Option<Self> {
        let flags = number(bytes, 2)?;
        let is_reply = number(bytes, 0)? == id && flags & (FLAG_RESPONSE | OPCODE) == FLAG_RESPONSE;
        let end = HEADER + query.question.len();
        let is_same = bytes.get(HEADER..end)?.eq_ignore_ascii_case(&query.question);
        if !is_reply || !is_same || number(bytes, 4)? != 1 {
            return None;
        }
        if flags & FLAG_TRUNCATED != 0 {
            let (records, addresses, lifetime) = (bytes[..end].to_vec(), Vec::new(), Duration::ZERO);
            return Some(Self { flags, records, answers: 0, authorities: 0, addresses, lifetime });
        }
        let (answers, authorities) = (number(bytes, 6)?, number(bytes, 8)?);
        let (mut at, mut addresses, mut lifetime_s) = (end, Vec::new(), u32::MAX);
        // Each record takes at least eleven bytes, so the message's length bounds this.
        for _ in 0..u32::from(answers) + u32::from(authorities) {
            let record = record(bytes, at)?;
            at = record.data.end;
            if let Some(address) = address(&record, bytes) {
                addresses.push(address);
                lifetime_s = lifetime_s.min(record.lifetime_s);
            }
        }
        let lifetime = Duration::from_secs(lifetime_s.into());
        Some(Self { flags, records: bytes[..at].to_vec(), answers, authorities, addresses, lifetime })
    }

    /// Returns true if the reply was too long for UDP.
    pub(super) fn is_truncated(&self) -> bool {
        self.flags & FLAG_TRUNCATED != 0
    }
}

fn address(record: &Record, bytes: &[u8]) -> Option<IpAddr> {
    let data = bytes.get(record.data.clone())?;
    match (record.kind, record.class) {
        (kind::A, INTERNET) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
        (kind::AAAA, INTERNET) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
pub(in crate::network) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a query without EDNS.
    pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
        let mut message = header(id, FLAG_RECURSION, [1, 0, 0, 0]);
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend([kind, INTERNET].into_iter().flat_map(u16::to_be_bytes));
        message
    }

    /// Returns the reply of a server with these addresses to a message, with pointers in place of names.
    pub(crate) fn reply(asked: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
        let query = Query::parse(asked).expect("a query");
        let mut message = header(query.id, FLAG_RESPONSE | FLAG_RECURSES, [1, addresses.len() as u16, 0, 0]);
        message.extend_from_slice(&query.question);
        for address in addresses {
            message.extend([0xc0, HEADER as u8]);
            message.extend([kind::A, INTERNET, 0, 60, 4].into_iter().flat_map(u16::to_be_bytes));
            message.extend(address.octets());
        }
        message
    }

    /// Returns the outcome and the addresses of an answer.
    pub(crate) fn outcome(asked: &[u8], answer: &[u8]) -> (u16, Vec<IpAddr>) {
        let query = Query::parse(asked).expect("a query");
        let reply = Reply::parse(answer, &query, query.id).expect("an answer");
        (reply.flags & 15, reply.addresses)
    }

    #[test]
    fn a_query_is_read_and_asked_on_with_another_id() {
        let bytes = query(7, "WWW.Example.com", kind::A);
        let parsed = Query::parse(&bytes).expect("a query");
        assert_eq!(
            (parsed.name.as_str(), parsed.kind, parsed.is_internet),
            ("www.example.com", kind::A, true)
        );
        let asked = Query::parse(&parsed.asked_as(9)).expect("a query");
        assert_eq!((asked.id, asked.udp_max, &asked.name), (9, Some(1232), &parsed.name));
    }

    #[test]
    fn the_records_of_a_reply_reach_the_client_with_its_own_id() {
        let bytes = query(7, "example.com", kind::A);
        let parsed = Query::parse(&bytes).expect("a query");
        let addresses = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 0, 0, 1)];
        let reply = Reply::parse(&reply(&parsed.asked_as(9), &addresses), &parsed, 9).expect("a reply");
        let answer = parsed.answer(&reply, true);
        assert_eq!(number(&answer, 0), Some(7));
        assert_eq!(outcome(&bytes, &answer), (0, addresses.map(IpAddr::V4).to_vec()));
    }

    #[test]
    fn a_reply_to_another_question_is_none() {
        let parsed = Query::parse(&query(7, "example.com", kind::A)).expect("a query");
        let of = |name, kind| reply(&query(9, name, kind), &[Ipv4Addr::new(192, 0, 2, 1)]);
        assert!(Reply::parse(&of("EXAMPLE.com", kind::A), &parsed, 9).is_some());
        assert!(Reply::parse(&of("example.com", kind::A), &parsed, 8).is_none());
        assert!(Reply::parse(&of("example.org", kind::A), &parsed, 9).is_none());
        assert!(Reply::parse(&of("example.com", kind::AAAA), &parsed, 9).is_none());
        assert!(Reply::parse(&parsed.asked_as(9), &parsed, 9).is_none(), "a query");
    }

    #[test]
    fn an_answer_that_is_too_long_for_udp_says_so() {
        let bytes = query(7, "example.com", kind::A);
        let parsed = Query::parse(&bytes).expect("a query");
        let many: Vec<Ipv4Addr> = (0..60).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect();
        let reply = Reply::parse(&reply(&parsed.asked_as(9), &many), &parsed, 9).expect("a reply");
        let by_udp = parsed.answer(&reply, true);
        assert!(by_udp.len() <= UDP_PLAIN && number(&by_udp, 2).expect("flags") & FLAG_TRUNCATED != 0);
        assert_eq!(outcome(&bytes, &parsed.answer(&reply, false)).1.len(), 60);
    }

    #[test]
    fn a_message_that_is_no_query_is_ignored_or_refused() {
        let plain = query(7, "example.com", kind::A);
        let with = |at: usize, byte: u8| {
            let mut bytes = plain.clone();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(Query::parse(&plain[..HEADER - 1]), Err(NoQuery::Ignored));
        assert_eq!(Query::parse(&with(2, 0x81)), Err(NoQuery::Ignored), "an answer");
        let refused = |bytes: &[u8]| match Query::parse(bytes) {
            Err(NoQuery::Answered(answer)) => number(&answer, 2).expect("flags") & 15,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&with(2, 0x28)), Outcome::Unsupported as u16, "an update");
        assert_eq!(refused(&with(5, 2)), Outcome::Malformed as u16, "two questions");
        assert_eq!(refused(&with(HEADER, 0xc0)), Outcome::Malformed as u16, "a pointer");
        assert_eq!(refused(&plain[..plain.len() - 1]), Outcome::Malformed as u16);
        assert_eq!(refused(&with(11, 9)), Outcome::Malformed as u16, "records that are not there");
    }

    #[test]
    fn a_label_with_a_dot_in_it_is_not_the_name_with_that_dot() {
        let mut bytes = query(7, "example-com", kind::A);
        bytes[HEADER + 8] = b'.';
        assert_eq!(Query::parse(&bytes).expect("a query").name, "example?com");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_answered_within_the_limit(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            flips in proptest::collection::vec((0usize..80, any::<u8>()), 0..6),
        ) {
            let mut near = query(7, "www.example.com", kind::A);
            near.extend(edns());
            near[11] = 1;
            for (at, byte) in flips {
                if let Some(place) = near.get_mut(at) {
                    *place = byte;
                }
            }
            let known = Query::parse(&query(7, "www.example.com", kind::A)).expect("a query");
            for bytes in [bytes, near] {
                if let Ok(query) = Query::parse(&bytes) {
                    prop_assert!(query.name.len() <= NAME_MAX);
                    prop_assert!(query.ends(Outcome::NoName).len() <= UDP_PLAIN);
                }
                if let Some(reply) = Reply::parse(&bytes, &known, 7) {
                    prop_assert!(known.answer(&reply, true).len() <= UDP_MAX);
                }
            }
        }
    }
}

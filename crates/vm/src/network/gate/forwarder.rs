//! Decides about questions, and asks the DNS server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::ledger::Book;
use super::message::{NoQuery, Outcome, Query, Reply, kind};
use super::rate::Rate;
use super::resolved::Resolved;
use crate::network::policy::{Access, Verdict};
use crate::network::used::Reason;

/// Number of times that a question is sent by UDP.
const TRIES: u32 = 2;
/// Longest wait for a reply by UDP. Both tries together end before a client gives up, which most do after five seconds.
const TRY_LIMIT: Duration = Duration::from_secs(2);
/// Longest exchange by TCP.
const TCP_LIMIT: Duration = Duration::from_secs(4);
/// Longest reply by UDP that is read, bytes; a longer one than was asked for is damaged.
const UDP_REPLY_MAX: usize = 4096;

/// Answers the questions of one machine.
#[derive(Debug)]
pub(super) struct Forwarder {
    access: Arc<Access>,
    resolved: Option<Arc<Mutex<Resolved>>>,
    book: Book,
    server: SocketAddr,
    rate: Mutex<Rate>,
}

/// The fate of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// The DNS server is asked.
    Ask,
    /// It is answered at once.
    End(Outcome),
}

impl Forwarder {
    /// Returns a forwarder to this DNS server, which writes the names into the ledger, and the addresses that it answers with into
    /// `resolved`, if connections are led to the gate.
    pub(super) fn new(
        access: Arc<Access>,
        resolved: Option<Arc<Mutex<Resolved>>>,
        book: Book,
        server: SocketAddr,
    ) -> Self {
        Self { access, resolved, book, server, rate: Mutex::new(Rate::new(std::time::Instant::now())) }
    }

    /// Returns the answer to a message; none if it deserves none.
    pub(super) async fn answer(&self, message: &[u8], is_udp: bool) -> Option<Vec<u8>> {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(NoQuery::Answered(answer)) => return Some(answer),
            Err(NoQuery::Ignored) => return None,
        };
        let mut reason = self.access.reason_of_name(&query.name);
        if let Plan::End(outcome) = self.plan(&query) {
            if outcome == Outcome::NoName {
                self.book.ask(&query.name, reason, &[]);
            }
            return Some(query.ends(outcome));
        }
        let is_admitted =
            self.rate.lock().unwrap_or_else(PoisonError::into_inner).admits(std::time::Instant::now());
        if !is_admitted {
            // Its client asks again.
            return None;
        }
        let Ok(reply) = ask(self.server, &query).await else { return Some(query.ends(Outcome::Failed)) };
        if !self.is_fit(&query, &reply) {
            reason = Some(Reason::Shut);
        }
        self.book.ask(&query.name, reason, &reply.addresses);
        if reason.is_some() && !self.access.policy.only_records() {
            return Some(query.ends(Outcome::NoName));
        }
        if let Some(resolved) = &self.resolved {
            let mut resolved = resolved.lock().unwrap_or_else(PoisonError::into_inner);
            resolved.insert(&query.name, &reply.addresses, reply.lifetime, std::time::Instant::now());
        }
        Some(query.answer(&reply, is_udp))
    }

    fn plan(&self, query: &Query) -> Plan {
        match query.kind {
            _ if !query.is_internet => Plan::End(Outcome::Refused),
            kind::FIRST_OF_MANY..=kind::LAST_OF_MANY => Plan::End(Outcome::Unsupported),
            // A name that does not exist: programs try no other server then, and wait for none.
            _ if !self.access.may_resolve(&query.name) => Plan::End(Outcome::NoName),
            // Machines have no IPv6. The other two are short cuts with addresses in them; without one, programs ask for A.
            kind::AAAA | kind::SVCB | kind::HTTPS => Plan::End(Outcome::Empty),
            _ => Plan::Ask,
        }
    }

    /// Returns true if the machine may see a reply. One address that is shut spoils all of them: a name that leads to the
    /// internet and to a private network at once is an attack (DNS rebinding), or of no use here.
    fn is_fit(&self, query: &Query, reply: &Reply) -> bool {
        reply.addresses.iter().all(|&address| {
            // 0.0.0.0 means "nowhere" in lists of blocked hosts, and leads to the machine itself.
            address == IpAddr::from(Ipv4Addr::UNSPECIFIED)
                || self.access.decide(address, Some(&query.name)) == Verdict::Allowed
        })
    }
}

/// Asks the DNS server: by UDP, and by TCP if the reply is too long for that.
async fn ask(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let mut reply = ask_by_udp(server, query).await;
    for _ in 1..TRIES {
        if reply.is_err() {
            // It did not answer, or its port is closed for the moment.
            reply = ask_by_udp(server, query).await;
        }
    }
    match reply {
        Ok(reply) if reply.is_truncated() => ask_by_tcp(server, query).await,
        other => other,
    }
}

async fn ask_by_udp(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let deadline = Instant::now() + TRY_LIMIT;
    // A new port and a new id for each question, so that a forged reply has to guess both.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    let id = rand::rng().random();
    socket.send(&query.asked_as(id)).await?;
    let mut bytes = vec![0; UDP_REPLY_MAX];
    loop {
        let length = timeout_at(deadline, socket.recv(&mut bytes)).await??;
        if let Some(reply) = Reply::parse(&bytes[..length], query, id) {
            return Ok(reply);
        }
    }
}

async fn ask_by_tcp(server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let id = rand::rng().random();
        let asked = query.asked_as(id);
        let length = u16::try_from(asked.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &asked].concat()).await?;
        let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut bytes).await?;
        let reply = Reply::parse(&bytes, query, id).filter(|reply| !reply.is_truncated());
        reply.ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    tokio::time::timeout(TCP_LIMIT, exchange).await?
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{outcome, query, reply};
    use super::*;
    use crate::network::policy::NetworkPolicy;
    use crate::network::ranges;

    fn forwarder(policy: NetworkPolicy, server: SocketAddr) -> Forwarder {
        let exceptions = vec!["192.168.7.7:443".parse().expect("an address")];
        let names = vec!["ghes.example".to_owned()];
        let access = Access { policy, names, exceptions, shut: ranges::shut(&[]) };
        Forwarder::new(Arc::new(access), None, Book::default(), server)
    }

    /// Starts a DNS server that answers every question with these addresses, by UDP with as many as fit.
    async fn server(addresses: &[[u8; 4]]) -> SocketAddr {
        let addresses: Vec<Ipv4Addr> = addresses.iter().copied().map(Ipv4Addr::from).collect();
        let streams = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let at = streams.local_addr().expect("an address");
        let socket = UdpSocket::bind(at).await.expect("bind");
        let many = addresses.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
                let mut answer = reply(&bytes[..length], &addresses);
                if answer.len() > 1232 {
                    answer = reply(&bytes[..length], &[]);
                    answer[2] |= 2;
                }
                let _ = socket.send_to(&answer, from).await;
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = streams.accept().await {
                let mut bytes = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
                stream.read_exact(&mut bytes).await.expect("a question");
                let answer = reply(&bytes, &many);
                stream.write_u16(answer.len() as u16).await.expect("write");
                stream.write_all(&answer).await.expect("write");
            }
        });
        at
    }

    /// Asks for the addresses of a name by TCP, which has no limit of length.
    async fn ask_for(forwarder: &Forwarder, name: &str) -> (u16, Vec<IpAddr>) {
        let asked = query(7, name, kind::A);
        outcome(&asked, &forwarder.answer(&asked, false).await.expect("an answer"))
    }

    #[tokio::test]
    async fn a_name_of_the_internet_is_resolved() {
        let at = server(&[[198, 51, 100, 7], [198, 51, 100, 8]]).await;
        let (code, addresses) = ask_for(&forwarder(NetworkPolicy::Guarded, at), "www.example").await;
        assert_eq!((code, addresses.len()), (0, 2));
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_shut_address_does_not_exist() {
        for addresses in [&[[10, 0, 0, 1]][..], &[[198, 51, 100, 7], [127, 0, 0, 1]], &[[169, 254, 169, 254]]]
        {
            let at = server(addresses).await;
            let answer = ask_for(&forwarder(NetworkPolicy::Guarded, at), "evil.example").await;
            assert_eq!(answer, (Outcome::NoName as u16, Vec::new()), "{addresses:?}");
        }
    }

    #[tokio::test]
    async fn the_address_of_a_private_forge_is_answered() {
        let at = server(&[[192, 168, 7, 7]]).await;
        for policy in [NetworkPolicy::None, NetworkPolicy::Guarded] {
            let (code, addresses) = ask_for(&forwarder(policy, at), "ghes.example").await;
            assert_eq!((code, addresses), (0, vec![IpAddr::from([192, 168, 7, 7])]));
        }
    }

    #[tokio::test]
    async fn a_name_that_is_not_listed_never_reaches_the_dns_server() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let forwarder = forwarder(NetworkPolicy::None, silent.local_addr().expect("an address"));
        let (code, _) = ask_for(&forwarder, "secret-of-the-job.evil.example").await;
        assert_eq!(code, Outcome::NoName as u16);
        assert!(silent.try_recv(&mut [0; 64]).is_err());
    }

    #[tokio::test]
    async fn a_reply_that_is_too_long_for_udp_comes_by_tcp() {
        let many: Vec<[u8; 4]> = (0..200).map(|last| [198, 51, 100, last]).collect();
        let at = server(&many).await;
        let (code, addresses) = ask_for(&forwarder(NetworkPolicy::Guarded, at), "many.example").await;
        assert_eq!((code, addresses.len()), (0, 200));
    }

    #[tokio::test]
    async fn a_dns_server_that_is_gone_is_a_failure_and_no_missing_name() {
        let gone = UdpSocket::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("an address");
        let (code, _) = ask_for(&forwarder(NetworkPolicy::Guarded, gone), "www.example").await;
        assert_eq!(code, Outcome::Failed as u16);
    }

    #[test]
    fn questions_that_have_no_use_in_a_machine_are_answered_at_once() {
        let forwarder = forwarder(NetworkPolicy::Guarded, ([127, 0, 0, 1], 9).into());
        let plan = |kind| forwarder.plan(&Query::parse(&query(7, "www.example", kind)).expect("a query"));
        assert_eq!(plan(kind::A), Plan::Ask);
        assert_eq!(plan(16), Plan::Ask, "TXT");
        assert_eq!(plan(kind::AAAA), Plan::End(Outcome::Empty));
        assert_eq!(plan(kind::HTTPS), Plan::End(Outcome::Empty));
        assert_eq!(plan(252), Plan::End(Outcome::Unsupported), "a transfer of a zone");
        let mut chaos = query(7, "version.bind", 16);
        *chaos.last_mut().expect("a class") = 3;
        assert_eq!(forwarder.plan(&Query::parse(&chaos).expect("a query")), Plan::End(Outcome::Refused));
    }
}

//! Tests a real network of a machine, with stand-ins for everything around it, in namespaces of the test's own:
//!
//! ```text
//!   client ── tap ═(frames copied)═ tap0 ── ... ── dayfly<random> ─ "host" ─ up0 ── world: many addresses, one server
//! ```
#![expect(unsafe_code, reason = "threads enter namespaces")]
#![expect(clippy::unwrap_used, reason = "a test")]

mod names;
mod policies;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dayfly_host::left_out::root_may;
use rustix::thread::UnshareFlags;

use self::names::{answer_names, read_message, write_message};
use super::gate::{hellos, messages};
use super::netlink::{Netlink, Route};
use super::policy::NetworkPolicy;
use super::{Connection, address, forwarding, record, tap};
use crate::forward::Forward;
use crate::launch::Launcher;
use crate::spec::{Egress, Network};

/// The host's address on its link to the world.
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Timeout of a connection; far more than one takes on a single host.
const PATIENCE: Duration = Duration::from_millis(1500);

fn enter_new_namespace() {
    // SAFETY: a network namespace concerns the calling thread alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
    let netlink = Netlink::open().unwrap();
    netlink.bring_up(netlink.index("lo").unwrap()).unwrap();
    // A new namespace inherits the host's setting, and many hosts forward packets.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
}

/// Runs `work` in a new namespace, on a thread that stays in it.
fn in_new_namespace<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(move || {
        enter_new_namespace();
        work()
    })
    .join()
    .unwrap()
}

fn serve(listener: TcpListener, word: &'static str) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            std::thread::spawn(move || {
                let _ = stream.write_all(word.as_bytes());
                // A socket that is closed with unread bytes resets its connection.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            });
        }
    });
}

/// Creates everything beyond the host: servers at each of these addresses, without a route back to a machine's own address.
fn make_world(addresses: &[Ipv4Addr]) {
    let host = Netlink::open().unwrap();
    let host_namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let addresses = addresses.to_vec();
    let (there, at) = (addresses.clone(), addresses.clone());
    in_new_namespace(move || {
        let world = Netlink::open().unwrap();
        world.add_veth("w0", "up0", host_namespace.as_fd()).unwrap();
        let index = world.index("w0").unwrap();
        world.bring_up(index).unwrap();
        for address in there {
            world.add_address(index, address, 32).unwrap();
        }
        world.add_route(Route::Network(ROUTER, 32, index)).unwrap();
        for port in [22, 80, 443] {
            serve(TcpListener::bind(("0.0.0.0", port)).unwrap(), "world");
        }
        for address in at {
            answer_names(address);
        }
    });
    let index = host.index("up0").unwrap();
    host.bring_up(index).unwrap();
    host.add_address(index, ROUTER, 32).unwrap();
    for address in addresses {
        host.add_route(Route::Network(address, 32, index)).unwrap();
    }
}

/// Work of a guest, in its own namespace.
type Work = Box<dyn FnOnce() -> Option<String> + Send>;

/// A guest without a machine: a thread that carries out its work in a namespace with one card.
struct Guest {
    ask: mpsc::Sender<Work>,
    answers: mpsc::Receiver<Option<String>>,
}

impl Guest {
    fn new(card: OwnedFd) -> Self {
        let (ask, asked) = mpsc::channel::<Work>();
        let (answer, answers) = mpsc::channel();
        std::thread::spawn(move || {
            enter_new_namespace();
            let own = tap::open("eth0").unwrap();
            let netlink = Netlink::open().unwrap();
            let index = netlink.index("eth0").unwrap();
            netlink.add_address(index, address::GUEST, address::GUEST_PREFIX).unwrap();
            netlink.bring_up(index).unwrap();
            netlink.add_route(Route::Default(address::GATEWAY)).unwrap();
            copy(own.try_clone().unwrap(), card.try_clone().unwrap());
            copy(card, own);
            for work in asked {
                let _ = answer.send(work());
            }
        });
        Self { ask, answers }
    }

    fn does(&self, work: impl FnOnce() -> Option<String> + Send + 'static) -> Option<String> {
        self.ask.send(Box::new(work)).unwrap();
        self.answers.recv().unwrap()
    }

    fn reaches(&self, to: &str) -> Option<String> {
        let to = to.parse().unwrap();
        self.does(move || reach(to))
    }

    /// Asks a DNS server for the addresses of a name: the first one, or the code of the outcome.
    fn resolves(&self, name: &str, server: &str) -> Option<String> {
        let asked = messages::query(7, name, 1);
        let server: SocketAddr = format!("{server}:53").parse().unwrap();
        self.does(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(2 * PATIENCE)).unwrap();
            let mut bytes = [0; 1500];
            // As every resolver does, because a datagram may be lost in a full queue.
            let (length, from) = (0..3).find_map(|_| {
                socket.send_to(&asked, server).ok()?;
                socket.recv_from(&mut bytes).ok()
            })?;
            // From the server that was asked, even if another one has answered.
            assert_eq!(from, server);
            let (code, addresses) = messages::outcome(&asked, &bytes[..length]);
            Some(addresses.first().map_or_else(|| format!("code {code}"), ToString::to_string))
        })
    }

    /// Asks a DNS server by TCP: the first address, or the code of the outcome.
    fn resolves_by_stream(&self, name: &str, server: &str) -> Option<String> {
        let asked = messages::query(7, name, 1);
        let server: SocketAddr = format!("{server}:53").parse().unwrap();
        self.does(move || {
            let mut stream = TcpStream::connect_timeout(&server, PATIENCE).ok()?;
            stream.set_read_timeout(Some(2 * PATIENCE)).unwrap();
            write_message(&mut stream, &asked);
            let (code, addresses) = messages::outcome(&asked, &read_message(&mut stream)?);
            Some(addresses.first().map_or_else(|| format!("code {code}"), ToString::to_string))
        })
    }

    /// Connects, sends these bytes, and returns the server's word.
    fn says(&self, to: &str, first: &[u8]) -> Option<String> {
        let (to, first) = (to.parse().unwrap(), first.to_vec());
        self.does(move || {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&first).ok()?;
            let mut word = [0; 5];
            stream.read_exact(&mut word).ok()?;
            Some(String::from_utf8_lossy(&word).into_owned())
        })
    }

    /// Sends one datagram from each of so many ports.
    fn sends(&self, to: &str, ports: u16) {
        let to: SocketAddr = to.parse().unwrap();
        self.does(move || {
            for port in 10_000..10_000 + ports {
                let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
                socket.set_broadcast(true).unwrap();
                // The gateway's refusal of one datagram is an error of a later one.
                let _ = socket.send_to(b"x", to);
            }
            None
        });
    }
}

fn copy(from: OwnedFd, to: OwnedFd) {
    std::thread::spawn(move || {
        let mut frame = vec![0; 70_000];
        while let Ok(length) = rustix::io::read(&from, frame.as_mut_slice()) {
            let _ = rustix::io::write(&to, &frame[..length]);
        }
    });
}

fn reach(to: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut word = [0; 5];
    stream.read_exact(&mut word).ok()?;
    Some(String::from_utf8_lossy(&word).into_owned())
}

fn wish(allow: &[&str], dns: &str, forward: Option<u16>) -> Network {
    Network {
        forward: forward.map(|guest_port| Forward { guest_port, to: "127.0.0.1:1".parse().unwrap() }),
        allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
        ..Network::new(NetworkPolicy::Guarded, dns.parse().unwrap())
    }
}

/// Connects a machine. This program stands in for the launcher.
fn connect(network: &Network, run_dir: &std::path::Path) -> Result<Connection, super::NetworkError> {
    let name = "network::tests::this_program_becomes_a_gate";
    let args = ["--exact", "--ignored", "--nocapture", name].map(str::to_owned).to_vec();
    super::connect(network, &Launcher { program: "/proc/self/exe".into(), args }, run_dir)
}

#[test]
#[ignore = "other tests start it with an order on its standard input"]
fn this_program_becomes_a_gate() {
    if rustix::net::sockopt::socket_type(rustix::stdio::stdin()).is_ok() {
        crate::launch::main(0);
        std::process::exit(0);
    }
}

fn tables() -> String {
    let listed = std::process::Command::new(super::nft::program().unwrap()).args(["list", "tables"]).output();
    String::from_utf8(listed.unwrap().stdout).unwrap()
}

fn own_links() -> Vec<String> {
    let links = forwarding::links().unwrap();
    links.into_iter().filter(|link| link.starts_with(super::rules::LINK_PREFIX)).collect()
}

fn may_make_networks() -> bool {
    root_may("give a machine a network with rules on this host")
}

#[test]
fn a_machine_reaches_the_internet_and_exceptions_and_nothing_private() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    let shut = ["10.1.2.3", "172.16.5.5", "192.168.7.7", "169.254.169.254", "100.64.1.1", "198.18.0.9"];
    let open = ["203.0.113.80", "192.0.2.80"];
    let exceptions = ["192.168.7.8", "10.53.0.53"];
    let all: Vec<Ipv4Addr> =
        shut.iter().chain(&open).chain(&exceptions).map(|text| text.parse().unwrap()).collect();
    make_world(&all);
    // The host itself answers at all its addresses.
    serve(TcpListener::bind("0.0.0.0:80").unwrap(), "host.");
    serve(TcpListener::bind("0.0.0.0:81").unwrap(), "host.");

    // A port of the host leads to another address, as if a container engine had published it.
    let publish = "table ip engine { chain prerouting { type nat hook prerouting priority dstnat; \
                   ip daddr 203.0.113.1 tcp dport 82 dnat to 203.0.113.80:80; }; }\n";
    super::nft::run("a test", publish).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let network = wish(&["192.168.7.8:80", "203.0.113.1:81"], "10.53.0.53", Some(4321));
    let Connection::Own(made) = connect(&network, folder.path()).unwrap() else { panic!() };
    serve(made.listener.unwrap(), "forge");
    let guest = Guest::new(made.tap);
    let reaches = |to: &str| guest.reaches(to);

    for to in open {
        assert_eq!(reaches(&format!("{to}:80")).as_deref(), Some("world"), "{to}");
    }
    assert_eq!(reaches("192.168.7.8:80").as_deref(), Some("world"), "an allowed address");
    assert_eq!(reaches("203.0.113.1:81").as_deref(), Some("host."), "an allowed address of this host");
    assert_eq!(guest.resolves("a-198-51-100-7.example", "10.53.0.53").as_deref(), Some("198.51.100.7"));
    assert_eq!(reaches("10.0.2.2:4321").as_deref(), Some("forge"), "the forwarded port");
    let host_end = own_links();
    assert_eq!(host_end.len(), 1);
    let shut = shut.iter().map(|to| format!("{to}:80"));
    let others = [
        "203.0.113.1:80",
        "203.0.113.1:82",
        "192.168.7.8:53",
        "10.53.0.53:80",
        "10.0.2.2:80",
        "127.0.0.1:80",
    ];
    for to in shut.chain(others.map(str::to_owned)) {
        assert_eq!(reaches(&to), None, "{to}");
    }
    // The guest does not reach the host by either end of the link between host and namespace.
    for route in std::fs::read_to_string("/proc/thread-self/net/route").unwrap().lines() {
        if let Some(rest) = route.strip_prefix(&host_end[0]) {
            let network =
                u32::from_str_radix(rest.split_whitespace().next().unwrap(), 16).unwrap().swap_bytes();
            for end in [1, 2] {
                let to = format!("{}:80", Ipv4Addr::from_bits(network + end));
                assert_eq!(reaches(&to), None, "{to}");
            }
        }
    }
    record::remove(folder.path()).unwrap();
}

#[test]
fn the_network_of_a_machine_is_taken_over_with_its_forwarded_port_and_its_rules() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["203.0.113.80".parse().unwrap()]);
    let folder = tempfile::tempdir().unwrap();
    let network = wish(&[], "10.53.0.53", Some(4321));
    let Connection::Own(made) = connect(&network, folder.path()).unwrap() else { panic!() };
    // It holds the card as a VMM does. Everything of the process that had made the network is gone then.
    let card = std::process::Stdio::from(made.tap.try_clone().unwrap());
    let mut vmm = std::process::Command::new("sleep").arg("60").stdin(card).spawn().unwrap();
    drop(made);
    let pid = rustix::process::Pid::from_child(&vmm);
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let taken =
        super::take_over(folder.path(), (vmm.id(), &process), Some(4321)).unwrap().expect("a network");
    serve(taken.listener.unwrap(), "forge");
    let guest = Guest::new(taken.tap);
    assert_eq!(guest.reaches("10.0.2.2:4321").as_deref(), Some("forge"), "the forwarded port");
    assert_eq!(guest.reaches("203.0.113.80:80").as_deref(), Some("world"));
    vmm.kill().unwrap();
    vmm.wait().unwrap();
    record::remove(folder.path()).unwrap();
    assert!(super::take_over(folder.path(), (vmm.id(), &process), None).unwrap().is_none(), "it is removed");
}

/// Creates a machine's network in the calling thread's namespace, and a guest on its card.
fn guest_with(network: &Network) -> (tempfile::TempDir, Guest) {
    let folder = tempfile::tempdir().unwrap();
    let Connection::Own(made) = connect(network, folder.path()).unwrap() else { panic!() };
    (folder, Guest::new(made.tap))
}

/// Returns true if a datagram is in the socket within a moment.
fn has_arrived(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.recv_from(&mut [0; 8]).is_ok()
}

#[test]
fn a_guest_reaches_no_service_of_the_host_by_broadcast() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    let host = Netlink::open().unwrap();
    make_world(&["203.0.113.80".parse().unwrap()]);
    host.add_address(host.index("up0").unwrap(), Ipv4Addr::new(203, 0, 113, 2), 24).unwrap();
    let service = UdpSocket::bind("0.0.0.0:9999").unwrap();
    let (folder, guest) = guest_with(&wish(&[], "1.1.1.1", None));
    for to in ["203.0.113.1:9999", "203.0.113.255:9999", "255.255.255.255:9999", "224.0.0.1:9999"] {
        guest.sends(to, 1);
        assert!(!has_arrived(&service), "{to}");
    }
    record::remove(folder.path()).unwrap();
}

#[test]
fn a_machine_stays_shut_if_another_program_flushes_the_hosts_rules() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["203.0.113.80".parse().unwrap()]);
    serve(TcpListener::bind("0.0.0.0:80").unwrap(), "host.");
    let (folder, guest) = guest_with(&wish(&[], "1.1.1.1", None));
    super::nft::run("a test", "flush ruleset\n").unwrap();
    assert_eq!(guest.reaches("203.0.113.1:80"), None);
    assert_eq!(guest.reaches("198.19.0.1:80"), None);
    record::remove(folder.path()).unwrap();
}

#[test]
fn the_hosts_rules_are_restored_while_a_machine_runs_if_another_program_removes_them() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    let host = Netlink::open().unwrap();
    make_world(&["203.0.113.80".parse().unwrap()]);
    serve(TcpListener::bind("0.0.0.0:80").unwrap(), "host.");
    let network = wish(&["203.0.113.1:80"], "1.1.1.1", None);
    let folder = tempfile::tempdir().unwrap();
    let Connection::Own(made) = connect(&network, folder.path()).unwrap() else { panic!() };
    let guest = Guest::new(made.tap.try_clone().unwrap());
    // An address that the host gets after the machine has started is shut by the host's rules alone.
    host.add_address(host.index("up0").unwrap(), Ipv4Addr::new(192, 0, 2, 2), 32).unwrap();
    let is_as_ordered = || {
        let (open, own) = (guest.reaches("203.0.113.80:80"), guest.reaches("203.0.113.1:80"));
        open.as_deref() == Some("world")
            && own.as_deref() == Some("host.")
            && guest.reaches("192.0.2.2:80").is_none()
    };
    assert!(is_as_ordered());
    assert!(!super::upkeep::restore().unwrap(), "nothing is missing");
    for removal in ["flush ruleset\n", "flush table ip dayfly\n", "flush set ip dayfly reachable\n"] {
        super::nft::run("a test", removal).unwrap();
        assert!(!is_as_ordered(), "{removal}");
        assert!(super::upkeep::restore().unwrap(), "{removal}");
        assert!(is_as_ordered(), "{removal}");
        assert!(tables().contains("table ip dayfly-guard\n"), "{}", tables());
        assert!(!super::upkeep::restore().unwrap(), "all is there again");
    }
    record::remove(folder.path()).unwrap();
    assert!(!super::upkeep::restore().unwrap(), "no machine needs them");
    assert!(!tables().contains("table ip dayfly\n"), "{}", tables());
}

/// The request of `address` for the hardware address of 10.0.2.2 (RFC 826).
fn arp_request(address: Ipv4Addr) -> Vec<u8> {
    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    // The header of `IFF_VNET_HDR`, then that of Ethernet, then: Ethernet, IPv4, lengths, request.
    let mut frame = vec![0; 10];
    frame.extend([0xff; 6]);
    frame.extend(MAC);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(MAC);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address::GATEWAY.octets());
    frame
}

/// Returns the first frame that the card sends to its guest.
fn first_frame(card: &OwnedFd) -> Vec<u8> {
    rustix::io::ioctl_fionbio(card, true).unwrap();
    let start = Instant::now();
    let mut frame = vec![0; 2048];
    loop {
        match rustix::io::read(card, frame.as_mut_slice()) {
            Ok(length) => return frame[..length].to_vec(),
            Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

/// Returns the lines of the table of neighbours in the namespace of a card.
fn neighbours(card: &OwnedFd) -> Vec<String> {
    /// `TUNGETDEVNETNS` of linux/if_tun.h: the namespace of a tap device, as a descriptor.
    const NAMESPACE_OF_TAP: libc::Ioctl = 0x54e3;
    // SAFETY: the request takes no argument, and returns a new descriptor or an error.
    let namespace = unsafe {
        let descriptor = libc::ioctl(card.as_raw_fd(), NAMESPACE_OF_TAP);
        assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(descriptor)
    };
    let reading = std::thread::spawn(move || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), None).unwrap();
        std::fs::read_to_string("/proc/thread-self/net/arp").unwrap()
    });
    reading.join().unwrap().lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_guest_that_asks_in_the_name_of_others_fills_no_table_of_neighbours() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    let folder = tempfile::tempdir().unwrap();
    let network = wish(&[], "1.1.1.1", None);
    let Connection::Own(made) = connect(&network, folder.path()).unwrap() else { panic!() };
    for last in 0..200 {
        let frame = arp_request(Ipv4Addr::new(45, 33, 7, last));
        assert_eq!(rustix::io::write(&made.tap, &frame).unwrap(), frame.len());
    }
    rustix::io::write(&made.tap, &arp_request(address::GUEST)).unwrap();
    let neighbours = neighbours(&made.tap);
    assert!(neighbours.len() == 1 && neighbours[0].starts_with("10.0.2.15 "), "{} entries", neighbours.len());
    // The kernel answers the guest itself, after the spoofed requests.
    let answer = first_frame(&made.tap);
    assert!(answer.windows(6).any(|bytes| bytes == address::GATEWAY_MAC), "{answer:?}");
    assert!(answer.ends_with(&address::GUEST.octets()), "{answer:?}");
    record::remove(folder.path()).unwrap();
}

/// Returns the number of connections that the calling thread's namespace tracks.
fn tracked() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap();
    text.trim().parse().unwrap()
}

#[test]
fn a_guest_that_opens_connections_without_end_does_not_fill_the_hosts_table() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["203.0.113.80".parse().unwrap(), "10.53.0.53".parse().unwrap()]);
    let (folder, guest) = guest_with(&wish(&["203.0.113.80:81"], "10.53.0.53", None));
    guest.sends("203.0.113.80:9", 12_000);
    let opened = tracked();
    assert!((1000..4500).contains(&opened), "{opened} connections");
    let name = "a-198-51-100-7.example";
    assert_eq!(
        guest.resolves(name, "10.53.0.53").as_deref(),
        Some("198.51.100.7"),
        "names are still resolved"
    );
    // Names cannot be used to open more without end either.
    guest.sends("10.53.0.53:53", 12_000);
    assert!(tracked() < 6000, "{} connections", tracked());
    record::remove(folder.path()).unwrap();
}

#[test]
fn networks_side_by_side_are_apart_and_leave_nothing() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    make_world(&["203.0.113.80".parse().unwrap()]);
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let network = wish(&[], "1.1.1.1", None);
    let mut made: Vec<_> =
        folders.iter().map(|folder| Some(connect(&network, folder.path()).unwrap())).collect();
    assert_eq!(own_links().len(), 3);
    assert!(forwarding::is_on().unwrap());
    assert!(tables().contains("table ip dayfly-guard\n"), "{}", tables());

    // If both the process that created it and the machine have died, the kernel removes the link.
    super::let_go(folders[0].path());
    made[0] = None;
    let start = Instant::now();
    while own_links().len() != 2 {
        assert!(start.elapsed() < Duration::from_secs(10), "the link is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    record::remove(folders[0].path()).unwrap();
    assert!(tables().contains("table ip dayfly\n"), "the others still need it");

    // A network can be removed while a machine still holds its card.
    record::remove(folders[1].path()).unwrap();
    assert_eq!(own_links().len(), 1);
    // Another program has flushed all rules meanwhile.
    super::nft::run("a test", "flush ruleset\n").unwrap();
    record::remove(folders[2].path()).unwrap();
    assert_eq!(own_links(), Vec::<String>::new());
    assert!(!tables().contains("table ip dayfly\n"), "{}", tables());
    for folder in &folders {
        let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name != super::LEDGER).collect();
        assert_eq!(left, ["network-use.json"], "the account stays with the run");
        record::remove(folder.path()).unwrap();
    }
}

#[test]
fn a_dns_server_that_no_guest_could_reach_is_refused_before_anything_is_made() {
    for dns in ["127.0.0.53", "::1", "2606:4700:4700::1111", "0.0.0.0"] {
        let folder = tempfile::tempdir().unwrap();
        let error = connect(&wish(&[], dns, None), folder.path()).unwrap_err();
        assert!(error.to_string().contains(dns), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn all_transfer_networks_in_use_is_an_error_of_its_own() {
    if !may_make_networks() {
        return;
    }
    enter_new_namespace();
    let host = Netlink::open().unwrap();
    let lo = host.index("lo").unwrap();
    for transfer in address::Transfer::all_from(0) {
        host.add_route(Route::Network(transfer.network(), address::TRANSFER_PREFIX, lo)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let error = connect(&wish(&[], "1.1.1.1", None), folder.path()).unwrap_err();
    assert!(matches!(error, super::NetworkError::Full), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

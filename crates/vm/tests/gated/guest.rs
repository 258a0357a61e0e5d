//! A guest without a machine: a process with one card in a namespace of its own, whose frames are copied to and from the machine's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::thread::UnshareFlags;

use crate::{names, world};

/// First argument of this program if it is a guest. Its standard input is the connection to the test, its output the machine's card.
pub(crate) const GUEST: &str = "become-a-guest";

/// A guest of the test.
pub(crate) struct Guest {
    process: Child,
    connection: BufReader<UnixStream>,
}

impl Guest {
    pub(crate) fn new(card: OwnedFd) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("/proc/self/exe");
        command.arg(GUEST).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(card));
        Self { process: command.spawn().unwrap(), connection: BufReader::new(ours) }
    }

    fn ask(&mut self, order: &str) -> String {
        self.connection.get_mut().write_all(format!("{order}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        self.connection.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Connects, and returns the word of the server, or "nothing".
    pub(crate) fn reaches(&mut self, to: &str) -> String {
        self.says(to, b"")
    }

    /// Connects, sends these bytes, and returns the word of the server, or "nothing".
    pub(crate) fn says(&mut self, to: &str, first: &[u8]) -> String {
        let first: String = first.iter().map(|byte| format!("{byte:02x}")).collect();
        self.ask(&format!("say {to} {first}"))
    }

    /// Asks a server for the address of a name.
    pub(crate) fn resolves(&mut self, name: &str, server: &str) -> String {
        self.ask(&format!("resolve {name} {server}"))
    }

    /// Sends a datagram, also to all hosts.
    pub(crate) fn sends(&mut self, to: &str) {
        assert_eq!(self.ask(&format!("send {to}")), "sent");
    }

    /// Opens so many connections, and keeps them until its end. Stops after five that failed. Returns how many there are.
    pub(crate) fn opens(&mut self, to: &str, count: usize) -> usize {
        self.ask(&format!("open {to} {count}")).parse().unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Becomes a guest. Its end is a signal of the test.
pub(crate) fn become_guest() {
    world::enter(UnshareFlags::NEWUSER | UnshareFlags::NEWNET, 0);
    let own = open_card("eth0");
    for args in [
        "address add 10.0.2.15/24 dev eth0",
        "link set lo up",
        "link set eth0 address 52:54:00:12:34:56 up",
        "route add default via 10.0.2.2",
    ] {
        world::run("ip", args);
    }
    // SAFETY: descriptor 1 is the machine's card as long as this process lives.
    let card = unsafe { BorrowedFd::borrow_raw(1) }.try_clone_to_owned().unwrap();
    copy(own.try_clone().unwrap(), card.try_clone().unwrap());
    copy(card, own);
    // SAFETY: descriptor 0 is the connection to the test as long as this process lives.
    let test = UnixStream::from(unsafe { BorrowedFd::borrow_raw(0) }.try_clone_to_owned().unwrap());
    let mut answers = test.try_clone().unwrap();
    let mut kept = Vec::new();
    for order in BufReader::new(test).lines().map_while(Result::ok) {
        let answer = carry_out(&order.split(' ').collect::<Vec<_>>(), &mut kept);
        answers.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }
}

fn carry_out(order: &[&str], kept: &mut Vec<TcpStream>) -> String {
    match order {
        ["say", to, first] => {
            let byte = |at| u8::from_str_radix(&first[at..at + 2], 16).unwrap();
            world::say(to, &(0..first.len()).step_by(2).map(byte).collect::<Vec<_>>())
        }
        ["resolve", name, server] => names::resolve(name, server.parse().unwrap()),
        ["send", to] => {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_broadcast(true).unwrap();
            // The gateway's refusal of one datagram is an error of a later one.
            let _ = socket.send_to(b"x", *to);
            "sent".to_owned()
        }
        ["open", to, count] => {
            let to: SocketAddr = to.parse().unwrap();
            let before = kept.len();
            let mut failures = 0;
            while failures < 5 && kept.len() - before < count.parse().unwrap() {
                match TcpStream::connect_timeout(&to, Duration::from_millis(500)) {
                    Ok(stream) => kept.push(stream),
                    Err(_) => failures += 1,
                }
            }
            (kept.len() - before).to_string()
        }
        _ => panic!("{order:?}"),
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

/// Makes a tap device as the machine's, with a header before each frame.
fn open_card(name: &str) -> OwnedFd {
    let file = std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: all zeroes is a valid `ifreq`: it is made of numbers and bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap();
    // SAFETY: TUNSETIFF reads and writes an `ifreq` with a terminated name and flags, which this is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    file.into()
}

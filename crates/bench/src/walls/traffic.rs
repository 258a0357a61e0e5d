//! The peer of a guest's TCP connections, in a network namespace of its own beyond the host:
//!
//! ```text
//!   guest ── tap or slirp ── this namespace, up0 203.0.113.1 ══ w0 203.0.113.80: the peer
//! ```
#![expect(unsafe_code, reason = "a thread enters a network namespace")]

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dayfly_e2e::machines::script;
use dayfly_vm::Entrypoint;
use rustix::thread::UnshareFlags;

use crate::Error;

/// The address of the peer, of a range for examples (RFC 5737).
pub(super) const PEER: &str = "203.0.113.80";
/// The port on which it listens.
pub(super) const PORT: u16 = 5201;
/// The address of this host on the link to it.
const ROUTER: &str = "203.0.113.1";
/// The line of a guest that has sent all.
pub(super) const SENT: &str = "sent=all";
/// Number of blocks of 64 KiB that a guest sends.
const BLOCKS: u32 = 1024;
/// Longest time until a connection has ended that a guest has used.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the program that sends from a guest, with what every image has.
pub(super) fn sender() -> Entrypoint {
    script(&format!(
        "dd if=/dev/zero bs=64k count={BLOCKS} status=none > /dev/tcp/{PEER}/{PORT} && echo {SENT} && exec sleep 600"
    ))
}

/// A server that takes data and measures how fast they come.
pub(super) struct Peer {
    rates: mpsc::Receiver<f64>,
}

impl Peer {
    /// Starts the peer and connects this namespace with it.
    pub(super) fn start() -> Result<Self, Error> {
        let (rates_sender, rates) = mpsc::channel();
        let host = std::process::id().to_string();
        let thread = std::thread::spawn(move || listen_apart(&host));
        let listener = thread.join().map_err(|_| "the peer's thread has panicked")??;
        run(&["addr", "add", &format!("{ROUTER}/32"), "dev", "up0"])?;
        run(&["link", "set", "up0", "up"])?;
        run(&["route", "add", &format!("{PEER}/32"), "dev", "up0"])?;
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if let Some(rate) = measured(stream)
                    && rates_sender.send(rate).is_err()
                {
                    break;
                }
            }
        });
        Ok(Self { rates })
    }

    /// Returns the rate of the next connection, MiB/s.
    pub(super) fn rate(&self) -> Result<f64, Error> {
        Ok(self.rates.recv_timeout(PATIENCE)?)
    }
}

/// Listens in a new namespace. The socket keeps the namespace, and the link to it, for as long as it is open.
fn listen_apart(host: &str) -> Result<TcpListener, Error> {
    // SAFETY: a network namespace concerns the calling thread alone, which ends after this.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    run(&["link", "set", "lo", "up"])?;
    run(&["link", "add", "w0", "type", "veth", "peer", "name", "up0", "netns", host])?;
    run(&["addr", "add", &format!("{PEER}/32"), "dev", "w0"])?;
    run(&["link", "set", "w0", "up"])?;
    run(&["route", "add", &format!("{ROUTER}/32"), "dev", "w0"])?;
    Ok(TcpListener::bind((PEER, PORT))?)
}

fn run(args: &[&str]) -> Result<(), Error> {
    let status = Command::new("ip").args(args).status()?;
    if status.success() { Ok(()) } else { Err(format!("ip {} has failed", args.join(" ")).into()) }
}

/// Reads all of a connection. Returns its rate from the first to the last byte, MiB/s; none if too little came.
fn measured(mut stream: TcpStream) -> Option<f64> {
    let mut block = vec![0; 256 << 10];
    let mut bytes = stream.read(&mut block).ok()?;
    let begun = Instant::now();
    loop {
        match stream.read(&mut block) {
            Ok(0) => break,
            Ok(length) => bytes += length,
            Err(_) => return None,
        }
    }
    let is_all = bytes == BLOCKS as usize * (64 << 10);
    is_all.then(|| bytes as f64 / f64::from(1 << 20) / begun.elapsed().as_secs_f64())
}

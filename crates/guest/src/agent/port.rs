//! The connection to the host: a virtio-serial port, or a listening Unix socket. One thread reads, another one writes.
//!
//! A virtio-serial port (`drivers/char/virtio_console.c`) can be opened once. While no host is connected, `read` returns 0
//! and `write` blocks. The guest learns through one queue that a host has connected or disconnected, and gets the host's
//! bytes through another. So the first bytes of a new host can come before a 0 (seen under emulation), and if a host
//! disconnects and another one connects between two reads, no 0 comes at all. Therefore a 0 has no meaning in this module:
//! each host says hello first, and its hello starts a new count of frames. An incomplete frame of the last host ends where
//! the next host's first frame starts.
//!
//! A socket behaves the same way for these threads: `read` returns 0 when a host disconnects, and `write` blocks until a
//! host is connected.

use super::outbox::Outbox;
use crate::console;
use dayfly_guest::protocol::frame::{Decoder, Encoder, FrameError};
use dayfly_guest::protocol::{GuestMessage, HostMessage, PORT_NAME};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time until the port appears after its driver was loaded.
const APPEAR_MAX: Duration = Duration::from_secs(5);

/// Interval at which a port without a host is read. It is polled because a host cannot be waited for.
const HOST_POLL: Duration = Duration::from_millis(20);

/// The place where hosts connect.
#[derive(Debug)]
pub(super) enum ListenAddress {
    /// The machine's virtio-serial port, once its driver has created it.
    Virtio,
    /// A socket that hosts connect to, one at a time.
    Socket(UnixListener),
}

/// Starts both threads. The reading thread calls `handle` with one message after another.
pub(super) fn serve(
    place: ListenAddress,
    outbox: Arc<Outbox>,
    handle: impl Fn(HostMessage) + Send + 'static,
) {
    std::thread::spawn(move || {
        if let Err(error) = try_serve(place, outbox, handle) {
            console::say(&format!("no host can speak with this machine: {error}"));
        }
    });
}

fn try_serve(place: ListenAddress, outbox: Arc<Outbox>, handle: impl Fn(HostMessage)) -> io::Result<()> {
    let port = Arc::new(match place {
        ListenAddress::Virtio => Port::Virtio(open()?),
        ListenAddress::Socket(listener) => Port::Socket(Socket::new(listener)),
    });
    let writer_port = Arc::clone(&port);
    std::thread::spawn(move || write(&writer_port, &outbox));
    read(&port, handle)
}

/// An open port.
enum Port {
    Virtio(File),
    Socket(Socket),
}

impl Port {
    /// Reads bytes that a host sends. Returns 0 if no host is connected.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Virtio(port) => {
                let mut port = port;
                port.read(buffer)
            }
            Self::Socket(socket) => socket.read(buffer),
        }
    }

    /// Writes all bytes, and blocks until a host takes them.
    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Virtio(port) => {
                let mut port = port;
                port.write_all(bytes)
            }
            Self::Socket(socket) => socket.wait_for_host().as_ref().write_all(bytes),
        }
    }
}

/// A listening socket, and the host that is connected to it.
struct Socket {
    listener: UnixListener,
    host: Mutex<Option<Arc<UnixStream>>>,
    connected: Condvar,
}

impl Socket {
    fn new(listener: UnixListener) -> Self {
        Self { listener, host: Mutex::default(), connected: Condvar::new() }
    }

    /// Reads bytes of the current host. If there is none, waits for the next one. Only one thread may call this.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let current = self.host.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let host = match current {
            Some(host) => host,
            None => self.accept()?,
        };
        let count = host.as_ref().read(buffer).unwrap_or_default();
        if count == 0 {
            *self.host.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(count)
    }

    fn accept(&self) -> io::Result<Arc<UnixStream>> {
        let host = Arc::new(self.listener.accept()?.0);
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&host));
        self.connected.notify_all();
        Ok(host)
    }

    fn wait_for_host(&self) -> Arc<UnixStream> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*host {
                Some(host) => return Arc::clone(host),
                None => host = self.connected.wait(host).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

fn open() -> io::Result<File> {
    let start = Instant::now();
    loop {
        if let Some(path) = find() {
            return File::options().read(true).write(true).open(path);
        }
        if start.elapsed() > APPEAR_MAX {
            return Err(io::Error::other(format!("there is no virtio-serial port named {PORT_NAME}")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn find() -> Option<PathBuf> {
    let entries = std::fs::read_dir("/sys/class/virtio-ports").ok()?;
    let is_ours = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
    };
    entries.flatten().find(is_ours).map(|entry| PathBuf::from("/dev").join(entry.file_name()))
}

fn write(port: &Port, outbox: &Outbox) {
    let mut encoder = Encoder::new();
    loop {
        let mut frames = Vec::new();
        for message in outbox.next() {
            if matches!(message, GuestMessage::Hello { .. }) {
                encoder = Encoder::new();
            }
            match encoder.encode(&message) {
                Ok(frame) => frames.extend(frame),
                // Facts and lines are far shorter than a frame may be, so no host depends on this message.
                Err(error) => console::say(&format!("a message to the host is lost: {error}")),
            }
        }
        if let Err(error) = port.write_all(&frames) {
            console::say(&format!("a message to the host is lost: {error}"));
            std::thread::sleep(HOST_POLL);
        }
    }
}

fn read(port: &Port, handle: impl Fn(HostMessage)) -> io::Result<()> {
    let (mut decoder, mut chunk) = (Decoder::new(), vec![0; 64 * 1024]);
    loop {
        match port.read(&mut chunk) {
            Ok(0) => {
                std::thread::sleep(HOST_POLL);
            }
            Ok(count) => {
                decoder.push(&chunk[..count]);
                // It may hold a secret, and the next message may be shorter.
                chunk[..count].fill(0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        while let Some(message) = decoder.next::<HostMessage>() {
            match message {
                Ok(message) => handle(message),
                Err(error) => note(&error),
            }
        }
    }
}

fn note(error: &FrameError) {
    console::say(&format!("from the host: {error}"));
}

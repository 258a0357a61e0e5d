//! Whether a Docker daemon, or another engine that speaks like it, answers.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Where the agent's daemon listens.
pub(crate) const SOCKET: &str = "/run/docker.sock";

/// Where the agent looks for it: as Docker packages it, and as Debian does.
pub(crate) const DAEMONS: [&str; 2] = ["/usr/bin/dockerd", "/usr/sbin/dockerd"];

/// The daemon that the agent starts, where the image has one.
pub(crate) fn daemon() -> Option<&'static str> {
    DAEMONS.into_iter().find(|path| Path::new(path).exists())
}

/// `GET /_ping`, as the Docker client does it; an error unless the answer is 200. A connection that stands is waited on
/// for `patience`: the daemon answers on it as soon as it can.
pub(crate) fn ping(socket: &Path, patience: Duration) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if &status[9..] == b"200" { Ok(()) } else { Err(io::Error::other("not ready")) }
}

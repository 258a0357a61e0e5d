//! Finds the Docker daemon, and pings it or another engine with the same API.

use dayfly_guest::environment::{DAEMONS, TOOLS};
use dayfly_guest::runner_app::SEARCH_PATH;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The socket that the agent's daemon listens on.
pub(crate) const SOCKET: &str = "/run/docker.sock";

/// Returns the daemon that the agent starts, if the image has one.
pub(crate) fn daemon() -> Option<&'static str> {
    DAEMONS.into_iter().find(|path| Path::new(path).exists())
}

/// Returns the variables by which the daemon finds its programs. A daemon of the host's tools uses the programs that came
/// with it. The image's own daemon also uses the programs that the host has added because the image lacks them.
pub(crate) fn environment(daemon: &str) -> Vec<(&'static str, String)> {
    if !Path::new(daemon).starts_with(TOOLS) {
        return vec![("PATH", format!("{SEARCH_PATH}:{TOOLS}/bin"))];
    }
    // By default iptables looks for its extensions in the folder that it was built for.
    let extensions = format!("{TOOLS}/lib/xtables");
    vec![("PATH", format!("{TOOLS}/bin:{SEARCH_PATH}")), ("XTABLES_LIBDIR", extensions)]
}

/// Sends `GET /_ping`, as the Docker client does. Fails unless the answer is 200. Waits on the open connection for
/// `patience`, because the daemon answers on it as soon as it can.
pub(crate) fn ping(socket: &Path, patience: Duration) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if &status[9..] == b"200" { Ok(()) } else { Err(io::Error::other("not ready")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_the_host_has_added_finds_its_own_programs_first() {
        assert!(DAEMONS[2].starts_with(TOOLS));
        let own = format!("{SEARCH_PATH}:/opt/dayfly/bin");
        assert_eq!(environment("/usr/sbin/dockerd"), [("PATH", own)]);
        let [(path, folders), (extensions, _)] = &environment(DAEMONS[2])[..] else { panic!("two") };
        assert!(*path == "PATH" && folders.starts_with("/opt/dayfly/bin:/usr/local/sbin"), "{folders}");
        assert_eq!(*extensions, "XTABLES_LIBDIR");
    }
}

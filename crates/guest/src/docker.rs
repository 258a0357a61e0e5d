//! Whether a Docker daemon, or another engine that speaks like it, answers.

use dayfly_guest::environment::{DAEMONS, TOOLS};
use dayfly_guest::runner_app::SEARCH_PATH;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Where the agent's daemon listens.
pub(crate) const SOCKET: &str = "/run/docker.sock";

/// The daemon that the agent starts, where the image has one.
pub(crate) fn daemon() -> Option<&'static str> {
    DAEMONS.into_iter().find(|path| Path::new(path).exists())
}

/// Returns the variables by which the daemon finds its own programs: a daemon of the host's tools uses those that came with it, the
/// image's own uses also the programs that the host has added because the image lacks them.
pub(crate) fn environment(daemon: &str) -> Vec<(&'static str, String)> {
    if !Path::new(daemon).starts_with(TOOLS) {
        return vec![("PATH", format!("{SEARCH_PATH}:{TOOLS}/bin"))];
    }
    // iptables looks for its extensions where it was built for.
    let extensions = format!("{TOOLS}/lib/xtables");
    vec![("PATH", format!("{TOOLS}/bin:{SEARCH_PATH}")), ("XTABLES_LIBDIR", extensions)]
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

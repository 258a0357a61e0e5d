//! Finds the Docker daemon, and pings it or another engine with the same API.

use dayfly_guest::environment::{DAEMONS, TOOLS};
use dayfly_guest::runner_app::SEARCH_PATH;
use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
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
    let mut variables = vec![("PATH", search_path(daemon))];
    if is_tool(daemon) {
        // By default iptables looks for its extensions in the folder that it was built for.
        variables.push(("XTABLES_LIBDIR", format!("{TOOLS}/lib/xtables")));
    }
    variables
}

/// Returns the folders in which the daemon looks for its programs.
pub(crate) fn search_path(daemon: &str) -> String {
    if is_tool(daemon) { format!("{TOOLS}/bin:{SEARCH_PATH}") } else { format!("{SEARCH_PATH}:{TOOLS}/bin") }
}

fn is_tool(daemon: &str) -> bool {
    Path::new(daemon).starts_with(TOOLS)
}

/// Sends `GET /_ping`, as the Docker client does. Fails unless the answer is 200. Waits on the open connection for
/// `patience`, because the daemon answers on it as soon as it can.
pub(crate) fn ping(socket: &Path, patience: Duration) -> io::Result<()> {
    answer(ask(socket, patience)?)
}

/// Connects and sends `GET /_ping`. Each later read waits for `patience` at most.
pub(crate) fn ask(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    Ok(stream)
}

/// Reads the answer to [`ask`]. Fails unless it is 200.
pub(crate) fn answer(mut stream: UnixStream) -> io::Result<()> {
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if &status[9..] == b"200" { Ok(()) } else { Err(io::Error::other("not ready")) }
}

/// Number of a daemon's last lines in which its reason is looked for.
const LINES_MAX: usize = 12;

/// Longest reason, in bytes.
const REASON_LENGTH_MAX: usize = 500;

/// The last lines of a daemon, filled by the thread that reads them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    /// Adds a line, and forgets the oldest if there are too many.
    pub(crate) fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// Returns why the daemon has ended, in one line: its last line that is an error, else its last line; `None` if it
    /// printed nothing.
    pub(crate) fn reason(&self) -> Option<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said = lines.iter().rev().map(|line| line.trim()).filter(|line| !line.is_empty());
        let error = said.clone().find(|line| !is_below_error(line)).or_else(|| said.next())?;
        let message = field(error, "msg").map_or_else(
            || error.to_owned(),
            |message| {
                field(error, "error")
                    .into_iter()
                    .fold(message, |message, cause| format!("{message}: {cause}"))
            },
        );
        Some(crate::lines::cut(&message, REASON_LENGTH_MAX).to_owned())
    }
}

/// Returns true for a line of the daemon's log that reports no error. Its last words (`failed to start daemon: ...`) have no
/// level.
fn is_below_error(line: &str) -> bool {
    field(line, "level").is_some_and(|level| ["trace", "debug", "info", "warning"].contains(&level.as_str()))
}

/// Returns a field of a line `time="..." level=error msg="..."`, as Docker's programs print it.
fn field(line: &str, name: &str) -> Option<String> {
    if !line.starts_with("time=") {
        return None;
    }
    let value = line.split_once(&format!(" {name}="))?.1;
    let Some(quoted) = value.strip_prefix('"') else {
        return Some(value.split(' ').next().unwrap_or_default().to_owned());
    };
    let (mut text, mut letters) = (String::new(), quoted.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => text.push(match letters.next()? {
                'n' | 't' | 'r' => ' ',
                escaped => escaped,
            }),
            letter => text.push(letter),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(lines: &[&str]) -> Option<String> {
        let last = LastLines::default();
        lines.iter().for_each(|line| last.push(line));
        last.reason()
    }

    #[test]
    fn the_reason_is_the_last_line_that_is_an_error() {
        let warning = r#"time="2026-01-02T03:04:05Z" level=warning msg="Your kernel does not support it""#;
        let error = r#"time="2026-01-02T03:04:05Z" level=error msg="failed to \"dial\"\nnow" error="no such file" id=1"#;
        let last = "failed to start daemon: Error initializing network controller: Iptables not found";
        assert_eq!(reason(&[warning, last, "", warning]).as_deref(), Some(last));
        assert_eq!(reason(&[error, warning]).as_deref(), Some("failed to \"dial\" now: no such file"));
        assert_eq!(reason(&[warning]).as_deref(), Some("Your kernel does not support it"));
        assert_eq!(reason(&["", " "]), None);
    }

    #[test]
    fn a_reason_is_bounded() {
        let many = (0..1000).map(|_| "x".repeat(8000)).collect::<Vec<_>>();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(reason(&many).expect("a reason").len(), REASON_LENGTH_MAX);
    }

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

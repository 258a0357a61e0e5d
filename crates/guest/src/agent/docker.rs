//! The Docker daemon: started directly, watched, and asked whether it answers.

use super::Agent;
use dayfly_guest::protocol::{Milestone, Source};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where the daemon may be: as Docker packages it, and as Debian does.
const DAEMONS: [&str; 2] = ["/usr/bin/dockerd", "/usr/sbin/dockerd"];
const SOCKET: &str = "/run/docker.sock";

/// Between two attempts to connect. A connection that stands is waited on instead: the daemon answers on it as
/// soon as it can.
const RETRY: Duration = Duration::from_millis(50);

/// How long one answer is waited for: long enough to wait through the daemon's start on one connection, short enough
/// to notice its end.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long the daemon may take; under emulation on a busy host it takes half a minute.
const READY_MAX: Duration = Duration::from_secs(300);

/// Last lines that a fault quotes.
const TAIL_LINES: usize = 12;

/// Starts the daemon and stays with it until it ends.
pub(super) fn run(agent: &Agent) {
    let Some(daemon) = DAEMONS.into_iter().find(|path| Path::new(path).exists()) else {
        return agent.fault(format!("cannot start dockerd: the image has none of {DAEMONS:?}"));
    };
    // Beside the daemon's own start, which takes longer. Should it need one of them before its turn comes, the
    // kernel loads that one through `modprobe`.
    std::thread::spawn(crate::boot::load_for_docker);
    let tail = Arc::new(Mutex::new(VecDeque::with_capacity(TAIL_LINES)));
    let ended = match start(agent, daemon, &tail) {
        Ok(ended) => ended,
        Err(error) => return agent.fault(format!("cannot start {daemon}: {error}")),
    };
    if let Some(status) = wait_until_ready(agent, &ended).or_else(|| ended.recv().ok()) {
        let tail = Vec::from(tail.lock().unwrap_or_else(PoisonError::into_inner).clone()).join("\n");
        agent.fault(format!("{daemon} ended ({status}); its last lines:\n{tail}"));
    }
}

fn start(
    agent: &Agent,
    daemon: &str,
    tail: &Arc<Mutex<VecDeque<String>>>,
) -> io::Result<Receiver<ExitStatus>> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(daemon);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", "/root").current_dir("/").arg(format!("--host=unix://{SOCKET}"));
    // Its start alone is a hundred lines at the usual level.
    command.arg("--log-level=warn");
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let ended = agent.children.spawn(command)?;
    let (agent, tail) = (agent.clone(), Arc::clone(tail));
    std::thread::spawn(move || {
        crate::lines::for_each(reader, |line| {
            let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line.to_owned());
            drop(tail);
            agent.line(Source::Docker, line);
        });
    });
    Ok(ended)
}

/// `None` once the daemon has answered, or has taken too long; else how it ended.
fn wait_until_ready(agent: &Agent, ended: &Receiver<ExitStatus>) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < READY_MAX {
        if crate::docker::ping(Path::new(SOCKET), ANSWER_MAX).is_ok() {
            agent.reached(Milestone::DockerReady);
            return None;
        }
        match ended.recv_timeout(RETRY) {
            Ok(status) => return Some(status),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
    agent.fault(format!("dockerd has not answered for {} s", READY_MAX.as_secs()));
    None
}

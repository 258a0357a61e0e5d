//! Starts the Docker daemon, pings it until it answers, and reports its exit.

use super::{Agent, processes};
use crate::docker::SOCKET;
use crate::listening;
use dayfly_guest::environment::DAEMONS;
use dayfly_guest::protocol::{Milestone, Source};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause between two attempts. Each attempt waits on its open connection, because the daemon answers on it as soon as
/// it can.
const RETRY: Duration = Duration::from_millis(50);

/// Longest wait for one answer: long enough to cover the daemon's start on one connection, short enough to notice that
/// the daemon has exited.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest time until the daemon answers. Under emulation on a busy host it takes half a minute.
const READY_MAX: Duration = Duration::from_secs(300);

/// Most starts of a daemon that exits before it has answered.
const STARTS_MAX: u32 = 3;

/// Number of last lines that a failure quotes.
const TAIL_LINES: usize = 12;

/// Starts the daemon if the image has one, and waits until it exits.
pub(super) fn run(agent: &Agent) {
    let Some(daemon) = crate::docker::daemon() else {
        return crate::console::say(&format!("the image has no Docker daemon: none of {DAEMONS:?}"));
    };
    // The modules are loaded during the daemon's start, which takes longer. If the daemon needs a module earlier, the
    // kernel loads it through `modprobe`.
    std::thread::spawn(crate::boot::load_for_docker);
    let tail = Arc::new(Mutex::new(VecDeque::with_capacity(TAIL_LINES)));
    match start_until_ready(agent, daemon, &tail) {
        Ok(Some(status)) => {
            let tail = Vec::from(tail.lock().unwrap_or_else(PoisonError::into_inner).clone()).join("\n");
            agent.docker_failed(format!("{daemon} ended ({status}); its last lines:\n{tail}"));
        }
        Ok(None) => {}
        Err(error) => agent.docker_failed(format!("cannot start {daemon}: {error}")),
    }
}

/// Starts the daemon, waits until it exits, and returns its status. A daemon that exits before it has answered is started
/// again: on an overloaded host it gives up on its containerd after 15 s, although containerd is only slow. The next daemon
/// finds that containerd half started.
fn start_until_ready(
    agent: &Agent,
    daemon: &str,
    tail: &Arc<Mutex<VecDeque<String>>>,
) -> io::Result<Option<ExitStatus>> {
    let (socket, began) = (listen()?, Instant::now());
    let mut starts = 1;
    loop {
        let ended = start(agent, daemon, socket.try_clone()?, tail)?;
        match wait_until_ready(agent, &ended, began) {
            Some(status) if starts < STARTS_MAX => {
                crate::console::say(&format!(
                    "{daemon} ended before it answered ({status}); it is started again"
                ));
                starts += 1;
            }
            Some(status) => return Ok(Some(status)),
            None => return Ok(ended.recv().ok()),
        }
    }
}

/// Creates the socket that clients connect to. The agent owns it, so that the daemon can be stopped until a client connects.
fn listen() -> io::Result<UnixListener> {
    let listener = UnixListener::bind(SOCKET)?;
    std::fs::set_permissions(SOCKET, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    std::os::unix::fs::chown(SOCKET, None, group_id(&groups, "docker"))?;
    Ok(listener)
}

fn group_id(groups: &str, name: &str) -> Option<u32> {
    let entry = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    entry.split(':').nth(2)?.parse().ok()
}

fn start(
    agent: &Agent,
    daemon: &str,
    socket: UnixListener,
    tail: &Arc<Mutex<VecDeque<String>>>,
) -> io::Result<Receiver<ExitStatus>> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(agent.program());
    command.args([listening::COMMAND, daemon]).env_clear().envs(crate::docker::environment(daemon));
    command.env("HOME", "/root").current_dir("/").arg("--host=fd://");
    // At the usual level the daemon's start alone prints a hundred lines.
    command.arg("--log-level=warn");
    command.stdin(OwnedFd::from(socket.try_clone()?)).stdout(writer.try_clone()?).stderr(writer);
    let (pid, ended) = agent.children.spawn(command)?;
    *agent.docker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Daemon { pid, socket });
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

/// A running daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    pid: Pid,
    socket: UnixListener,
}

/// Stops the daemon and all its descendants until a client connects, so that they use no processor time in a machine that
/// waits for a job. Does nothing if a container runs, because it was started for a reason.
pub(super) fn sleep(agent: &Agent) {
    let daemon = agent.docker.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Daemon { pid, socket }) = daemon else { return };
    let family = processes::with_descendants(pid);
    if family.iter().any(|&pid| processes::name(pid).starts_with("containerd-shim")) {
        return;
    }
    for &pid in &family {
        let _ = rustix::process::kill_process(pid, Signal::STOP);
    }
    std::thread::spawn(move || {
        // Returns when a client connects.
        let _ = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&socket, PollFlags::IN)], None));
        // Children continue before their parents, so that the process that answers finds the others running.
        for &pid in family.iter().rev() {
            let _ = rustix::process::kill_process(pid, Signal::CONT);
        }
    });
}

/// Waits until the daemon answers, for at most [`READY_MAX`] since `began`. Returns its status if it exits instead.
fn wait_until_ready(agent: &Agent, ended: &Receiver<ExitStatus>, began: Instant) -> Option<ExitStatus> {
    while began.elapsed() < READY_MAX {
        if crate::docker::ping(Path::new(SOCKET), ANSWER_MAX).is_ok() {
            agent.reached(Milestone::DockerReady);
            return None;
        }
        match ended.recv_timeout(RETRY) {
            Ok(status) => return Some(status),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
    agent.docker_failed(format!("dockerd has not answered for {} s", READY_MAX.as_secs()));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_number_is_found_by_its_whole_name() {
        let groups = "root:x:0:\ndockerx:x:7:\ndocker:x:105:runner\n";
        assert_eq!(group_id(groups, "docker"), Some(105));
        assert_eq!(group_id(groups, "dock"), None);
    }
}

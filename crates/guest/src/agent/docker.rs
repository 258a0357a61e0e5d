//! Starts the Docker daemon, pings it until it answers, and reports its exit.
//!
//! The daemon starts before its runner is known, and reads proxies at its start only. So a daemon whose runner has some is ended
//! and started again; its clients wait at the socket meanwhile, which the agent owns.

use super::Agent;
use crate::docker::{LastLines, SOCKET};
use crate::entrypoint::outside::Outside;
use crate::listening;
use crate::processes;
use dayfly_guest::environment::DAEMONS;
use dayfly_guest::protocol::{Milestone, Source};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{MutexGuard, PoisonError};
use std::thread::JoinHandle;
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

/// Longest time that a daemon gets to end before it is started again.
const END_MAX: Duration = Duration::from_secs(15);

/// Longest wait for the last lines of a daemon that has exited. A process that it left behind may hold the pipe open for
/// ever.
const LAST_LINES_MAX: Duration = Duration::from_secs(2);

/// Starts the daemon if the image has one, and waits until it exits.
pub(super) fn run(agent: &Agent) {
    let Some(daemon) = crate::docker::daemon() else {
        return crate::console::say(&format!("the image has no Docker daemon: none of {DAEMONS:?}"));
    };
    // The modules are loaded during the daemon's start, which takes longer. If the daemon needs a module earlier, the
    // kernel loads it through `modprobe`.
    std::thread::spawn(crate::boot::load_for_docker);
    let failure = start_until_ready(agent, daemon);
    stop_listening(agent);
    match failure {
        Ok(failure) => agent.docker_failed(failure),
        Err(error) => agent.docker_failed(format!("cannot start {daemon}: {error}")),
    }
}

/// Starts the daemon, waits until it exits, and returns how it ended. A daemon that exits before it has answered is started
/// again: on an overloaded host it gives up on its containerd after 15 s, although containerd is only slow. The next daemon
/// finds that containerd half started. A daemon that lacks a program is not started again.
fn start_until_ready(agent: &Agent, daemon: &str) -> io::Result<String> {
    let socket = listen()?;
    let (mut began, mut starts, mut was_ready) = (Instant::now(), 1, false);
    loop {
        let started = start(agent, daemon, socket.try_clone()?)?;
        let ended = wait_until_ready(agent, &started, began, was_ready);
        let is_ready = ended.is_none();
        let status = match ended {
            Some(status) => status,
            None => started.ended.recv().map_err(io::Error::other)?,
        };
        was_ready |= is_ready;
        if std::mem::take(&mut agent.lock_docker().is_renewed) {
            (began, starts) = (Instant::now(), 1);
            continue;
        }
        let failure = started.failure(daemon, status);
        if is_ready || starts == STARTS_MAX || lacks_a_program(&failure) {
            return Ok(failure);
        }
        crate::console::say(&format!("{failure}; it is started again, since it had not answered yet"));
        starts += 1;
    }
}

/// Returns true if a daemon has ended because the image lacks a program: `Iptables not found` (seen), or `exec:
/// "containerd": executable file not found in $PATH`.
fn lacks_a_program(failure: &str) -> bool {
    failure.contains("not found")
}

/// Closes and removes the socket, so that clients fail at once. While it is open, each client would wait for a daemon.
fn stop_listening(agent: &Agent) {
    drop(agent.lock_docker().daemon.take());
    let _ = std::fs::remove_file(SOCKET);
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

/// A daemon that was started.
struct Started {
    pid: Pid,
    ended: Receiver<ExitStatus>,
    lines: LastLines,
    /// The thread that reads the lines.
    relay: JoinHandle<()>,
}

impl Started {
    /// Returns how the daemon has ended and why, in one line.
    fn failure(&self, daemon: &str, status: ExitStatus) -> String {
        let end = Instant::now();
        while !self.relay.is_finished() && end.elapsed() < LAST_LINES_MAX {
            std::thread::sleep(Duration::from_millis(2));
        }
        let reason = self.lines.reason().unwrap_or_else(|| "it printed no reason".to_owned());
        format!("{daemon} ended ({status}): {reason}")
    }
}

fn start(agent: &Agent, daemon: &str, socket: UnixListener) -> io::Result<Started> {
    let (reader, writer) = io::pipe()?;
    let mut command = agent.own_command();
    command.args([listening::COMMAND, daemon]).env_clear().envs(crate::docker::environment(daemon));
    command.env("HOME", "/root").current_dir("/").arg("--host=fd://");
    // At the usual level the daemon's start alone prints a hundred lines.
    command.arg("--log-level=warn");
    command.stdin(OwnedFd::from(socket.try_clone()?)).stdout(writer.try_clone()?).stderr(writer);
    // Locked during the start, so that proxies which come meanwhile find the daemon and end it.
    let mut docker = agent.lock_docker();
    command.envs(docker.proxies.iter().map(|(name, value)| (name, value)));
    let (pid, ended) = agent.children.spawn(command)?;
    docker.daemon = Some(Daemon { pid, socket });
    drop(docker);
    let (agent, lines) = (agent.clone(), LastLines::default());
    let relayed = lines.clone();
    let relay = std::thread::spawn(move || {
        crate::lines::for_each(reader, |line| {
            relayed.push(line);
            agent.line(Source::Docker, line);
        });
    });
    Ok(Started { pid, ended, lines, relay })
}

/// The agent's knowledge of its daemon.
#[derive(Debug, Default)]
pub(super) struct Docker {
    /// None before the daemon is started, and after its end.
    daemon: Option<Daemon>,
    /// Variables of the daemon that name the proxies of the runner.
    proxies: Vec<(String, String)>,
    /// True if the agent has ended the daemon in order to start it again.
    is_renewed: bool,
}

/// A running daemon.
#[derive(Debug)]
struct Daemon {
    pid: Pid,
    socket: UnixListener,
}

impl Agent {
    fn lock_docker(&self) -> MutexGuard<'_, Docker> {
        self.docker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Docker {
    /// Takes over the proxies of a runner. Returns true if the daemon must be started again for them. Authorities are no reason,
    /// because a daemon reads them when it first needs them, and the start would cost time in each fork.
    fn take_proxies(&mut self, outside: &Outside) -> bool {
        let proxies = outside.proxy_variables();
        let is_other = proxies != self.proxies;
        self.proxies = proxies;
        is_other
    }
}

/// Gives the daemon a runner's proxies. A daemon that runs is started again if they are others; its images stay.
pub(super) fn give_proxies(agent: &Agent, outside: &Outside) {
    let mut docker = agent.lock_docker();
    let is_needed = docker.take_proxies(outside);
    let Some(pid) = docker.daemon.as_ref().map(|daemon| daemon.pid).filter(|_| is_needed) else { return };
    let family = processes::with_descendants(pid);
    if runs_container(&family) {
        drop(docker);
        let why = "a container of the warm-up runs, which its new start would end";
        return agent.tell(&format!("Docker's daemon does not get the proxies: {why}"));
    }
    docker.is_renewed = true;
    drop(docker);
    end(&family);
    let agent = agent.clone();
    std::thread::spawn(move || {
        std::thread::sleep(END_MAX);
        let docker = agent.lock_docker();
        if docker.is_renewed && docker.daemon.as_ref().is_some_and(|daemon| daemon.pid == pid) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    });
}

/// Ends a daemon in an orderly way, also if it is stopped with its descendants. It ends them itself.
fn end(family: &[Pid]) {
    if let Some(&daemon) = family.first() {
        let _ = rustix::process::kill_process(daemon, Signal::TERM);
    }
    wake(family);
}

/// Lets processes that were stopped go on. Children continue before their parents, so that the process that answers finds the
/// others running.
fn wake(family: &[Pid]) {
    for &pid in family.iter().rev() {
        let _ = rustix::process::kill_process(pid, Signal::CONT);
    }
}

fn runs_container(family: &[Pid]) -> bool {
    family.iter().any(|&pid| processes::name(pid).starts_with("containerd-shim"))
}

/// Stops the daemon and all its descendants until a client connects, so that they use no processor time in a machine that
/// waits for a job. Does nothing if a container runs, because it was started for a reason.
pub(super) fn sleep(agent: &Agent) {
    let docker = agent.lock_docker();
    let Some(Daemon { pid, socket }) = &docker.daemon else { return };
    let Ok(socket) = socket.try_clone() else { return };
    let family = processes::with_descendants(*pid);
    drop(docker);
    if runs_container(&family) {
        return;
    }
    for &pid in &family {
        let _ = rustix::process::kill_process(pid, Signal::STOP);
    }
    std::thread::spawn(move || {
        // Returns when a client connects.
        let _ = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&socket, PollFlags::IN)], None));
        wake(&family);
    });
}

/// Waits until the daemon answers, for at most [`READY_MAX`] since `began`. Returns its status if it exits instead. `was_ready` is
/// true if the host knows already that there is a daemon that answers.
fn wait_until_ready(agent: &Agent, started: &Started, began: Instant, was_ready: bool) -> Option<ExitStatus> {
    while began.elapsed() < READY_MAX {
        if answers(Path::new(SOCKET), started.pid) {
            if !was_ready {
                agent.reached(Milestone::DockerReady);
            }
            return None;
        }
        match started.ended.recv_timeout(RETRY) {
            Ok(status) => return Some(status),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
    agent.docker_failed(format!("dockerd has not answered for {} s", READY_MAX.as_secs()));
    None
}

/// Pings the daemon once, and waits for the answer until the daemon exits, for at most [`ANSWER_MAX`]. The socket alone does
/// not show the exit, because the agent holds it open.
fn answers(socket: &Path, daemon: Pid) -> bool {
    let Ok(stream) = crate::docker::ask(socket, ANSWER_MAX) else { return false };
    // A kernel without process descriptors (before 5.3) reports no exit, so the answer is awaited for the whole time.
    let exit = match rustix::process::pidfd_open(daemon, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return false,
        opened => opened.ok(),
    };
    let mut awaited = vec![PollFd::new(&stream, PollFlags::IN)];
    awaited.extend(exit.iter().map(|exit| PollFd::new(exit, PollFlags::IN)));
    let limit = Timespec { tv_sec: ANSWER_MAX.as_secs().cast_signed(), tv_nsec: 0 };
    let _ = rustix::io::retry_on_intr(|| poll(&mut awaited, Some(&limit)));
    let has_answer = !awaited[0].revents().is_empty();
    has_answer && crate::docker::answer(stream).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Starts a shell that is a daemon's stand-in.
    fn shell(script: &str) -> std::process::Child {
        Command::new("sh").args(["-c", script]).spawn().expect("a shell")
    }

    #[test]
    fn the_wait_for_an_answer_ends_with_the_daemon() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("docker.sock");
        let _listener = UnixListener::bind(&path).expect("a socket");
        let mut daemon = shell("sleep 0.2");
        let began = Instant::now();
        assert!(!answers(&path, Pid::from_child(&daemon)));
        assert!(began.elapsed() < ANSWER_MAX, "it waits although the daemon has ended");
        daemon.wait().expect("reaped");
    }

    #[test]
    fn a_daemon_that_answers_while_it_is_asked_is_ready() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            std::thread::sleep(Duration::from_millis(100));
            std::io::Write::write_all(&mut client, b"HTTP/1.0 200 OK\r\n\r\nOK").expect("sent");
        });
        let mut daemon = shell("exec sleep 60");
        assert!(answers(&path, Pid::from_child(&daemon)));
        daemon.kill().expect("killed");
        daemon.wait().expect("reaped");
    }

    #[test]
    fn a_failure_is_one_line_with_the_daemons_last_words() {
        let lines = LastLines::default();
        let relayed = lines.clone();
        let relay = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            relayed.push("failed to start daemon: failed to create NAT chain DOCKER: Iptables not found");
        });
        let (_, ended) = std::sync::mpsc::sync_channel(1);
        let started = Started { pid: rustix::process::getpid(), ended, lines, relay };
        let failure = started.failure("/usr/bin/dockerd", ExitStatus::default());
        assert_eq!(
            failure,
            "/usr/bin/dockerd ended (exit status: 0): failed to start daemon: failed to create NAT chain DOCKER: \
             Iptables not found"
        );
        assert!(lacks_a_program(&failure));
        assert!(!lacks_a_program(
            "/usr/bin/dockerd ended (exit status: 1): timeout waiting for containerd to start"
        ));
    }

    fn outside(pairs: &[(&str, &'static str)]) -> Outside {
        let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        Outside::resolve(get).expect("valid")
    }

    #[test]
    fn a_daemon_is_started_again_only_for_a_runner_with_other_proxies() {
        let proxy = outside(&[("RUNNER_HTTPS_PROXY", "http://p:1"), ("RUNNER_NO_PROXY", ".example")]);
        let mut docker = Docker::default();
        assert!(!docker.take_proxies(&outside(&[])), "most runners have no proxy, and cost no start");
        // "a certificate"
        let authority = outside(&[("RUNNER_CA", "YSBjZXJ0aWZpY2F0ZQ==")]);
        assert!(!docker.take_proxies(&authority), "it reads authorities when it first needs them");
        assert!(docker.take_proxies(&proxy));
        let value = |name: &str| docker.proxies.iter().find(|(own, _)| own == name).map(|(_, value)| value);
        assert_eq!(value("HTTPS_PROXY").map(String::as_str), Some("http://p:1"));
        assert_eq!(value("no_proxy").map(String::as_str), Some(".example"));
        assert!(!docker.take_proxies(&proxy), "it has them");
    }

    #[test]
    fn a_daemon_that_sleeps_with_its_children_ends_in_its_own_way() {
        let script = "trap 'kill $child; exit 7' TERM; sleep 60 & child=$!; echo; wait";
        let mut daemon = Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = [0];
        io::Read::read_exact(daemon.stdout.as_mut().expect("piped"), &mut line).expect("its trap is set");
        let family = processes::with_descendants(Pid::from_child(&daemon));
        assert_eq!(family.len(), 2);
        for &pid in &family {
            rustix::process::kill_process(pid, Signal::STOP).expect("stopped");
        }
        end(&family);
        assert_eq!(daemon.wait().expect("reaped").code(), Some(7));
    }

    #[test]
    fn a_groups_number_is_found_by_its_whole_name() {
        let groups = "root:x:0:\ndockerx:x:7:\ndocker:x:105:runner\n";
        assert_eq!(group_id(groups, "docker"), Some(105));
        assert_eq!(group_id(groups, "dock"), None);
    }
}

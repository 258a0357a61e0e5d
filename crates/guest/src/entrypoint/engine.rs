//! Starts and stops the container engine, for drivers whose machine does not start one itself.
//!
//! If a Docker socket already answers, nothing is started. Otherwise `dockerd` is started, or podman's service, which
//! speaks the same protocol. If there is neither, or if the start fails, this is logged and the runner continues, because
//! many jobs need no engine.

use super::log::Log;
use super::process::{self, Process};
use super::run::wait_for_last_lines;
use super::supervisor::{Event, Supervisor};
use super::user::Account;
use crate::docker::{LastLines, ping};
use dayfly_guest::runner_app::{Launch, User};
use std::io::PipeReader;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Path of the socket that clients use by default.
const SOCKET: &str = "/var/run/docker.sock";

/// Longest time until the engine answers.
const READY_MAX: Duration = Duration::from_secs(120);

/// Longest wait for one answer. Signals are not handled during this time.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);

/// Longest time that the engine gets to stop its containers.
const GRACE: Duration = Duration::from_secs(10);

/// podman's configuration for a system without systemd, as in these machines.
const CONTAINERS_CONF: &str = "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";

/// Parameters for the start of an engine.
pub(super) struct Request<'a> {
    /// True if an engine is wanted at all.
    pub(super) wanted: bool,
    /// `PATH` of this process.
    pub(super) path: &'a str,
    /// `DOCKER_HOST` of this process: only a `unix://` socket counts.
    pub(super) docker_host: &'a str,
    /// Folder of `containers.conf`.
    pub(super) configuration: &'a Path,
    /// The variables of the engine that name proxies, because it pulls images itself.
    pub(super) proxies: Vec<(String, String)>,
    /// The account that must be able to use the engine; `None` for the current user.
    pub(super) account: Option<&'a Account>,
}

/// A running engine.
pub(super) struct Engine {
    process: Process,
}

impl Engine {
    /// Starts the installed engine, and waits until it answers, at most [`READY_MAX`].
    pub(super) fn start(
        request: &Request<'_>,
        supervisor: &mut Supervisor,
        events: &SyncSender<Event>,
        log: &Arc<Log>,
    ) -> Option<Self> {
        let socket = PathBuf::from(request.docker_host.strip_prefix("unix://").unwrap_or(SOCKET));
        if !request.wanted || supervisor.reason().is_some() {
            return None;
        }
        if ping(&socket, ANSWER_MAX).is_ok() {
            log.detail(&format!("a container engine answers at {}", socket.display()));
            return None;
        }
        let Some((source, launch)) = plan(request, &socket, rustix::process::geteuid().is_root()) else {
            log.say("RUNNER_DOCKER: there is neither dockerd (for root) nor podman: jobs have no container engine");
            return None;
        };
        if source == "podman" {
            configure(request.configuration, log);
        }
        log.detail(&format!("starting {}", launch.program.display()));
        let (process, output) = match process::start(&launch, None, events) {
            Ok(started) => started,
            Err(error) => {
                log.say(&format!("no container engine: {error}"));
                return None;
            }
        };
        let lines = LastLines::default();
        let relay = relay(source, output, log, &lines);
        let engine = Self { process };
        if engine.wait_until_ready(&socket, supervisor, log)
            && let Some(account) = request.account
        {
            open_to(account, &socket, log);
        }
        if engine.process.has_ended() {
            wait_for_last_lines(&relay);
            let reason = lines.reason().unwrap_or_else(|| "it printed no reason".to_owned());
            log.say(&format!("the container engine ended before it answered; jobs have none: {reason}"));
        }
        Some(engine)
    }

    /// Returns true once the engine answers, and false if it ends, if it takes too long, or if a stop is ordered.
    fn wait_until_ready(&self, socket: &Path, supervisor: &mut Supervisor, log: &Log) -> bool {
        let start = Instant::now();
        while supervisor.reason().is_none() && start.elapsed() < READY_MAX {
            if ping(socket, ANSWER_MAX).is_ok() {
                log.detail("the container engine answers");
                return true;
            }
            if self.process.has_ended() {
                return false;
            }
            supervisor.pause(RETRY);
        }
        if supervisor.reason().is_none() {
            log.say(&format!("the container engine has not answered for {} s", READY_MAX.as_secs()));
        }
        false
    }

    /// Stops the engine and everything that it runs.
    pub(super) fn end(mut self, supervisor: &mut Supervisor) {
        supervisor.end(&mut self.process, GRACE);
    }
}

/// Relays the engine's lines, and keeps the last ones for the reason of its end.
fn relay(source: &'static str, output: PipeReader, log: &Arc<Log>, lines: &LastLines) -> JoinHandle<()> {
    let (log, lines) = (Arc::clone(log), lines.clone());
    std::thread::spawn(move || {
        crate::lines::for_each(output, |line| {
            lines.push(line);
            log.relay(source, line);
        });
    })
}

/// Returns the source name of the installed engine's lines, and its command line; `None` if none is installed.
fn plan(request: &Request<'_>, socket: &Path, is_root: bool) -> Option<(&'static str, Launch)> {
    let folders = request.path.split(':').chain(["/usr/local/bin", "/usr/bin", "/usr/sbin"]);
    let folders: Vec<_> = folders.filter(|folder| folder.starts_with('/')).collect();
    let find =
        |name: &str| folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    let address = format!("unix://{}", socket.display());
    let (source, program, args) = match find("dockerd").filter(|_| is_root) {
        Some(program) => {
            ("docker", program, vec![format!("--host={address}"), "--log-level=warn".to_owned()])
        }
        None => {
            let args = ["system", "service", "--time=0", &address].map(str::to_owned).to_vec();
            ("podman", find("podman")?, args)
        }
    };
    let home = if is_root { "/root" } else { "/tmp" };
    let user = User { name: "root".to_owned(), home: home.into(), shell: "/bin/sh".into() };
    let mut launch = Launch::command(&program, &args, Path::new("/"), &user);
    if !request.path.is_empty() {
        launch.set("PATH", request.path);
    }
    for (name, value) in &request.proxies {
        launch.set(name, value);
    }
    if request.configuration != Path::new("/etc/containers") {
        launch.set("CONTAINERS_CONF", &request.configuration.join("containers.conf").to_string_lossy());
    }
    Some((source, launch))
}

/// Writes podman's configuration, unless the file exists: that one is the image's, and stays.
fn configure(folder: &Path, log: &Log) {
    let path = folder.join("containers.conf");
    let made = std::fs::create_dir_all(folder).and_then(|()| {
        let new = std::fs::File::options().write(true).create_new(true).open(&path);
        std::io::Write::write_all(&mut new?, CONTAINERS_CONF.as_bytes())
    });
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            log.say(&format!("cannot write {}: {error}", path.display()));
        }
        _ => {}
    }
}

/// Lets the account use the socket. If the account is not in the socket's group, the socket gets the account's own group.
fn open_to(account: &Account, socket: &Path, log: &Log) {
    let open = || -> std::io::Result<()> {
        let metadata = std::fs::metadata(socket)?;
        if !account.groups.iter().any(|group| group.as_raw() == metadata.gid()) {
            std::os::unix::fs::chown(socket, None, Some(account.gid.as_raw()))?;
        }
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))
    };
    if let Err(error) = open() {
        log.say(&format!("{} may not be usable for {}: {error}", socket.display(), account.user.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(programs: &[&str], is_root: bool) -> Option<String> {
        let folder = tempfile::tempdir().expect("temporary folder");
        for program in programs {
            std::fs::write(folder.path().join(program), "").expect("written");
        }
        let request = Request {
            wanted: true,
            path: folder.path().to_str().expect("text"),
            docker_host: "",
            configuration: Path::new("/local/containers"),
            proxies: vec![("https_proxy".to_owned(), "http://p:1".to_owned())],
            account: None,
        };
        let (source, launch) = plan(&request, Path::new("/run/d.sock"), is_root)?;
        let program = launch.program.strip_prefix(folder.path()).expect("in it").display();
        assert_eq!(launch.value("https_proxy"), Some("http://p:1"), "it pulls images itself");
        let conf = launch.env.iter().find(|(name, _)| name == "CONTAINERS_CONF").expect("set");
        Some(format!("{source}: {program} {} {}", launch.args.join(" "), conf.1))
    }

    #[test]
    fn dockerd_is_roots_and_podman_serves_where_it_is_not() {
        let conf = "/local/containers/containers.conf";
        let docker = format!("docker: dockerd --host=unix:///run/d.sock --log-level=warn {conf}");
        let podman = format!("podman: podman system service --time=0 unix:///run/d.sock {conf}");
        assert_eq!(planned(&["dockerd", "podman"], true), Some(docker));
        assert_eq!(planned(&["dockerd", "podman"], false), Some(podman.clone()));
        assert_eq!(planned(&["podman"], true), Some(podman));
    }

    #[test]
    fn a_configuration_is_made_where_there_is_none_and_left_alone_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let log = Log::open("1-a", None, false);
        let place = folder.path().join("containers");
        configure(&place, &log);
        let path = place.join("containers.conf");
        assert_eq!(std::fs::read_to_string(&path).expect("made"), CONTAINERS_CONF);
        std::fs::write(&path, "mine").expect("written");
        configure(&place, &log);
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
    }
}

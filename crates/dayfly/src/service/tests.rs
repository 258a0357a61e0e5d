use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command as CliCommand};
use crate::config::Time;

/// The unit that is shipped.
const UNIT: &str = include_str!("../../../../dist/systemd/dayfly.service");
/// Set for the process that plays the service.
const IS_SERVICE: &str = "DAYFLY_TEST_IS_SERVICE";

/// The service manager names its socket in the environment, so the service is a process of its own: this test again.
#[test]
fn a_service_manager_gets_each_message_of_the_process_that_it_has_started() {
    if std::env::var_os(IS_SERVICE).is_some() {
        play_service();
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let module = module_path!().split_once("::").expect("the crate comes first").1;
    let name = format!("{module}::a_service_manager_gets_each_message_of_the_process_that_it_has_started");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", &name])
        .stdout(Stdio::null())
        .env(IS_SERVICE, "1")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "500000")
        .spawn()
        .expect("started");
    let next = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).expect("a message in time");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(next(), "READY=1\n");
    assert_eq!(next(), "STATUS=500 ms\n");
    let reloading = next();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a reload with its time");
    assert!(time.trim_end().parse::<u64>().is_ok_and(|us| us > 0), "{time}");
    assert_eq!(next(), "READY=1\n");
    assert_eq!(next(), "WATCHDOG=1\n");
    assert_eq!(next(), "STOPPING=1\n");
    assert!(child.wait().expect("it ends").success());
}

fn play_service() {
    let (service, end) = Service::start();
    let copy = service.clone();
    service.ready();
    let watchdog = service.watchdog().expect("a watchdog");
    service.status(format!("{} ms", watchdog.as_millis()));
    copy.reloading();
    copy.ready();
    service.alive();
    service.stopping();
    drop((service, copy));
    end.wait();
}

#[test]
fn without_a_service_manager_nothing_is_sent_and_nothing_is_awaited() {
    let (service, end) = (Service::default(), ServiceEnd(None));
    service.ready();
    assert_eq!(service.watchdog(), None);
    let began = Instant::now();
    end.wait();
    assert!(began.elapsed() < FLUSH_LIMIT);
}

/// Returns the settings of the unit, each with its values.
fn settings() -> HashMap<&'static str, Vec<&'static str>> {
    let lines = UNIT.lines().filter(|line| !line.starts_with(['#', '[']));
    let mut settings: HashMap<_, Vec<_>> = HashMap::new();
    for (key, value) in lines.filter_map(|line| line.split_once('=')) {
        settings.entry(key).or_default().push(value);
    }
    settings
}

/// Returns the arguments of a command of the unit.
fn command(key: &str) -> CliCommand {
    let line = settings()[key][0].trim_start_matches('-');
    assert!(line.starts_with("/usr/bin/dayfly "), "{line}");
    Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}")).command
}

fn seconds(key: &str) -> u64 {
    let time: Time = settings()[key][0].parse().expect("a time");
    time.0.as_secs()
}

#[test]
fn the_unit_runs_reloads_and_drains_the_same_file() {
    let file = Some(Path::new(crate::defaults::CONFIG_FILE));
    let CliCommand::Orchestrator(run) = command("ExecStart") else { panic!("no orchestrator") };
    assert_eq!(run.config.as_deref(), file);
    let CliCommand::Reload(reload) = command("ExecReload") else { panic!("no reload") };
    assert_eq!(reload.config.as_deref(), file);
    let CliCommand::Drain(drain) = command("ExecStop") else { panic!("no drain") };
    assert_eq!((drain.target.config.as_deref(), drain.pools, drain.wait), (file, Vec::new(), true));
    let wait = drain.timeout.expect("a limit").0.as_secs();
    assert!(wait < seconds("TimeoutStopSec"), "systemd must not kill what still drains");
    assert!(settings()["ExecStop"][0].starts_with('-'), "a drain that has reached its limit is no failure");
}

#[test]
fn the_unit_ends_no_machine_with_its_orchestrator_and_knows_its_exit_statuses() {
    let settings = settings();
    for (key, value) in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("KillMode", "process"),
        ("OOMPolicy", "continue"),
        ("Delegate", "yes"),
        ("Restart", "on-failure"),
        ("SuccessExitStatus", "143"),
        ("RestartPreventExitStatus", "2"),
        ("RestartForceExitStatus", "75"),
    ] {
        assert_eq!(settings[key], [value], "{key}");
    }
    assert!(seconds("WatchdogSec") >= 60, "a host that is busy with emulated machines is slow");
}

#[test]
fn the_unit_is_good_for_systemd() {
    let folder = tempfile::tempdir().expect("folder");
    let unit = folder.path().join("dayfly.service");
    let program = std::env::current_exe().expect("this program");
    let text = UNIT.replace("/usr/bin/dayfly", &program.display().to_string());
    std::fs::write(&unit, text).expect("written");
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    match verified {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            // A systemd before version 254 does not know it, and goes on without it.
            let is_newer = |line: &str| line.contains("Unknown key 'DelegateSubgroup'");
            let mut about = text.lines().filter(|line| line.contains("dayfly.service"));
            assert!(about.all(is_newer), "{text}");
        }
        // The tests above compare what matters.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
}

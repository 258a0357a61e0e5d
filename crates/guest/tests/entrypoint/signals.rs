//! Tests of termination signals in every phase.

use crate::stage::{ID, PATIENCE, SECRET, Stage, UNTIL_STOPPED, mode, runner_lines, wait_until};
use dayfly_guest::runner_app::Ending;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Instant;

#[test]
fn a_termination_signal_writes_the_break_note_and_stops_the_app() {
    let stage = Stage::new(UNTIL_STOPPED);
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("Listening for Jobs");
    entrypoint.signal(Signal::TERM);
    let (output, code) = entrypoint.end();
    assert_eq!(std::fs::read_to_string(stage.note("brk")).unwrap(), SECRET);
    assert_eq!(mode(&stage.note("brk")), 0o600);
    assert!(runner_lines(&output).contains(&"stopped"), "{output}");
    assert_eq!(code, Some(Ending::StoppedBySignal.code()), "{output}");
}

#[test]
fn a_second_signal_kills_an_app_that_does_not_listen() {
    let stage = Stage::new("trap '' TERM\necho 'Listening for Jobs'\nsleep 60 & wait\n");
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("Listening for Jobs");
    entrypoint.signal(Signal::INT);
    entrypoint.wait_for_line("stopping the runner app");
    entrypoint.signal(Signal::INT);
    let (output, code) = entrypoint.end();
    assert!(output.contains("killing the runner app"), "{output}");
    assert_eq!(code, Some(Ending::StoppedBySignal.code()), "{output}");
}

/// If the signals were blocked, they could not stop any program of a job.
#[test]
fn what_runs_has_no_signal_blocked() {
    let (output, _) = Stage::new("").start_with(&["--", "grep", "SigBlk", "/proc/self/status"], &[]).end();
    assert_eq!(runner_lines(&output), ["SigBlk:\t0000000000000000"], "{output}");
}

#[test]
fn a_signal_at_any_moment_of_the_start_ends_everything() {
    for delay in 0..12 {
        let stage = Stage::new(UNTIL_STOPPED);
        let mut entrypoint = stage.start();
        std::thread::sleep(std::time::Duration::from_micros(400 * delay));
        entrypoint.signal(Signal::TERM);
        let start = Instant::now();
        let status = loop {
            if let Some(status) = entrypoint.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end after {delay}");
        };
        // Before the entrypoint handles signals, it has created nothing that could be left behind.
        let ended = status.code() == Some(Ending::StoppedBySignal.code());
        assert!(ended || status.signal() == Some(Signal::TERM.as_raw()), "{status} after {delay}");
        if ended {
            assert_eq!(std::fs::read_to_string(stage.note("brk")).unwrap(), SECRET);
            assert!(!stage.path("app/.runner").exists());
        }
    }
}

#[test]
fn a_signal_during_the_configuration_stops_it_and_nothing_starts() {
    let stage = Stage::with_token(
        "test $1 = configure || touch ../started\ntrap 'echo gone; exit 0' TERM\necho configuring\n\
         while :; do sleep 0.05; done\n",
    );
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("] configuring");
    entrypoint.signal(Signal::HUP);
    let (output, code) = entrypoint.end();
    assert_eq!(code, Some(Ending::StoppedBySignal.code()), "{output}");
    assert!(output.contains("[configuration@runner-2-k3V9x0q] gone"), "{output}");
    assert_eq!(std::fs::read_to_string(stage.note("brk")).unwrap(), SECRET);
    assert!(!stage.note("tkn").exists() && !stage.path("started").exists(), "{output}");
}

#[test]
fn a_second_signal_kills_a_configuration_that_does_not_listen() {
    let stage = Stage::with_token("trap '' TERM\necho configuring\nsleep 60 & wait\n");
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("] configuring");
    entrypoint.signal(Signal::TERM);
    entrypoint.wait_for_line("stopping the configuration");
    entrypoint.signal(Signal::TERM);
    let (output, code) = entrypoint.end();
    assert!(output.contains("killing the configuration"), "{output}");
    assert_eq!(code, Some(Ending::StoppedBySignal.code()), "{output}");
}

/// Returns a command that runs the given one as process 1 of a PID namespace.
fn as_process_1(command: &Command) -> Command {
    let mut outer = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        outer.args(["--user", "--map-root-user"]);
    }
    outer.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    outer.arg(command.get_program()).args(command.get_args()).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
        .env("PATH", "/usr/bin:/bin")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped());
    outer
}

#[test]
fn as_process_1_it_hears_signals_and_reaps_orphans() {
    let stage = Stage::new(
        "(sh -c 'sleep 0.1' &)\n(sh -c 'exit 0' &)\nsleep 0.6\n\
         echo \"zombies: $(cat /proc/[0-9]*/stat | grep -c ') Z ')\"\n\
         trap 'echo stopped; exit 0' TERM\necho ready\nwhile :; do sleep 0.05; done\n",
    );
    let app = stage.path("app.sh");
    let command = stage.command(&["--app", app.to_str().unwrap()], &[]);
    let mut entrypoint = crate::stage::Entrypoint::start(&mut as_process_1(&command));
    entrypoint.wait_for_line("] ready");
    let unshare = entrypoint.child.id();
    let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let process_1 = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    kill_process(process_1, Signal::TERM).unwrap();
    let (output, code) = entrypoint.end();
    assert!(output.contains("zombies: 0"), "{output}");
    assert!(runner_lines(&output).contains(&"stopped"), "{output}");
    assert_eq!(code, Some(Ending::StoppedBySignal.code()), "{output}");
    assert!(stage.note("brk").exists());
}

#[test]
fn a_signal_while_the_container_engine_starts_ends_both() {
    let stage = Stage::new("echo never");

    let mark = stage.path("pid");
    let script = format!("MARK={}\necho $$ >\"$MARK\"\necho starting\nexec sleep 60\n", mark.display());
    stage.write_script("bin/podman", &script);
    stage.write_script("bin/dockerd", &script);
    let (app, bin) = (stage.path("app.sh"), stage.path("bin"));
    let socket = format!("unix://{}", stage.path("docker.sock").display());
    let conf = stage.path("containers");
    let mut entrypoint = stage.start_with(
        &["--app", app.to_str().unwrap()],
        &[
            ("RUNNER_DOCKER", "1"),
            ("PATH", &format!("{}:/usr/bin:/bin", bin.display())),
            ("DOCKER_HOST", &socket),
            ("RUNNER_CONTAINERS_CONFDIR", conf.to_str().unwrap()),
        ],
    );
    entrypoint.wait_for_line("] starting");
    let engine = Pid::from_raw(stage.text("pid").trim().parse().unwrap()).unwrap();
    entrypoint.signal(Signal::TERM);
    let (output, code) = entrypoint.end();
    assert_eq!(code, Some(Ending::StoppedBySignal.code()), "{output}");
    assert!(runner_lines(&output).is_empty() && !stage.note("tkn").exists(), "{output}");
    wait_until("the engine is gone", || kill_process(engine, Signal::CONT).is_err());
    assert!(output.contains(ID));
}

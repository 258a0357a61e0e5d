//! Tests of the container engine, with a script in place of its daemon, and a socket on which the test answers.

use crate::stage::{Stage, lines_of, runner_lines, wait_until};
use dayfly_guest::runner_app::Ending;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// Answers every request as a Docker daemon answers `/_ping`, as long as the test runs.
fn answer(socket: PathBuf) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nOK");
        }
    });
}

/// Runs the entrypoint with RUNNER_DOCKER=1, and with the stage's own programs before the system's in `PATH`.
fn run(stage: &Stage) -> (String, Option<i32>) {
    let (app, path) = (stage.path("app.sh"), format!("{}:/usr/bin:/bin", stage.path("bin").display()));
    let (socket, conf) =
        (format!("unix://{}", stage.path("docker.sock").display()), stage.path("containers"));
    stage
        .start_with(
            &["--app", app.to_str().unwrap(), "-v"],
            &[
                ("RUNNER_DOCKER", "1"),
                ("PATH", &path),
                ("DOCKER_HOST", &socket),
                ("RUNNER_CONTAINERS_CONFDIR", conf.to_str().unwrap()),
            ],
        )
        .end()
}

#[test]
fn an_engine_is_up_before_the_app_starts_and_ends_with_the_entrypoint() {
    let stage = Stage::new("cat ../engine.pid\n");
    let pid = stage.path("engine.pid");
    let script = format!("echo \"called: $*\"\necho $$ >{}\nexec sleep 60\n", pid.display());
    stage.write_script("bin/dockerd", &script);
    stage.write_script("bin/podman", &script);
    let (output, code) = std::thread::scope(|scope| {
        let entrypoint = scope.spawn(|| run(&stage));
        wait_until("the engine runs", || pid.exists());
        answer(stage.path("docker.sock"));
        entrypoint.join().unwrap()
    });
    let (source, arguments) = if rustix::process::geteuid().is_root() {
        ("docker", format!("--host=unix://{} --log-level=warn", stage.path("docker.sock").display()))
    } else {
        ("podman", format!("system service --time=0 unix://{}", stage.path("docker.sock").display()))
    };
    assert_eq!(lines_of(source, &output), [format!("called: {arguments}")], "{output}");
    assert_eq!(code, Some(Ending::NoJob.code()), "{output}");
    let engine = Pid::from_raw(runner_lines(&output)[0].parse().unwrap()).unwrap();
    assert!(kill_process(engine, Signal::CONT).is_err(), "it is still there: {output}");
}

#[test]
fn where_an_engine_answers_already_none_is_started() {
    let stage = Stage::new("echo hello\n");
    stage.write_script("bin/dockerd", "echo never");
    stage.write_script("bin/podman", "echo never");
    answer(stage.path("docker.sock"));
    let (output, _) = run(&stage);
    assert!(output.contains("a container engine answers at "), "{output}");
    assert!(!output.contains("never") && runner_lines(&output) == ["hello"], "{output}");
}

#[test]
fn an_engine_that_fails_is_said_and_the_runner_goes_on() {
    let stage = Stage::new("echo hello\n");
    for name in ["bin/dockerd", "bin/podman"] {
        stage.write_script(
            name,
            "echo 'no cgroups here'\necho 'time=\"1\" level=warning msg=\"bye\"'\nexit 1\n",
        );
    }
    let (output, _) = run(&stage);
    assert!(output.contains("] no cgroups here"), "{output}");
    let reason = "the container engine ended before it answered; jobs have none: no cgroups here";
    assert!(lines_of("entrypoint", &output).contains(&reason), "{output}");
    assert!(!output.contains("may not be usable"), "{output}");
    assert_eq!(runner_lines(&output), ["hello"], "{output}");
}

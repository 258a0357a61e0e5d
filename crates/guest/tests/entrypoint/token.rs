//! Tests of a runner that registers itself with a registration token.

use crate::stage::{SECRET, Stage, lines_of, mode, runner_lines};
use dayfly_guest::runner_app::Ending;
use std::os::unix::fs::FileExt as _;

/// Script that prints its command line, the token in its environment, and the files in the environment directory.
const TELL: &str = "tr '\\0' ' ' </proc/$$/cmdline\necho\necho \"token=$ACTIONS_RUNNER_INPUT_TOKEN\"\n\
    env | grep -c AAAA\nls ../environment\n";

#[test]
fn the_token_reaches_the_configuration_by_environment_and_nothing_else() {
    let stage = Stage::with_token(TELL);
    let (output, code) = stage.start().end();
    let (app, work) = (stage.path("app.sh"), stage.path("work"));
    let configure = format!(
        "/bin/sh {} configure --unattended --url http://10.0.2.2:8080/o/r --name GH-runner --no-default-labels \
         --labels self-hosted,Linux,X64,big --work {} --ephemeral --disableupdate ",
        app.display(),
        work.display()
    );
    assert_eq!(lines_of("configuration", &output), [&configure, "token=AAAA-registration", "1"], "{output}");
    let run = format!("/bin/sh {} run ", app.display());
    assert_eq!(runner_lines(&output), [&run, "token=", "0", "2-k3V9x0q.tkn"], "{output}");
    assert_eq!(std::fs::read_to_string(stage.note("tkn")).unwrap(), "GH-runner");
    assert_eq!((mode(&stage.note("tkn")), code), (0o600, Some(Ending::NoJob.code())));
    assert!(work.is_dir());
}

/// Returns the number of times that a text is in the memory of a process.
fn copies_in_memory(pid: u32, text: &[u8]) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut copies = 0;
    for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[vvar")) {
        let (from, to) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // A guard page cannot be read.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            copies += bytes.windows(text.len()).filter(|window| *window == text).count();
        }
    }
    copies
}

#[test]
fn a_job_that_is_root_finds_no_token_in_the_memory_of_its_entrypoint() {
    let stage = Stage::with_token(
        "test $1 = configure && exit 0\ntrap 'exit 0' TERM\necho up\nwhile :; do sleep 0.05; done\n",
    );
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("] up");
    assert!(copies_in_memory(entrypoint.pid(), SECRET.as_bytes()) > 0, "memory can be searched");
    assert_eq!(copies_in_memory(entrypoint.pid(), b"AAAA-registration"), 0);
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    entrypoint.end();
}

#[test]
fn what_the_configuration_keeps_of_the_token_is_gone_before_a_job_can_read_it() {
    let stage = Stage::with_token(
        "test $1 = run && { cat settings.json; exit; }\n\
         echo \"{\\\"Instances\\\":[{\\\"Auth\\\":{\\\"token\\\":\\\"$ACTIONS_RUNNER_INPUT_TOKEN\\\"}}]}\" >settings.json\n",
    );
    let (output, _) = stage.start().end();
    assert_eq!(runner_lines(&output), [r#"{"Instances":[{"Auth":{"token":""}}]}"#], "{output}");
}

#[test]
fn group_update_and_labels_are_handed_on() {
    let stage = Stage::with_token(TELL);
    let app = stage.path("app.sh");
    stage.write_env(&[
        ("RUNNER_TOKEN", "t"),
        ("RUNNER_DEFAULT_LABELS", "krun,small"),
        ("RUNNER_DISTRO", "debian"),
    ]);
    let options = ["--app", app.to_str().unwrap(), "-s", "Organisation", "-p", "acme", "-G", "big", "-U"];
    let (output, _) = stage.start_with(&options, &[]).end();
    let arguments = lines_of("configuration", &output)[0];
    let architecture = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
    for text in [
        "--url https://github.com/acme ".to_owned(),
        format!("--labels self-hosted,Linux,{architecture},krun,small,debian,dayfly "),
        "--runnergroup big ".to_owned(),
    ] {
        assert!(arguments.contains(&text), "{text} in {arguments}");
    }
    assert!(!arguments.contains("--disableupdate"), "{arguments}");
}

#[test]
fn a_configuration_that_fails_is_relayed_and_nothing_starts() {
    let stage = Stage::with_token("test $1 = run && exit 0\necho 'Http response code: NotFound'\nexit 1\n");
    let (output, code) = stage.start().end();
    assert_eq!(lines_of("configuration", &output), ["Http response code: NotFound"]);
    assert!(output.contains("the configuration failed (exit status: 1)"), "{output}");
    assert_eq!(code, Some(Ending::NotStarted.code()), "{output}");
    assert!(!stage.note("tkn").exists() && runner_lines(&output).is_empty(), "{output}");
}

#[test]
fn job_after_job_runs_in_one_machine_until_the_loop_stops_it() {
    let stage = Stage::with_token(
        "case \"$*\" in *--ephemeral*) exit 9;; configure*) echo '{}' >settings.json; exit 0;; esac\n\
         trap 'exit 0' TERM\nfor n in 1 2; do echo \"x ( u ): Finished Job '$n' with Status Succeeded\"; done\n\
         while :; do sleep 0.05; done\n",
    );
    stage.write_env(&[("RUNNER_TOKEN", "t"), ("RUNNER_PRINCIPAL", "o/r"), ("RUNNER_EPHEMERAL", "0")]);
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("Finished Job '2'");
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    let (output, code) = entrypoint.end();
    assert_eq!(code, Some(Ending::StoppedByLoop.code()), "{output}");
    assert!(!stage.path("app/settings.json").exists(), "the key outlives its runner");
}

/// The original deleted the registration from inside, with a token that had long expired, and hung or failed.
#[test]
fn nothing_is_unregistered_from_inside_so_an_expired_token_does_not_matter() {
    let stage = Stage::with_token(
        "echo \"$1\" >>../calls\ntest $1 = configure && exit 0\ntrap 'exit 0' TERM\necho up\n\
         test $1 = run || exit 1\nwhile :; do sleep 0.05; done\n",
    );
    let mut entrypoint = stage.start();
    entrypoint.wait_for_line("] up");
    std::fs::write(stage.note("trm"), SECRET).unwrap();
    let (output, code) = entrypoint.end();
    assert_eq!(code, Some(Ending::StoppedByLoop.code()), "{output}");
    assert_eq!(stage.text("calls"), "configure\nrun\n");
}

//! Tests of wrong input: one message that names the error, its place and the remedy; the right exit status; and no
//! remains.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dayfly_e2e::machines::{Stage, enter_network_namespace};
use dayfly_e2e::{Dayfly, Ended, OwnState, image};
use dayfly_vm::{AccelChoice, Driver, Exit, TemplateSettings};

#[track_caller]
fn assert_told(ended: &Ended, status: i32, words: &[&str]) {
    ended.assert_status(status);
    for word in words {
        assert!(ended.stderr.contains(word), "no \"{word}\" in: {}", ended.stderr);
    }
    assert_eq!(
        ended.stderr.lines().filter(|line| line.starts_with("error: ")).count(),
        1,
        "one message: {}",
        ended.stderr
    );
    assert!(ended.temporary.is_empty(), "{:?}", ended.temporary);
}

fn demo_of(workflow: &str) -> Ended {
    Dayfly::demo(workflow, []).run()
}

#[test]
fn a_workflow_that_is_not_there_is_named() {
    assert_told(
        &Dayfly::new(["demo", "--workflow", "no/such.yml"]).run(),
        2,
        &["no/such.yml", "No such file"],
    );
}

#[test]
fn a_screen_is_not_written_to_a_pipe() {
    assert_told(&Dayfly::new(["top"]).run(), 2, &["no terminal", "`dayfly ps`"]);
}

#[test]
fn a_folder_is_no_workflow() {
    assert_told(&Dayfly::new(["demo", "--workflow", "."]).run(), 2, &["folder"]);
}

#[test]
fn what_is_no_yaml_is_refused_with_its_line() {
    assert_told(&demo_of("on: push\njobs: [}"), 2, &["workflow.yml:2:"]);
}

#[test]
fn yaml_that_is_no_workflow_is_refused() {
    assert_told(&demo_of("just: a mapping"), 2, &["workflow.yml:1:", "not a workflow"]);
}

#[test]
fn an_unknown_key_is_refused_with_line_and_key() {
    let workflow = "on: push\njobs:\n  a:\n    runs-on: x\n    stepz: []\n    steps: [{ run: echo }]\n";
    assert_told(&demo_of(workflow), 2, &["workflow.yml:5:", "stepz"]);
}

#[test]
fn what_is_to_come_is_refused_as_not_yet() {
    let workflow = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - uses: actions/checkout@v4\n";
    assert_told(&demo_of(workflow), 2, &["workflow.yml:6:", "not yet"]);
}

#[test]
fn a_missing_input_and_a_missing_secret_are_named() {
    let workflow = "on: { workflow_dispatch: { inputs: { who: { required: true } } } }\njobs: { a: { runs-on: x, steps: [{ run: echo }] } }";
    assert_told(&demo_of(workflow), 2, &["who", "--input"]);
    let ended = Dayfly::demo(workflow, ["--input", "who=me", "--secret", "NOT_SET_ANYWHERE"]).run();
    assert_told(&ended, 2, &["NOT_SET_ANYWHERE"]);
}

#[test]
fn an_unknown_option_is_wrong_usage() {
    Dayfly::new(["demo", "--wrokflow", "x"]).run().assert_status(2);
}

const FINE: &str = "on: push\njobs: { a: { runs-on: x, steps: [{ run: echo hi }] } }";

#[test]
fn an_image_that_is_not_there_is_named() {
    let told = ["no-such-image", "image ls"];
    assert_told(&Dayfly::demo(FINE, ["--image", "127.0.0.1:9/no-such-image"]).run(), 3, &told);
}

#[test]
fn without_a_guest_binary_nothing_is_started() {
    assert_told(&Dayfly::demo(FINE, ["--guest-binary", "nowhere"]).run(), 3, &["nowhere", "make build"]);
}

#[test]
fn without_qemu_the_package_is_named() {
    let ended = Dayfly::demo(FINE, []).env("DAYFLY_QEMU", "/nowhere/qemu").run();
    assert_told(&ended, 3, &["qemu-system-x86"]);
}

#[test]
fn a_forge_that_is_not_there_is_named() {
    let arguments = ["runner", "-g", "http://127.0.0.1:1", "-p", "o/r", "-T", "x"];
    assert_told(&Dayfly::new(arguments).run(), 3, &["127.0.0.1:1"]);
}

#[test]
fn a_repository_without_an_owner_is_wrong_usage() {
    Dayfly::new(["runner", "-g", "http://127.0.0.1:1", "-p", "r", "-T", "x"]).run().assert_status(2);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = Dayfly::new(["lab", "serve", "--data", "lab", "--listen", &address]).run();
    assert_told(&ended, 3, &[&address, "port"]);
}

#[test]
fn a_machine_that_never_says_hello_is_ended_and_told() {
    // A static program that is not an init: the guest's kernel panics as soon as it exits.
    let program = dayfly_e2e::prepared("DAYFLY_TEST_RUNNER_APP");
    let ended = Dayfly::demo(FINE, ["--accel", "tcg"]).env("DAYFLY_GUEST", program).run();
    assert_told(&ended, 3, &["hello", "panic"]);
    ended.assert_nothing_left();
}

/// A QEMU whose firmware finds no kernel: SeaBIOS, which is the default on Debian 13, without QEMU's option ROM.
const FINDS_NO_KERNEL: &str = r#"#!/bin/bash
args=()
while [ $# -gt 0 ]; do
	case $1 in
	-bios) shift ;;
	*) args+=("${1/x-option-roms=on/x-option-roms=off}") ;;
	esac
	shift
done
exec /usr/bin/qemu-system-x86_64 -bios /usr/share/seabios/bios-microvm.bin "${args[@]}"
"#;

fn finds_no_kernel(folder: &Path) -> PathBuf {
    let path = folder.join("qemu-system-x86_64");
    std::fs::write(&path, FINDS_NO_KERNEL).expect("a program");
    for opened in [path.as_path(), folder] {
        std::fs::set_permissions(opened, std::fs::Permissions::from_mode(0o755)).expect("open to machines");
    }
    path
}

#[test]
fn a_qemu_whose_firmware_finds_no_kernel_is_told_by_the_firmwares_words_before_anything_is_registered() {
    let (state, folder) = (OwnState::new(), tempfile::tempdir().expect("a folder"));
    let qemu = finds_no_kernel(folder.path());
    let doctor =
        Dayfly::new(["doctor", "--json"]).env("DAYFLY_STATE", state.path()).env("DAYFLY_QEMU", &qemu).run();
    doctor.assert_status(3);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&doctor.stdout).expect("a list");
    let emulation = checks.iter().find(|check| check["name"] == "emulation").expect("a check");
    assert_eq!(emulation["state"], "missing");
    assert!(
        emulation["seen"].as_str().is_some_and(|seen| seen.contains("No bootable device")),
        "{emulation}"
    );
    assert!(emulation["mend"].as_str().is_some_and(|mend| mend.contains("--reinstall")), "{emulation}");
    let ended = Dayfly::demo(FINE, ["--accel", "tcg"])
        .env("DAYFLY_STATE", state.path())
        .env("DAYFLY_QEMU", &qemu)
        .run();
    assert_told(&ended, 3, &["No bootable device", "--reinstall"]);
    ended.assert_nothing_left();
}

#[tokio::test]
async fn a_machine_whose_firmware_finds_no_kernel_ends_at_once_and_is_not_booted_again() {
    enter_network_namespace();
    let folder = tempfile::tempdir().expect("a folder");
    let binary = dayfly_e2e::prepared("DAYFLY_BINARY");
    let state = dayfly_e2e::prepared("DAYFLY_STATE");
    let mut stage = Stage::new(&state, &binary, &image(), TemplateSettings::default()).expect("a stage");
    stage.host.qemu = Some(finds_no_kernel(folder.path()));
    stage.machine = stage.machine_with(None);
    if let Driver::Qemu(settings) = &mut stage.machine.driver {
        settings.accel = AccelChoice::Tcg;
    }
    let said = stage.say("lost", "true").await;
    assert_eq!((said.from.len(), said.gone), (1, Some(Exit::NoBootDevice)));
}

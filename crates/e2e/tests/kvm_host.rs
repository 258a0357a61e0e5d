//! Tests that hold only on a host with a working KVM. `tests/kvm` runs them in its host machine. To run them on such a host
//! directly: `make build`, then `cargo test -p dayfly-e2e --test kvm_host` with the variables that CONTRIBUTING.md names.
#![expect(unsafe_code, reason = "threads enter mount namespaces")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dayfly_e2e::machines::{Stage, enter_network_namespace, script};
use dayfly_e2e::{Dayfly, OwnState, image, prepared};
use dayfly_vm::{StartedFrom, TemplateSettings, Vm, VmEvent};
use rustix::fs::{FileType, Mode, makedev, mknodat};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;
use serde_json::Value;

/// Longest time that a machine may take to start on a nested host.
const PATIENCE: Duration = Duration::from_secs(300);

/// The checks that `dayfly doctor` prints.
#[derive(Debug)]
struct Checks(Vec<Value>);

impl Checks {
    fn of(doctor: Dayfly) -> Self {
        Self(serde_json::from_str(&doctor.run().stdout).expect("a list"))
    }

    fn text(&self, name: &str, key: &str) -> &str {
        let check = self.0.iter().find(|check| check["name"] == name);
        check
            .and_then(|check| check[key].as_str())
            .unwrap_or_else(|| panic!("no {key} of {name} in {self:?}"))
    }

    fn state(&self, name: &str) -> &str {
        self.text(name, "state")
    }
}

fn doctor(state: &OwnState) -> Dayfly {
    Dayfly::new(["doctor", "--json"]).env("DAYFLY_STATE", state.path())
}

const JOB: &str = "
on: push
jobs:
  one:
    runs-on: self-hosted
    steps:
      - run: echo \"model $(grep -m1 'model name' /proc/cpuinfo) flags $(grep -m1 -ow -e svm -e vmx /proc/cpuinfo)\"
";

/// Runs a job with `dayfly demo`, and returns the accelerator that it reports and the job's log.
fn demo(state: &OwnState, arguments: &[&str]) -> (String, String) {
    let ended = Dayfly::demo(JOB, arguments.iter().copied()).env("DAYFLY_STATE", state.path()).run();
    ended.assert_status(0).assert_nothing_left();
    let told = ended.events_of("accel").pop().expect("it is reported");
    (told["accel"].as_str().expect("an accelerator").to_owned(), ended.log_of("one"))
}

#[test]
fn auto_takes_kvm_where_a_probe_guest_boots_and_a_job_gets_no_virtualisation_of_its_own() {
    let state = OwnState::new();
    let checks = Checks::of(doctor(&state));
    assert_eq!((checks.state("kvm"), checks.text("kvm", "seen")), ("ok", "a probe guest booted with KVM"));
    let (accel, log) = demo(&state, &[]);
    assert_eq!(accel, "kvm");
    assert!(log.contains("model ") && log.contains("flags \n"), "{log}");
}

/// A QEMU that fails with KVM, like one whose host could not set a register, and otherwise is the real one.
const BOOTS_NOTHING_WITH_KVM: &str = r#"#!/bin/sh
case " $* " in
*" -accel kvm "*) echo "kvm_buf_set_msrs: Assertion 'ret == cpu->kvm_msr_buf->nmsrs' failed." >&2; exit 1 ;;
esac
exec /usr/bin/qemu-system-x86_64 "$@"
"#;

fn program(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("qemu-system-x86_64");
    std::fs::write(&path, text).expect("a program");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("open to machines");
    path
}

#[test]
fn auto_takes_emulation_where_kvm_boots_nothing_and_says_what_qemu_said() {
    let (state, folder) = (OwnState::without_templates(), tempfile::tempdir().expect("a folder"));
    let qemu = program(folder.path(), BOOTS_NOTHING_WITH_KVM);
    let checks = Checks::of(doctor(&state).env("DAYFLY_QEMU", &qemu));
    assert_eq!(checks.state("kvm"), "warn", "{checks:?}");
    for part in ["did not boot", "exit status 1", "kvm_buf_set_msrs", "machines are emulated"] {
        assert!(checks.text("kvm", "seen").contains(part), "no \"{part}\" in {checks:?}");
    }
    assert_eq!(checks.state("emulation"), "ok", "{checks:?}");
    // Runs no job, because emulation within emulation would take minutes.
    let asked = Dayfly::demo(JOB, ["--accel", "kvm"])
        .env("DAYFLY_STATE", state.path())
        .env("DAYFLY_QEMU", &qemu)
        .run();
    asked.assert_status(3).assert_nothing_left();
    assert!(asked.stderr.contains("kvm_buf_set_msrs"), "{asked:?}");
}

/// Gives this thread, and what it starts, a separate `/dev/kvm` with this mode, which belongs to root.
fn with_kvm_device(folder: &Path, mode: u32) {
    // SAFETY: a mount namespace concerns the calling thread alone, which keeps its files.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private");
    let device = folder.join("kvm");
    let mode = Mode::from_raw_mode(mode);
    mknodat(rustix::fs::CWD, &device, FileType::CharacterDevice, mode, makedev(10, 232)).expect("a device");
    mount_bind(&device, "/dev/kvm").expect("a bind mount");
}

#[test]
fn a_device_that_machines_may_not_open_is_named_with_its_mend_and_emulation_is_taken() {
    let (state, folder) = (OwnState::without_templates(), tempfile::tempdir().expect("a folder"));
    with_kvm_device(folder.path(), 0o600);
    let checks = Checks::of(doctor(&state));
    assert_eq!((checks.state("kvm"), checks.state("emulation")), ("warn", "ok"), "{checks:?}");
    assert!(checks.text("kvm", "seen").contains("open to root only"), "{checks:?}");
    assert!(checks.text("kvm", "mend").contains("chgrp kvm /dev/kvm"), "{checks:?}");
    let asked = Dayfly::demo(JOB, ["--accel", "kvm"]).env("DAYFLY_STATE", state.path()).run();
    asked.assert_status(3).assert_nothing_left();
    assert!(asked.stderr.contains("open to root only"), "{asked:?}");
}

/// One start of a machine: its origin, when the agent answered, and when the command in it ran.
struct Start {
    from: StartedFrom,
    answered: Duration,
    ran: Duration,
}

async fn start(stage: &Stage, name: &str, template: Option<TemplateSettings>) -> Start {
    let machine = stage.machine_with(template);
    let mut vm: Vm = stage.start(name, machine, script("echo here=$(id -u)")).await.expect("a machine");
    let (mut began, mut from, mut answered, mut ran) = (Instant::now(), None, None, None);
    let hear = async {
        while let Some(event) = vm.next_event().await {
            match event {
                VmEvent::VmmStarted { from: of, pid } => {
                    assert_jailed(pid);
                    (began, from) = (Instant::now(), Some(of));
                }
                VmEvent::Hello => answered = Some(began.elapsed()),
                VmEvent::Line { text, .. } if text.ends_with("here=0") => ran = Some(began.elapsed()),
                VmEvent::EntrypointExited { .. } => return,
                VmEvent::Gone { exit, console_tail } => panic!("{exit}\n{console_tail}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, hear).await.expect("the machine ends");
    vm.kill().await;
    vm.destroy().await.expect("all is removed");
    let seen = |what: Option<Duration>| what.expect("it was seen");
    Start { from: from.expect("a start"), answered: seen(answered), ran: seen(ran) }
}

/// Asserts that a VMM with KVM has a user of its own and no group but that of `/dev/kvm`.
fn assert_jailed(pid: u32) {
    use std::os::unix::fs::MetadataExt as _;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        line.split_ascii_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let device = std::fs::metadata("/dev/kvm").expect("the device");
    assert_eq!(device.mode() & 0o777, 0o660, "closed to others");
    let uid: u32 = line("Uid:")[0].parse().expect("a number");
    assert!(uid >= 0x7000_0000, "{status}");
    assert_eq!(line("Gid:")[0], device.gid().to_string(), "{status}");
    assert!(line("Groups:").is_empty(), "{status}");
    assert!(line("CapEff:")[0].chars().all(|c| c == '0'), "{status}");
}

#[tokio::test]
async fn a_fork_answers_more_than_ten_times_sooner_than_a_cold_boot_has_its_docker() {
    enter_network_namespace();
    let (state, template) = (prepared("DAYFLY_STATE"), TemplateSettings::default());
    let stage = Stage::new(&state, &prepared("DAYFLY_BINARY"), &image(), template.clone()).expect("a stage");
    stage.prepare().await;
    let mut forks = Vec::new();
    for number in 0..3 {
        let fork = start(&stage, &format!("fork{number}"), Some(template.clone())).await;
        assert!(matches!(fork.from, StartedFrom::Fork(_)), "{:?}", fork.from);
        println!("fork {number}: answered after {:?}, ran its command after {:?}", fork.answered, fork.ran);
        forks.push(fork.answered);
    }
    let cold = start(&stage, "cold", None).await;
    assert_eq!(cold.from, StartedFrom::Boot);
    println!("cold boot: answered after {:?}, ran its command after {:?}", cold.answered, cold.ran);
    forks.sort_unstable();
    // A fork has Docker when its agent answers; a booted machine has Docker when its command runs.
    assert!(forks[1] * 10 < cold.ran, "{:?} and {:?}", forks[1], cold.ran);
}

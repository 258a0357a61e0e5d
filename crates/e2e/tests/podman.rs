//! Tests of the `podman-krun` driver with the real podman: the whole handshake passes through a directory that is really
//! mounted. crun is used instead of krun, because krun needs KVM.
//!
//! The test sets up what podman needs on a host such as a CI machine: a cgroup2 at `/sys/fs/cgroup` in a mount namespace of
//! the test's own, limits that may be raised, its storage and its runtime. The image is made of busybox and the host's
//! shells, without any registry.
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test with its own main, which prints what libtest prints, and changes its mounts"
)]

#[macro_use]
#[path = "../../vm/tests/harness/mod.rs"]
mod harness;
#[path = "../../vm/tests/stage/mod.rs"]
mod stage;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, OwnState, prepared};
use dayfly_vm::{
    Driver, Exit, KrunSettings, Pulling, StartError, Vm, VmEvent, VmHost, VmSpec, destroy_leftover,
};
use stage::*;

const IMAGE: &str = "localhost/dayfly-test:1";
const BUSYBOX: &str = "/bin/busybox";
const PULL_MAX: Duration = Duration::from_secs(60);

/// The settings and the storage of podman, which holds the image.
struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    fn new() -> Self {
        let podman = Self { folder: tempfile::tempdir().unwrap() };
        let path = podman.folder.path();
        let containers = format!(
            "[containers]\ncgroups = \"disabled\"\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=30000:30000\"]\n\
             [network]\nnetwork_backend = \"netavark\"\n[engine]\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"file\"\ntmp_dir = \"{0}/tmp\"\n[engine.runtimes]\nkrun = [\"/usr/bin/crun\"]\n",
            path.display()
        );
        fs::write(path.join("containers.conf"), containers).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n",
            path.display()
        );
        fs::write(path.join("storage.conf"), storage).unwrap();
        let image = path.join("image");
        for folder in ["bin", "etc", "tmp", "data", "root"] {
            fs::create_dir_all(image.join(folder)).unwrap();
        }
        fs::copy(BUSYBOX, image.join("bin/busybox")).unwrap();
        for name in ["cat", "echo", "id", "kill", "nproc", "sleep", "touch"] {
            symlink("busybox", image.join("bin").join(name)).unwrap();
        }
        // github-act-runner runs steps with these shells, which can do more than that of busybox.
        for program in ["/bin/sh", "/bin/bash"] {
            copy_with_libraries(program, &image);
        }
        fs::write(image.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::write(image.join("etc/group"), "root:x:0:\n").unwrap();
        let archive = path.join("image.tar");
        let tar = Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&archive).arg(".").status();
        assert!(tar.unwrap().success());
        podman.run(&["import", &archive.display().to_string(), IMAGE]);
        podman
    }

    fn env(&self) -> Vec<(String, String)> {
        let path = |name| self.folder.path().join(name).display().to_string();
        vec![
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME".to_owned(), path("home")),
            ("CONTAINERS_CONF".to_owned(), path("containers.conf")),
            ("CONTAINERS_STORAGE_CONF".to_owned(), path("storage.conf")),
        ]
    }

    fn run(&self, args: &[&str]) -> String {
        let output =
            Command::new("/usr/bin/podman").args(args).env_clear().envs(self.env()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn containers(&self) -> String {
        self.run(&["ps", "--all", "--quiet"])
    }

    fn host(&self, stage: &Stage) -> VmHost {
        let mut host = stage.host();
        host.tool_folders = vec!["/usr/bin".into()];
        host.tool_env = self.env();
        host
    }

    fn spec(&self, stage: &Stage) -> VmSpec {
        let mut spec = stage.spec(Driver::PodmanKrun(KrunSettings { image: IMAGE.to_owned() }));
        // With a forward, podman uses the host's network. None of its own is needed, and this host may not allow one.
        let to = ([127, 0, 0, 1], 9).into();
        spec.network.forward = Some(dayfly_vm::Forward { guest_port: 9, to });
        let app = stage.path("app.sh");
        spec.mounts = vec![format!("{}:/opt/app.sh:ro", app.display()).parse().unwrap()];
        spec.entrypoint.args =
            ["-u", "", "--app", "/opt/app.sh", "--app-dir", "/tmp/app"].map(str::to_owned).to_vec();
        spec
    }

    async fn start(&self, stage: &Stage, spec: VmSpec) -> Vm {
        dayfly_vm::start(&self.host(stage), spec, &stage.path("run")).await.unwrap()
    }
}

/// Copies a program of this host and the libraries that it needs into a root file system.
fn copy_with_libraries(program: &str, root: &Path) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_ascii_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let to = root.join(&file[1..]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
}

fn exit_code(event: &VmEvent) -> Option<Option<i32>> {
    if let VmEvent::EntrypointExited { code, .. } = event { Some(*code) } else { None }
}

async fn the_whole_handshake_passes_through_a_mounted_directory(podman: &Podman) {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let begin = Instant::now();
    let mut vm = podman.start(&stage, podman.spec(&stage)).await;
    events_until(&mut vm, |event| *event == VmEvent::Hello).await;
    println!("  from start to hello {:.2} s", begin.elapsed().as_secs_f32());
    assert!(!stage.note("env").exists(), "the entrypoint in the container has removed it");
    events_until(&mut vm, line("[runner@runner-0-abc] Listening for Jobs")).await;
    until("the note is there", || stage.note("tkn").exists()).await;
    assert_eq!(fs::read_to_string(stage.note("tkn")).unwrap().trim(), "GH-runner");
    let settings = podman.run(&["container", "inspect", "GH-runner-0-abc"]);
    assert!(
        settings.contains("\"krun.cpus\": \"2\"") && settings.contains("\"krun.ram_mib\": \"512\""),
        "{settings}"
    );
    assert!(!settings.contains(SECRET) && !settings.contains("JITCONFIG"), "{settings}");
    fs::write(stage.note("trm"), "wrong").unwrap();
    events_until(&mut vm, line("ignored")).await;
    fs::write(stage.note("trm"), SECRET).unwrap();
    let (seen, exit) = events_to_end(&mut vm).await;
    assert!(seen.iter().any(|event| line("[runner@runner-0-abc] stopped")(event)), "{seen:#?}");
    assert!(seen.iter().any(|event| exit_code(event).is_some()), "{seen:#?}");
    assert_eq!(exit, Exit::PoweredOff);
    assert_eq!(podman.containers(), "");
    vm.destroy().await.unwrap();
    assert_eq!(stage.left(), ["console.log", "vmm.log"]);
}

async fn a_signal_leaves_the_brk_note_and_no_line_is_lost(podman: &Podman) {
    let app =
        "i=0; while [ $i -lt 2000 ]; do echo \"line $i\"; i=$((i+1)); done; echo 'Listening for Jobs'\n";
    let stage = Stage::new("0-abc", &format!("{app}{UNTIL_STOPPED}"));
    let mut vm = podman.start(&stage, podman.spec(&stage)).await;
    let seen = events_until(&mut vm, line("Listening")).await;
    let lines: Vec<&str> = seen
        .iter()
        .filter_map(|event| match event {
            VmEvent::Line { text, .. } => text.split_once("] line ").map(|(_, number)| number),
            _ => None,
        })
        .collect();
    let expected: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
    assert_eq!(lines, expected);
    let exit = vm.stop(PATIENCE).await;
    assert!(matches!(exit, Exit::PoweredOff), "{exit:?}");
    assert_eq!(fs::read_to_string(stage.note("brk")).unwrap().trim(), SECRET);
    assert_eq!(podman.containers(), "");
    vm.destroy().await.unwrap();
}

async fn mounts_are_seen_as_asked_and_a_guest_program_of_the_hosts_is_run(podman: &Podman) {
    let app = "touch /data/written && echo data is writable\ntouch /fixed/written || echo fixed is not\n\
               cat /fixed/word\necho 'program' $(cat /proc/1/cmdline)\nexit 0\n";
    let stage = Stage::new("0-abc", app);
    for folder in ["data", "fixed", "local"] {
        fs::create_dir(stage.path(folder)).unwrap();
    }
    fs::write(stage.path("fixed/word"), "of the host\n").unwrap();
    fs::copy(guest_binary(), stage.path("local/dayfly-guest")).unwrap();
    let mut spec = podman.spec(&stage);
    for (folder, options) in [("data", ""), ("fixed", ":ro"), ("local", ":ro")] {
        let mount = format!("{}:/{folder}{options}", stage.path(folder).display());
        spec.mounts.push(mount.parse().unwrap());
    }
    spec.entrypoint.program = Some("/local/dayfly-guest".into());
    let mut vm = podman.start(&stage, spec).await;
    let (seen, exit) = events_to_end(&mut vm).await;
    for text in ["data is writable", "fixed is not", "of the host", "program /local/dayfly-guest"] {
        assert!(seen.iter().any(|event| line(text)(event)), "no {text:?} in {seen:#?}");
    }
    assert!(stage.path("data/written").exists() && !stage.path("fixed/written").exists());
    assert_eq!(exit, Exit::PoweredOff);
    vm.destroy().await.unwrap();
}

async fn a_killed_machine_and_one_of_a_host_that_is_gone_leave_no_container(podman: &Podman) {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let mut vm = podman.start(&stage, podman.spec(&stage)).await;
    events_until(&mut vm, line("Listening")).await;
    assert_eq!(vm.kill().await, Exit::Killed);
    assert_eq!(podman.containers(), "");
    vm.destroy().await.unwrap();

    let (stage, other) = (Stage::new("0-def", UNTIL_STOPPED), Stage::new("0-xyz", UNTIL_STOPPED));
    let mut vm = podman.start(&stage, podman.spec(&stage)).await;
    events_until(&mut vm, line("Listening")).await;
    let mut untouched = podman.start(&other, podman.spec(&other)).await;
    events_until(&mut untouched, line("Listening")).await;
    vm.detach();
    assert_eq!(podman.containers().lines().count(), 2, "the machine still runs");
    destroy_leftover(&stage.path("run")).await.unwrap();
    assert!(!stage.path("run/vmm.json").exists());
    assert_eq!(podman.containers().lines().count(), 1, "the other orchestrator's machine is left alone");
    fs::write(other.note("trm"), SECRET).unwrap();
    events_to_end(&mut untouched).await;
    untouched.destroy().await.unwrap();
}

async fn what_cannot_start_says_why_and_leaves_nothing(podman: &Podman) {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let mut spec = podman.spec(&stage);
    spec.machine.driver = Driver::PodmanKrun(KrunSettings { image: "localhost/nothing:1".to_owned() });
    let error = dayfly_vm::pull(&podman.host(&stage), &spec.machine, PULL_MAX, &mut |_| {}).await;
    assert!(matches!(error, Err(StartError::Tool(_))), "{error:?}");
    let error = dayfly_vm::start(&podman.host(&stage), spec, &stage.path("run")).await.expect_err("no image");
    assert!(error.to_string().contains("localhost/nothing"), "{error}");
    assert_eq!((podman.containers().as_str(), stage.left().len()), ("", 0));
    let spec = podman.spec(&stage);
    let (host, mut told) = (podman.host(&stage), Vec::new());
    dayfly_vm::pull(&host, &spec.machine, PULL_MAX, &mut |what| told.push(what)).await.expect("it is there");
    assert!(matches!(&told[..], [Pulling::Warning(why)] if why.contains("is taken as it is")), "{told:?}");
}

/// Tests the whole system: lab, orchestrator, a real runner app that registers itself, its job. Only the machine is missing.
async fn the_shell_versions_command_line_runs_a_job_in_a_container(podman: &Podman) {
    let lab = LabProcess::for_repository("efrecon/gh-runner-krunvm");
    let app = format!("{}:/opt/runner/github-act-runner:ro", prepared("DAYFLY_TEST_RUNNER_APP").display());
    let state = OwnState::new();
    let words = ["orchestrator", "-v", "--json", "-R", "podman+krun", "--", "-i", IMAGE, "-u", "root"];
    let more = ["-M", &app, "-r", "1", "-p", &lab.principal, "--registration", "token"];
    let mut dayfly = Dayfly::new(words.into_iter().chain(more))
        .env("RUNNER_GITHUB", &lab.url)
        .env("RUNNER_PAT", &lab.token)
        .env("DAYFLY_STATE", state.path());
    for (name, value) in podman.env() {
        dayfly = dayfly.env(&name, value);
    }
    let mut orchestrator = dayfly.start();
    let name = orchestrator.wait_for_event("listening")["name"].as_str().unwrap().to_owned();
    let workflow = "on: push\njobs: { a: { runs-on: self-hosted, defaults: { run: { shell: bash } }, \
                    steps: [{ run: echo in $(cat /etc/hostname) as $RUNNER_NAME }] } }";
    let run = lab.dispatch(workflow).await;
    let conclusion = lab.conclusion_of(run).await;
    let log: String = lab.logs_of(run).await.into_iter().map(|(_, log)| log).collect();
    assert_eq!(conclusion, "success", "{log}");
    assert!(log.contains(&format!("in {name} as {name}")), "{log}");
    let ended = orchestrator.wait();
    ended.assert_status(0).assert_nothing_left();
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    assert_eq!(podman.containers(), "");
    lab.stop();
}

/// Enters a mount namespace with a cgroup2 at `/sys/fs/cgroup`, which podman needs. Some hosts have cgroup v1 there.
fn enter_mount_namespace() -> std::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    // SAFETY: this process has only one thread so far.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        mount("none", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    for (needed, package) in
        [("/usr/bin/podman", "podman"), ("/usr/bin/crun", "crun"), (BUSYBOX, "busybox-static")]
    {
        if !Path::new(needed).exists() {
            eprintln!(
                "{needed} is not there, and these tests need it: apt-get install {package} (`make setup` does)"
            );
            return ExitCode::FAILURE;
        }
    }
    if let Err(error) = enter_mount_namespace() {
        eprintln!("these tests need a mount namespace with a cgroup2 in it, and so root: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let podman = Podman::new();
    run_tests! {
        runtime, args, (&podman),
        the_whole_handshake_passes_through_a_mounted_directory
        a_signal_leaves_the_brk_note_and_no_line_is_lost
        mounts_are_seen_as_asked_and_a_guest_program_of_the_hosts_is_run
        a_killed_machine_and_one_of_a_host_that_is_gone_leave_no_container
        what_cannot_start_says_why_and_leaves_nothing
        the_shell_versions_command_line_runs_a_job_in_a_container
    }
    ExitCode::SUCCESS
}

//! Tests the `process` driver with the real guest binary: the whole handshake, without a machine.
//!
//! It does not use libtest, because this program also becomes the host process that is killed.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test with a main of its own, which prints as libtest does"
)]

#[macro_use]
mod harness;
#[path = "process/sessions.rs"]
mod sessions;
#[path = "stage/mod.rs"]
mod stage;

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use dayfly_vm::{Driver, Exit, ProcessSettings, StartError, TakeOver, Vm, VmEvent, destroy_leftover};
use sessions::*;
use stage::*;

async fn start(stage: &Stage) -> Vm {
    let settings = ProcessSettings { app: stage.path("app.sh"), in_use: None };
    dayfly_vm::start(&stage.host(), stage.spec(Driver::Process(settings)), &stage.path("run")).await.unwrap()
}

fn exit_code(event: &VmEvent) -> Option<Option<i32>> {
    if let VmEvent::EntrypointExited { code, .. } = event { Some(*code) } else { None }
}

async fn the_whole_handshake_passes_and_nothing_is_left() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let begin = Instant::now();
    let mut vm = start(&stage).await;
    events_until(&mut vm, |event| *event == VmEvent::Hello).await;
    let hello = begin.elapsed();
    events_until(&mut vm, line("[runner@runner-0-abc] Listening for Jobs")).await;
    assert!(!stage.note("env").exists(), "its secrets are never written to the host's disk");
    until("the note comes back", || stage.note("tkn").exists()).await;
    assert_eq!(fs::read_to_string(stage.note("tkn")).unwrap().trim(), "GH-runner");
    fs::write(stage.note("trm"), SECRET).unwrap();
    let seen = events_until(&mut vm, |event| exit_code(event).is_some()).await;
    assert!(seen.iter().any(|event| line("[runner@runner-0-abc] stopped")(event)), "{seen:#?}");
    assert_eq!(vm.stop(PATIENCE).await, Exit::PoweredOff);
    assert_eq!(processes_with(&stage.path("run").display().to_string()), [""; 0]);
    vm.destroy().await.unwrap();
    assert_eq!(stage.left(), ["vmm.log"]);
    assert!(hello < Duration::from_secs(2), "{hello:?} to the hello");
}

async fn a_wrong_secret_stops_nothing_and_a_signal_leaves_the_brk_note() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let mut vm = start(&stage).await;
    events_until(&mut vm, line("Listening")).await;
    fs::write(stage.note("trm"), "wrong").unwrap();
    events_until(&mut vm, line("ignored")).await;
    let entrypoint = pid_of("entrypoint -i 0-abc", &stage.path("run").display().to_string());
    rustix::process::kill_process(entrypoint, rustix::process::Signal::TERM).unwrap();
    until("the note comes", || fs::read_to_string(stage.note("brk")).is_ok_and(|note| note.trim() == SECRET))
        .await;
    events_until(&mut vm, |event| exit_code(event).is_some()).await;
    vm.destroy().await.unwrap();
}

fn pid_of(text: &str, also: &str) -> rustix::process::Pid {
    let found = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let words = String::from_utf8(fs::read(entry.path().join("cmdline")).ok()?).ok()?.replace('\0', " ");
        (words.contains(text) && words.contains(also)).then_some(pid)
    });
    rustix::process::Pid::from_raw(found.expect("it runs")).unwrap()
}

/// Returns an app whose grandchild has left its session, as a job's daemon would.
fn daemons(stage: &Stage) -> String {
    let mark = stage.path("run").join("a-daemon").display().to_string();
    format!(
        "setsid sh -c 'while :; do sleep 1; done; : {mark}' >/dev/null 2>&1 &\necho 'Listening for Jobs'\nwait\n"
    )
}

async fn a_killed_machine_takes_every_process_of_it_along() {
    let stage = Stage::new("0-abc", "");
    script(&stage.path("app.sh"), &daemons(&stage));
    let mut vm = start(&stage).await;
    events_until(&mut vm, line("Listening")).await;
    until("the daemon runs", || processes_with("a-daemon").len() == 1).await;
    assert_eq!(vm.kill().await, Exit::Killed);
    assert_eq!(processes_with("a-daemon"), [""; 0]);
    assert_eq!(processes_with(&stage.path("run").display().to_string()), [""; 0]);
    vm.destroy().await.unwrap();
}

async fn an_agent_that_is_killed_from_outside_takes_every_process_along_too() {
    let stage = Stage::new("0-abc", "");
    script(&stage.path("app.sh"), &daemons(&stage));
    let mut vm = start(&stage).await;
    events_until(&mut vm, line("Listening")).await;
    let agent = pid_of("--tree", &stage.path("run").display().to_string());
    rustix::process::kill_process(agent, rustix::process::Signal::KILL).unwrap();
    let (_, exit) = events_to_end(&mut vm).await;
    assert_eq!(exit, Exit::Signalled { signal: 9 });
    assert_eq!(processes_with("a-daemon"), [""; 0]);
}

async fn a_job_sees_its_own_processes_and_ends_with_its_code() {
    let stage = Stage::new("0-abc", "echo \"pids $(ls -d /proc/[0-9]* | wc -l) home $HOME\"\nexit 3\n");
    let mut vm = start(&stage).await;
    let seen = events_until(&mut vm, |event| exit_code(event).is_some()).await;
    let told = seen.iter().find_map(|event| match event {
        VmEvent::Line { text, .. } => text.split_once("pids ").map(|(_, rest)| rest.to_owned()),
        _ => None,
    });
    let (count, home) = told.as_deref().and_then(|told| told.split_once(" home ")).expect("a line");
    assert!(count.parse::<u32>().unwrap() < 10, "{count} processes");
    assert_eq!(home, stage.path("run/guest").display().to_string());
    assert!(seen.last().and_then(exit_code).flatten().is_some_and(|code| code != 0), "{seen:?}");
    vm.destroy().await.unwrap();
}

async fn many_at_once_do_not_disturb_each_other() {
    // More than the inotify instances that Linux gives a user by default; each agent and each entrypoint would take one.
    const IDLE: &str = "trap 'exit 0' TERM\necho 'Listening for Jobs'\nsleep 600 & wait\n";
    let stages: Vec<Stage> = (0..150).map(|n| Stage::new(&format!("{n}-abc"), IDLE)).collect();
    let begin = Instant::now();
    let mut machines = Vec::new();
    for stage in &stages {
        machines.push(start(stage).await);
    }
    for vm in &mut machines {
        events_until(vm, line("Listening")).await;
    }
    println!("  150 machines up after {:.2} s", begin.elapsed().as_secs_f32());
    for (stage, mut vm) in stages.iter().zip(machines) {
        fs::write(stage.note("trm"), SECRET).unwrap();
        events_until(&mut vm, |event| exit_code(event).is_some()).await;
        vm.destroy().await.unwrap();
        assert_eq!(stage.left(), ["vmm.log"]);
    }
}

async fn what_a_killed_host_has_left_is_found_and_destroyed() {
    let stage = Stage::new("0-abc", "");
    script(&stage.path("app.sh"), &daemons(&stage));
    let host = other_host(&stage, "host");
    until("the daemon runs", || processes_with("a-daemon").len() == 1).await;
    kill(host).await;
    let run_dir = stage.path("run");
    let record = fs::read(run_dir.join("vmm.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["name"], "m");
    let keeper = std::path::PathBuf::from(format!("/proc/{}", record["pid"]));
    assert!(keeper.exists(), "it lives on");
    destroy_leftover(&run_dir).await.unwrap();
    assert_eq!(processes_with("a-daemon"), [""; 0]);
    assert_eq!(stage.left(), ["vmm.log"]);
    // No process of this test waits for it, so it may stay as a zombie.
    let stat = fs::read_to_string(keeper.join("stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

/// Starts a host process that a test can kill. It starts the machine of the stage, or takes it over.
fn other_host(stage: &Stage, role: &str) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(role).arg(stage.path("")).stdin(Stdio::null()).spawn().unwrap()
}

async fn kill(mut host: std::process::Child) {
    host.kill().unwrap();
    host.wait().unwrap();
}

/// Returns the lines that host processes have kept, with their numbers.
fn kept(root: &Path) -> Vec<(u64, String)> {
    let text = fs::read_to_string(root.join("kept")).unwrap_or_default();
    // The last line may be cut.
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.split_once(' '));
    lines.map(|(number, text)| (number.parse().unwrap(), text.to_owned())).collect()
}

/// Takes over the machine of a stage after the last line that was kept.
async fn take_over(root: &Path) -> Option<Vm> {
    let lines_seen = kept(root).last().map_or(0, |(number, _)| *number);
    let environment = root.join("environment");
    let machine = TakeOver { runner_id: "0-abc".to_owned(), environment, lines_seen, forward: None };
    dayfly_vm::take_over(machine, &root.join("run")).await.unwrap()
}

/// Runs as a host process that the test kills. Keeps the lines of the machine in a file.
async fn be_host(role: &str, root: &Path) {
    let mut vm = match role {
        "host" => start_in(root).await,
        _ => take_over(root).await.expect("the machine lives"),
    };
    let mut file = fs::File::options().create(true).append(true).open(root.join("kept")).unwrap();
    while let Some(event) = vm.next_event().await {
        if let VmEvent::Line { number, text, .. } = event {
            file.write_all(format!("{number} {text}\n").as_bytes()).unwrap();
        }
    }
}

async fn start_in(root: &Path) -> Vm {
    let stage = Stage::new("0-abc", "");
    let mut spec = stage.spec(Driver::Process(ProcessSettings { app: root.join("app.sh"), in_use: None }));
    spec.name = "m".to_owned();
    spec.environment = root.join("environment");
    dayfly_vm::start(&stage.host(), spec, &root.join("run")).await.unwrap()
}

/// Number of lines that the app prints before it waits. They fit into what an agent keeps.
const BURST: u64 = 500;

async fn a_machine_whose_host_is_killed_again_and_again_is_taken_over_without_a_lost_line() {
    let stage = Stage::new("0-abc", "");
    let root = stage.path("");
    let go = root.join("go").display().to_string();
    script(
        &stage.path("app.sh"),
        &format!(
            "trap 'exit 0' TERM\nn=0\nfor round in 1 2 3; do\n  while :; do n=$((n+1)); echo \"count $n\"; \
             [ $((n % {BURST})) = 0 ] && break; done\n  while [ ! -e {go}$round ]; do sleep 0.02; done\ndone\n"
        ),
    );
    let counted = || {
        let kept = kept(&root);
        let counts = kept.iter().filter_map(|(_, text)| text.split_once("count ")?.1.parse().ok());
        counts.collect::<Vec<u64>>()
    };
    let mut host = other_host(&stage, "host");
    for round in 1..=3 {
        until("a part of the lines is kept", || counted().len() as u64 > (round - 1) * BURST + BURST / 5)
            .await;
        kill(host).await;
        host = other_host(&stage, "heir");
        until("the rest is kept", || counted().len() as u64 >= round * BURST).await;
        fs::write(format!("{go}{round}"), "").unwrap();
    }
    kill(host).await;
    let mut vm = take_over(&root).await.expect("it lives, or its agent does");
    let seen = events_until(&mut vm, |event| exit_code(event).is_some()).await;
    assert!(matches!(seen[..2], [VmEvent::TakenOver { .. }, VmEvent::Hello]), "{seen:?}");
    assert_eq!(counted(), (1..=3 * BURST).collect::<Vec<_>>(), "each line came once, in its order");
    assert!(matches!(vm.stop(PATIENCE).await, Exit::Unobserved { .. } | Exit::PoweredOff));
    vm.destroy().await.unwrap();
    assert_eq!(stage.left(), ["vmm.log"]);
    assert!(take_over(&root).await.is_none(), "nothing is left to be taken over");
}

async fn a_machine_whose_owner_panics_goes_on_and_is_taken_over_by_the_same_process() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let mut vm = start(&stage).await;
    let seen = events_until(&mut vm, line("Listening")).await;
    let Some(VmEvent::Line { number, .. }) = seen.last() else { panic!("{seen:?}") };
    let pid = seen.iter().find_map(|event| match event {
        VmEvent::VmmStarted { pid, .. } => Some(*pid),
        _ => None,
    });
    let owner = tokio::spawn(async move {
        let _vm = vm;
        panic!("a bug, on purpose");
    });
    assert!(owner.await.is_err_and(|error| error.is_panic()));
    let machine = TakeOver {
        runner_id: "0-abc".to_owned(),
        environment: stage.path("environment"),
        lines_seen: *number,
        forward: None,
    };
    let mut vm = dayfly_vm::take_over(machine, &stage.path("run")).await.unwrap().expect("it lives");
    fs::write(stage.note("trm"), SECRET).unwrap();
    let seen = events_until(&mut vm, |event| exit_code(event).is_some()).await;
    assert_eq!(seen[..2], [VmEvent::TakenOver { pid: pid.expect("a process") }, VmEvent::Hello]);
    assert!(!seen.iter().any(|event| line("Listening")(event)), "no line comes twice: {seen:#?}");
    assert!(seen.iter().any(|event| line("[runner@runner-0-abc] stopped")(event)), "{seen:#?}");
    assert_eq!(vm.stop(PATIENCE).await, Exit::PoweredOff);
    vm.destroy().await.unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.expect("a process")));
    assert!(stat.is_err(), "no zombie is left: {stat:?}");
}

async fn a_program_of_its_own_is_started_and_mounts_are_refused() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let local = stage.path("tools");
    fs::copy(guest_binary(), local.join("dayfly-guest")).unwrap();
    let mut spec = stage.spec(Driver::Process(ProcessSettings { app: stage.path("app.sh"), in_use: None }));
    spec.mounts = vec![format!("{}:/local:ro", local.display()).parse().unwrap()];
    spec.entrypoint.program = Some("/local/dayfly-guest".into());
    let mut vm = dayfly_vm::start(&stage.host(), spec.clone(), &stage.path("run")).await.unwrap();
    events_until(&mut vm, line("Listening")).await;
    assert!(!processes_with(&local.join("dayfly-guest").display().to_string()).is_empty());
    vm.destroy().await.unwrap();
    spec.mounts.push("/tmp:/data".parse().unwrap());
    let refused = dayfly_vm::start(&stage.host(), spec, &stage.path("run")).await;
    assert!(matches!(refused, Err(StartError::Mount { .. })));
}

async fn a_guest_binary_that_was_opened_is_started_although_its_file_is_a_newer_one() {
    let stage = Stage::new("0-abc", UNTIL_STOPPED);
    let path = stage.path("guest-binary");
    fs::copy(guest_binary(), &path).unwrap();
    let opened = fs::File::open(&path).unwrap();
    fs::copy("/bin/false", stage.path("newer")).unwrap();
    fs::rename(stage.path("newer"), &path).unwrap();
    let mut spec = stage.spec(Driver::Process(ProcessSettings { app: stage.path("app.sh"), in_use: None }));
    spec.machine.guest_binary = format!("/proc/self/fd/{}", opened.as_raw_fd()).into();
    let mut vm = dayfly_vm::start(&stage.host(), spec, &stage.path("run")).await.unwrap();
    events_until(&mut vm, line("Listening")).await;
    vm.destroy().await.unwrap();
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let [role @ ("host" | "heir"), root] = &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        runtime.block_on(be_host(role, Path::new(root)));
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    run_tests! {
        runtime, args, (),
        the_whole_handshake_passes_and_nothing_is_left
        a_wrong_secret_stops_nothing_and_a_signal_leaves_the_brk_note
        a_killed_machine_takes_every_process_of_it_along
        an_agent_that_is_killed_from_outside_takes_every_process_along_too
        a_job_sees_its_own_processes_and_ends_with_its_code
        many_at_once_do_not_disturb_each_other
        what_a_killed_host_has_left_is_found_and_destroyed
        a_machine_whose_host_is_killed_again_and_again_is_taken_over_without_a_lost_line
        a_machine_whose_owner_panics_goes_on_and_is_taken_over_by_the_same_process
        a_program_of_its_own_is_started_and_mounts_are_refused
        a_guest_binary_that_was_opened_is_started_although_its_file_is_a_newer_one
        a_program_that_a_person_starts_runs_beside_the_job_and_its_owner_is_told
        a_program_with_a_terminal_has_its_size_and_learns_of_a_new_one
        input_and_output_of_any_length_pass_unchanged
        a_program_that_floods_its_session_waits_and_the_machine_goes_on
        a_program_ends_with_its_signal_and_one_that_cannot_start_has_a_reason
        a_program_whose_person_is_gone_is_hung_up_and_killed
        what_a_program_leaves_behind_does_not_hold_its_session_up
        a_machine_has_eight_sessions_and_only_its_owner_gets_in
        the_next_owner_of_a_machine_takes_new_sessions_and_ends_the_old_ones
    }
    ExitCode::SUCCESS
}

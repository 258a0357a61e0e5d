//! Tests the launcher with a stand-in for the VMM: a script that shows what it received.
//!
//! It does not use libtest, because a program that becomes a launcher must not have libtest's threads.
#![expect(unsafe_code, reason = "the whole test enters a network namespace")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]
#![expect(clippy::unwrap_used, reason = "a test with a main of its own, which prints as libtest does")]

#[macro_use]
mod harness;
mod setting;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dayfly_host::left_out::root_may;
use dayfly_host::scarcity::Scarcity;
use dayfly_vm::{Egress, Exit, Forward, LaunchError, MemoryKill, StartError, VmEvent, VmHost, VmSpec};
use setting::*;

/// Shows identity, privileges, network, descriptors and files, then fails with status 7. `/proc/self` is always the script's.
const SHOW: &str = r#"#!/bin/sh
grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|NoNewPrivs):' /proc/self/status
grep -E 'Max (core file size|open files|processes)' /proc/self/limits
echo "interfaces: $(grep -c : /proc/self/net/dev)"
echo "oom: $(cat /proc/self/oom_score_adj)"
echo "environment: $(tr '\0' ' ' </proc/self/environ)"
echo "descriptors: $(cd /proc/self/fd && echo *)"
echo "session: $(cut -d' ' -f1,6 /proc/self/stat)"
echo "host: $(uname -n) $(cut -d: -f3 /proc/self/cgroup | sort -u)"
echo "process: $(grep NSpid /proc/self/status)"
echo "root: $(echo /*)"
echo "devices: $(echo /dev/*)"
echo "processes: $(echo /proc/*)"
echo "settings: $(echo /etc/*)"
echo "written: $(for folder in / /tmp /dev /etc /usr; do { echo x >$folder/x; } 2>/dev/null && echo $folder; done)"
exit 7
"#;
const WAIT: &str = "#!/bin/sh\nexec sleep 600\n";
/// Argument of this program if its file is to be replaced while it runs.
const UPGRADED: &str = "upgraded";
/// First argument of this program if it is to start a machine while this host lacks what the second one names.
const LACKS: &str = "start-and-lack";

async fn a_vmm_has_no_privileges_no_network_and_nothing_inherited() {
    // A descriptor that was left open by mistake.
    let stray = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
    let setting = Setting::new(SHOW);
    let mut vm = setting.start(&setting.host(), setting.spec()).await.unwrap();
    let (exit, shown) = gone(&mut vm).await;
    drop(stray);
    assert_eq!(exit, Exit::Failed { code: 7 }, "{shown}");
    let line = |name: &str| {
        let line = shown
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name} in\n{shown}"));
        line.split_ascii_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(line("CapEff:")[0].chars().all(|c| c == '0'), "{shown}");
    assert!(line("CapBnd:")[0].chars().all(|c| c == '0'), "{shown}");
    assert_eq!(line("NoNewPrivs:"), ["1"]);
    if rustix::process::geteuid().is_root() {
        let uid: u32 = line("Uid:")[0].parse().unwrap();
        assert!(uid >= 0x7000_0000, "{uid}");
        assert_eq!(line("Gid:")[0], line("Uid:")[0]);
        assert!(line("Groups:").is_empty(), "{shown}");
        assert_eq!(line("Max processes")[1..3], ["1024", "1024"].map(str::to_owned), "{shown}");
    }
    assert_eq!(line("Max core")[3..5], ["0", "0"].map(str::to_owned), "{shown}");
    assert_eq!(line("oom:"), ["1000"], "the kernel takes it before a service of the host");
    assert_eq!(line("interfaces:").last().unwrap(), "1", "only lo: {shown}");
    let mut environment = line("environment:");
    environment.retain(|word| word.contains('='));
    assert_eq!(environment, ["LD_PRELOAD=libc.so.6", "MALLOC_ARENA_MAX=1"], "{shown}");
    assert_eq!(line("host:"), ["dayfly", "/"], "neither its name nor its groups: {shown}");
    if rustix::process::geteuid().is_root() {
        assert_eq!(line("process:").last().unwrap(), "1", "the first one of its namespace: {shown}");
    }
    let root = line("root:");
    for hidden in ["/boot", "/home", "/mnt", "/root", "/run", "/srv", "/sys", "/var"] {
        assert!(!root.iter().any(|path| path == hidden), "{shown}");
    }
    assert_eq!(line("devices:"), ["/dev/null", "/dev/urandom"]);
    assert_eq!(line("processes:"), ["/proc/self"]);
    assert!(["/etc/ld.so.cache", "/etc/*"].contains(&line("settings:")[0].as_str()), "{shown}");
    assert!(line("written:").is_empty(), "{shown}");
    let session = line("session:");
    assert_eq!(session[0], session[1], "the leader of its own session");
    let descriptors: Vec<i32> = line("descriptors:").iter().filter_map(|text| text.parse().ok()).collect();
    // Firmware, kernel, initramfs, three sockets, two disks; and the script, which the shell has open at the next number.
    let mut handed: Vec<i32> = descriptors.iter().copied().filter(|descriptor| *descriptor >= 10).collect();
    handed.sort_unstable();
    assert_eq!(handed, [10, 11, 12, 13, 14, 15, 16, 17, 18], "{shown}");
    assert!(descriptors.len() <= 3 + 1 + handed.len(), "{shown}");
    vm.destroy().await.unwrap();
    assert_eq!(setting.left(), ["console.log", "environment", "vmm.log"]);
}

async fn the_port_of_the_namespace_reaches_the_forge_and_nothing_else_does() {
    let setting = Setting::new(WAIT);
    let forge = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = forge.local_addr().unwrap();
    let mut spec = setting.spec();
    spec.network.forward = Some(Forward { guest_port: 4321, to });
    let mut vm = setting.start(&setting.host(), spec).await.unwrap();
    let Some(VmEvent::VmmStarted { pid, .. }) = vm.next_event().await else { panic!("no VMM") };
    let reach = move |port: u16| {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo hello >&3 && cat <&3");
        let namespaces: &[&str] = if rustix::process::geteuid().is_root() {
            &["-n"]
        } else {
            &["-U", "-n", "--preserve-credentials"]
        };
        std::process::Command::new("nsenter")
            .arg("-t")
            .arg(pid.to_string())
            .args(namespaces)
            .args(["bash", "-c", &script])
            .output()
            .unwrap()
    };
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = forge.accept().unwrap();
        let mut text = [0; 6];
        stream.read_exact(&mut text).unwrap();
        stream.write_all(b"from the forge").unwrap();
        text
    });
    let reached =
        tokio::task::spawn_blocking(move || (reach(4321), reach(other.local_addr().unwrap().port())))
            .await
            .unwrap();
    assert_eq!(reached.0.stdout, b"from the forge", "{:?}", reached.0);
    assert!(!reached.1.status.success(), "another port of the host was reached");
    assert_eq!(&answering.join().unwrap(), b"hello\n");
    assert_eq!(vm.kill().await, Exit::Killed);
    vm.destroy().await.unwrap();
}

async fn a_machine_that_says_nothing_is_started_once_again_and_then_given_up() {
    let setting = Setting::new("#!/bin/sh\necho silence >&2\nexec sleep 600\n");
    let mut host = setting.host();
    host.limits.hello_tcg = Duration::from_millis(300);
    let mut vm = setting.start(&host, setting.spec()).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = vm.next_event().await {
        told.push(event);
    }
    let [
        VmEvent::VmmStarted { pid: first, .. },
        VmEvent::Limited(_),
        VmEvent::Jailed(_),
        VmEvent::Restarted { reason },
        VmEvent::VmmStarted { pid: second, .. },
        VmEvent::Limited(_),
        VmEvent::Jailed(_),
        VmEvent::Gone { exit, console_tail },
    ] = told.as_slice()
    else {
        panic!("{told:?}")
    };
    assert_ne!(first, second);
    assert!(reason.contains("silence"), "{reason}");
    // A busy host stretches the limit, so the test only knows its least value.
    let Exit::NoHello { attempts: 2, limit } = *exit else { panic!("{exit:?}") };
    assert!(limit >= Duration::from_millis(300), "{limit:?}");
    assert_eq!(console_tail, "silence\nsilence");
    assert_eq!(setting.recorded_vmm(), None);
    vm.destroy().await.unwrap();
}

async fn a_machine_ended_from_outside_is_told_apart_from_one_that_was_stopped() {
    let setting = Setting::new(WAIT);
    let mut vm = setting.start(&setting.host(), setting.spec()).await.unwrap();
    let Some(VmEvent::VmmStarted { pid, .. }) = vm.next_event().await else { panic!("no VMM") };
    assert_eq!(setting.recorded_vmm(), Some(pid.into()));
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(gone(&mut vm).await.0, Exit::Signalled { signal: 9 });
    vm.destroy().await.unwrap();

    // No program answers on its sockets, so it is killed in the end.
    let mut vm = setting.start(&setting.host(), setting.spec()).await.unwrap();
    let start = Instant::now();
    assert_eq!(vm.stop(Duration::from_millis(100)).await, Exit::Killed);
    assert!(start.elapsed() < Duration::from_secs(8));
    vm.destroy().await.unwrap();
}

async fn a_machine_that_is_dropped_ends_and_one_that_is_let_go_lives() {
    let setting = Setting::new(WAIT);
    let vm = setting.start(&setting.host(), setting.spec()).await.unwrap();
    drop(vm);
    for _ in 0..200 {
        if setting.recorded_vmm().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(setting.recorded_vmm(), None);

    let vm = setting.start(&setting.host(), setting.spec()).await.unwrap();
    vm.detach();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(setting.recorded_vmm().is_some(), "it lives");
    dayfly_vm::destroy_leftover(&setting.run_dir()).await.unwrap();
    assert_eq!(setting.recorded_vmm(), None);
    assert_eq!(setting.left(), ["console.log", "environment", "vmm.log"]);
}

/// Returns the links of this process's network that belong to machines.
fn links() -> Vec<String> {
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.filter(|name| name.starts_with("dayfly")).collect()
}

async fn a_network_outlives_the_process_that_made_it_and_goes_with_the_machine() {
    if !root_may("give a machine a network with rules on this host") {
        return;
    }
    let setting = Setting::new(WAIT);
    let open = || {
        let mut spec = setting.spec();
        spec.network.egress = Egress::default();
        spec
    };
    let mut vm = setting.start(&setting.host(), open()).await.unwrap();
    assert_eq!(links().len(), 1);
    let Some(VmEvent::VmmStarted { pid, .. }) = vm.next_event().await else { panic!("no VMM") };
    let card = fs::read_link(format!("/proc/{pid}/fd/18")).unwrap();
    assert_eq!(card.to_str(), Some("/dev/net/tun"), "the card is the last descriptor");
    assert_eq!(vm.kill().await, Exit::Killed);
    vm.destroy().await.unwrap();
    assert_eq!(links(), Vec::<String>::new());

    // As after `kill -9` of this process: only the run folder describes the network.
    setting.start(&setting.host(), open()).await.unwrap().detach();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(links().len(), 1);
    dayfly_vm::destroy_leftover(&setting.run_dir()).await.unwrap();
    assert_eq!(links(), Vec::<String>::new());
    assert_eq!(setting.left(), ["console.log", "environment", "network-use.json", "vmm.log"]);

    // If a machine cannot start after its network was created, the network's account is left, and goes with the run.
    fs::write(setting.vmm(), "").unwrap();
    fs::set_permissions(setting.vmm(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(setting.start(&setting.host(), open()).await, Err(StartError::Launch(_))));
    assert_eq!(links(), Vec::<String>::new());
    assert_eq!(setting.left(), ["console.log", "environment", "network-use.json", "vmm.log"]);
}

/// Returns the folders of the control groups of a machine, and the processes in them.
fn groups(pid: u32) -> Vec<(PathBuf, String)> {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let names: BTreeSet<&str> = own.lines().filter_map(|line| line.split("/dayfly-vm-").nth(1)).collect();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let tops =
        mounts.lines().filter(|line| line.contains(" cgroup")).map(|line| line.split(' ').nth(1).unwrap());
    let below =
        own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).filter(|path| path.contains("/dayfly-vm-"));
    let paths: BTreeSet<PathBuf> = below
        .flat_map(|path| tops.clone().map(move |top| PathBuf::from(format!("{top}{path}"))))
        .filter(|path| path.exists())
        .collect();
    assert!(names.len() <= 1, "one name in all hierarchies: {names:?}");
    let with_processes = |path: PathBuf| {
        let processes = fs::read_to_string(path.join("cgroup.procs")).unwrap();
        (path, processes)
    };
    paths.into_iter().map(with_processes).collect()
}

async fn a_machine_has_a_control_group_of_its_own_which_goes_with_it() {
    let setting = Setting::new(WAIT);
    let mut vm = setting.start(&setting.host(), setting.spec()).await.unwrap();
    let Some(VmEvent::VmmStarted { pid, .. }) = vm.next_event().await else { panic!("no VMM") };
    let Some(VmEvent::Limited(limits)) = vm.next_event().await else { panic!("no limits") };
    if limits.enforced.is_empty() {
        eprintln!("skipped: this host limits nothing: {:?}", limits.missing);
        vm.destroy().await.unwrap();
        return;
    }
    let before = groups(pid);
    assert!(!before.is_empty());
    for (path, processes) in &before {
        assert_eq!(processes.trim(), pid.to_string(), "{}", path.display());
    }
    vm.destroy().await.unwrap();
    assert!(before.iter().all(|(path, _)| !path.exists()), "{before:?}");

    // As after `kill -9` of this process: only the run folder leads to the groups, and to a process that a hostile VMM has left.
    let mut vm = setting.start(&setting.host(), setting.spec()).await.unwrap();
    let Some(VmEvent::VmmStarted { pid, .. }) = vm.next_event().await else { panic!("no VMM") };
    let before = groups(pid);
    let mut left = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    for (path, _) in &before {
        fs::write(path.join("cgroup.procs"), left.id().to_string()).unwrap();
    }
    vm.detach();
    dayfly_vm::destroy_leftover(&setting.run_dir()).await.unwrap();
    assert!(before.iter().all(|(path, _)| !path.exists()), "{before:?}");
    assert_eq!(left.wait().unwrap().code(), None, "it was killed");
    assert_eq!(setting.left(), ["console.log", "environment", "vmm.log"]);
}

/// Stands for a VMM whose guest has broken out: it takes all memory that it gets.
const HOG: &str = "#!/bin/sh\nyes | tr -d '\\n' | head -c 4G | tail\nexit 5\n";

async fn a_machine_that_takes_more_memory_than_its_size_ends_and_says_why() {
    let setting = Setting::new(HOG);
    let mut vm = setting.start(&setting.host(), setting.spec()).await.unwrap();
    let Some(VmEvent::VmmStarted { .. }) = vm.next_event().await else { panic!("no VMM") };
    let Some(VmEvent::Limited(limits)) = vm.next_event().await else { panic!("no limits") };
    if !limits.enforced.iter().any(|limit| limit.contains("memory")) {
        eprintln!("skipped: this host limits no memory: {:?}", limits.missing);
        vm.destroy().await.unwrap();
        return;
    }
    // 256 MiB of the guest; 256 of the VMM, 256 of translated code, 4 of tables.
    assert_eq!(limits.enforced[0], "772 MiB of memory");
    assert_eq!(gone(&mut vm).await.0, Exit::OutOfMemory(MemoryKill::Limit(Some(772))));
    vm.destroy().await.unwrap();
}

async fn a_host_that_lacks_something_says_what_and_the_start_is_worth_another_attempt() {
    for what in ["descriptors", "processes", "space"] {
        // In a process of its own, which lacks it.
        let output = std::process::Command::new("/proc/self/exe").args([LACKS, what]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {}\n{said}", output.status);
        eprint!("{said}");
    }
}

/// Runs in the process that lacks something.
async fn start_and_lack(what: &str) {
    let setting = Setting::new(WAIT);
    match what {
        "descriptors" => start_without_descriptors(&setting).await,
        "processes" => start_without_processes(&setting).await,
        _ => start_without_space(&setting).await,
    }
}

fn assert_lacks(refused: &StartError, expected: Scarcity, what: &str) {
    assert_eq!(refused.scarcity(), Some(expected), "{what}: {refused:?}");
    assert!(refused.is_transient(), "{what}: {refused}");
}

/// Has one more descriptor in each attempt, so that each call of a start that opens something fails once. The others are
/// used up by this process, because a launcher inherits a limit.
async fn start_without_descriptors(setting: &Setting) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let host = setting.host();
    setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum: Some(1024) }).unwrap();
    for more in 0..100 {
        let spec = setting.spec();
        let mut used: Vec<fs::File> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        used.truncate(used.len() - more);
        let started = setting.start(&host, spec).await;
        drop(used);
        match started {
            Ok(vm) => {
                vm.destroy().await.unwrap();
                assert!(more > 5, "{more}");
                return;
            }
            Err(refused) => assert_lacks(&refused, Scarcity::Descriptors, &format!("{more} descriptors")),
        }
        dayfly_vm::destroy_leftover(&setting.run_dir()).await.unwrap();
    }
    panic!("a machine needs more than a hundred descriptors");
}

async fn start_without_processes(setting: &Setting) {
    let host = setting.host();
    // Threads that exist are enough for the start, and no process can be forked.
    tokio::task::spawn_blocking(|| {}).await.unwrap();
    let Some(group) = group_without_processes() else {
        eprintln!("skipped: no control group of version 1 that counts processes can be written");
        return;
    };
    let refused = setting.start(&host, setting.spec()).await.expect_err("no process is left");
    fs::write(group.parent().unwrap().join("cgroup.procs"), "0").unwrap();
    fs::remove_dir(group).unwrap();
    assert_lacks(&refused, Scarcity::Processes, "no process");
    let vm = setting.start(&host, setting.spec()).await.expect("there are processes again");
    vm.destroy().await.unwrap();
}

async fn start_without_space(setting: &Setting) {
    if !root_may("mount a small file system") {
        return;
    }
    let host = setting.host();
    host.reserve_disk(Some(0));
    // Only this process sees it, because it is in a mount namespace of its own.
    let run_dir = setting.run_dir();
    rustix::mount::mount("none", &run_dir, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=64k"))
        .unwrap();
    fs::create_dir(run_dir.join("environment")).unwrap();
    let refused = setting.start(&host, setting.spec()).await.expect_err("no space");
    assert_lacks(&refused, Scarcity::Space, "no space");
    // Not even a record can be written.
    fs::write(run_dir.join("full"), vec![1; 1 << 20]).expect_err("it is full");
    let refused = setting.start(&host, setting.spec()).await.expect_err("no space");
    assert_lacks(&refused, Scarcity::Space, "a full disk");
    let left: Vec<String> = setting.left();
    assert_eq!(left, ["environment", "full"]);
    rustix::mount::unmount(&run_dir, rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// Moves this process into a group that may have no further process; none if this host has no such groups.
fn group_without_processes() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.split_once(":pids:"))?.1;
    let group = PathBuf::from(format!("/sys/fs/cgroup/pids{own}/dayfly-test-{}", std::process::id()));
    fs::create_dir(&group).ok()?;
    fs::write(group.join("cgroup.procs"), "0").ok()?;
    // As many as there are, so that not even a thread can be added.
    let count = fs::read_dir("/proc/self/task").ok()?.count();
    fs::write(group.join("pids.max"), count.to_string()).ok()?;
    Some(group)
}

/// Returns a set of capabilities of a process.
fn capabilities(pid: u64, set: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let digits = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    u64::from_str_radix(digits.trim(), 16).unwrap()
}

async fn a_server_of_files_outlives_the_process_that_made_it_and_goes_with_the_machine() {
    if !root_may("serve files of many owners to a machine") {
        return;
    }
    let setting = Setting::new(WAIT);
    let shared = setting.folder.path().join("sha red");
    fs::create_dir(&shared).unwrap();
    let mounted = || {
        let mut spec = setting.spec();
        spec.mounts = vec![format!("{}:/x:ro", shared.display()).parse().unwrap()];
        spec
    };
    let server = || {
        let record = fs::read(setting.run_dir().join("virtiofsd-0.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&record).unwrap()["pid"].as_u64().unwrap()
    };
    let vm = setting.start(&setting.host(), mounted()).await.unwrap();
    let pid = server();
    assert!(lives(pid));
    // CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID; and, until it is in its sandbox, SETPCAP and SYS_ADMIN.
    const OF_FILES: u64 = 0b1100_1011;
    const OF_SANDBOX: u64 = 1 << 8 | 1 << 21;
    assert_eq!(capabilities(pid, "CapBnd:") & !(OF_FILES | OF_SANDBOX), 0);
    let start = Instant::now();
    // The child that it starts in its sandbox serves the files.
    let in_sandbox = || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let child = children.split_ascii_whitespace().next()?.parse().ok()?;
        Some(capabilities(child, "CapEff:"))
    };
    while in_sandbox() != Some(OF_FILES) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:x?}", in_sandbox());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    vm.destroy().await.unwrap();
    assert!(!lives(pid));

    // As after `kill -9` of this process, and then of the machine: no process stops the server.
    setting.start(&setting.host(), mounted()).await.unwrap().detach();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let pid = server();
    assert!(lives(pid));
    let vmm = i32::try_from(setting.recorded_vmm().expect("lives")).unwrap();
    let vmm = rustix::process::Pid::from_raw(vmm).unwrap();
    rustix::process::kill_process(vmm, rustix::process::Signal::KILL).unwrap();
    let start = Instant::now();
    while lives(pid) {
        assert!(start.elapsed() < Duration::from_secs(10), "the server is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    dayfly_vm::destroy_leftover(&setting.run_dir()).await.unwrap();
    assert_eq!(setting.left(), ["console.log", "environment", "vmm.log"]);

    let mut spec = mounted();
    spec.mounts[0].host = "/nonexistent/x".into();
    assert!(matches!(setting.start(&setting.host(), spec).await, Err(StartError::Mount { .. })));
}

/// Enters a new network namespace, because the test must not change the host's network.
fn leave_the_hosts_network() {
    // SAFETY: this process still has one thread.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
}

/// Enters a new mount namespace, because the host must not see what is mounted here.
fn leave_the_hosts_mounts() {
    use rustix::mount::{MountPropagationFlags, mount_change};
    // SAFETY: this process still has one thread.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

/// Starts a machine in a process whose program was replaced by another one.
async fn start_after_an_upgrade() {
    let path = std::env::current_exe().unwrap();
    let newer = path.with_extension("new");
    fs::copy("/bin/false", &newer).unwrap();
    fs::rename(newer, path).unwrap();
    let setting = Setting::new(WAIT);
    let mut vm = setting.start(&setting.host(), setting.spec()).await.unwrap();
    assert!(matches!(vm.next_event().await, Some(VmEvent::VmmStarted { .. })));
    assert!(setting.recorded_vmm().is_some());
    vm.destroy().await.unwrap();
}

async fn a_machine_starts_although_the_program_on_the_disk_is_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = tokio::process::Command::new(&program).arg(UPGRADED).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!std::process::Command::new(&program).status().unwrap().success(), "it was replaced");
}

async fn what_cannot_start_says_why_and_leaves_nothing() {
    let setting = Setting::new(SHOW);
    let without = |change: &dyn Fn(&mut VmHost, &mut VmSpec)| {
        let (mut host, mut spec) = (setting.host(), setting.spec());
        change(&mut host, &mut spec);
        (host, spec)
    };
    let nowhere = || PathBuf::from("/nonexistent/x");

    let (host, spec) = without(&|host, _| host.qemu = Some(nowhere()));
    assert!(matches!(setting.start(&host, spec).await, Err(StartError::NoTool { .. })));
    let (host, spec) = without(&|_, spec| spec.machine.guest_binary = nowhere());
    assert!(matches!(setting.start(&host, spec).await, Err(StartError::GuestBinary { .. })));
    let (host, spec) = without(&|_, spec| spec.machine.cpus = 0);
    assert!(matches!(setting.start(&host, spec).await, Err(StartError::Size { what: "CPUs", .. })));
    let (host, spec) = without(&|host, _| host.launcher.program = nowhere());
    assert!(matches!(setting.start(&host, spec).await, Err(StartError::Launch(LaunchError::Spawn { .. }))));

    // Only the launcher notices that this is not a program.
    fs::write(setting.vmm(), "").unwrap();
    fs::set_permissions(setting.vmm(), fs::Permissions::from_mode(0o644)).unwrap();
    match setting.start(&setting.host(), setting.spec()).await {
        Err(StartError::Launch(LaunchError::Step { step, .. })) => assert_eq!(step, "start the VMM"),
        other => panic!("{other:?}"),
    }
    fs::remove_file(setting.folder.path().join("state/images/f00d/kernel")).unwrap();
    assert!(matches!(setting.start(&setting.host(), setting.spec()).await, Err(StartError::Image { .. })));
    assert_eq!(setting.left(), ["environment"]);
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "vmm-launch") {
        return dayfly_vm::launch::main(args[1].parse().unwrap());
    }
    let lacks = (args.first().is_some_and(|arg| arg == LACKS)).then(|| args[1].clone());
    let is_upgraded = args.first().is_some_and(|arg| arg == UPGRADED);
    if rustix::process::geteuid().is_root() {
        leave_the_hosts_network();
        if lacks.is_some() {
            leave_the_hosts_mounts();
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(what) = lacks {
        runtime.block_on(start_and_lack(&what));
        return ExitCode::SUCCESS;
    }
    if is_upgraded {
        runtime.block_on(start_after_an_upgrade());
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    run_tests! {
        runtime, args, (),
        a_vmm_has_no_privileges_no_network_and_nothing_inherited
        the_port_of_the_namespace_reaches_the_forge_and_nothing_else_does
        a_machine_that_says_nothing_is_started_once_again_and_then_given_up
        a_machine_ended_from_outside_is_told_apart_from_one_that_was_stopped
        a_machine_that_is_dropped_ends_and_one_that_is_let_go_lives
        a_network_outlives_the_process_that_made_it_and_goes_with_the_machine
        a_server_of_files_outlives_the_process_that_made_it_and_goes_with_the_machine
        a_machine_has_a_control_group_of_its_own_which_goes_with_it
        a_machine_that_takes_more_memory_than_its_size_ends_and_says_why
        a_host_that_lacks_something_says_what_and_the_start_is_worth_another_attempt
        a_machine_starts_although_the_program_on_the_disk_is_a_newer_one
        what_cannot_start_says_why_and_leaves_nothing
    }
    ExitCode::SUCCESS
}

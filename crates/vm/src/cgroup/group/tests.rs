//! Tests with real groups of this host. They need a hierarchy that this process can write, i.e. root or a group of
//! its own.

#![expect(clippy::print_stderr, reason = "a test that is skipped says why")]

use std::process::{Child, Command};

use super::*;
use crate::accel::Accel;

const SIZE: GroupSize = GroupSize { memory_mib: 64, cpus: 1, accel: Accel::Kvm, shares: 0 };

/// Creates the group of a machine; none, with the reason printed, if this host has no hierarchy that can be written.
fn group_in(run_dir: &Path) -> Option<Group> {
    let cgroups = Cgroups::of(run_dir);
    let group = Group::of_machine(&cgroups, "m 1", SIZE, run_dir).expect("a record");
    if group.folders.is_empty() {
        eprintln!("skipped: this host has no writable control group: {:?}", group.limits().missing);
        return None;
    }
    Some(group)
}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").spawn().expect("spawn")
}

/// Returns true if a process exists and is not a zombie.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Returns the groups of a process, as the kernel lists them.
fn groups_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives")
}

#[test]
fn a_machine_has_its_limits_in_the_kernel_and_its_end_leaves_no_process_and_no_group() {
    let run = tempfile::tempdir().expect("folder");
    let Some(group) = group_in(run.path()) else { return };
    assert!(!group.limits().enforced.is_empty());
    let wanted = GroupLimits::from(SIZE);
    for folder in &group.folders {
        let bound = if folder.has_memory { Controller::Memory } else { Controller::Pids };
        for (file, value) in wanted.files(bound, folder.version) {
            if let Ok(set) = fs::read_to_string(folder.path.join(file)) {
                assert_eq!(set.trim(), value, "{file}");
            }
        }
    }
    // A child of the machine's process that would outlive it, as one of a hostile VMM may.
    let mut machine = Command::new("sh");
    machine.args(["-c", "read line; sleep 60 >/dev/null & echo $!; exec sleep 60"]);
    machine.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut machine = machine.spawn().expect("spawn");
    group.enter(machine.id()).expect("entered");
    std::io::Write::write_all(&mut machine.stdin.take().expect("piped"), b"go\n").expect("told");
    let mut line = String::new();
    let output = std::io::BufReader::new(machine.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut { output }, &mut line).expect("a number");
    let child: u32 = line.trim().parse().expect("a number");
    let name = group.folders[0].path.file_name().expect("a name").to_string_lossy().into_owned();
    for pid in [machine.id(), child] {
        assert_eq!(groups_of(pid).matches(&name).count(), group.folders.len(), "{pid}");
    }
    assert!(!groups_of(std::process::id()).contains(PREFIX), "this process stays outside");

    let mut other = sleeper();
    // As a later process would: by the record alone.
    assert_eq!(super::super::remove(run.path()).expect("removed"), None);
    assert!(machine.wait().expect("killed").code().is_none());
    assert!(!lives(child));
    assert!(group.folders.iter().all(|folder| !folder.path.exists()));
    assert_eq!(fs::read_dir(run.path()).expect("read").count(), 0, "the record is removed too");
    assert!(other.try_wait().expect("wait").is_none(), "no other process is touched");
    other.kill().expect("kill");
    other.wait().expect("wait");
}

#[test]
fn a_machine_that_starts_again_keeps_its_group() {
    let run = tempfile::tempdir().expect("folder");
    let Some(first) = group_in(run.path()) else { return };
    let again = group_in(run.path()).expect("the same");
    assert_eq!(first.folders, again.folders);
    assert_eq!(find(run.path()), Some(first.folders.clone()));
    super::super::remove(run.path()).expect("removed");
    assert_eq!(find(run.path()), None);
}

fn find(run_dir: &Path) -> Option<Vec<GroupFolder>> {
    super::super::find(run_dir).map(|group| group.folders)
}

/// Takes memory until the kernel kills it; the output of `head` is one long line in the memory of `tail`.
const HOG: &str = "read line; head -c 2G /dev/zero | tail";

#[test]
fn the_kernel_kills_a_machine_that_uses_up_its_memory_and_only_that_one() {
    let (run, other_run) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let Some(group) = group_in(run.path()) else { return };
    let other = group_in(other_run.path()).expect("this host has groups");
    if !group.folders.iter().any(|folder| folder.has_memory) {
        eprintln!("skipped: this host limits no memory: {:?}", group.limits().missing);
        return;
    }
    let mut neighbour = sleeper();
    other.enter(neighbour.id()).expect("entered");
    assert_eq!(group.killed_for_memory(), None);
    let mut hog = Command::new("sh");
    hog.args(["-c", HOG]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut hog = hog.spawn().expect("spawn");
    group.enter(hog.id()).expect("entered");
    std::io::Write::write_all(&mut hog.stdin.take().expect("piped"), b"go\n").expect("told");
    let status = hog.wait().expect("ended");
    assert!(!status.success(), "{status}");
    let limit_mib = group.memory_limit_mib();
    assert!(limit_mib.is_some_and(|mib| (64..1024).contains(&mib)), "{limit_mib:?}");
    assert_eq!(group.killed_for_memory(), Some(MemoryKill::Limit(limit_mib)));
    // A start after it has not been killed.
    let again = group_in(run.path()).expect("the same");
    assert_eq!(again.killed_for_memory(), None);
    assert_eq!(other.killed_for_memory(), None);
    assert!(neighbour.try_wait().expect("wait").is_none(), "the other machine lives");
    for run in [&run, &other_run] {
        super::super::remove(run.path()).expect("removed");
    }
    neighbour.wait().expect("it was killed with its group");
}

#[test]
fn an_empty_group_that_no_record_leads_to_is_removed_once_it_is_old() {
    let folder = tempfile::tempdir().expect("folder");
    let beginning = format!("{PREFIX}0a1b2c3d-");
    let at = |age: u64| clock::since_epoch().as_secs() - age;
    let name = |seconds: u64| format!("{beginning}{seconds:x}-ffffffff-m");
    let (old, new) = (name(at(700)), name(at(5)));
    let foreign = format!("{PREFIX}ffffffff-{:x}-ffffffff-m", at(700));
    for name in [&old, &new, &foreign] {
        fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    // The kernel refuses to remove a group with processes, as a file system does with a folder that has files.
    let used = name(at(800));
    fs::create_dir_all(folder.path().join(&used).join("x")).expect("a folder");
    remove_old_and_empty(folder.path(), &beginning);
    let is_there = [&old, &new, &foreign, &used].map(|name| folder.path().join(name).exists());
    assert_eq!(is_there, [false, true, true, true]);
    assert_eq!(made_at("dayfly-vm-0a1b2c3d-zz-m", &beginning), None);
    assert!(group_name("0a1b2c3d", "a/../b").ends_with("-a____b"));
}

#[test]
fn the_kernels_counts_tell_a_used_up_limit_from_a_used_up_host() {
    let events = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n";
    assert_eq!(KillCount::of_events(events), KillCount { killed: 3, limit_hit: Some(1) });
    let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
    let counts = |failures: &str| KillCount::of_control(control, Some(failures.to_owned()));
    assert_eq!(counts("0\n"), KillCount { killed: 2, limit_hit: Some(0) });
    assert_eq!(counts("7\n"), KillCount { killed: 2, limit_hit: None });
    assert_eq!(KillCount::of_events(""), KillCount::default());
}

#[test]
fn the_kernel_kills_a_whole_group_of_version_2_at_once() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let found = super::super::mounts::hierarchies(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    let version_2 = found.iter().find(|hierarchy| hierarchy.version == Version::V2);
    let path = version_2.map(|hierarchy| hierarchy.own.join(group_name("0a1b2c3d", "test")));
    let made = path.as_ref().map(fs::create_dir);
    let (Some(path), Some(Ok(()))) = (path, &made) else {
        eprintln!("skipped: no hierarchy of version 2 that can be written: {made:?}");
        return;
    };
    let folder = GroupFolder { version: Version::V2, path: path.clone(), has_memory: false };
    let group = Group::found(vec![folder]);
    // Each of them starts another one again and again.
    let forking = "while :; do sleep 0.01; done";
    let mut machines = [(); 3].map(|()| Command::new("sh").args(["-c", forking]).spawn().expect("spawn"));
    machines.iter().for_each(|machine| group.enter(machine.id()).expect("entered"));
    thread::sleep(Duration::from_millis(50));
    let reap = thread::spawn(move || machines.each_mut().map(|machine| machine.wait().expect("wait").code()));
    group.remove().expect("removed");
    assert!(!path.exists());
    assert_eq!(reap.join().expect("waited"), [None; 3], "a signal killed all of them");
}

//! Tests that all that a hundred machines have on a host is removed: namespaces, links, rules, control groups, users, processes. A
//! program that sleeps stands in for each VMM; all else is what a machine has. Each role is a process of its own:
//!
//! ```text
//!   test ─> stage (a network namespace, adopts orphans) ─> maker ─> launchers: a VMM and a gate for each machine
//!             compares traces before and after               killed while it makes a machine, or removes all in order
//! ```
#![expect(unsafe_code, reason = "the stage enters a namespace")]
#![expect(clippy::print_stdout, reason = "the maker tells the stage how far it is")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dayfly_host::left_out::root_may;
use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;

use super::record::{MachineRecord, destroy_leftover};
use crate::accel::Accel;
use crate::cgroup::{self, Cgroups, Group, GroupSize};
use crate::launch::{
    self, CallFilter, LIBRARY_LIST, LaunchOrder, Launched, Launcher, NetworkPlace, OwnRoot, Program, Task,
    User, VmmCalls,
};
use crate::network::{self, Connection, NetworkPolicy};
use crate::spec::Network;

/// The variable with the role of a process of this test.
const ROLE: &str = "DAYFLY_TEST_ROLE";
/// The variable with the folder of the machines.
const FOLDER: &str = "DAYFLY_TEST_FOLDER";
/// The test, which each role runs again.
const TEST: &str = "machine::hundred::a_hundred_machines_leave_nothing_also_if_their_maker_is_killed";
/// The number of machines.
const MACHINES: usize = 100;
/// The number after which the maker is killed.
const HALF: usize = MACHINES / 2;
/// Longest time that processes may take to exit.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns this test in a role.
fn role(role: &str, folder: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", TEST, "--nocapture"]).env(ROLE, role).env(FOLDER, folder);
    command
}

#[test]
fn a_hundred_machines_leave_nothing_also_if_their_maker_is_killed() {
    if !root_may("create networks and change users") {
        return;
    }
    let given = std::env::var_os(FOLDER).map(PathBuf::from);
    match (std::env::var(ROLE).ok().as_deref(), given) {
        (Some("stage"), Some(folder)) => stage(&folder),
        (Some("maker, in order"), Some(folder)) => make_and_remove(&folder),
        (Some("maker"), Some(folder)) => drop(make_all(&folder)),
        _ => {
            let folder = tempfile::tempdir().expect("a folder");
            let ended = role("stage", folder.path()).output().expect("the stage");
            let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
            assert!(ended.status.success(), "{out}{err}");
        }
    }
}

/// Everything that machines have on this host, outside of their folders.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    links: String,
    routes: String,
    rules: String,
    mounts: String,
    groups: BTreeSet<PathBuf>,
    /// Processes that this one has started or adopted.
    processes: BTreeSet<u32>,
    descriptors: usize,
}

impl Traces {
    fn look(folder: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).expect("readable");
        let links = read("/proc/thread-self/net/dev");
        let names = links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
        let listed = Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
        Self {
            links: names.collect::<Vec<_>>().join(" "),
            // The first line names the columns, or is missing.
            routes: read("/proc/thread-self/net/route").lines().skip(1).collect(),
            rules: String::from_utf8(listed.stdout).expect("text"),
            mounts: read("/proc/thread-self/mountinfo"),
            groups: cgroup::groups_of(folder),
            processes: children(),
            descriptors: fs::read_dir("/proc/self/fd").expect("readable").count(),
        }
    }
}

/// Returns the processes whose parent is this one. Removes those that have exited.
fn children() -> BTreeSet<u32> {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    let own = std::process::id();
    let pids = fs::read_dir("/proc").expect("readable").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| field(pid, "PPid:").is_some_and(|parent| parent == own)).collect()
}

/// Returns the users of a process's threads. A gate is one thread of this test's program, and the others stay root.
fn users_of(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let pids = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
    pids.filter_map(|task| field(task, "Uid:")).collect()
}

/// Returns the first number of a line of a process's status.
fn field(pid: u32, name: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn stage(folder: &Path) {
    // SAFETY: a network namespace concerns the calling thread alone, and the processes that it starts.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a namespace");
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("it adopts orphans");
    // Its descriptors for signals stay open in this process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let before = Traces::look(folder);
    assert_eq!(before.groups, BTreeSet::new());

    let mut maker = Maker::start("maker, in order", &folder.join("in-order"));
    maker.wait_for("made", MACHINES);
    let during = Traces::look(folder);
    assert_eq!(during.links.split(' ').filter(|link| link.starts_with("dayfly")).count(), MACHINES);
    assert!(during.groups.len().is_multiple_of(MACHINES), "{}", during.groups.len());
    maker.say_go();
    assert!(maker.child.wait().expect("it ends").success());
    drop(maker);
    assert_eq!(Traces::look(folder), before, "made and removed");
    no_machine_is_left(&folder.join("in-order"));

    let mut maker = Maker::start("maker", &folder.join("killed"));
    maker.wait_for("made", HALF);
    maker.child.kill().expect("killed");
    maker.child.wait().expect("it is dead");
    // The machines live on, each with a user of its own.
    let users: BTreeSet<u32> = children().into_iter().flat_map(users_of).collect();
    let of_vmms = users.iter().filter(|&&user| launch::is_user_of_vmm(user)).count();
    assert!(of_vmms >= 2 * HALF, "{of_vmms} users");
    for machine in fs::read_dir(folder.join("killed")).expect("readable").flatten() {
        runtime.block_on(destroy_leftover(&machine.path())).expect("removed");
    }
    drop(maker);
    let began = Instant::now();
    // A launcher that had no order yet exits by itself.
    while children() != before.processes && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(Traces::look(folder), before, "killed and swept");
    no_machine_is_left(&folder.join("killed"));
}

/// Checks that the folders of machines hold logs and accounts only.
fn no_machine_is_left(machines: &Path) {
    let folders = fs::read_dir(machines).expect("readable").flatten();
    let files = folders.flat_map(|folder| fs::read_dir(folder.path()).expect("readable").flatten());
    let names: BTreeSet<_> = files.map(|file| file.file_name()).collect();
    let logs = ["network-use.json", network::LEDGER].map(Into::into).into();
    assert!(names.is_subset(&logs), "{names:?}");
}

/// The process that makes machines.
struct Maker {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Maker {
    fn start(as_role: &str, folder: &Path) -> Self {
        fs::create_dir(folder).expect("a folder");
        let mut command = role(as_role, folder);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the maker");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, lines }
    }

    /// Waits until it has said a word so often.
    fn wait_for(&mut self, word: &str, count: usize) {
        for _ in 0..count {
            let said = self.lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with(word)));
            assert!(said.is_some(), "the maker has ended");
        }
    }

    fn say_go(&mut self) {
        drop(self.child.stdin.take());
    }
}

/// What a maker holds of a machine.
struct Made {
    folder: PathBuf,
    launched: Launched,
    connection: Connection,
}

fn make_all(folder: &Path) -> Vec<Made> {
    let cgroups = Cgroups::of(folder.parent().expect("the folder of the stage"));
    let made = (0..MACHINES).map(|number| {
        let machine = make(&cgroups, folder, number);
        println!("made");
        machine
    });
    made.collect()
}

/// Removes the machines in order, once the stage has closed this process's standard input.
fn make_and_remove(folder: &Path) {
    let made = make_all(folder);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("the word of the stage");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for Made { folder, mut launched, connection } in made {
        runtime.block_on(destroy_leftover(&folder)).expect("removed");
        launched.child.wait().expect("it is dead");
        drop(connection);
    }
}

/// Makes what a machine has, with the parts and in the order of a real one.
fn make(cgroups: &Cgroups, folder: &Path, number: usize) -> Made {
    let folder = folder.join(number.to_string());
    fs::create_dir(&folder).expect("a folder");
    let name = format!("machine-{number}");
    let network = Network::new(NetworkPolicy::Guarded, [203, 0, 113, 53].into());
    let args = ["--exact", "--ignored", "--nocapture", "network::tests::this_program_becomes_a_gate"];
    let launcher = Launcher { program: "/proc/self/exe".into(), args: args.map(str::to_owned).to_vec() };
    let connection = network::connect(&network, &launcher, &folder).expect("a network");
    let Connection::Own(attachment) = &connection else { panic!("no network of its own") };
    let size = GroupSize { memory_mib: 128, cpus: 1, accel: Accel::Tcg, shares: 0 };
    let group = Group::of_machine(cgroups, &name, size, &folder).expect("a group");
    let card = [attachment.tap.try_clone().expect("the card")];
    let launched = launch::launch(&launcher, &sleeper(), &card, |pid| {
        MachineRecord::of_process(pid, &name)?.write(&folder)?;
        group.enter(pid)
    });
    Made { folder, launched: launched.expect("a process"), connection }
}

/// Returns the order for a program that does nothing within the walls of a VMM.
fn sleeper() -> LaunchOrder {
    let path = fs::canonicalize("/bin/sleep").expect("sleep (of coreutils)");
    let mut files = launch::libraries(&path).expect("its libraries");
    files.extend([path.clone(), LIBRARY_LIST.into()]);
    LaunchOrder {
        user: User::Own { group: None },
        network: NetworkPlace::Empty { listen: None },
        root: OwnRoot { files, devices: vec!["/dev/null".into()], export: None },
        file_bytes_max: Some(1 << 20),
        task: Task::Program(Program {
            path,
            args: vec!["600".to_owned()],
            env: Vec::new(),
            descriptors: vec![3],
            calls: CallFilter::Vmm(VmmCalls { network: false, programs: false }),
            small_pages: false,
        }),
    }
}

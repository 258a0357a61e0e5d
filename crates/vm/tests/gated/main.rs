//! Tests the networks that machines have without root, with a stand-in for the VMM that holds its card, and a guest that speaks
//! through the same card.
//!
//! Root starts the same tests as an ordinary user. This program is the test, the launcher, the guest and the world. It does not use
//! libtest, because a launcher must not have libtest's threads.
#![expect(
    unsafe_code,
    reason = "the parts of the test enter namespaces, and use descriptors by their numbers"
)]
#![expect(clippy::print_stdout, reason = "a test with a main of its own, which prints as libtest does")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod frames;
mod guest;
#[path = "../harness/mod.rs"]
#[macro_use]
mod harness;
mod names;
#[path = "../setting/mod.rs"]
mod setting;
mod world;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dayfly_vm::walls::Wall;
use dayfly_vm::{
    Decision, Destination, Forward, Network, NetworkPolicy, NetworkUse, Reason, TakeOver, Vm, VmEvent,
    network_use,
};
use frames::{arp_request, frame, frames_of, hello, question_of};
use guest::Guest;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};
use setting::*;
use world::{DNS, change_host, serve};

const WAIT: &str = "#!/bin/sh\nexec sleep 600\n";
/// First argument of this program if it creates a machine, and is killed.
const CREATOR: &str = "create-and-wait";
/// First argument of this program if it makes the world for the tests. The second one is [`BLOCKED`] or empty.
const ENTER: &str = "enter-a-world";
/// First argument of the tests on a host without tap devices.
const BLOCKED: &str = "without-tap-devices";
/// Number of the descriptor by which a VMM holds its card: the last one.
const CARD: i32 = 18;
/// Longest wait for something that happens within a moment.
const PATIENCE: Duration = Duration::from_secs(20);

fn network(policy: NetworkPolicy, allow: &[&str], forward: Option<SocketAddr>) -> Network {
    Network {
        forward: forward.map(|to| Forward { guest_port: 4321, to }),
        allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
        ..Network::new(policy, DNS.into())
    }
}

/// A machine whose VMM does nothing.
struct Waiting {
    setting: Setting,
    vm: Vm,
    vmm: u32,
}

impl Waiting {
    async fn start(network: Network) -> Self {
        let setting = Setting::new(WAIT);
        let (vm, vmm) = start(&setting, network).await;
        Self { setting, vm, vmm }
    }

    fn guest(&self) -> Guest {
        Guest::new(card_of(self.vmm))
    }

    /// Ends the machine. Returns what it has reached.
    async fn end(mut self) -> NetworkUse {
        let gate = gate_of(&self.setting.run_dir());
        self.vm.kill().await;
        self.vm.destroy().await.unwrap();
        until("the gate exits", || !lives(gate));
        assert_eq!(self.setting.left(), ["console.log", "environment", "network-use.json", "vmm.log"]);
        network_use(&self.setting.run_dir()).expect("an account")
    }
}

async fn start(setting: &Setting, network: Network) -> (Vm, u32) {
    let mut spec = setting.spec();
    spec.network = network;
    // Nothing says hello.
    spec.machine.boot_limit = Some(Duration::from_secs(600));
    let mut vm = setting.start(&setting.host(), spec).await.unwrap();
    let Some(VmEvent::VmmStarted { pid, .. }) = vm.next_event().await else { panic!("no VMM") };
    (vm, pid)
}

/// Returns a copy of the card that a VMM holds.
fn card_of(vmm: u32) -> OwnedFd {
    let process = rustix::process::pidfd_open(Pid::from_raw(vmm.cast_signed()).unwrap(), PidfdFlags::empty());
    rustix::process::pidfd_getfd(process.unwrap(), CARD, PidfdGetfdFlags::empty()).unwrap()
}

/// Returns the process id of the gate in the record of a run folder.
fn gate_of(run_dir: &Path) -> u64 {
    let record = fs::read(run_dir.join("network.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record.get("link"), None, "it has no link to the host");
    record["gate"]["pid"].as_u64().unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the destinations of an account, a line for each.
fn lines(used: &NetworkUse) -> Vec<String> {
    let line = |row: &Destination| {
        let to = row.address.zip(row.port).map_or_else(String::new, |(to, port)| format!(" {to}:{port}"));
        format!("{} {}{to}", row.decision.as_str(), row.names.join(","))
    };
    used.destinations.iter().map(line).collect()
}

async fn a_guarded_machine_reaches_the_internet_and_its_forge_and_nothing_private() {
    let forge = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = forge.local_addr().unwrap();
    serve(forge, "forge");
    let allow = ["192.168.7.8:80", "203.0.113.1:81", "127.0.0.1:80"];
    let machine = Waiting::start(network(NetworkPolicy::Guarded, &allow, Some(to))).await;
    let mut guest = machine.guest();
    let name = "a-203-0-113-80.example";
    assert_eq!(guest.resolves(name, "10.0.2.2"), "203.0.113.80");
    for (to, word) in [
        ("203.0.113.80:80", "world"),
        ("203.0.113.81:443", "world"),
        ("192.168.7.8:80", "world"),
        ("203.0.113.1:81", "host."),
        ("10.0.2.2:4321", "forge"),
    ] {
        assert_eq!(guest.reaches(to), word, "{to}");
    }
    change_host("address add 192.0.2.2/32 dev up0");
    for to in [
        "203.0.113.1:80",
        "203.0.113.255:80",
        // An address that the host has got after the machine has started.
        "192.0.2.2:80",
        "127.0.0.1:80",
        "127.1.2.3:80",
        "0.0.0.0:80",
        "0.0.0.1:80",
        "255.255.255.255:80",
        "224.0.0.1:80",
        "192.168.7.8:22",
        "192.168.7.7:80",
        "10.1.2.3:80",
        "10.53.0.53:80",
        "100.64.1.1:80",
        "169.254.169.254:80",
        "168.63.129.16:80",
        "198.19.0.1:80",
        "10.0.2.2:80",
        "10.0.2.2:54",
        "10.0.2.3:80",
    ] {
        assert_eq!(guest.reaches(to), "nothing", "{to}");
    }
    drop(guest);
    let used = machine.end().await;
    let told = lines(&used);
    assert_eq!((used.policy.as_str(), used.gate_killed, used.left_out), ("guarded", false, 0), "{told:#?}");
    for line in [
        &format!("allowed {name} 203.0.113.80:80"),
        "allowed  192.168.7.8:80",
        "allowed  203.0.113.1:81",
        "denied  203.0.113.1:80",
        "denied  192.0.2.2:80",
        "denied  192.168.7.8:22",
        "denied  169.254.169.254:80",
    ] {
        assert!(told.iter().any(|found| found == line), "{line}: {told:#?}");
    }
    let row = used.destinations.iter().find(|row| row.names == [name]).unwrap();
    assert_eq!((row.times, row.received), (1, 5), "{row:?}");
    let denied = used.destinations.iter().filter(|row| row.decision == Decision::Denied);
    assert!(denied.clone().count() > 10 && denied.clone().all(|row| row.reason == Some(Reason::Shut)));
}

async fn no_answer_leads_to_a_shut_address_and_every_question_goes_through_the_gate() {
    let machine = Waiting::start(network(NetworkPolicy::Guarded, &["192.168.7.8:443"], None)).await;
    let mut guest = machine.guest();
    for server in ["10.0.2.2", "10.53.0.53", "203.0.113.80", "192.0.2.99"] {
        assert_eq!(guest.resolves("a-198-51-100-7.example", server), "198.51.100.7", "{server}");
        assert_eq!(guest.resolves("a-192-168-7-8.example", server), "192.168.7.8", "the forge");
        for shut in ["10-1-2-3", "127-0-0-1", "169-254-169-254", "203-0-113-1", "10-0-2-2"] {
            assert_eq!(guest.resolves(&format!("a-{shut}.example"), server), "code 3", "{shut}");
        }
    }
    drop(guest);
    machine.end().await;
}

async fn datagrams_and_packets_to_all_hosts_reach_nothing() {
    let machine = Waiting::start(network(NetworkPolicy::Guarded, &["203.0.113.1:9999"], None)).await;
    let service = UdpSocket::bind("0.0.0.0:9999").unwrap();
    service.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut guest = machine.guest();
    for to in [
        "203.0.113.1:9999",
        "203.0.113.255:9999",
        "255.255.255.255:9999",
        "224.0.0.1:9999",
        "10.0.2.2:9999",
        "10.0.2.255:9999",
    ] {
        guest.sends(to);
        assert!(service.recv_from(&mut [0; 8]).is_err(), "{to}");
    }
    service.send_to(b"x", "127.0.0.1:9999").unwrap();
    assert!(service.recv_from(&mut [0; 8]).is_ok(), "the service hears the host itself");
    drop(guest);
    machine.end().await;
}

async fn a_guest_that_sends_in_the_name_of_others_gets_no_answer() {
    let machine = Waiting::start(network(NetworkPolicy::Guarded, &[], None)).await;
    let card = card_of(machine.vmm);
    let send = |frame: &[u8]| assert_eq!(rustix::io::write(&card, frame).unwrap(), frame.len());
    for last in 0..200 {
        send(&arp_request(Ipv4Addr::new(45, 33, 7, last)));
        send(&question_of(Ipv4Addr::new(10, 0, 2, 16 + last % 200)));
    }
    // A neighbour solicitation is the ARP of IPv6.
    send(&frame(0x86dd, &[0x60, 0, 0, 0, 0, 0, 58, 255]));
    assert_eq!(frames_of(&card), Vec::<Vec<u8>>::new());
    let guest = Ipv4Addr::new(10, 0, 2, 15);
    send(&arp_request(guest));
    send(&question_of(guest));
    let frames = frames_of(&card);
    assert!(frames.iter().any(|frame| frame.ends_with(&guest.octets())), "an answer to ARP: {frames:?}");
    assert!(frames.iter().any(|frame| frame[22..24] == [8, 0]), "an answer to the question: {frames:?}");
    rustix::io::ioctl_fionbio(&card, false).unwrap();
    drop(card);
    machine.end().await;
}

async fn a_machine_without_root_reaches_its_list_alone() {
    let list = ["*.list.example", "10.1.0.0/16:80"].map(|text| text.parse().unwrap());
    let policy = NetworkPolicy::Allow(list.to_vec());
    let machine = Waiting::start(network(policy, &["192.168.7.8:80"], None)).await;
    let mut guest = machine.guest();
    let (name, at) = ("a-203-0-113-80.list.example", "203.0.113.80:443");
    let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    assert_eq!(guest.says(at, &hello(name)), "nothing", "no listed name has led there yet");
    assert_eq!(guest.resolves(name, "10.0.2.2"), "203.0.113.80");
    assert_eq!(guest.resolves("a-192-0-2-80.evil", "10.0.2.2"), "code 3");
    assert_eq!(guest.says(at, &hello(name)), "world");
    assert_eq!(guest.says("203.0.113.80:80", &request(name)), "world");
    assert_eq!(guest.says("10.1.2.3:80", b""), "world", "a listed network");
    assert_eq!(guest.says("192.168.7.8:80", b""), "world", "the forge");
    for (to, first) in [
        (at, hello("www.evil")),
        (at, request(name)),
        ("203.0.113.80:80", request("www.evil")),
        ("203.0.113.80:22", Vec::new()),
        ("203.0.113.81:443", hello(name)),
        ("10.1.2.3:443", hello(name)),
        ("192.168.7.8:22", Vec::new()),
        ("203.0.113.1:80", request(name)),
        ("127.0.0.1:80", request(name)),
    ] {
        assert_eq!(guest.says(to, &first), "nothing", "{to} {}", String::from_utf8_lossy(&first));
    }
    drop(guest);
    let used = machine.end().await;
    let told = lines(&used);
    for line in [format!("allowed {name} 203.0.113.80:443"), "denied www.evil 203.0.113.80:443".to_owned()] {
        assert!(told.contains(&line), "{line}: {told:#?}");
    }
}

async fn a_machine_without_root_and_with_the_policy_none_reaches_its_forge_alone() {
    let forge = "a-192-168-7-8.example";
    let none = network(NetworkPolicy::None, &["192.168.7.8:80"], None);
    let machine = Waiting::start(Network { names: vec![forge.to_owned()], ..none }).await;
    let mut guest = machine.guest();
    assert_eq!(guest.resolves(forge, "10.0.2.2"), "192.168.7.8");
    assert_eq!(guest.resolves("a-203-0-113-80.example", "10.0.2.2"), "code 3");
    assert_eq!(guest.reaches("192.168.7.8:80"), "world");
    for to in ["203.0.113.80:80", "203.0.113.1:80", "127.0.0.1:80", "192.168.7.8:22"] {
        assert_eq!(guest.reaches(to), "nothing", "{to}");
    }
    drop(guest);
    machine.end().await;
}

async fn an_audited_machine_reaches_its_host_but_not_its_loopback() {
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let only_loopback = loopback.local_addr().unwrap();
    serve(loopback, "loop.");
    let machine = Waiting::start(network(NetworkPolicy::Audit(Vec::new()), &[], None)).await;
    let mut guest = machine.guest();
    assert_eq!(guest.says("10.1.2.3:22", b""), "world", "a private address");
    assert_eq!(guest.says("203.0.113.80:22", b""), "world");
    assert_eq!(guest.says("203.0.113.1:80", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), "host.");
    assert_eq!(guest.reaches(&only_loopback.to_string()), "nothing");
    drop(guest);
    let told = lines(&machine.end().await);
    for line in ["audited  10.1.2.3:22", "audited  203.0.113.80:22", "audited  203.0.113.1:80"] {
        assert!(told.contains(&line.to_owned()), "{line}: {told:#?}");
    }
}

async fn a_guest_that_opens_connections_without_end_takes_a_bounded_part_of_the_host() {
    let machine = Waiting::start(network(NetworkPolicy::Guarded, &[], None)).await;
    let mut guest = machine.guest();
    let opened = guest.opens("203.0.113.80:80", 1200);
    assert!((513..1200).contains(&opened), "{opened} were accepted");
    let gate = gate_of(&machine.setting.run_dir());
    let held = fs::read_dir(format!("/proc/{gate}/fd")).unwrap().count();
    // Two for each of the 512 connections, and those of the gate itself.
    assert!((1000..1100).contains(&held), "{held} descriptors");
    assert_eq!(guest.resolves("a-198-51-100-7.example", "10.0.2.2"), "198.51.100.7", "names are resolved");
    drop(guest);
    machine.end().await;
}

async fn a_gate_that_makes_connections_has_the_walls_of_a_vmm() {
    let mut machine = Waiting::start(network(NetworkPolicy::Guarded, &[], None)).await;
    let gate = gate_of(&machine.setting.run_dir());
    let of = |pid: u64, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    for (name, value) in [
        ("CapEff:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
    ] {
        assert_eq!(of(gate, name), value, "{name}");
    }
    let root: Vec<_> =
        fs::read_dir(format!("/proc/{gate}/root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(root, ["proc"]);
    let namespace = |pid: u64| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let own = u64::from(std::process::id());
    assert_eq!(namespace(gate), namespace(own));
    assert_ne!(namespace(machine.vmm.into()), namespace(own), "the VMM has none of the host's addresses");
    let jailed = loop {
        match machine.vm.next_event().await {
            Some(VmEvent::Jailed(walls)) => break walls,
            Some(_) => {}
            None => panic!("no walls"),
        }
    };
    assert!(jailed.up.contains(&Wall::Network), "{jailed:?}");
    machine.end().await;
}

async fn a_gate_goes_with_its_machine_also_if_nobody_removes_it() {
    let machine = Waiting::start(network(NetworkPolicy::Guarded, &[], None)).await;
    let gate = gate_of(&machine.setting.run_dir());
    machine.vm.detach();
    assert!(lives(gate));
    rustix::process::kill_process(Pid::from_raw(machine.vmm.cast_signed()).unwrap(), Signal::KILL).unwrap();
    until("the gate exits", || !lives(gate));
    dayfly_vm::destroy_leftover(&machine.setting.run_dir()).await.unwrap();
}

/// A machine of a process that was killed. Its folder is removed at the end.
struct Orphan {
    folder: PathBuf,
    vmm: u32,
}

impl Orphan {
    /// Creates a machine in a process, and kills the process.
    fn create(to: SocketAddr) -> Self {
        let mut creator = Command::new("/proc/self/exe");
        let mut creator = creator.args([CREATOR, &to.to_string()]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(creator.stdout.take().unwrap()).lines().map(Result::unwrap);
        let (folder, vmm) = (said.next().unwrap().into(), said.next().unwrap().parse().unwrap());
        creator.kill().unwrap();
        creator.wait().unwrap();
        Self { folder, vmm }
    }

    fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Creates a machine whose forge is at this address, tells its folder and its process, and waits to be killed.
async fn create_and_wait(to: SocketAddr) {
    let setting = Setting::new(WAIT);
    let (_vm, vmm) = start(&setting, network(NetworkPolicy::Guarded, &[], Some(to))).await;
    println!("{}\n{vmm}", setting.folder.path().display());
    std::future::pending().await
}

async fn a_machine_of_a_killed_process_is_taken_over_with_its_network_and_its_forwarded_port() {
    let forge = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = forge.local_addr().unwrap();
    serve(forge, "forge");
    let orphan = Orphan::create(to);
    let gate = gate_of(&orphan.run_dir());
    assert!(lives(gate) && lives(orphan.vmm.into()), "both outlive the process");
    let mut guest = Guest::new(card_of(orphan.vmm));
    assert_eq!(guest.reaches("203.0.113.80:80"), "world", "while nobody owns the machine");
    assert_eq!(guest.reaches("10.0.2.2:4321"), "nothing", "nobody serves the port");
    let take_over = TakeOver {
        runner_id: "0-abc".to_owned(),
        environment: orphan.run_dir().join("environment"),
        lines_seen: 0,
        forward: Some(Forward { guest_port: 4321, to }),
    };
    let mut vm = dayfly_vm::take_over(take_over, &orphan.run_dir()).await.unwrap().expect("it lives");
    assert_eq!(guest.reaches("10.0.2.2:4321"), "forge");
    assert_eq!(guest.reaches("203.0.113.80:80"), "world");
    drop(guest);
    vm.kill().await;
    vm.destroy().await.unwrap();
    until("the gate exits", || !lives(gate));
    let told = lines(&network_use(&orphan.run_dir()).expect("an account"));
    assert!(told.contains(&"allowed  203.0.113.80:80".to_owned()), "{told:#?}");
}

async fn what_a_killed_process_has_left_is_removed_with_its_gate() {
    let orphan = Orphan::create("127.0.0.1:9".parse().unwrap());
    let gate = gate_of(&orphan.run_dir());
    assert!(lives(gate));
    dayfly_vm::destroy_leftover(&orphan.run_dir()).await.unwrap();
    until("both exit", || !lives(gate) && !lives(orphan.vmm.into()));
    assert!(!orphan.run_dir().join("network.json").exists());
}

async fn without_tap_devices_lists_are_refused_and_a_guarded_machine_has_the_hosts_network() {
    for policy in [NetworkPolicy::Allow(Vec::new()), NetworkPolicy::Audit(Vec::new()), NetworkPolicy::None] {
        let setting = Setting::new(WAIT);
        let mut spec = setting.spec();
        spec.network = network(policy.clone(), &["192.168.7.8:80"], None);
        let error = setting.start(&setting.host(), spec).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("network = {}: ", policy.as_str())), "{error}");
        assert!(error.contains("/dev/net/tun") && error.ends_with("or run dayfly as root"), "{error}");
        assert_eq!(setting.left(), ["environment"]);
    }
    let setting = Setting::new(WAIT);
    let (vm, vmm) = start(&setting, network(NetworkPolicy::Guarded, &[], None)).await;
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(namespace(vmm), namespace(std::process::id()));
    vm.destroy().await.unwrap();
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("vmm-launch") => return dayfly_vm::launch::main(args[1].parse().unwrap()),
        Some("--list") => return ExitCode::SUCCESS,
        Some(world::WORLD) => world::become_world(),
        Some(guest::GUEST) => guest::become_guest(),
        Some(CREATOR) => runtime().block_on(create_and_wait(args[1].parse().unwrap())),
        Some(world::AS_USER) => test(&args[1..]),
        Some(world::AS_NESTED_USER) => {
            world::become_ordinary();
            test(&args[1..]);
        }
        // In processes of their own, because each enters namespaces.
        Some(ENTER) => return exit_code(world::run_as_user(&args[2..], args[1] != BLOCKED)),
        _ => {
            for host in ["", BLOCKED] {
                let mut tests = Command::new("/proc/self/exe");
                let tests =
                    tests.args([ENTER, host, host]).args(&args).stdin(Stdio::null()).status().unwrap();
                if !tests.success() {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn exit_code(status: ExitStatus) -> ExitCode {
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn test(args: &[String]) {
    assert!(!rustix::process::geteuid().is_root());
    let runtime = runtime();
    let args: Vec<String> = args.iter().filter(|arg| !arg.is_empty()).cloned().collect();
    if args.first().is_some_and(|arg| arg == BLOCKED) {
        run_tests! {
            runtime, args[1..], (),
            without_tap_devices_lists_are_refused_and_a_guarded_machine_has_the_hosts_network
        }
        return;
    }
    // The host itself answers at all its addresses.
    for port in [80, 81] {
        serve(TcpListener::bind(("0.0.0.0", port)).unwrap(), "host.");
    }
    run_tests! {
        runtime, args, (),
        a_guarded_machine_reaches_the_internet_and_its_forge_and_nothing_private
        no_answer_leads_to_a_shut_address_and_every_question_goes_through_the_gate
        datagrams_and_packets_to_all_hosts_reach_nothing
        a_guest_that_sends_in_the_name_of_others_gets_no_answer
        a_machine_without_root_reaches_its_list_alone
        a_machine_without_root_and_with_the_policy_none_reaches_its_forge_alone
        an_audited_machine_reaches_its_host_but_not_its_loopback
        a_guest_that_opens_connections_without_end_takes_a_bounded_part_of_the_host
        a_gate_that_makes_connections_has_the_walls_of_a_vmm
        a_gate_goes_with_its_machine_also_if_nobody_removes_it
        a_machine_of_a_killed_process_is_taken_over_with_its_network_and_its_forwarded_port
        what_a_killed_process_has_left_is_removed_with_its_gate
    }
}

//! Replaces a VMM by a hostile program, as if a guest had taken over QEMU, and counts what the jail leaves it.
//!
//! This program is the test, the launcher and the hostile program. It does not use libtest, because a launcher must not have
//! libtest's threads.
#![expect(
    unsafe_code,
    reason = "attacks are raw system calls, and the whole test enters a network namespace"
)]
#![expect(clippy::print_stdout, reason = "a test with a main of its own, which prints as libtest does")]
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../harness/mod.rs"]
#[macro_use]
mod harness;
mod attack;
#[path = "../setting/mod.rs"]
mod setting;

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use dayfly_host::left_out::root_may;
use dayfly_vm::walls::Wall;
use dayfly_vm::{Exit, VmEvent};
use setting::*;

/// Argument of this program if it is to test as an ordinary user.
const AS_USER: &str = "as-an-ordinary-user";
/// The id of an ordinary user.
const ORDINARY: u32 = 65534;

/// Starts this program in QEMU's place, with a target for its attacks in the machine's name. Returns how it exited, and
/// all that it printed.
async fn take_over(target: &attack::Target) -> (Exit, String, Vec<Wall>) {
    let setting = Setting::empty();
    fs::copy("/proc/self/exe", setting.vmm()).unwrap();
    let mut spec = setting.spec();
    spec.name = target.to_string();
    let mut vm = setting.start(&setting.host(), spec).await.unwrap();
    let (mut walls, mut exit) = (None, None);
    while let Some(event) = vm.next_event().await {
        match event {
            VmEvent::Jailed(jail) => walls = Some(jail.up),
            VmEvent::Gone { exit: how, .. } => exit = Some(how),
            _ => {}
        }
    }
    vm.destroy().await.unwrap();
    let told = fs::read_to_string(setting.run_dir().join("vmm.log")).unwrap();
    (exit.unwrap(), told, walls.unwrap())
}

async fn a_hostile_vmm_gains_nothing() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = SocketAddr::from_abstract_name(attack::ABSTRACT).unwrap();
    let _abstract = UnixListener::bind_addr(&name).unwrap();
    let target = attack::Target {
        port: port.local_addr().unwrap().port(),
        process: std::process::id(),
        kind: attack::Kind::All,
    };
    let (exit, told, walls) = take_over(&target).await;
    let gained: Vec<&str> = told.lines().filter(|line| line.starts_with(attack::GAINED)).collect();
    assert_eq!(exit, Exit::Failed { code: attack::DONE.into() }, "it did not come to its end:\n{told}");
    assert!(walls.contains(&Wall::SystemCalls) && walls.contains(&Wall::Files), "{walls:?}");
    if !walls.contains(&Wall::Landlock) {
        // Without Landlock, an ordinary user's VMM can open its own files for writing.
        assert!(gained.iter().all(|line| line.contains("open anew")), "{gained:#?}");
        return;
    }
    assert!(gained.is_empty(), "{gained:#?}\n{told}");
    let held = told.lines().filter(|line| line.starts_with(attack::HELD)).count();
    assert!(held >= 120, "only {held} attacks were tried:\n{told}");
}

async fn a_call_of_another_architecture_ends_a_vmm() {
    let target = attack::Target { port: 0, process: 0, kind: attack::Kind::OtherArchitecture };
    let (exit, told, _) = take_over(&target).await;
    // SIGSYS by the filter; SIGSEGV if the kernel does not have these calls at all.
    assert!(matches!(exit, Exit::Signalled { signal: 31 | 11 }), "{exit:?}:\n{told}");
}

async fn a_hostile_vmm_of_an_ordinary_user_gains_nothing() {
    if !root_may("become an ordinary user, which this test is already") {
        return;
    }
    let output = Command::new("/proc/self/exe").arg(AS_USER).uid(ORDINARY).gid(ORDINARY).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("... ok").count(), 2);
}

/// Enters a new network namespace, because the test must not listen on the host's addresses.
fn leave_the_hosts_network() {
    // SAFETY: this process still has one thread.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("vmm-launch") => return dayfly_vm::launch::main(args[1].parse().unwrap()),
        // It has no version, as a program that is no QEMU.
        Some("--version") => return ExitCode::SUCCESS,
        Some("--list") => return ExitCode::SUCCESS,
        Some("-name") => return attack::run(&args[1]),
        _ => {}
    }
    if rustix::process::geteuid().is_root() {
        leave_the_hosts_network();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let args: Vec<String> = args.into_iter().filter(|arg| arg != AS_USER).collect();
    if rustix::process::geteuid().is_root() {
        run_tests! {
            runtime, args, (),
            a_hostile_vmm_gains_nothing
            a_call_of_another_architecture_ends_a_vmm
            a_hostile_vmm_of_an_ordinary_user_gains_nothing
        }
    } else {
        run_tests! {
            runtime, args, (),
            a_hostile_vmm_gains_nothing
            a_call_of_another_architecture_ends_a_vmm
        }
    }
    ExitCode::SUCCESS
}

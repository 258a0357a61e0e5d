//! A separate network namespace for machines.
#![expect(unsafe_code, reason = "a thread enters a network namespace")]

use std::process::Command;

use rustix::thread::UnshareFlags;

/// Moves this thread into a new network namespace, which has only a loopback device, if the process runs as root.
///
/// As root, machines have networks of their own, with links, routes and rules on their host. These then belong to the
/// namespace, because the threads and processes that this thread starts inherit it.
pub fn enter_network_namespace() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // SAFETY: a network namespace concerns the calling thread alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip (of iproute2)");
    assert!(up.success());
}

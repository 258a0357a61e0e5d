//! A network that machines have to themselves.
#![expect(unsafe_code, reason = "a thread enters a network namespace")]

use std::process::Command;

use rustix::thread::UnshareFlags;

/// As root, machines have networks of their own, with links, routes and rules on their host: what this thread and the
/// threads and processes that it starts do happens in a namespace that is empty but for a loopback. Else nothing is done.
pub fn enter_network_namespace() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // SAFETY: a network namespace concerns the calling thread alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip (of iproute2)");
    assert!(up.success());
}

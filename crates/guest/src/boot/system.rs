//! Sets what programs expect of a running system, besides mounts. A step that fails is only logged, because only some
//! programs need it and the machine is useful without it.

use crate::console;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::path::Path;

/// Sets limits, controllers, kernel settings, links, and the host name of a machine without an identity.
pub(super) fn prepare() {
    for (what, resource, value) in [
        ("the limit of open files", Resource::Nofile, 1_048_576),
        // The kernel's own limits follow from the memory, and are too small for a build in 2 GiB. A hosted machine of
        // 16 GiB has 63,000 processes for each user.
        ("the limit of processes", Resource::Nproc, 65_536),
    ] {
        note(what, setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }));
    }
    let umask = rustix::fs::Mode::from_raw_mode(0o022);
    let _ = rustix::process::umask(umask);
    delegate_controllers();
    for (path, value) in [
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        // Every user may ping, as systemd has it. Distributions rely on it: their `ping` has no capability of its own.
        ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
        ("/proc/sys/fs/inotify/max_user_watches", "524288"),
        ("/proc/sys/fs/inotify/max_user_instances", "1024"),
        ("/proc/sys/vm/max_map_count", "262144"),
        ("/proc/sys/kernel/threads-max", "131072"),
        ("/proc/sys/kernel/pid_max", "4194304"),
        // The kernel compacts memory when a contiguous block is needed, instead of twice a second.
        ("/proc/sys/vm/compaction_proactiveness", "0"),
        // The kernel sums up memory counters once a minute instead of every second. A read sums them up as well.
        ("/proc/sys/vm/stat_interval", "60"),
    ] {
        note(path, std::fs::write(path, value));
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        if std::fs::symlink_metadata(link).is_err() {
            note(link, std::os::unix::fs::symlink(target, link));
        }
    }
    link_program(Path::new(dayfly_guest::environment::GUEST));
    let lock = Path::new("/run/lock");
    note("/run/lock", std::fs::create_dir_all(lock));
    let sticky = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    note("/run/lock", std::fs::set_permissions(lock, sticky));
    note("the host name", rustix::system::sethostname(super::personal::NOBODY.as_bytes()));
}

/// Creates the link to this program that links in images (`docker`, for example) refer to with every driver.
fn link_program(link: &Path) {
    // The image may contain the folder, left over from its build.
    let folder = link.parent().map_or(Ok(()), std::fs::create_dir_all);
    let _ = std::fs::remove_file(link);
    note("the link to this program", folder.and_then(|()| std::os::unix::fs::symlink(super::PROGRAM, link)));
}

/// Enables every controller for the cgroups below the root, as Docker needs it.
fn delegate_controllers() {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    for controller in controllers.split_ascii_whitespace() {
        let request = format!("+{controller}");
        note(&request, std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", &request));
    }
}

fn note<E: std::fmt::Display>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        console::say(&format!("cannot set {what}: {error}"));
    }
}

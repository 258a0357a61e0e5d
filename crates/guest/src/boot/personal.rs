//! Files that tell machines apart. They are in memory, and the root file system has links to them: a machine takes on another
//! identity by writing to memory alone, which under emulation takes a tenth of the time, and no disk is changed.
//!
//! A program that replaces such a link by a file of its own (`sed -i /etc/hosts`) may do so.

use super::{BootError, at};
use rustix::mount::mount_bind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// `/etc/hostname`.
pub(crate) const HOSTNAME: &str = "hostname";
/// `/etc/hosts`.
pub(crate) const HOSTS: &str = "hosts";
/// `/etc/machine-id`.
pub(crate) const MACHINE_ID: &str = "machine-id";
/// `/etc/resolv.conf`.
pub(crate) const RESOLV_CONF: &str = "resolv.conf";
/// `/proc/sys/kernel/random/boot_id`, but in containers, whose /proc shows the kernel's own.
pub(crate) const BOOT_ID: &str = "boot_id";

/// Where they are.
const FOLDER: &str = "/run/dayfly/etc";
/// The host name of a machine that is nobody's yet.
pub(crate) const NOBODY: &str = "dayfly";
/// Where the host names none: that of QEMU's user network.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// The path of one of them.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Content of `hosts`.
pub(crate) fn hosts(hostname: &str) -> String {
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {hostname}\n")
}

/// Content of `resolv.conf`.
pub(crate) fn resolv_conf(dns: Option<Ipv4Addr>) -> String {
    format!("nameserver {}\n", dns.unwrap_or(NAME_SERVER))
}

/// Puts them in place, for nobody.
pub(super) fn prepare() -> Result<(), BootError> {
    std::fs::create_dir_all(FOLDER).map_err(at("cannot make the folder", Path::new(FOLDER)))?;
    let kernels = Path::new("/proc/sys/kernel/random/boot_id");
    let boot_id = std::fs::read_to_string(kernels).unwrap_or_default();
    for (name, content) in [
        (HOSTNAME, format!("{NOBODY}\n")),
        (HOSTS, hosts(NOBODY)),
        // systemd's word for a system whose identity is not set yet is an empty file.
        (MACHINE_ID, String::new()),
        (RESOLV_CONF, resolv_conf(None)),
        (BOOT_ID, boot_id),
    ] {
        let path = path(name);
        std::fs::write(&path, content).map_err(at("cannot write", &path))?;
        if name != BOOT_ID {
            link(&Path::new("/etc").join(name), &path)?;
        }
    }
    mount_bind(path(BOOT_ID), kernels).map_err(at("cannot mount", kernels))
}

/// Replaces a file, or a link to a service that does not run here.
fn link(path: &Path, target: &Path) -> Result<(), BootError> {
    // Not there is as good as removed; another error shows in the link.
    let _ = std::fs::remove_file(path);
    std::os::unix::fs::symlink(target, path).map_err(at("cannot make the link", path))
}

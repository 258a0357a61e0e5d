//! Files that tell machines apart. They are in memory, and the root file system has links to them: a machine takes on another
//! identity by writing to memory alone, which under emulation takes a tenth of the time, and no disk is changed. They stay
//! open, so that a fork finds no path and frees no file on its way to an identity: the kernel's code for that would be
//! translated in each of them.
//!
//! A program that replaces such a link by a file of its own (`sed -i /etc/hosts`) may do so.

use super::{BootError, at};
use rustix::mount::mount_bind;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where they are.
const FOLDER: &str = "/run/dayfly/etc";
/// What programs read the kernel's boot id from.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The host name of a machine that is nobody's yet.
pub(crate) const NOBODY: &str = "dayfly";
/// Where the host names none: that of QEMU's user network.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// One of the files, open for as long as the machine lives.
#[derive(Debug)]
pub(crate) struct Slot {
    file: File,
    /// Bytes that were written to it last.
    length: AtomicU64,
}

impl Slot {
    fn new(name: &str, content: &str) -> Result<Self, BootError> {
        let path = Path::new(FOLDER).join(name);
        let file = File::create(&path).map_err(at("cannot make", &path))?;
        let slot = Self { file, length: AtomicU64::new(0) };
        slot.set(content).map_err(at("cannot write", &path))?;
        Ok(slot)
    }

    /// Replaces what is in it. One that was empty takes a single call.
    pub(crate) fn set(&self, content: &str) -> io::Result<()> {
        self.file.write_all_at(content.as_bytes(), 0)?;
        let length = content.len() as u64;
        if self.length.swap(length, Ordering::Relaxed) > length { self.file.set_len(length) } else { Ok(()) }
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Personal {
    /// `/etc/hostname`.
    pub(crate) hostname: Slot,
    /// `/etc/hosts`.
    pub(crate) hosts: Slot,
    /// `/etc/machine-id`.
    pub(crate) machine_id: Slot,
    /// `/etc/resolv.conf`.
    pub(crate) resolv_conf: Slot,
    /// `/proc/sys/kernel/random/boot_id`, but in containers, whose /proc shows the kernel's own.
    pub(crate) boot_id: Slot,
}

impl Personal {
    /// Puts them in place, for nobody.
    pub(super) fn prepare() -> Result<Self, BootError> {
        std::fs::create_dir_all(FOLDER).map_err(at("cannot make the folder", Path::new(FOLDER)))?;
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let personal = Self {
            hostname: Slot::new("hostname", &format!("{NOBODY}\n"))?,
            hosts: Slot::new("hosts", &hosts(NOBODY))?,
            // systemd's word for a system whose identity is not set yet is an empty file.
            machine_id: Slot::new("machine-id", "")?,
            resolv_conf: Slot::new("resolv.conf", &resolv_conf(None))?,
            boot_id: Slot::new("boot_id", &boot_id)?,
        };
        for name in ["hostname", "hosts", "machine-id", "resolv.conf"] {
            link(&Path::new("/etc").join(name), &Path::new(FOLDER).join(name))?;
        }
        let kernels = Path::new(BOOT_ID);
        mount_bind(Path::new(FOLDER).join("boot_id"), kernels).map_err(at("cannot mount", kernels))?;
        Ok(personal)
    }

    /// Empties them: whoever reads them now finds nobody.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let Self { hostname, hosts, machine_id, resolv_conf, boot_id } = self;
        [hostname, hosts, machine_id, resolv_conf, boot_id].into_iter().try_for_each(|slot| slot.set(""))
    }
}

/// Content of `hosts`.
pub(crate) fn hosts(hostname: &str) -> String {
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {hostname}\n")
}

/// Content of `resolv.conf`.
pub(crate) fn resolv_conf(dns: Option<Ipv4Addr>) -> String {
    format!("nameserver {}\n", dns.unwrap_or(NAME_SERVER))
}

/// Replaces a file, or a link to a service that does not run here.
fn link(path: &Path, target: &Path) -> Result<(), BootError> {
    // Not there is as good as removed; another error shows in the link.
    let _ = std::fs::remove_file(path);
    std::os::unix::fs::symlink(target, path).map_err(at("cannot make the link", path))
}

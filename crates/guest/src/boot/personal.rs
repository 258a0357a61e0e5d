//! The files that hold a machine's identity. They are in memory, and the root file system has links to them. So a machine
//! takes on an identity by writing to memory only: no disk is changed, and under emulation this takes a tenth of the time.
//! The files stay open, so that a fork resolves no path and frees no file when it takes on its identity: under emulation
//! each fork would have to translate the kernel's code for that.
//!
//! A program may replace a link by a file of its own (as `sed -i /etc/hosts` does).

use super::{BootError, at};
use rustix::mount::mount_bind;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Folder of the files.
const FOLDER: &str = "/run/dayfly/etc";
/// The file that programs read the kernel's boot id from.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Host name of a machine that has no identity yet.
pub(crate) const NOBODY: &str = "dayfly";
/// DNS server of QEMU's user network, which is used if the host names none.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// One of the files. It stays open until the machine is powered off.
#[derive(Debug)]
pub(crate) struct Slot {
    file: File,
    /// Length of its content, bytes.
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

    /// Replaces the content. This takes a single system call unless the content becomes shorter.
    pub(crate) fn set(&self, content: &str) -> io::Result<()> {
        self.file.write_all_at(content.as_bytes(), 0)?;
        let length = content.len() as u64;
        if self.length.swap(length, Ordering::Relaxed) > length { self.file.set_len(length) } else { Ok(()) }
    }
}

/// All files that hold the identity.
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
    /// `/proc/sys/kernel/random/boot_id`, except in containers, whose /proc shows the kernel's own.
    pub(crate) boot_id: Slot,
}

impl Personal {
    /// Creates the files, without an identity, and the links to them.
    pub(super) fn prepare() -> Result<Self, BootError> {
        std::fs::create_dir_all(FOLDER).map_err(at("cannot make the folder", Path::new(FOLDER)))?;
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        let personal = Self {
            hostname: Slot::new("hostname", &format!("{NOBODY}\n"))?,
            hosts: Slot::new("hosts", &hosts(NOBODY))?,
            // To systemd an empty file means that the system's identity is not set yet.
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

    /// Empties the files, so that a program that reads them finds no identity.
    pub(crate) fn forget(&self) -> io::Result<()> {
        let Self { hostname, hosts, machine_id, resolv_conf, boot_id } = self;
        [hostname, hosts, machine_id, resolv_conf, boot_id].into_iter().try_for_each(|slot| slot.set(""))
    }
}

/// Returns the content of `hosts`.
pub(crate) fn hosts(hostname: &str) -> String {
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {hostname}\n")
}

/// Returns the content of `resolv.conf`.
pub(crate) fn resolv_conf(dns: Option<Ipv4Addr>) -> String {
    format!("nameserver {}\n", dns.unwrap_or(NAME_SERVER))
}

/// Replaces a file, or a link to a file of a service that does not run in the machine, by a link to `target`.
fn link(path: &Path, target: &Path) -> Result<(), BootError> {
    // A file that does not exist is no error. Any other error makes the link fail too.
    let _ = std::fs::remove_file(path);
    std::os::unix::fs::symlink(target, path).map_err(at("cannot make the link", path))
}

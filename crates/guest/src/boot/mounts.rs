//! Mounts the file systems that the kernel provides.

use super::{BootError, at};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use std::ffi::CStr;
use std::path::Path;

const NOSUID_NODEV: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const NOSUID_NODEV_NOEXEC: MountFlags = NOSUID_NODEV.union(MountFlags::NOEXEC);

pub(super) fn make_folder(path: &Path) -> Result<(), BootError> {
    std::fs::create_dir_all(path).map_err(at("cannot make the folder", path))
}

pub(super) fn mount_at(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    data: &CStr,
) -> Result<(), BootError> {
    make_folder(Path::new(target))?;
    mount(source, target, kind, flags, data).map_err(at("cannot mount", Path::new(target)))
}

/// Mounts the file systems that init itself needs, in the initramfs. They are moved to the real root later.
pub(super) fn kernel_file_systems() -> Result<(), BootError> {
    mount_at("proc", "/proc", "proc", NOSUID_NODEV_NOEXEC, c"")?;
    mount_at("sysfs", "/sys", "sysfs", NOSUID_NODEV_NOEXEC, c"")?;
    mount_at("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, c"mode=0755")?;
    // Without noexec, because this binary is stored in it.
    mount_at("tmpfs", "/run", "tmpfs", NOSUID_NODEV, c"mode=0755")
}

/// Mounts the file systems that programs expect, in the real root.
pub(super) fn system_file_systems() -> Result<(), BootError> {
    let devpts = c"gid=5,mode=0620,ptmxmode=0666";
    mount_at("devpts", "/dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, devpts)?;
    mount_at("tmpfs", "/dev/shm", "tmpfs", NOSUID_NODEV, c"mode=1777")?;
    mount_at("mqueue", "/dev/mqueue", "mqueue", NOSUID_NODEV_NOEXEC, c"")?;
    mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", NOSUID_NODEV_NOEXEC, c"nsdelegate")?;
    let environment = dayfly_guest::environment::DIRECTORY;
    mount_at("tmpfs", environment, "tmpfs", NOSUID_NODEV_NOEXEC, c"mode=0700,size=1m")
}

/// Makes all mounts shared, as systemd does. Without it, containers get no mount that is made after their start, so that
/// volumes with `:rshared`, and with them kind and k3s, fail.
pub(super) fn share_all() -> Result<(), BootError> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(at("cannot share the mounts below", Path::new("/")))
}

//! The root file system: an overlay of the image and the scratch disk.

use super::mounts::{make_folder, mount_at};
use super::{BootError, PROGRAM, at, disks};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_move, unmount};
use std::path::Path;

const IMAGE: &str = "/mnt/image";
const SCRATCH: &str = "/mnt/scratch";
const NEW_ROOT: &str = "/mnt/new";

/// Folders of the scratch disk: the parts of the overlay, and Docker's data.
const UPPER: &str = "/mnt/scratch/upper";
const WORK: &str = "/mnt/scratch/work";
const DOCKER: &str = "/mnt/scratch/docker";

/// Mounts image, scratch disk and their overlay, with `/var/lib/docker` directly on the scratch disk.
pub(super) fn assemble() -> Result<(), BootError> {
    let image = disks::find("root")?;
    let scratch = disks::find("scratch")?;
    mount_at(&image.to_string_lossy(), IMAGE, "squashfs", MountFlags::RDONLY, c"")?;
    // Devices open on it, because containers create their own below Docker's data.
    mount_at(&scratch.to_string_lossy(), SCRATCH, "ext4", MountFlags::NOATIME, c"")?;
    for folder in [UPPER, WORK, DOCKER] {
        make_folder(Path::new(folder))?;
    }
    let layers = c"lowerdir=/mnt/image,upperdir=/mnt/scratch/upper,workdir=/mnt/scratch/work";
    mount_at("overlay", NEW_ROOT, "overlay", MountFlags::NOATIME, layers)?;
    let docker = format!("{NEW_ROOT}/var/lib/docker");
    make_folder(Path::new(&docker))?;
    mount_bind(DOCKER, &docker).map_err(at("cannot mount", Path::new(&docker)))?;
    // The overlay and the bind mount keep what they need in use. After this, no path leads to the layers themselves.
    for layer in [IMAGE, SCRATCH] {
        unmount(layer, UnmountFlags::DETACH).map_err(at("cannot unmount", Path::new(layer)))?;
    }
    Ok(())
}

/// Makes the overlay the root, stores a copy of this binary as [`PROGRAM`], and frees the initramfs.
pub(super) fn switch() -> Result<(), BootError> {
    keep_program()?;
    for mounted in ["/dev", "/proc", "/sys", "/run"] {
        let target = format!("{NEW_ROOT}{mounted}");
        make_folder(Path::new(&target))?;
        mount_move(mounted, &target).map_err(at("cannot move to", Path::new(&target)))?;
    }
    std::env::set_current_dir(NEW_ROOT).map_err(at("cannot enter", Path::new(NEW_ROOT)))?;
    remove_initramfs();
    mount_move(".", "/").map_err(at("cannot move to", Path::new("/")))?;
    rustix::process::chroot(".").map_err(at("cannot change the root to", Path::new(NEW_ROOT)))?;
    std::env::set_current_dir("/").map_err(at("cannot enter", Path::new("/")))
}

fn keep_program() -> Result<(), BootError> {
    let program = Path::new(PROGRAM);
    let folder = program.parent().unwrap_or(Path::new("/run"));
    make_folder(folder)?;
    std::fs::copy("/proc/self/exe", program).map_err(at("cannot copy this binary to", program))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(program, mode).map_err(at("cannot make executable", program))
}

/// Frees the memory of the initramfs, which holds two known entries. A failure costs only memory.
fn remove_initramfs() {
    let _ = std::fs::remove_dir_all("/lib");
    let _ = std::fs::remove_file("/init");
}

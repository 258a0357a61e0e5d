//! Mounts folders and files of the host, by virtiofs.

use super::mounts::{make_folder, mount_at};
use super::{BootError, at, modules};
use dayfly_guest::protocol::Share;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, unmount};
use std::path::Path;

/// Mount point of a share of a single file until the file is mounted at its own path.
const ASIDE: &str = "/run/dayfly/share";

/// Mounts all shares. Stops at the first one that fails.
pub(crate) fn mount_all(shares: &[Share]) -> Result<(), BootError> {
    if !shares.is_empty() {
        modules::load_with_needs(&["virtiofs"]);
    }
    shares.iter().try_for_each(mount_share)
}

fn mount_share(share: &Share) -> Result<(), BootError> {
    let read_only = if share.read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let flags = MountFlags::NOSUID | MountFlags::NODEV | read_only;
    let Some(name) = &share.file else {
        return mount_at(&share.tag, &share.path, "virtiofs", flags, c"");
    };
    mount_at(&share.tag, ASIDE, "virtiofs", flags, c"")?;
    let path = Path::new(&share.path);
    let mounted = make_file(path)
        .and_then(|()| mount_bind(Path::new(ASIDE).join(name), path).map_err(at("cannot mount", path)));
    unmount(ASIDE, UnmountFlags::DETACH).map_err(at("cannot unmount", Path::new(ASIDE)))?;
    mounted
}

/// Creates a file that another file can be mounted on. An existing file stays unchanged.
fn make_file(path: &Path) -> Result<(), BootError> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let file = std::fs::File::options().create(true).append(true).open(path);
    file.map(drop).map_err(at("cannot make the file", path))
}

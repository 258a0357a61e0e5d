//! Creates the device nodes of drivers that are loaded on first use, with the modes of systemd's rules. devtmpfs has nodes only
//! of drivers that are loaded, and a node that nothing has opened yet loads none.
//!
//! Numbers: Linux, `Documentation/admin-guide/devices.txt`. Modes: systemd, `50-udev-default.rules`.

use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::{CWD, Dev, FileType, Gid, Mode, Uid, chmodat, chownat, makedev, mknodat};
use rustix::io::Errno;

use crate::console;

/// Debian's group `disk`, which Fedora has under the same id.
const DISK: u32 = 6;
/// Number of loop devices that the kernel's module creates by itself.
const LOOPS: u32 = 8;

/// A device node.
struct Node {
    path: String,
    kind: FileType,
    device: Dev,
    mode: u32,
    group: u32,
}

fn nodes() -> Vec<Node> {
    let character = |path: &str, major, minor, mode, group| Node {
        path: path.to_owned(),
        kind: FileType::CharacterDevice,
        device: makedev(major, minor),
        mode,
        group,
    };
    let mut nodes = vec![
        character("/dev/fuse", 10, 229, 0o666, 0),
        character("/dev/net/tun", 10, 200, 0o666, 0),
        character("/dev/loop-control", 10, 237, 0o660, DISK),
    ];
    nodes.extend((0..LOOPS).map(|number| Node {
        path: format!("/dev/loop{number}"),
        kind: FileType::BlockDevice,
        device: makedev(7, number),
        mode: 0o660,
        group: DISK,
    }));
    nodes
}

/// Creates the nodes. A node that is there keeps its number and gets its mode. A failure is only logged, because few programs
/// need these devices.
pub(super) fn create() {
    for node in nodes() {
        if let Err(errno) = node.create() {
            console::say(&format!("cannot create {}: {errno}", node.path));
        }
    }
}

impl Node {
    fn create(&self) -> Result<(), Errno> {
        if let Some(folder) = Path::new(&self.path).parent() {
            // An error shows when the node is created.
            let _ = std::fs::create_dir_all(folder);
        }
        let mode = Mode::from_raw_mode(self.mode);
        match mknodat(CWD, &self.path, self.kind, mode, self.device) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        chownat(CWD, &self.path, Some(Uid::ROOT), Some(Gid::from_raw(self.group)), AtFlags::empty())?;
        // The mode of a new node depends on the umask.
        chmodat(CWD, &self.path, mode, AtFlags::empty())
    }
}

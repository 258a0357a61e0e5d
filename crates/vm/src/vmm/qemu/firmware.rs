//! Finds the firmware that starts a machine's kernel.
//!
//! `microvm` with ACPI loads `bios-microvm.bin`, which differs: Debian 12 links qboot to that name, and Debian 13 installs
//! SeaBIOS there, which finds a kernel given by `-kernel` only through an option ROM (without the ROM, it says "No bootable
//! device"). So the command line names qboot, and if there is no qboot, QEMU's own choice gets the option ROM.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Folders that may contain QEMU's data files, besides those next to its program's folder.
const FOLDERS: [&str; 4] =
    ["/usr/share/qemu", "/usr/share/seabios", "/usr/local/share/qemu", "/usr/share/qemu-kvm"];

/// The message of SeaBIOS if it finds no kernel. Nothing follows it.
pub(crate) const NO_BOOT_DEVICE: &str = "No bootable device";
/// The meaning of that message, and its remedy.
pub(crate) const NO_KERNEL_FOUND: &str = "the firmware found no kernel (\"No bootable device\"): QEMU's program and its data \
    files do not fit together; reinstall them (apt-get install --reinstall qemu-system-x86 qemu-system-data seabios), then \
    `dayfly doctor` boots a guest and reports whether it works";

/// A firmware, and how it finds the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Firmware {
    /// qboot from this file. It only starts the kernel, and is part of QEMU since 5.0.
    Qboot(PathBuf),
    /// QEMU's own choice, which may need QEMU's option ROM to find the kernel.
    Default,
}

impl Firmware {
    /// Returns the firmwares to try with this QEMU, best first.
    pub(crate) fn candidates(qemu: &Path) -> Vec<Self> {
        let qboot = find(qemu, "qboot.rom").map(Self::Qboot);
        qboot.into_iter().chain([Self::Default]).collect()
    }

    /// Returns the firmware's file, if it is known.
    pub(crate) fn file(&self, qemu: &Path) -> Option<PathBuf> {
        match self {
            Self::Qboot(path) => Some(path.clone()),
            Self::Default => find(qemu, "bios-microvm.bin"),
        }
    }
}

/// Returns the folders that may hold data files of a QEMU: first those below the program's own prefix, then the system's.
pub(super) fn folders(qemu: &Path) -> impl Iterator<Item = PathBuf> {
    let prefix = qemu.parent().and_then(Path::parent);
    let own = prefix.into_iter().flat_map(|prefix| [prefix.join("share/qemu"), prefix.join("share/seabios")]);
    own.chain(FOLDERS.map(PathBuf::from))
}

fn find(qemu: &Path, name: &str) -> Option<PathBuf> {
    folders(qemu).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemus_own_qboot_comes_first_and_its_own_choice_is_always_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let qemu = folder.path().join("bin/qemu-system-x86_64");
        let data = folder.path().join("share/qemu");
        std::fs::create_dir_all(&data).expect("a folder");
        assert_eq!(Firmware::candidates(&qemu).last(), Some(&Firmware::Default));
        std::fs::write(data.join("qboot.rom"), "x").expect("a file");
        let qboot = Firmware::Qboot(data.join("qboot.rom"));
        assert_eq!(Firmware::candidates(&qemu), [qboot.clone(), Firmware::Default]);
        assert_eq!(qboot.file(&qemu), Some(data.join("qboot.rom")));
    }
}

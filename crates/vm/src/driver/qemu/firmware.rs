//! The firmware that hands a machine's kernel over to its processor.
//!
//! `microvm` with ACPI takes `bios-microvm.bin`, and what that is differs: Debian 12 links qboot to that name, Debian 13 has
//! SeaBIOS there, which finds a kernel given by `-kernel` only through an option ROM (without it, it says "No bootable
//! device"). So qboot is named, and if there is none, QEMU's own choice gets the option ROM.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where data files of QEMU may be, beside those that belong to its program's folder.
const FOLDERS: [&str; 4] =
    ["/usr/share/qemu", "/usr/share/seabios", "/usr/local/share/qemu", "/usr/share/qemu-kvm"];

/// A firmware, and how it finds the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Firmware {
    /// qboot from this file. It does nothing but start the kernel, and is part of QEMU since 5.0.
    Qboot(PathBuf),
    /// The one that QEMU takes by itself, which may need QEMU's option ROM to find the kernel.
    Default,
}

impl Firmware {
    /// The firmwares to try with this QEMU, best first.
    pub(crate) fn candidates(qemu: &Path) -> Vec<Self> {
        let qboot = find(qemu, "qboot.rom").map(Self::Qboot);
        qboot.into_iter().chain([Self::Default]).collect()
    }

    /// Its file, as far as that is known.
    pub(crate) fn file(&self, qemu: &Path) -> Option<PathBuf> {
        match self {
            Self::Qboot(path) => Some(path.clone()),
            Self::Default => find(qemu, "bios-microvm.bin"),
        }
    }
}

/// A data file of a QEMU: its own, if it is in a folder of its own, else the system's.
fn find(qemu: &Path, name: &str) -> Option<PathBuf> {
    let prefix = qemu.parent().and_then(Path::parent);
    let own = prefix.into_iter().flat_map(|prefix| [prefix.join("share/qemu"), prefix.join("share/seabios")]);
    let mut files = own.chain(FOLDERS.map(PathBuf::from)).map(|folder| folder.join(name));
    files.find(|path| path.is_file())
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

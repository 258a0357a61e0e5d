//! Finds the files that a QEMU needs, which are all that its process can reach.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::firmware;
use super::program::Known;
use crate::launch::{EVERYTHING, LIBRARY_LIST, libraries};

/// Folder of QEMU's modules, beside the libraries. Emulation itself is a module in some packages.
const MODULES: &str = "qemu";

/// The files of a QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct QemuFiles {
    /// Files and folders, as absolute paths that exist.
    pub(super) paths: Vec<PathBuf>,
    /// True if the program is a script, which may start any other program.
    pub(super) is_script: bool,
}

/// Returns the files that this QEMU needs.
pub(super) fn of(qemu: &Path) -> QemuFiles {
    static KNOWN: Known<QemuFiles> = Known::new();
    KNOWN.of(qemu, || find(qemu))
}

/// Returns true if this QEMU is a script, which may start any other program.
pub(crate) fn is_script(qemu: &Path) -> bool {
    of(qemu).is_script
}

fn find(qemu: &Path) -> QemuFiles {
    let mut all: BTreeSet<PathBuf> = firmware::folders(qemu).collect();
    // Its own name counts, and the file that it leads to, beside which QEMU looks for its data.
    let target = qemu.canonicalize().ok();
    all.extend([qemu.to_owned(), PathBuf::from(LIBRARY_LIST)]);
    all.extend(target.iter().flat_map(|target| firmware::folders(target)));
    all.extend(target);
    let libraries = libraries(qemu);
    let is_script = libraries.is_none();
    match libraries {
        Some(libraries) => {
            let folders = libraries.iter().filter_map(|library| library.parent());
            let modules: BTreeSet<PathBuf> = folders.map(|folder| folder.join(MODULES)).collect();
            // The loader may name `/lib`, which is a link to `/usr/lib`, where QEMU looks.
            all.extend(modules.iter().filter_map(|folder| folder.canonicalize().ok()));
            all.extend(modules);
            all.extend(libraries);
        }
        None => all.extend(EVERYTHING.map(PathBuf::from)),
    }
    all.retain(|path| path.exists());
    QemuFiles { paths: all.into_iter().collect(), is_script }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_needs_itself_its_loader_and_its_libraries() {
        let program = std::env::current_exe().expect("this program");
        let QemuFiles { paths: found, is_script } = of(&program);
        assert!(!is_script);
        assert!(found.contains(&program));
        for name in ["ld-linux", "libc.so"] {
            let named = |path: &PathBuf| {
                path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name))
            };
            assert!(found.iter().any(named), "{name} in {found:?}");
        }
        assert!(!found.contains(&PathBuf::from("/usr")), "nothing that it does not need");
    }

    #[test]
    fn a_script_may_start_every_program() {
        let folder = tempfile::tempdir().expect("folder");
        let script = folder.path().join("qemu");
        std::fs::write(&script, "#!/bin/sh\n").expect("written");
        let QemuFiles { paths: found, is_script } = of(&script);
        assert!(is_script);
        assert!(found.contains(&script) && found.contains(&PathBuf::from("/usr")), "{found:?}");
    }
}

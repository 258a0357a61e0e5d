//! Finds the files that a QEMU needs, which are all that its process can reach.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::firmware;
use super::program::Known;
use dayfly_host::tool::{self, Reach};

/// The list of libraries by name, without which the loader finds only those in its own folders.
const CACHE: &str = "/etc/ld.so.cache";
/// Folder of QEMU's modules, beside the libraries. Emulation itself is a module in some packages.
const MODULES: &str = "qemu";
/// Folders with programs and libraries, for a QEMU that is a script. It may start any of them.
const ALL: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store"];
/// Variable that has the loader print the libraries of a program instead of running it (ld.so(8)).
const LIST: &str = "LD_TRACE_LOADED_OBJECTS";
/// Most bytes of that list that are read. Debian's QEMU has fifty libraries.
const LIST_MAX: u64 = 256 * 1024;
/// The first bytes of a program that the kernel loads itself.
const ELF: [u8; 4] = *b"\x7fELF";

/// The files of a QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
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

fn find(qemu: &Path) -> QemuFiles {
    let mut all: BTreeSet<PathBuf> = firmware::folders(qemu).collect();
    // Its own name counts, and the file that it leads to, beside which QEMU looks for its data.
    let target = qemu.canonicalize().ok();
    all.extend([qemu.to_owned(), PathBuf::from(CACHE)]);
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
        None => all.extend(ALL.map(PathBuf::from)),
    }
    all.retain(|path| path.exists());
    QemuFiles { paths: all.into_iter().collect(), is_script }
}

/// Returns the libraries of a program, with its loader; none if it has none, or is a script.
fn libraries(program: &Path) -> Option<Vec<PathBuf>> {
    let mut begin = [0; ELF.len()];
    File::open(program).ok()?.read_exact(&mut begin).ok()?;
    if begin != ELF {
        return None;
    }
    let mut command = tool::command(program, Reach::Host);
    // A program without a loader would run, and then only tell its version.
    command.env(LIST, "1").arg("--version");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut text = String::new();
    let read = child.stdout.take()?.take(LIST_MAX).read_to_string(&mut text);
    child.wait().ok()?;
    read.ok()?;
    let listed: Vec<PathBuf> = text.lines().filter_map(library).collect();
    (!listed.is_empty()).then_some(listed)
}

/// Returns the path in a line of the loader's list: `name => path (address)`, or `path (address)` for the loader itself.
fn library(line: &str) -> Option<PathBuf> {
    let (file, _) = line.trim().rsplit_once(" (0x")?;
    let path = file.split_once(" => ").map_or(file, |(_, path)| path);
    path.starts_with('/').then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_loader_names_a_file_or_none() {
        let of = |line: &str| library(line).map(|path| path.display().to_string());
        assert_eq!(of("\tlibm.so.6 => /lib/libm.so.6 (0x00007f)").as_deref(), Some("/lib/libm.so.6"));
        assert_eq!(
            of("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)").as_deref(),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(of("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert_eq!(of("\tlibmissing.so.1 => not found"), None);
        assert_eq!(of("QEMU emulator version 9.2.1"), None);
    }

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

//! Finds the libraries of a program, which belong into its root.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use dayfly_host::tool::{self, Reach};

/// The list of libraries by name, without which the loader finds only those in its own folders.
pub(crate) const LIBRARY_LIST: &str = "/etc/ld.so.cache";
/// Folders with programs and libraries, for a program that is a script. It may start any of them.
pub(crate) const EVERYTHING: [&str; 8] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store"];
/// Variable that has the loader print the libraries of a program instead of running it (ld.so(8)).
const LIST: &str = "LD_TRACE_LOADED_OBJECTS";
/// Most bytes of that list that are read. Debian's QEMU has fifty libraries.
const LIST_MAX: u64 = 256 * 1024;
/// The first bytes of a program that the kernel loads itself.
const ELF: [u8; 4] = *b"\x7fELF";

/// Returns the libraries of a program, with its loader; none if it has none, or is a script.
pub(crate) fn libraries(program: &Path) -> Option<Vec<PathBuf>> {
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
}

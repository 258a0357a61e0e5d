//! Finds QEMU's program.

use std::path::{Path, PathBuf};

use crate::machine::StartError;
use dayfly_host::tool::{self, Reach};

/// Folders that are searched for QEMU, in this order.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/opt/qemu/bin", "/usr/libexec"];
/// Name of QEMU's program.
const NAME: &str = "qemu-system-x86_64";
/// Command that installs QEMU.
pub(super) const MEND: &str = "apt-get install qemu-system-x86";

/// Returns the path of QEMU: `chosen` if it is given, else the first one in the usual folders.
///
/// # Errors
/// QEMU is not installed.
pub(crate) fn find(chosen: Option<&Path>) -> Result<PathBuf, StartError> {
    let found = match chosen {
        Some(path) => Some(path.to_owned()).filter(|path| path.is_file()),
        None => FOLDERS.iter().map(|folder| Path::new(folder).join(NAME)).find(|path| path.is_file()),
    };
    let looked = || chosen.map_or_else(|| FOLDERS.join(", "), |path| path.display().to_string());
    found.ok_or_else(|| StartError::NoTool { tool: NAME, looked: looked(), mend: MEND })
}

/// Returns QEMU's version, from the first line of `--version`.
pub(super) fn version(qemu: &Path) -> Option<String> {
    let output = tool::command(qemu, Reach::Host).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.trim_start_matches("QEMU emulator version ").to_owned())
}

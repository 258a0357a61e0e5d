//! Finds QEMU's program.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::machine::StartError;
use dayfly_host::digest;
use dayfly_host::tool::{self, Reach};

/// Folders that are searched for QEMU, in this order.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/opt/qemu/bin", "/usr/libexec"];
/// Name of QEMU's program.
const NAME: &str = "qemu-system-x86_64";
/// Longest time that QEMU may take to print its version. It takes some 20 ms on a quiet host.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of its answer that are read.
const VERSION_BYTES_MAX: u64 = 4096;
/// Command that installs QEMU.
pub(super) const MEND: &str = "apt-get install qemu-system-x86";

/// A property of a QEMU that is found out once, because that takes some milliseconds. Another file at the same path is
/// another QEMU.
pub(super) struct Known<T>(Mutex<Option<HashMap<(PathBuf, String), T>>>);

impl<T: Clone> Known<T> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns the property of this QEMU, which `find` finds out.
    pub(super) fn of(&self, qemu: &Path, find: impl FnOnce() -> T) -> T {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (qemu.to_owned(), digest::digest_of_program(qemu).unwrap_or_default());
        if let Some(found) = known().get_or_insert_default().get(&key) {
            return found.clone();
        }
        let found = find();
        known().get_or_insert_default().insert(key, found.clone());
        found
    }
}

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

/// Returns QEMU's version, from the first line of `--version`. A program that does not answer in time has none.
pub(super) fn version(qemu: &Path) -> Option<String> {
    let mut command = tool::command(qemu, Reach::Host);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let begin = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if begin.elapsed() > VERSION_LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut text = String::new();
    child.stdout.take()?.take(VERSION_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text.lines().next()?.trim_start_matches("QEMU emulator version ").to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_that_does_not_tell_its_version_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |script: &str| {
            let path = folder.path().join(script.len().to_string());
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
            version(&path)
        };
        assert_eq!(of("echo 'QEMU emulator version 9.2.1 (x)'; echo more").as_deref(), Some("9.2.1 (x)"));
        assert_eq!(of("exit 1"), None);
        assert_eq!(of("exec sleep 600"), None);
        assert_eq!(version(&folder.path().join("none")), None);
    }
}

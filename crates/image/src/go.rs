//! Finds the Go toolchain of this host.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::ImageError;
use dayfly_host::tool::{self, Reach};

/// Lowest usable version: the one that the runner app's module requires.
const LEAST: &str = "1.24";
const LEAST_MINOR: u32 = 24;
/// Folders in which Go's own installer and Debian's packages put it, besides the search path.
const FOLDERS: [&str; 2] = ["/usr/local/go/bin", "/usr/bin"];

/// A Go toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Go {
    /// The program.
    pub program: PathBuf,
    /// E.g. `go1.26.6`.
    pub version: String,
}

impl Go {
    /// Returns the first toolchain that is new enough, in these folders and then in Go's usual folders.
    ///
    /// # Errors
    /// No toolchain is new enough. The error lists the older ones.
    pub fn find(search: &[PathBuf]) -> Result<Self, ImageError> {
        let mut folders = search.to_vec();
        folders.extend(FOLDERS.map(PathBuf::from));
        folders.extend(versioned_folders());
        let mut found = Vec::new();
        for folder in folders {
            let program = folder.join("go");
            if !program.is_file() {
                continue;
            }
            match version(&program) {
                Some(version) if minor(&version).is_some_and(|minor| minor >= LEAST_MINOR) => {
                    return Ok(Self { program, version });
                }
                Some(version) => found.push(format!("{version} in {}", folder.display())),
                None => found.push(format!("{}, which does not run", program.display())),
            }
        }
        Err(ImageError::NoGo { least: LEAST, found })
    }
}

/// Returns the folders `/usr/lib/go-*/bin` in reverse order of their names.
fn versioned_folders() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib") else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("go-"))
        .map(|entry| entry.path().join("bin"))
        .collect();
    folders.sort();
    folders.reverse();
    folders
}

fn version(program: &Path) -> Option<String> {
    let output = tool::command(program, Reach::Network)
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && version.starts_with("go")).then_some(version)
}

/// Returns the minor version, e.g. 26 of `go1.26.6`. A later major version counts as the highest one.
fn minor(version: &str) -> Option<u32> {
    let mut numbers = version.strip_prefix("go")?.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next()?.ok()?, numbers.next()) {
        (0, _) => None,
        (1, Some(minor)) => minor.ok(),
        (1, None) => Some(0),
        _ => Some(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn versions_are_read_in_all_their_forms() {
        for (version, expected) in [
            ("go1.26.6", Some(26)),
            ("go1.24rc1", Some(24)),
            ("go1.9", Some(9)),
            ("go2.0", Some(u32::MAX)),
            ("devel", None),
        ] {
            assert_eq!(minor(version), expected, "{version}");
        }
    }

    #[test]
    fn an_old_one_that_comes_first_is_passed_over() {
        let folder = tempfile::tempdir().expect("folder");
        let mut folders = Vec::new();
        for version in ["go1.19.8", "go1.99.1"] {
            let bin = folder.path().join(version);
            std::fs::create_dir(&bin).expect("folder");
            let program = bin.join("go");
            std::fs::write(&program, format!("#!/bin/sh\necho {version}\n")).expect("write");
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
            folders.push(bin);
        }
        assert_eq!(Go::find(&folders).expect("found").version, "go1.99.1");
    }
}

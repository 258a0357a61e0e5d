//! Compares two file trees, file by file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

/// Paths that are not compared: what the host adds or changes, and the device.
const ADDED: [&str; 12] = [
    "etc/dayfly",
    "etc/dayfly/image.env",
    "etc/passwd",
    "etc/group",
    "home",
    "home/runner",
    "opt",
    "opt/runner",
    "opt/hostedtoolcache",
    "lib/modules",
    "boot",
    "data/device",
];

/// Asserts that two trees are the same, except for what the host adds, and devices.
pub(crate) fn check(expected: &Path, found: &Path) {
    let (expected, found) = (listed(expected), listed(found));
    assert!(expected.len() > 30, "{expected:#?}");
    let differ: Vec<_> = expected
        .keys()
        .chain(found.keys())
        .filter(|path| expected.get(*path) != found.get(*path))
        .map(|path| format!("{path}: {:?}, not {:?}", found.get(path), expected.get(path)))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

fn is_added(path: &str) -> bool {
    ADDED.contains(&path)
        || ["opt/runner/", "lib/modules/", "boot/config-"].iter().any(|folder| path.starts_with(folder))
}

fn listed(root: &Path) -> BTreeMap<String, String> {
    let (mut all, mut first_names) = (BTreeMap::new(), BTreeMap::new());
    walk(root, root, &mut |path, relative| {
        if !is_added(&relative) {
            let what = describe(path, &relative, &mut first_names);
            all.insert(relative, what);
        }
    });
    all
}

fn walk(root: &Path, folder: &Path, take: &mut impl FnMut(&Path, String)) {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        let relative =
            path.strip_prefix(root).expect("below").as_os_str().as_bytes().escape_ascii().to_string();
        take(&path, relative);
        if path.symlink_metadata().expect("there").is_dir() {
            walk(root, &path, take);
        }
    }
}

/// Describes a file: kind, mode, owners, time, extended attributes and content, and the first of its names (for hard links).
fn describe(path: &Path, relative: &str, first_names: &mut BTreeMap<u64, String>) -> String {
    let metadata = path.symlink_metadata().expect("there");
    let kind = metadata.file_type();
    let mut text = format!("{:o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    if kind.is_symlink() {
        let _ = write!(text, " -> {}", std::fs::read_link(path).expect("a link").display());
    } else if kind.is_fifo() {
        text.push_str(" pipe");
    } else if kind.is_file() {
        let content = std::fs::read(path).expect("readable");
        let sum = content.iter().fold(7_u64, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let _ = write!(text, " {} bytes {sum:x} at {}", metadata.len(), metadata.mtime());
        let first = first_names.entry(metadata.ino()).or_insert_with(|| relative.to_owned());
        let _ = write!(text, " same as {first}");
    } else {
        let _ = write!(text, " folder at {}", if relative.contains('/') { metadata.mtime() } else { 0 });
    }
    let mut getfattr = Command::new("getfattr");
    let output = getfattr.args(["-h", "-d", "-m", "-", "-e", "hex", "--absolute-names"]).arg(path).output();
    let attributes = String::from_utf8_lossy(&output.expect("getfattr").stdout).into_owned();
    for line in attributes.lines().filter(|line| line.contains('=') && !line.starts_with('#')) {
        let _ = write!(text, " {line}");
    }
    text
}

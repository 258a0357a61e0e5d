//! temp
use std::fs::File;
use std::io;
use std::path::Path;
pub(crate) fn make(path: &Path, bytes: u64) -> io::Result<File> {
    let out = std::process::Command::new("/usr/bin/qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(path)
        .arg(bytes.to_string())
        .output()?;
    if !out.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    File::options().read(true).write(true).open(path)
}

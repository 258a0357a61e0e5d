//! Passes rules to the kernel with `nft`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::NetworkError;
use super::error::step;

/// Paths at which nftables installs `nft`; they are not in the search path of every user.
pub(crate) const PATHS: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];

/// Returns the path of `nft`.
pub(crate) fn program() -> Result<PathBuf, NetworkError> {
    let found = PATHS.iter().map(Path::new).find(|path| path.is_file());
    found.map(Path::to_owned).ok_or_else(|| NetworkError::NoNft { looked: PATHS.join(", ") })
}

/// Runs a script in the calling thread's namespace, as one transaction.
pub(super) fn run(whose: &'static str, script: &str) -> Result<(), NetworkError> {
    let mut child = Command::new(program()?)
        .args(["-f", "-"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(step("start nft"))?;
    // The scripts are shorter than a pipe's buffer, so neither side waits for the other.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(step("wait for nft"))?;
    if output.status.success() {
        return written.map_err(step("give nft its rules"));
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(NetworkError::Rules { whose, reason: reason.lines().next().unwrap_or("no reason given").to_owned() })
}

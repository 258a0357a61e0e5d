//! Lays out an installation that dayfly takes for the official app.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The start script. The official app's scripts hide exit statuses; this one does not need to.
const RUN: &str = "#!/bin/sh\nexec \"$(dirname \"$0\")/bin/Runner.Listener\" run \"$@\"\n";

/// Lays out a folder as the official app's archive unpacks: `bin/Runner.Listener`, a link to `program` (the binary
/// `light-runner`), and `run.sh`. Name the folder in `RUNNER_INSTALL` to have dayfly's entrypoint start it. An installation
/// that is there already is replaced.
///
/// # Errors
/// If the folder or the link cannot be created.
pub fn install(program: &Path, folder: &Path) -> io::Result<()> {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin)?;
    let listener = bin.join("Runner.Listener");
    match std::fs::remove_file(&listener) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A copy could not be started while another thread of a test forks, because the kernel finds it open for writing.
    std::os::unix::fs::symlink(std::path::absolute(program)?, listener)?;
    let run = folder.join("run.sh");
    std::fs::write(&run, RUN)?;
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755))
}

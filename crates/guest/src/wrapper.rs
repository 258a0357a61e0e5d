//! `docker` in machines whose kernel cannot create networks: runs Docker's client with the machine's own network.
//!
//! libkrun's kernel has neither bridges nor a firewall, so a container gets a network only if it shares the machine's.
//! Images have a link `docker` to this program, and the real client beside it as [`REAL`]. This program only adds the
//! option that [`arguments`] selects, and then becomes the real client, which keeps its terminal, its signals and its exit
//! status.

mod arguments;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Name of the real client.
pub(crate) const REAL: &str = "docker.orig";

/// Name under which this program is the wrapper.
pub(crate) const NAME: &str = "docker";

/// The variable that makes buildx build elsewhere, as by `--builder` (Docker's documentation, "Build variables"). An
/// empty one says nothing.
const BUILDER: &str = "BUILDX_BUILDER";

/// Folders to search for the real client after the search path, which a job may have changed.
const FOLDERS: [&str; 2] = ["/usr/local/bin", "/usr/bin"];

/// Exit statuses of a shell that cannot start a program: it does not exist, or cannot be executed.
const ABSENT: u8 = 127;
const UNUSABLE: u8 = 126;

/// Returns true if this program was started as `docker`.
pub(crate) fn is_meant(program: &OsString) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == NAME)
}

/// Becomes the real client, with these arguments. Returns only if that fails.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(client) = find(&path) else {
        crate::console::say(&format!(
            "no {REAL} in the search path, {}: this `docker` only starts Docker's client under that name \
             (`dayfly-guest base` installs it)",
            FOLDERS.join(" or ")
        ));
        return ExitCode::from(ABSENT);
    };
    let builder = std::env::var_os(BUILDER).filter(|builder| !builder.is_empty());
    become_program(Command::new(&client).args(arguments::with_host_network(args, builder.is_some())))
}

/// Becomes another program. Returns only if that fails, after it has reported the error.
pub(crate) fn become_program(command: &mut Command) -> ExitCode {
    let error = command.exec();
    crate::console::say(&format!("cannot start {}: {error}", Path::new(command.get_program()).display()));
    ExitCode::from(UNUSABLE)
}

fn find(path: &OsString) -> Option<PathBuf> {
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders.chain(FOLDERS.map(PathBuf::from)).map(|folder| folder.join(REAL)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_meant_by_its_name_alone() {
        for (program, meant) in [
            ("docker", true),
            ("/usr/bin/docker", true),
            ("docker.orig", false),
            ("/_dayfly/dayfly-guest", false),
            ("/init", false),
        ] {
            assert_eq!(is_meant(&program.into()), meant, "{program}");
        }
    }

    #[test]
    fn the_real_client_is_found_in_the_search_path_first() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let client = folder.path().join(REAL);
        let path =
            std::env::join_paths([Path::new("/nowhere"), Path::new("."), folder.path()]).expect("paths");
        assert_ne!(find(&path).as_ref(), Some(&client));
        std::fs::write(&client, "").expect("written");
        assert_eq!(find(&path), Some(client));
    }
}

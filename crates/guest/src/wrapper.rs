//! `docker`, in machines whose kernel cannot make networks: Docker's client, told to use the machine's own.
//!
//! libkrun's kernel has neither bridges nor a firewall, so a container gets a network only where it shares the
//! machine's. Images have a link `docker` to this program, and the real client beside it as [`REAL`]. What
//! [`arguments`] adds is all there is to it: then this process becomes the real client, which keeps its terminal, its
//! signals and its exit status.

mod arguments;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Name of the real client.
pub(crate) const REAL: &str = "docker.orig";

/// Name by which this program is the wrapper.
pub(crate) const NAME: &str = "docker";

/// Where the real client is besides the search path, which a job may have changed.
const FOLDERS: [&str; 2] = ["/usr/local/bin", "/usr/bin"];

/// Exit statuses of a shell that cannot start a program: not there, or not to be started.
const ABSENT: u8 = 127;
const UNUSABLE: u8 = 126;

/// Whether it is started by its name.
pub(crate) fn is_meant(program: &OsString) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == NAME)
}

/// Becomes the real client, with these arguments; returns only where that cannot be.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(client) = find(&path) else {
        crate::console::say(&format!(
            "no {REAL} in the search path, {}: this `docker` only hands on to Docker's client under that name \
             (`dayfly-guest base` installs it)",
            FOLDERS.join(" or ")
        ));
        return ExitCode::from(ABSENT);
    };
    become_program(Command::new(&client).args(arguments::with_host_network(args)))
}

/// Becomes another program; returns only where that did not work, which it has told then.
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

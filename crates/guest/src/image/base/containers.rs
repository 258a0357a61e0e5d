//! Writes podman's configuration, and puts Docker's client behind the wrapper.

use super::super::distribution::Family;
use super::super::log::Log;
use super::super::manager::Manager;
use super::super::program::Program;
use super::super::{ImageError, at};
use crate::wrapper::REAL;
use std::fs;
use std::path::{Path, PathBuf};

/// Path at which packages install Docker's client. Once the client is wrapped, the link to the wrapper is here.
const CLIENT: &str = "/usr/bin/docker";

const CONFIGURATION: [(&str, &str); 2] = [
    ("/etc/containers/containers.conf", include_str!("../../../../../images/containers/containers.conf")),
    ("/etc/containers/storage.conf", include_str!("../../../../../images/containers/storage.conf")),
];

/// Writes podman's configuration, over the files that its package may have installed.
pub(super) fn configure() -> Result<(), ImageError> {
    for (path, text) in CONFIGURATION {
        let path = Path::new(path);
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(at("cannot make the folder", folder))?;
        fs::write(path, text).map_err(at("cannot write", path))?;
    }
    Ok(())
}

/// Returns the real client's path.
fn real() -> PathBuf {
    Path::new(CLIENT).with_file_name(REAL)
}

/// Diverts the client if the distribution has dpkg: every package that has the client, now or later, installs it at the
/// real client's path.
pub(super) fn divert_client(manager: &Manager<'_>) -> Result<(), ImageError> {
    if manager.family != Family::Debian {
        return Ok(());
    }
    let program = Program::new(["dpkg-divert", "--local", "--rename", "--divert"]);
    Ok(program
        .with([real().display().to_string(), "--add".to_owned(), CLIENT.to_owned()])
        .run(manager.log)?)
}

/// Extracts Docker's client from the package that also has the engine, if the client has no package of its own (Debian
/// 12, Ubuntu 24.04). The engine must not be installed, because it would be started instead of podman.
pub(super) fn take_client(manager: &Manager<'_>) -> Result<(), ImageError> {
    let real = real();
    if Path::new(CLIENT).exists() || real.exists() || manager.family != Family::Debian {
        return Ok(());
    }
    manager.log.say("taking Docker's client out of docker.io, without its engine");
    let folder = Folder::make(Path::new("/var/tmp/dayfly-docker.io"))?;
    // As root: apt's own user may not write to the folder.
    let download =
        Program::new(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
    download.with(["download", "docker.io"]).in_folder(&folder.0).run(manager.log)?;
    let packages: Vec<_> = fs::read_dir(&folder.0).map_err(at("cannot read", &folder.0))?.flatten().collect();
    for package in packages {
        let package = package.path().display().to_string();
        let unpack = Program::new(["dpkg-deb", "--extract"]).with([package, "unpacked".to_owned()]);
        unpack.in_folder(&folder.0).run(manager.log)?;
    }
    let client = folder.0.join("unpacked").join(CLIENT.trim_start_matches('/'));
    fs::copy(&client, &real).map_err(at("the package docker.io has no client at", &client))?;
    Ok(())
}

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make(path: &Path) -> Result<Self, ImageError> {
        // A killed build may have left it behind. If it cannot be removed, the next call fails.
        let _ = fs::remove_dir_all(path);
        fs::create_dir(path).map_err(at("cannot make the folder", path))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If this fails, only disk space is lost.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Moves `docker` to the real client's path, and makes `docker` a link to the wrapper.
pub(super) fn wrap_client(wrapper: &Path, log: &Log) -> Result<(), ImageError> {
    wrap(Path::new(CLIENT), wrapper)?;
    if !real().exists() {
        log.say(&format!(
            "there is no client of Docker's here, so `docker` will not work until {} is one",
            real().display()
        ));
    }
    Ok(())
}

fn wrap(client: &Path, wrapper: &Path) -> Result<(), ImageError> {
    match fs::symlink_metadata(client) {
        // A link is from an earlier run, and may have another target.
        Ok(metadata) if metadata.is_symlink() => {
            fs::remove_file(client).map_err(at("cannot remove", client))?
        }
        Ok(_) => fs::rename(client, client.with_file_name(REAL)).map_err(at("cannot rename", client))?,
        Err(_) => {}
    }
    std::os::unix::fs::symlink(wrapper, client).map_err(at("cannot make the link", client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_moves_aside_once_and_the_link_is_made_anew() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let client = folder.path().join("docker");
        fs::write(&client, "the client").expect("written");
        for wrapper in ["/_dayfly/dayfly-guest", "/local/dayfly-guest"] {
            wrap(&client, Path::new(wrapper)).expect("wrapped");
            assert_eq!(fs::read_link(&client).expect("a link"), Path::new(wrapper));
            let real = fs::read_to_string(folder.path().join("docker.orig")).expect("there");
            assert_eq!(real, "the client");
        }
    }

    #[test]
    fn podmans_configuration_is_for_machines_without_networks() {
        let text = |end: &str| CONFIGURATION.iter().find(|(path, _)| path.ends_with(end)).expect("there").1;
        for line in [
            "netns = \"host\"",
            "default_sysctls = [\"net.ipv4.ping_group_range=0 65535\"]",
            "events_logfile_path = \"/var/log/podmand.log\"",
        ] {
            assert!(text("/containers.conf").lines().any(|found| found == line), "{line}");
        }
        for line in ["driver = \"overlay\"", "mount_program = \"/usr/bin/fuse-overlayfs\""] {
            assert!(text("/storage.conf").lines().any(|found| found == line), "{line}");
        }
    }
}

//! No machine at all: agent, entrypoint and runner app as processes of this host, for trying and testing what is around
//! machines by the thousand. A job does what it likes with the host, as the user that dayfly runs as: for the lab only.
//!
//! Everything that a machine would hold lies in the run folder ([`Folders`]) and goes with it.

use std::path::{Path, PathBuf};

use crate::machine::StartError;
use crate::mount::Mount;

/// The folders of a machine that is none, in its run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folders {
    /// What the entrypoint sees as its environment directory.
    pub(crate) environment: PathBuf,
    /// Where jobs work.
    pub(crate) work: PathBuf,
    /// Where the entrypoint's logs are.
    pub(crate) log: PathBuf,
    /// Where the runner app runs. The entrypoint makes it.
    pub(crate) app: PathBuf,
}

impl Folders {
    /// The folders below `guest`.
    pub(crate) fn below(guest: &Path) -> Self {
        let folder = |name| guest.join(name);
        Self {
            environment: folder("environment"),
            work: folder("work"),
            log: folder("log"),
            app: folder("app"),
        }
    }
}

/// The agent's arguments: its port is its standard input.
pub(crate) fn agent_args(folders: &Folders) -> Vec<String> {
    let environment = folders.environment.to_string_lossy().into_owned();
    ["agent", "--port-fd", "0", "--environment", &environment].map(str::to_owned).to_vec()
}

/// What the entrypoint is told before its own arguments: where it is, and to stay the user that it is.
pub(crate) fn entrypoint_args(folders: &Folders, app: &Path) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (environment, app, app_dir) = (text(&folders.environment), text(app), text(&folders.app));
    ["--environment", &environment, "--app", &app, "--app-dir", &app_dir, "-u", ""]
        .map(str::to_owned)
        .to_vec()
}

/// The entrypoint's environment. It starts no container engine: the host has its own, or none on purpose.
pub(crate) fn entrypoint_env(folders: &Folders) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (work, log) = (text(&folders.work), text(&folders.log));
    [("RUNNER_DOCKER", "0"), ("RUNNER_WORKDIR", &work), ("RUNNER_LOGDIR", &log)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// Where the entrypoint's program is on this host. A process sees all of the host and needs no mount, so a mount is only a
/// second name for what it shows: the one that the program is named through means its host side, and any other is
/// refused, since its place would stay empty.
pub(crate) fn program(program: Option<&Path>, mounts: &[Mount]) -> Result<Option<PathBuf>, StartError> {
    let mut found = program.map(Path::to_owned);
    for mount in mounts {
        match program.and_then(|program| program.strip_prefix(&mount.guest).ok()) {
            Some(rest) => found = Some(mount.host.join(rest)),
            None => {
                let reason = "the driver `process` has no mounts: its jobs see this host's own folders";
                return Err(StartError::Mount {
                    host: mount.host.clone(),
                    guest: mount.guest.clone(),
                    reason: reason.to_owned(),
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_told_lies_in_the_run_folder() {
        let folders = Folders::below(Path::new("/r/guest"));
        insta::assert_snapshot!(agent_args(&folders).join(" "), @"agent --port-fd 0 --environment /r/guest/environment");
        insta::assert_snapshot!(
            entrypoint_args(&folders, Path::new("/opt/runner/app")).join(" ") + "''",
            @"--environment /r/guest/environment --app /opt/runner/app --app-dir /r/guest/app -u ''"
        );
        let env: Vec<_> =
            entrypoint_env(&folders).iter().map(|(name, value)| format!("{name}={value}")).collect();
        insta::assert_snapshot!(env.join(" "), @"RUNNER_DOCKER=0 RUNNER_WORKDIR=/r/guest/work RUNNER_LOGDIR=/r/guest/log");
    }

    #[test]
    fn a_program_in_a_mount_is_the_hosts_own_file_and_other_mounts_are_refused() {
        let local: Mount = "/usr/lib/dayfly:/local:ro".parse().expect("mount");
        let at = |path: &str| program(Some(Path::new(path)), std::slice::from_ref(&local));
        assert_eq!(at("/local/dayfly-guest").expect("found"), Some("/usr/lib/dayfly/dayfly-guest".into()));
        assert!(at("/opt/x").is_err() && program(None, std::slice::from_ref(&local)).is_err());
        assert_eq!(program(Some(Path::new("/opt/x")), &[]).expect("as it is"), Some("/opt/x".into()));
        assert_eq!(program(None, &[]).expect("none"), None);
    }
}

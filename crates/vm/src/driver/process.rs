//! Runs agent, entrypoint and runner app as processes of this host, without a machine. It serves to try and test the code
//! around machines with thousands of runners. It is for the lab only, because a job can do everything to the host that the
//! user of dayfly can do.
//!
//! All files that a machine would contain are in the run folder ([`Folders`]) and are removed with it.

use std::path::{Path, PathBuf};

use crate::machine::StartError;
use crate::mount::Mount;

/// The folders that replace a machine's file system, in the run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folders {
    /// The entrypoint's environment directory.
    pub(crate) environment: PathBuf,
    /// The work folder of jobs.
    pub(crate) work: PathBuf,
    /// The folder of the entrypoint's logs.
    pub(crate) log: PathBuf,
    /// The folder that the runner app runs in. The entrypoint creates it.
    pub(crate) app: PathBuf,
}

impl Folders {
    /// Returns the folders below `guest`.
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

/// Returns the agent's arguments. The agent's port is its standard input.
pub(crate) fn agent_args(folders: &Folders) -> Vec<String> {
    let environment = folders.environment.to_string_lossy().into_owned();
    ["agent", "--port-fd", "0", "--environment", &environment].map(str::to_owned).to_vec()
}

/// Returns the arguments before the entrypoint's own. They name its folders, and tell it not to switch users.
pub(crate) fn entrypoint_args(folders: &Folders, app: &Path) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (environment, app, app_dir) = (text(&folders.environment), text(app), text(&folders.app));
    ["--environment", &environment, "--app", &app, "--app-dir", &app_dir, "-u", ""]
        .map(str::to_owned)
        .to_vec()
}

/// Returns the entrypoint's environment. The entrypoint starts no container engine, because the host has its own or has
/// none on purpose.
pub(crate) fn entrypoint_env(folders: &Folders) -> Vec<(String, String)> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (work, log) = (text(&folders.work), text(&folders.log));
    [("RUNNER_DOCKER", "0"), ("RUNNER_WORKDIR", &work), ("RUNNER_LOGDIR", &log)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// Returns the path of the entrypoint's program on this host. A process sees all of the host and needs no mounts. So if
/// `program` is below a mount's guest path, the result is the same file below its host path. Any other mount is refused,
/// because its guest path would stay empty.
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

//! Checks the folders that a job's environment names: each exists and is writable for the job, or its variable is unset.
//!
//! actions/runner creates the folder of `RUNNER_TOOL_CACHE` before a job's first step, as the user of jobs. If the worker
//! has no right to do this, it exits: every job fails without a step or a log (seen with 2.336.0, in an image without
//! `/opt/hostedtoolcache`).

use super::user::Account;
use dayfly_guest::environment::GUEST;
use dayfly_guest::runner_app::Launch;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Variables that name a folder to which programs of a job write. If one is unset, the programs use a default of their
/// own.
const VARIABLES: [&str; 7] = [
    "RUNNER_TOOL_CACHE",
    "AGENT_TOOLSDIRECTORY",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CACHE_HOME",
    "DOTNET_CLI_HOME",
    "DOTNET_BUNDLE_EXTRACT_BASE_DIR",
];

/// Creates each folder that can be created, unsets each variable whose folder cannot be used, and returns the unset
/// variables with the reasons. The home is created too; if that fails, `HOME` stays set, because programs need it. Outside
/// of a dayfly machine nothing is created, because the entrypoint then runs on a system that is not dayfly's.
pub(crate) fn settle(launch: &mut Launch, account: Option<&Account>) -> Vec<String> {
    settle_in(launch, account, Path::new(GUEST).exists())
}

fn settle_in(launch: &mut Launch, account: Option<&Account>, is_machine: bool) -> Vec<String> {
    if let Some(home) = launch.value("HOME").map(str::to_owned) {
        let _ = usable(Path::new(&home), account, is_machine);
    }
    let mut left_out = Vec::new();
    for variable in VARIABLES {
        let Some(folder) = launch.value(variable).map(str::to_owned) else { continue };
        if let Err(why) = usable(Path::new(&folder), account, is_machine) {
            launch.unset(variable);
            left_out.push(format!("{variable}={folder} is not set: {why}"));
        }
    }
    left_out
}

/// Checks that programs of this user can write to a folder. Creates a missing folder if `may_make` is set and there is a
/// user to become.
fn usable(folder: &Path, account: Option<&Account>, may_make: bool) -> Result<(), String> {
    let may_not = || "jobs may not write to it".to_owned();
    let Some(account) = account else {
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        return rustix::fs::access(folder, wanted).map_err(|errno| errno.to_string());
    };
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() && account.may_write(folder) => return Ok(()),
        Ok(_) => return Err(may_not()),
        Err(error) if may_make && error.kind() == std::io::ErrorKind::NotFound && folder.is_absolute() => {}
        Err(error) => return Err(error.to_string()),
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.and_then(|()| {
        let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
        std::os::unix::fs::lchown(folder, Some(uid), Some(gid))
    })
    .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayfly_guest::runner_app::User;

    fn user(home: &Path) -> User {
        User { name: "runner".into(), home: home.to_owned(), shell: "/bin/sh".into() }
    }

    /// Returns the current user as a user to become.
    fn own(home: &Path) -> Account {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Account { user: user(home), uid, gid, groups: vec![gid] }
    }

    fn launch(home: &Path) -> Launch {
        let mut launch = Launch::command(Path::new("/bin/true"), &[], Path::new("/"), &user(home));
        launch.unset("AGENT_TOOLSDIRECTORY");
        launch
    }

    #[test]
    fn a_folder_that_is_not_there_is_made_for_the_user_of_jobs_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (home, cache) = (folder.path().join("home"), folder.path().join("opt/cache"));
        let account = own(&home);
        let mut launch = launch(&home);
        launch.set("RUNNER_TOOL_CACHE", &cache.to_string_lossy());
        assert_eq!(settle_in(&mut launch, Some(&account), true), Vec::<String>::new());
        assert!(cache.is_dir() && home.is_dir());
        for (account, is_machine) in [(None, true), (Some(&account), false)] {
            let _ = std::fs::remove_dir(&cache);
            launch.set("RUNNER_TOOL_CACHE", &cache.to_string_lossy());
            let left_out = settle_in(&mut launch, account, is_machine);
            assert!(left_out[0].starts_with("RUNNER_TOOL_CACHE=") && !cache.exists(), "{left_out:?}");
        }
    }

    #[test]
    fn a_variable_whose_folder_a_job_cannot_write_to_is_taken_out_and_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "x").expect("a file");
        let account = own(folder.path());
        let mut launch = launch(folder.path());
        for (variable, value) in [
            ("RUNNER_TOOL_CACHE", file.join("below")),
            ("TMPDIR", file.clone()),
            ("XDG_RUNTIME_DIR", "relative".into()),
            ("DOTNET_CLI_HOME", folder.path().to_owned()),
        ] {
            launch.set(variable, &value.to_string_lossy());
        }
        let left_out = settle_in(&mut launch, Some(&account), true);
        assert_eq!(left_out.len(), 3, "{left_out:?}");
        assert!(left_out.iter().any(|line| line.ends_with("jobs may not write to it")), "{left_out:?}");
        assert_eq!(launch.value("TMPDIR"), None);
        assert_eq!(launch.value("DOTNET_CLI_HOME"), folder.path().to_str());
    }
}

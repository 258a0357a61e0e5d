//! Checks the folders that a job's environment names: each exists and is writable for the job, or its variable is unset.
//!
//! actions/runner creates the folder of `RUNNER_TOOL_CACHE` before a job's first step, as the user of jobs. If the worker
//! has no right to do this, it exits: every job fails without a step or a log (seen with 2.336.0, in an image without
//! `/opt/hostedtoolcache`).

use super::user::Account;
use dayfly_guest::environment::GUEST;
use dayfly_guest::runner_app::Launch;
use std::fmt;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The variable of the user's home. It stays set in any case, because programs need it.
const HOME: &str = "HOME";

/// The folder that XDG_RUNTIME_DIR names is for its user alone (XDG Base Directory Specification).
const PRIVATE: &str = "XDG_RUNTIME_DIR";

/// Variables that name a folder to which programs of a job write. If one is unset, the programs use a default of their
/// own.
const VARIABLES: [&str; 9] = [
    HOME,
    "RUNNER_TOOL_CACHE",
    "RUNNER_TOOLSDIRECTORY",
    "AGENT_TOOLSDIRECTORY",
    "TMPDIR",
    PRIVATE,
    "XDG_CACHE_HOME",
    "DOTNET_CLI_HOME",
    "DOTNET_BUNDLE_EXTRACT_BASE_DIR",
];

/// A folder that jobs cannot use. `Display` says so in a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// The variable that names it.
    pub(crate) variable: &'static str,
    folder: String,
    why: String,
}

impl Unusable {
    /// Returns true if the variable is still set.
    pub(crate) fn is_set(&self) -> bool {
        self.variable == HOME
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, folder, why } = self;
        let is_set = if self.is_set() { "stays set" } else { "is not set" };
        write!(formatter, "{variable}={folder} {is_set}: {why}")
    }
}

/// Creates each folder that can be created, unsets each variable whose folder cannot be used, and returns these. Outside of
/// a dayfly machine nothing is created, because the entrypoint then runs on a system that is not dayfly's.
pub(crate) fn settle(launch: &mut Launch, account: Option<&Account>) -> Vec<Unusable> {
    settle_in(launch, account, is_machine())
}

/// Returns true if this system is a dayfly machine.
pub(super) fn is_machine() -> bool {
    Path::new(GUEST).exists()
}

fn settle_in(launch: &mut Launch, account: Option<&Account>, is_machine: bool) -> Vec<Unusable> {
    let mut all = Vec::new();
    for variable in VARIABLES {
        let Some(folder) = launch.value(variable).map(str::to_owned) else { continue };
        let mode = if variable == PRIVATE { 0o700 } else { 0o755 };
        if let Err(why) = usable(Path::new(&folder), account, is_machine.then_some(mode)) {
            let unusable = Unusable { variable, folder, why };
            if !unusable.is_set() {
                launch.unset(variable);
            }
            all.push(unusable);
        }
    }
    all
}

/// Returns why jobs cannot use a folder that exists on purpose; `None` if they can.
pub(super) fn problem(folder: &Path, account: Option<&Account>) -> Option<String> {
    usable(folder, account, None).err()
}

/// Checks that programs of this user can write to a folder. Creates a missing folder with the mode `made`, if there is one
/// and a user to become.
fn usable(folder: &Path, account: Option<&Account>, made: Option<u32>) -> Result<(), String> {
    let Some(account) = account else {
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        return rustix::fs::access(folder, wanted).map_err(|errno| errno.to_string());
    };
    match (std::fs::metadata(folder), made) {
        (Ok(_), _) => {}
        (Err(error), Some(mode)) if error.kind() == std::io::ErrorKind::NotFound && folder.is_absolute() => {
            make(folder, account, mode).map_err(|error| error.to_string())?;
        }
        (Err(error), _) => return Err(error.to_string()),
    }
    // A new folder is below others, which the user may not be allowed to enter.
    let is_usable = folder.is_dir() && folder.is_absolute() && account.may_write(folder);
    if is_usable { Ok(()) } else { Err("jobs may not write to it".to_owned()) }
}

/// Creates a folder for a user. Folders above it that are missing belong to the current user.
fn make(folder: &Path, account: &Account, mode: u32) -> std::io::Result<()> {
    if let Some(parent) = folder.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    std::fs::DirBuilder::new().mode(mode).create(folder)?;
    std::os::unix::fs::lchown(folder, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayfly_guest::runner_app::User;
    use rustix::process::{Gid, Uid};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;
    use std::process::Command;

    fn account(uid: Uid, gid: Gid) -> Account {
        let user = User { name: "runner".into(), home: "/home/runner".into(), shell: "/bin/sh".into() };
        Account { user, uid, gid, groups: vec![gid] }
    }

    /// Returns the users of jobs that can be tested: the current one, and another one if the test runs as root.
    fn accounts() -> Vec<Account> {
        let own = account(rustix::process::geteuid(), rustix::process::getegid());
        let other = account(Uid::from_raw(54_321), Gid::from_raw(54_321));
        if own.uid.is_root() { vec![own, other] } else { vec![own] }
    }

    /// Returns true if a process of this user can create a file in the folder.
    fn writes(account: &Account, folder: &Path) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", "exec 2>/dev/null; echo x >\"$0/.probe\" && rm \"$0/.probe\""]).arg(folder);
        command.current_dir("/");
        if rustix::process::geteuid().is_root() {
            account.clone().apply_to(&mut command);
        }
        command.status().expect("a shell").success()
    }

    /// Creates a folder that everyone may enter and only its owner may write to.
    fn base() -> tempfile::TempDir {
        let base = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
        base
    }

    /// Returns a launch whose environment names only these folders.
    fn launch(folders: &[(&str, PathBuf)]) -> Launch {
        let user = User { name: "runner".into(), home: "/".into(), shell: "/bin/sh".into() };
        let mut launch = Launch::command(Path::new("/bin/true"), &[], Path::new("/"), &user);
        VARIABLES.iter().for_each(|variable| launch.unset(variable));
        for (variable, folder) in folders {
            launch.set(variable, &folder.to_string_lossy());
        }
        launch
    }

    #[test]
    fn each_folder_that_is_missing_is_created_and_its_user_can_write_to_it() {
        for account in accounts() {
            let base = base();
            let folders = VARIABLES.map(|variable| (variable, base.path().join("new").join(variable)));
            let mut launch = launch(&folders);
            assert_eq!(settle_in(&mut launch, Some(&account), true), []);
            for (variable, folder) in &folders {
                assert_eq!(launch.value(variable), folder.to_str());
                assert!(writes(&account, folder), "{variable} of {}", account.uid.as_raw());
            }
            let mode = std::fs::metadata(base.path().join("new").join(PRIVATE)).expect("made").permissions();
            assert_eq!(mode.mode() & 0o777, 0o700, "it is for its user alone");
        }
    }

    #[test]
    fn nothing_is_created_outside_of_a_machine_or_for_the_current_user() {
        let base = base();
        let cache = base.path().join("cache");
        for (account, is_machine) in [(None, true), (accounts().pop(), false)] {
            let mut launch = launch(&[("RUNNER_TOOL_CACHE", cache.clone())]);
            let unusable = settle_in(&mut launch, account.as_ref(), is_machine);
            assert_eq!(unusable[0].variable, "RUNNER_TOOL_CACHE");
            assert!(launch.value("RUNNER_TOOL_CACHE").is_none() && !cache.exists());
        }
    }

    #[test]
    fn what_is_judged_usable_is_what_a_process_of_the_user_can_write_to() {
        for account in accounts() {
            let base = base();
            let of = |name: &str, mode: u32, is_theirs: bool| {
                let folder = base.path().join(name);
                std::fs::create_dir(&folder).expect("a folder");
                let owner = is_theirs.then_some(account.uid.as_raw());
                std::os::unix::fs::chown(&folder, owner, None).expect("an owner");
                std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).expect("a mode");
                folder
            };
            let hidden = of("hidden", 0o700, false);
            let below = hidden.join("below");
            std::fs::create_dir(&below).expect("a folder");
            std::fs::set_permissions(&below, std::fs::Permissions::from_mode(0o777)).expect("a mode");
            let link = base.path().join("link");
            std::os::unix::fs::symlink(&below, &link).expect("a link");
            let folders = [
                of("theirs", 0o700, true),
                of("others", 0o755, false),
                of("open", 0o777, false),
                hidden,
                below,
                link,
            ];
            for folder in folders {
                let can = writes(&account, &folder);
                let judged = problem(&folder, Some(&account)).is_none();
                assert_eq!(judged, can, "{} for {}", folder.display(), account.uid.as_raw());
            }
        }
    }

    #[test]
    fn a_variable_whose_folder_a_job_cannot_write_to_is_unset_but_the_home_stays() {
        let base = base();
        let file = base.path().join("file");
        std::fs::write(&file, "x").expect("a file");
        for account in accounts() {
            let mut launch = launch(&[
                (HOME, file.clone()),
                ("RUNNER_TOOL_CACHE", file.join("below")),
                ("TMPDIR", file.clone()),
                (PRIVATE, "relative".into()),
                ("DOTNET_CLI_HOME", "".into()),
                ("XDG_CACHE_HOME", "/tmp".into()),
            ]);
            let unusable = settle_in(&mut launch, Some(&account), true);
            let lines: Vec<String> = unusable.iter().map(ToString::to_string).collect();
            assert_eq!(lines.len(), 5, "{lines:?}");
            let home = format!("HOME={} stays set: jobs may not write to it", file.display());
            let temporary = format!("TMPDIR={} is not set: jobs may not write to it", file.display());
            assert!(lines.contains(&home) && lines.contains(&temporary), "{lines:?}");
            assert_eq!((launch.value(HOME), launch.value("TMPDIR")), (file.to_str(), None));
            assert_eq!((launch.value(PRIVATE), launch.value("XDG_CACHE_HOME")), (None, Some("/tmp")));
        }
    }
}

//! Checks programs, folders and rights that all kinds of jobs use.

use super::{find, try_program};
use crate::entrypoint::folders;
use crate::entrypoint::user::{Account, UserError};
use dayfly_guest::environment::AUTHORITIES;
use dayfly_guest::finding::{Finding, FindingState, Part};
use dayfly_guest::runner_app::{Launch, SEARCH_PATH};
use std::path::Path;
use std::process::Command;

/// Programs, the state of a missing one, and the consequence.
const PROGRAMS: [(&str, FindingState, &str); 6] = [
    ("sh", FindingState::Missing, "no step can be run"),
    ("bash", FindingState::Wanted, "steps run in sh"),
    ("git", FindingState::Wanted, "actions/checkout fetches an archive, without history or submodules"),
    ("tar", FindingState::Wanted, "actions and caches cannot be unpacked"),
    ("gzip", FindingState::Wanted, "actions and caches cannot be unpacked"),
    ("curl", FindingState::Wanted, "many scripts fetch with it"),
];

/// The variable of the folder for tools that actions install.
const TOOL_CACHE: &str = "RUNNER_TOOL_CACHE";

pub(super) fn look(user: &str, account: &Result<Option<Account>, UserError>) -> Vec<Finding> {
    let finding = |name: &str, state, seen: String| Finding::new(Part::Jobs, name, state, seen);
    let mut findings: Vec<Finding> = PROGRAMS
        .into_iter()
        .map(|(name, state, without)| match find(name) {
            Some(path) => finding(name, FindingState::Ok, path.display().to_string()),
            None => finding(name, state, format!("not there: {without}")),
        })
        .collect();
    findings.push(match AUTHORITIES.into_iter().find(|path| Path::new(path).exists()) {
        Some(path) => finding("certificate authorities", FindingState::Ok, path.to_owned()),
        None => {
            finding("certificate authorities", FindingState::Wanted, "none: no https in steps".to_owned())
        }
    });
    match account {
        Ok(Some(account)) => findings.extend(look_as(account)),
        Ok(None) => findings.push(finding("user", FindingState::Missing, "this check needs root".to_owned())),
        Err(error) => findings.push(finding("user", FindingState::Missing, format!("{user}: {error}"))),
    }
    findings
}

/// Checks what depends on the user that jobs run as.
fn look_as(account: &Account) -> Vec<Finding> {
    let finding = |name: &str, state, seen: String| Finding::new(Part::Jobs, name, state, seen);
    let (name, home) = (&account.user.name, account.user.home.as_path());
    let mut findings = vec![finding("user", FindingState::Ok, format!("{name} ({})", account.uid.as_raw()))];
    // This creates the home, if it is missing.
    let folders = look_at_folders(account);
    for (what, path) in [("home", home), ("temporary folder", Path::new("/tmp"))] {
        findings.push(if account.may_write(path) {
            finding(what, FindingState::Ok, path.display().to_string())
        } else {
            finding(what, FindingState::Missing, format!("{name} cannot write to {}", path.display()))
        });
    }
    findings.extend(folders);
    findings.push(match find("sudo") {
        None => finding("sudo", FindingState::Wanted, "not there: steps that use it fail".to_owned()),
        Some(sudo) => {
            let mut command = Command::new(&sudo);
            command.args(["-n", "true"]).env_clear().env("PATH", SEARCH_PATH).current_dir("/");
            match try_program(&mut command, Some(account)) {
                Ok(_) => finding("sudo", FindingState::Ok, format!("{}, without a password", sudo.display())),
                Err(why) => finding("sudo", FindingState::Wanted, format!("fails for {name}: {why}")),
            }
        }
    });
    findings
}

/// Checks the folders that a job's environment names, as the entrypoint does before each job.
fn look_at_folders(account: &Account) -> Vec<Finding> {
    let mut launch = Launch::command(Path::new("/bin/true"), &[], Path::new("/"), &account.user);
    crate::image_env::apply(&mut launch);
    settle(&mut launch, account)
}

fn settle(launch: &mut Launch, account: &Account) -> Vec<Finding> {
    let finding = |name, state, seen| Finding::new(Part::Jobs, name, state, seen);
    // The home has a finding of its own.
    let unusable = folders::settle(launch, Some(account)).into_iter().filter(|unusable| !unusable.is_set());
    let mut findings: Vec<Finding> = unusable
        .map(|unusable| finding(unusable.variable, FindingState::Wanted, unusable.to_string()))
        .collect();
    let tool_cache = launch.value(TOOL_CACHE).map(str::to_owned);
    findings.extend(tool_cache.map(|folder| finding("tool cache", FindingState::Ok, folder)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayfly_guest::runner_app::User;

    #[test]
    fn a_tool_cache_that_jobs_cannot_write_to_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let user = User { name: "runner".into(), home: folder.path().into(), shell: "/bin/sh".into() };
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let account = Account { user: user.clone(), uid, gid, groups: vec![gid] };
        let told = |cache: &Path| {
            let mut launch = Launch::command(Path::new("/bin/true"), &[], Path::new("/"), &user);
            launch.unset("AGENT_TOOLSDIRECTORY");
            launch.set(TOOL_CACHE, &cache.to_string_lossy());
            settle(&mut launch, &account)
        };
        let usable =
            Finding::new(Part::Jobs, "tool cache", FindingState::Ok, folder.path().to_string_lossy());
        assert_eq!(told(folder.path()), [usable]);
        let why = format!("{TOOL_CACHE}={} is not set: jobs may not write to it", file.display());
        assert_eq!(told(&file), [Finding::new(Part::Jobs, TOOL_CACHE, FindingState::Wanted, why)]);
    }
}

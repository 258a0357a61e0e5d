//! Checks programs, folders and rights that all kinds of jobs use.

use super::{find, try_program};
use crate::entrypoint::user::{Account, UserError};
use dayfly_guest::environment::AUTHORITIES;
use dayfly_guest::finding::{Finding, FindingState, Part};
use dayfly_guest::runner_app::SEARCH_PATH;
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
    for (what, path) in [("home", home), ("temporary folder", Path::new("/tmp"))] {
        findings.push(if account.may_write(path) {
            finding(what, FindingState::Ok, path.display().to_string())
        } else {
            finding(what, FindingState::Missing, format!("{name} cannot write to {}", path.display()))
        });
    }
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

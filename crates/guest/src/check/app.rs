//! Checks if the runner app is installed, and if it runs.

use super::try_program;
use crate::entrypoint::{install, user::Account};
use dayfly_guest::finding::{Finding, FindingState, Part};
use dayfly_guest::runner_app::{Launch, User};
use std::path::Path;
use std::process::Command;

pub(super) fn look(account: Option<&Account>) -> Vec<Finding> {
    let finding = |name: &str, state, seen: String| Finding::new(Part::RunnerApp, name, state, seen);
    let program = match install::find(None) {
        Ok(program) => program,
        Err(error) => return vec![finding("program", FindingState::Missing, error.to_string())],
    };
    let root = User { name: "root".to_owned(), home: "/root".into(), shell: "/bin/sh".into() };
    let user = account.map_or(&root, |account| &account.user);
    let mut launch = Launch::command(&program, &["--version".to_owned()], Path::new("/"), user);
    crate::image_env::apply(&mut launch);
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().current_dir(&launch.folder);
    command.envs(launch.env.iter().map(|(name, value)| (name, value)));
    let runs = match try_program(&mut command, account) {
        Ok(version) => finding("version", FindingState::Ok, version),
        // If a library is missing, the loader's message names it.
        Err(why) => {
            finding("version", FindingState::Missing, format!("{} does not run: {why}", program.display()))
        }
    };
    vec![finding("program", FindingState::Ok, program.display().to_string()), runs]
}

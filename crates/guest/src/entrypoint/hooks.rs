//! The hooks of jobs: scripts that the official app runs before the first step of a job and after its last one.
//!
//! The app gets one script for each of the two moments (`ACTIONS_RUNNER_HOOK_JOB_STARTED` and `..._COMPLETED`; the sources of
//! 2.336.0 run them as the steps "Set up runner", before all others, and "Complete runner"). Each script is written here and
//! calls, in this order:
//!
//! ```text
//!   job started      the check for forks    the pool's script    the image's own hook
//!   job completed    the warnings           the image's own hook    the pool's script
//! ```
//!
//! All of them are in a folder that the user of jobs cannot write to, except for the image's own. github-act-runner 0.13.0 has
//! no hooks.

use super::app::{App, AppError, at};
use super::settings::Settings;
use super::{StartError, folders};
use crate::folder::Folder;
use crate::hook;
use dayfly_guest::environment::GUEST;
use dayfly_guest::hooks::Hooks;
use dayfly_guest::runner_app::{Launch, RunnerApp};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Folder of the scripts in a machine.
const FOLDER: &str = "/run/dayfly/hooks";
/// File of the official app with variables of its own, which replace those that it was started with.
const APP_ENV: &str = ".env";
/// Largest size of that file, bytes.
const APP_ENV_MAX: usize = 64 * 1024;

/// A moment of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Started,
    Completed,
}

impl Moment {
    fn variable(self) -> &'static str {
        match self {
            Self::Started => "ACTIONS_RUNNER_HOOK_JOB_STARTED",
            Self::Completed => "ACTIONS_RUNNER_HOOK_JOB_COMPLETED",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Started => "job-started",
            Self::Completed => "job-completed",
        }
    }
}

/// Writes the scripts, and names them in the environment of the app. Without the word of a loop, nothing changes.
pub(super) fn install(app: &mut App, settings: &Settings) -> Result<(), StartError> {
    let Some(hooks) = &settings.hooks else { return Ok(()) };
    if app.kind != Some(RunnerApp::ActionsRunner) {
        let is_set = hooks.job_started.is_some() || hooks.job_completed.is_some();
        // A hook that would not run may be one that the pool relies on.
        return if is_set && app.kind.is_some() { Err(AppError::NoHooks.into()) } else { Ok(()) };
    }
    let Some(folder) = folder_of(settings) else { return Ok(()) };
    let is_machine = folders::is_machine();
    make(&folder)?;
    for (moment, script) in [(Moment::Started, &hooks.job_started), (Moment::Completed, &hooks.job_completed)]
    {
        let own = own_hook(&app.launch, moment)?;
        let script = script.as_deref().map(|script| write_script(&folder, moment, script)).transpose()?;
        let built_in = match moment {
            Moment::Started => (!hooks.allow_forks).then_some(hook::FORK),
            Moment::Completed => is_machine.then_some(hook::WARNINGS),
        };
        let built_in = built_in.map(|word| built_in_call(is_machine, word)).transpose()?;
        if let Some(text) = text(moment, built_in, script.as_deref(), own.as_deref()) {
            let path = folder.join(format!("{}.sh", moment.name()));
            write(&path, text.as_bytes())?;
            app.launch.set(moment.variable(), &path.to_string_lossy());
        }
    }
    Ok(())
}

/// Returns the folder of the scripts; none if the entrypoint runs by hand, on a system that is not dayfly's.
fn folder_of(settings: &Settings) -> Option<PathBuf> {
    match folders::is_machine() {
        true => Some(PathBuf::from(FOLDER)),
        false => Some(settings.app_dir.as_deref()?.parent()?.join("hooks")),
    }
}

fn make(folder: &Path) -> Result<(), AppError> {
    fs::create_dir_all(folder).map_err(at("cannot make the folder of hooks", folder))?;
    fs::set_permissions(folder, Permissions::from_mode(0o755)).map_err(at("cannot open", folder))
}

fn write(path: &Path, content: &[u8]) -> Result<(), AppError> {
    fs::write(path, content).map_err(at("cannot write the hook", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(at("cannot open", path))
}

fn write_script(folder: &Path, moment: Moment, script: &str) -> Result<PathBuf, AppError> {
    let path = folder.join(format!("pool-{}", moment.name()));
    let script = Hooks::decode(script).map_err(|error| at("cannot read", &path)(io::Error::other(error)))?;
    write(&path, &script)?;
    Ok(path)
}

/// Returns the line that runs a hook of this program.
fn built_in_call(is_machine: bool, word: &str) -> Result<String, AppError> {
    let program = match is_machine {
        true => PathBuf::from(GUEST),
        false => std::env::current_exe().map_err(at("cannot find this program for", Path::new(word)))?,
    };
    Ok(format!("{} {} {word}", quoted(&program.to_string_lossy()), hook::COMMAND))
}

/// Returns the hook that the image has of its own, and takes it away from the app's own file, because that would replace the
/// variable.
fn own_hook(launch: &Launch, moment: Moment) -> Result<Option<String>, AppError> {
    let variable = moment.variable();
    let path = launch.folder.join(APP_ENV);
    let failed = |error| at("cannot change", &path)(io::Error::other(error));
    let of_file = match Folder::open(&launch.folder).and_then(|folder| folder.read(APP_ENV, APP_ENV_MAX)) {
        Err(error) if error.is_absent() => None,
        Err(error) => return Err(failed(error)),
        Ok(text) => {
            let (found, rest) = without(&text, variable);
            if found.is_some() {
                let folder = Folder::open(&launch.folder).map_err(failed)?;
                folder.replace(APP_ENV, &rest).map_err(failed)?;
            }
            found
        }
    };
    let named = of_file.or_else(|| launch.value(variable).map(str::to_owned));
    Ok(named.filter(|hook| !hook.is_empty()))
}

/// Returns the value of a variable in lines `NAME=VALUE`, and the lines without it.
fn without(text: &str, variable: &str) -> (Option<String>, String) {
    let is_meant = |line: &&str| line.split_once('=').is_some_and(|(name, _)| name.trim() == variable);
    let found = text.lines().rfind(is_meant);
    let rest = text.lines().filter(|line| !is_meant(line)).map(|line| format!("{line}\n")).collect();
    (found.and_then(|line| line.split_once('=')).map(|(_, value)| value.trim().to_owned()), rest)
}

/// Returns the script for the app; none if it would call nothing. It ends with the first program that fails.
fn text(moment: Moment, built_in: Option<String>, pool: Option<&Path>, own: Option<&str>) -> Option<String> {
    let pool = pool.map(|path| quoted(&path.to_string_lossy()));
    let own = own.map(call_of_own);
    let calls = match moment {
        Moment::Started => [built_in, pool, own],
        Moment::Completed => [built_in, own, pool],
    };
    let calls: String = calls.into_iter().flatten().map(|call| format!("{call}\n")).collect();
    let title = format!("#!/bin/sh\n# Written by dayfly for this runner ({}).\nset -e\n", moment.name());
    (!calls.is_empty()).then(|| title + &calls)
}

/// Returns the command line with which the app would run a hook.
fn call_of_own(path: &str) -> String {
    match path.strip_suffix(".ps1") {
        Some(_) => format!("pwsh -command {}", quoted(&format!(". '{path}'"))),
        None => format!("$(command -v bash || command -v sh) -e {}", quoted(path)),
    }
}

/// Returns a word of a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_calls_what_is_there_in_its_order() {
        let pool = Path::new("/run/dayfly/hooks/pool-job-started");
        let built_in = || Some("'/_dayfly/dayfly-guest' hook fork".to_owned());
        insta::assert_snapshot!(text(Moment::Started, built_in(), Some(pool), Some("/opt/it's.sh")).expect("a script"), @r"
        #!/bin/sh
        # Written by dayfly for this runner (job-started).
        set -e
        '/_dayfly/dayfly-guest' hook fork
        '/run/dayfly/hooks/pool-job-started'
        $(command -v bash || command -v sh) -e '/opt/it'\''s.sh'
        ");
        let completed = text(Moment::Completed, None, Some(pool), Some("/opt/a.ps1")).expect("a script");
        let lines: Vec<&str> = completed.lines().skip(3).collect();
        assert_eq!(lines, [r"pwsh -command '. '\''/opt/a.ps1'\'''", "'/run/dayfly/hooks/pool-job-started'"]);
        assert_eq!(text(Moment::Started, None, None, None), None);
    }

    #[test]
    fn a_variable_of_the_apps_own_file_is_taken_out_of_it() {
        let text = "LANG=C\nACTIONS_RUNNER_HOOK_JOB_STARTED=/a.sh\nX=ACTIONS_RUNNER_HOOK_JOB_STARTED=/b\n";
        let (found, rest) = without(text, Moment::Started.variable());
        assert_eq!(found.as_deref(), Some("/a.sh"));
        assert_eq!(rest, "LANG=C\nX=ACTIONS_RUNNER_HOOK_JOB_STARTED=/b\n");
        assert_eq!(without(text, Moment::Completed.variable()), (None, text.to_owned()));
    }
}

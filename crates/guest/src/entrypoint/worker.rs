//! The worker of a listener that stood by: it gets the environment of its runner.
//!
//! The official app's listener starts `bin/Runner.Worker` for each job, with its own environment, which a job's steps
//! inherit. A listener that was started before its runner was known lacks the variables of this runner, and nothing can
//! change the environment of another process. Therefore `Runner.Worker` becomes a link to this program, which reads the
//! difference from a file, and then becomes the worker.

use super::app::{self, AppError, at};
use super::process;
use super::user::Account;
use crate::folder::Folder;
use crate::wrapper::become_program;
use dayfly_guest::runner_app::Launch;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Name of the worker, and of this program in its place.
const NAME: &str = "Runner.Worker";
/// Name of the worker while this program has its place. .NET finds the worker's other files by a name that is written in
/// the program.
const REAL: &str = "Runner.Worker.app";
/// Name of the file with the difference.
const ENVIRONMENT: &str = "Runner.Worker.environment";
/// Largest size of that file in bytes. The variables of a runner have some KiB.
const ENVIRONMENT_LENGTH_MAX: usize = 1024 * 1024;
/// Part of the remaining time that the worker may take to find that it has no arguments: a third. The listener needs the
/// rest.
const WARM_UP_PART: u32 = 3;
/// Exit status of a worker that cannot be started, as of a shell.
const UNUSABLE: u8 = 126;

/// The difference between two environments.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Difference {
    set: BTreeMap<String, String>,
    unset: Vec<String>,
}

impl Difference {
    fn between(old: &[(String, String)], new: &[(String, String)]) -> Self {
        let (of_old, of_new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (old.iter().cloned().collect(), new.iter().cloned().collect());
        let unset = of_old.keys().filter(|name| !of_new.contains_key(*name)).cloned().collect();
        let set = of_new.into_iter().filter(|(name, value)| of_old.get(name) != Some(value)).collect();
        Self { set, unset }
    }
}

/// A worker whose place this program has.
pub(super) struct Worker {
    bin: PathBuf,
    /// The environment that its listener was started with.
    started_with: Vec<(String, String)>,
}

impl Worker {
    /// Puts this program in the place of the worker.
    pub(super) fn wrap(launch: &Launch) -> Result<Self, AppError> {
        let bin = launch.folder.join("bin");
        let (worker, real) = (bin.join(NAME), bin.join(REAL));
        let this = std::env::current_exe().map_err(at("cannot find this program beside", &worker))?;
        let kind = worker.symlink_metadata().map_err(at("cannot read", &worker))?.file_type();
        if !kind.is_file() {
            return Err(at("cannot wrap", &worker)(io::Error::other("it is not a regular file")));
        }
        std::fs::rename(&worker, &real).map_err(at("cannot rename", &worker))?;
        let wrapped = Self { bin, started_with: launch.env.clone() };
        if let Err(error) = std::os::unix::fs::symlink(this, &worker) {
            wrapped.unwrap();
            return Err(at("cannot make the link", &worker)(error));
        }
        Ok(wrapped)
    }

    /// Runs the worker once without arguments, so that its files are in memory. It ends with an error, which is expected.
    /// `end` is the end of the time for worker and listener.
    pub(super) fn warm_up(&self, launch: &Launch, account: Option<&Account>, end: Instant) {
        let launch = Launch { program: self.bin.join(NAME), args: Vec::new(), ..launch.clone() };
        let Ok((child, _output)) = process::spawn(&launch, account) else { return };
        let (pid, start) = (Pid::from_child(&child), Instant::now());
        let limit = end.saturating_duration_since(start) / WARM_UP_PART;
        while !process::has_ended(pid) && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(10));
        }
        process::discard(child);
    }

    /// Sets the environment that the next worker gets, in place of that of its listener.
    pub(super) fn set_environment(
        &self,
        environment: &[(String, String)],
        account: Option<&Account>,
    ) -> Result<(), AppError> {
        let path = self.bin.join(ENVIRONMENT);
        let failed = |error: io::Error| at("cannot write", &path)(error);
        let difference = Difference::between(&self.started_with, environment);
        let text = serde_json::to_string(&difference).map_err(io::Error::from).map_err(failed)?;
        let written = Folder::open(&self.bin).and_then(|bin| bin.write(ENVIRONMENT, &text));
        written.map_err(io::Error::other).map_err(failed)?;
        app::give(&path, account)
    }

    /// Gives the worker its place back.
    pub(super) fn unwrap(self) {
        let _ = std::fs::rename(self.bin.join(REAL), self.bin.join(NAME));
        let _ = std::fs::remove_file(self.bin.join(ENVIRONMENT));
    }
}

/// Returns true if this program was started as the worker.
pub(crate) fn is_meant(program: &OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == NAME)
}

/// Becomes the worker, with these arguments. Returns only if that fails.
pub(crate) fn run(program: &OsStr, args: Vec<OsString>) -> ExitCode {
    let bin = Path::new(program).parent().unwrap_or(Path::new("."));
    match difference(bin) {
        Ok(Difference { set, unset }) => {
            let mut command = Command::new(bin.join(REAL));
            for name in unset {
                command.env_remove(name);
            }
            become_program(command.args(args).envs(set))
        }
        Err(error) => {
            crate::console::say(&format!("no worker is started: {error}"));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn difference(bin: &Path) -> io::Result<Difference> {
    match Folder::open(bin).and_then(|bin| bin.read(ENVIRONMENT, ENVIRONMENT_LENGTH_MAX)) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|error| io::Error::other(format!("{}: {error}", bin.join(ENVIRONMENT).display()))),
        // Its listener has no runner yet.
        Err(error) if error.is_absent() => Ok(Difference::default()),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_set_or_unset() {
        let environment = |text: &str| -> Vec<(String, String)> {
            let pairs = text.split(' ').map(|pair| pair.split_once('=').expect("a pair"));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let difference = Difference::between(&environment("A=1 B=2 C=3"), &environment("A=1 B=4 D=5"));
        let set = environment("B=4 D=5").into_iter().collect();
        assert_eq!(difference, Difference { set, unset: vec!["C".to_owned()] });
    }
}

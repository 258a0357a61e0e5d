//! The kinds of runner app, and how the two differ while they run.

use super::{Ending, Observation, RunnerFile};
use std::path::{Path, PathBuf};

/// Path of the runner app in dayfly's own images.
pub const PROGRAM: &str = "/opt/runner/github-act-runner";

/// The file that `github-act-runner configure` writes: registration, private key, and the token that it got for its
/// registration token (the same token at a GHES or the lab).
pub const SETTINGS: &str = "settings.json";

/// A runner app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerApp {
    /// github-act-runner: one program, which keeps its files in its working folder.
    GithubActRunner,
    /// The official actions/runner: its `bin/Runner.Listener` keeps its files beside `bin`. Its scripts are not used: they
    /// refuse root, hide exit statuses, and do not forward signals.
    ActionsRunner,
}

/// The signal that makes a runner app cancel its job, sign off and exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// The next step after a runner app has exited by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing more to run; this is how the app ended.
    End(Ending),
    /// A new start at the app's request, because something failed that may work soon.
    Retry,
    /// A new start at the app's request, once its update is in place. The file `update.finished` signals this.
    Update,
}

impl RunnerApp {
    /// Returns the app that a program is, by its name: `Runner.Listener` is the official app.
    #[must_use]
    pub fn of(program: &Path) -> Self {
        match program.file_name() {
            Some(name) if name == "Runner.Listener" => Self::ActionsRunner,
            _ => Self::GithubActRunner,
        }
    }

    /// Returns the folder above `bin`, in which the official app keeps its files, whatever its working folder is; `None`
    /// for the other app.
    #[must_use]
    pub fn own_folder(self, program: &Path) -> Option<PathBuf> {
        match self {
            Self::GithubActRunner => None,
            Self::ActionsRunner => Some(program.parent()?.parent()?.to_owned()),
        }
    }

    /// Returns the names of the files in the app's folder that hold its registration, and are removed with it.
    #[must_use]
    pub fn secret_files(self) -> Vec<&'static str> {
        let mut names: Vec<_> = RunnerFile::ALL.into_iter().map(RunnerFile::name).collect();
        if self == Self::GithubActRunner {
            names.push(SETTINGS);
        }
        names
    }

    /// Returns the signal that stops the app.
    ///
    /// github-act-runner: SIGTERM. A first SIGINT only means "no further jobs", and the job runs to its end; after
    /// SIGTERM the job is reported as cancelled (both seen with 0.13.0). actions/runner treats both signals alike, but its
    /// runtime gives it at most 30 s after SIGTERM.
    #[must_use]
    pub fn stop_signal(self) -> StopSignal {
        match self {
            Self::GithubActRunner => StopSignal::Terminate,
            Self::ActionsRunner => StopSignal::Interrupt,
        }
    }

    /// Returns the next step after the app has exited by itself. `code` is the exit status, `None` after a signal; `seen`
    /// are the observations from its lines; an `ephemeral` app has nothing more to do after a job.
    ///
    /// The official app's statuses (from its sources): 2 is an unhandled error that may be temporary, 3 and 4 mean that an
    /// update is ready.
    #[must_use]
    pub fn after(self, code: Option<i32>, seen: &[Observation], ephemeral: bool) -> After {
        let ending = Ending::judge(code, seen);
        match (self, code) {
            _ if ephemeral && ending == Ending::JobDone => After::End(ending),
            (Self::ActionsRunner, Some(2)) => After::Retry,
            (Self::ActionsRunner, Some(3 | 4)) => After::Update,
            _ => After::End(ending),
        }
    }

    /// Explains an exit status, if it means more than success or failure.
    #[must_use]
    pub fn explain(self, code: Option<i32>) -> Option<&'static str> {
        match (self, code) {
            (Self::ActionsRunner, Some(5)) => Some("another session of this runner was open for 4 minutes"),
            (Self::ActionsRunner, Some(7)) => Some(
                "the forge refuses this version of the runner app as too old: put a newer one in the image",
            ),
            _ => None,
        }
    }
}

/// Returns the content of [`SETTINGS`] without the token; `None` if there is no token. Jobs could read the token and
/// register further runners with it for an hour. The app's `run` does not use it (seen in its sources and with 0.13.0).
#[must_use]
pub fn without_token(settings: &str) -> Option<String> {
    let mut settings: serde_json::Value = serde_json::from_str(settings).ok()?;
    let mut found = false;
    for instance in settings.get_mut("Instances")?.as_array_mut()? {
        if let Some(token) = instance.pointer_mut("/Auth/token") {
            *token = "".into();
            found = true;
        }
    }
    found.then(|| settings.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::JobResult;
    use super::*;

    const OFFICIAL: RunnerApp = RunnerApp::ActionsRunner;

    #[test]
    fn the_token_is_taken_out_of_the_settings_and_nothing_else() {
        let settings = r#"{"PoolID":1,"Instances":[{"Auth":{"url":"u","token":"s3cret"},"Key":"k"}]}"#;
        let without = r#"{"PoolID":1,"Instances":[{"Auth":{"url":"u","token":""},"Key":"k"}]}"#;
        assert_eq!(without_token(settings).as_deref(), Some(without));
        for other in ["", "[]", r#"{"Instances":[]}"#, r#"{"Instances":[{"Auth":null}]}"#] {
            assert_eq!(without_token(other), None, "{other}");
        }
    }

    #[test]
    fn an_app_is_known_by_its_name() {
        let program = Path::new("/opt/runner/runner-2.336.0/bin/Runner.Listener");
        assert_eq!(RunnerApp::of(program), OFFICIAL);
        assert_eq!(OFFICIAL.own_folder(program), Some("/opt/runner/runner-2.336.0".into()));
        assert_eq!(RunnerApp::of(Path::new(PROGRAM)), RunnerApp::GithubActRunner);
    }

    #[test]
    fn the_official_apps_statuses_are_understood() {
        let failed = After::End(Ending::Failed);
        for (code, after) in [
            (Some(0), After::End(Ending::NoJob)),
            (Some(1), failed),
            (Some(2), After::Retry),
            (Some(3), After::Update),
            (Some(4), After::Update),
            (Some(5), failed),
            (Some(7), failed),
            (None, failed),
        ] {
            assert_eq!(OFFICIAL.after(code, &[], true), after, "{code:?}");
        }
        assert!(OFFICIAL.explain(Some(5)).is_some() && OFFICIAL.explain(Some(7)).is_some());
        assert_eq!(RunnerApp::GithubActRunner.after(Some(3), &[], true), failed);
        assert_eq!(RunnerApp::GithubActRunner.explain(Some(7)), None);
    }

    #[test]
    fn an_ephemeral_app_is_not_started_again_after_its_job() {
        let seen = [Observation::JobFinished { result: JobResult::Succeeded }];
        assert_eq!(OFFICIAL.after(Some(2), &seen, true), After::End(Ending::JobDone));
        assert_eq!(OFFICIAL.after(Some(2), &seen, false), After::Retry);
    }
}

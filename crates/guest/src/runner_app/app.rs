//! Which runner app a program is, and in what the two differ while they run.

use super::{Ending, Observation, RunnerFile};
use std::path::{Path, PathBuf};

/// Where dayfly's own images keep the runner app.
pub const PROGRAM: &str = "/opt/runner/github-act-runner";

/// The file that `github-act-runner configure` writes: registration, private key, and the token that it got for its
/// registration token (at a GHES or the lab that same one).
pub const SETTINGS: &str = "settings.json";

/// A runner app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerApp {
    /// github-act-runner: one program, which keeps its files in its working folder.
    GithubActRunner,
    /// The official actions/runner: its `bin/Runner.Listener` keeps its files beside `bin`. Its scripts are not used:
    /// they refuse root, hide exit statuses, and do not hand signals on.
    ActionsRunner,
}

/// The signal that makes a runner app cancel its job, sign off and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// What comes after a runner app has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing: this is how it ended.
    End(Ending),
    /// It wants to be started again, since something failed that may work soon.
    Retry,
    /// It wants to be started again once its update is in place, which a file `update.finished` says.
    Update,
}

impl RunnerApp {
    /// Which app a program is, by its name: `Runner.Listener` is the official one.
    #[must_use]
    pub fn of(program: &Path) -> Self {
        match program.file_name() {
            Some(name) if name == "Runner.Listener" => Self::ActionsRunner,
            _ => Self::GithubActRunner,
        }
    }

    /// The folder beside `bin` in which the official app keeps its files, whatever its working folder is; `None` for
    /// the other one.
    #[must_use]
    pub fn own_folder(self, program: &Path) -> Option<PathBuf> {
        match self {
            Self::GithubActRunner => None,
            Self::ActionsRunner => Some(program.parent()?.parent()?.to_owned()),
        }
    }

    /// Files in its folder that hold its registration, and go with it.
    #[must_use]
    pub fn secret_files(self) -> Vec<&'static str> {
        let mut names: Vec<_> = RunnerFile::ALL.into_iter().map(RunnerFile::name).collect();
        if self == Self::GithubActRunner {
            names.push(SETTINGS);
        }
        names
    }

    /// How it is asked to end.
    ///
    /// github-act-runner: SIGTERM. Its first SIGINT only means "no further jobs", and it lets the job run to its end;
    /// after SIGTERM the job is reported as cancelled (both seen with 0.13.0). actions/runner treats both alike, but
    /// after SIGTERM its runtime leaves it 30 s at most.
    #[must_use]
    pub fn stop_signal(self) -> StopSignal {
        match self {
            Self::GithubActRunner => StopSignal::Terminate,
            Self::ActionsRunner => StopSignal::Interrupt,
        }
    }

    /// What follows an end by itself. `code` is the exit status, `None` after a signal; `seen` is what its lines said;
    /// an `ephemeral` app has nothing more to do after a job.
    ///
    /// The official one's statuses (from its sources): 2 an unhandled error that may go, 3 and 4 an update is ready.
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

    /// What an exit status means, where it is more than success or failure.
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

/// Content of [`SETTINGS`] without the token, which jobs could read and register further runners with for an hour; the
/// app's `run` does not use it (seen in its sources and with 0.13.0). `None` where there is none.
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

//! Shared helpers for the tests: a lab, commands that use it, and checks of what these leave behind.

use std::path::{Path, PathBuf};

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, Ended, OwnState, Running};
use dayfly_forge::RunnerScope;

/// The repository of the shell version's own examples.
pub(crate) const REPOSITORY: &str = "efrecon/gh-runner-krunvm";

/// A job that prints the name of its runner.
pub(crate) const HELLO: &str =
    "on: push\njobs: { hello: { runs-on: self-hosted, steps: [{ run: echo hello from $RUNNER_NAME }] } }";

/// A lab and a state folder for one test, which therefore does not see the instances of other tests.
pub(crate) struct Stage {
    pub(crate) lab: LabProcess,
    pub(crate) state: OwnState,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { lab: LabProcess::for_repository(REPOSITORY), state: OwnState::new() }
    }

    /// Creates a command that gets the forge from its variable, as users of the shell version set it, and whose runners are
    /// processes of this host.
    pub(crate) fn dayfly<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Dayfly {
        Dayfly::new(arguments)
            .env("DAYFLY_STATE", self.state.path())
            .env("RUNNER_GITHUB", &self.lab.url)
            .env("ORCHESTRATOR_RUNTIME", "process")
            .env("RUNNER_RUNTIME", "process")
            .env("RUNNER_DOCKER", "0")
    }

    /// Creates the same command with the lab's token in its variable.
    pub(crate) fn with_token<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Dayfly {
        self.dayfly(arguments).env("RUNNER_PAT", &self.lab.token)
    }

    /// Runs one job and returns its log.
    pub(crate) async fn job(&self, workflow: &str) -> String {
        let run = self.lab.dispatch(workflow).await;
        assert_eq!(self.lab.conclusion_of(run).await, "success");
        self.lab.logs_of(run).await.into_iter().map(|(_, log)| log).collect()
    }

    /// Asserts that an orchestrator or a loop has left no files, no registrations and no processes.
    pub(crate) async fn assert_nothing_left(&self, ended: &Ended) {
        ended.assert_nothing_left();
        assert_eq!(
            self.lab.registrations().await,
            Vec::<String>::new(),
            "registrations are left: {ended:#?}"
        );
        assert_eq!(folders(&self.state.path().join("instances")), Vec::<PathBuf>::new());
        assert_eq!(processes_below(self.state.path()), Vec::<String>::new(), "processes are left");
    }

    pub(crate) async fn registrations_of(&self, scope: &RunnerScope) -> Vec<String> {
        self.lab.registrations_of(scope).await
    }
}

/// Waits until a runner listens for jobs, and returns its name.
pub(crate) fn listening(running: &mut Running) -> String {
    running.wait_for_event("listening")["name"].as_str().expect("a name").to_owned()
}

/// Returns the sorted paths of what is in a folder.
pub(crate) fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut found: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort_unstable();
    found
}

/// Returns the command lines of the processes that name a file below a folder.
pub(crate) fn processes_below(folder: &Path) -> Vec<String> {
    let text = folder.to_string_lossy();
    dayfly_e2e::processes_naming(&text)
        .into_iter()
        .filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&*text))
        .collect()
}

/// Waits until `holds` returns true.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("after 30 s it is still not true that {what}");
}

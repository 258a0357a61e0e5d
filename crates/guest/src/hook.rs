//! `dayfly-guest hook fork` and `dayfly-guest hook warnings`: dayfly's own part of the hooks of a job
//! ([`crate::entrypoint`] writes the scripts that call them).
//!
//! They run as the user of jobs. Their output is in the log of the job, and its lines `::error::` and `::warning::` become
//! annotations of the job.

use crate::{console, processes};
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// First argument that runs a hook, and the second ones.
pub(crate) const COMMAND: &str = "hook";
pub(crate) const FORK: &str = "fork";
pub(crate) const WARNINGS: &str = "warnings";

/// File with the warnings of this machine, one a line. The agent writes it.
pub(crate) const WARNINGS_FILE: &str = "/run/dayfly/warnings";
/// Most bytes of it that are shown.
const WARNINGS_MAX: u64 = 16 * 1024;
/// Most bytes of an event. GitHub's largest payload has 25 MB.
const EVENT_MAX: u64 = 32 * 1024 * 1024;
/// Space below which a machine's disk counts as full, MiB.
const FULL_MIB: u64 = 256;
/// Time that the app has to send the last lines before it is ended.
const LAST_LINES: Duration = Duration::from_secs(3);
/// Name of the program that runs a job's steps begins with this.
const WORKER: &str = "Runner.Worker";
/// Most parents of this process that are looked at.
const PARENTS_MAX: usize = 16;

/// Runs a hook.
pub(crate) fn run(args: &[String]) -> ExitCode {
    match args {
        [word] if word == FORK => fork(),
        [word] if word == WARNINGS => {
            warnings();
            ExitCode::SUCCESS
        }
        _ => {
            console::say("usage: dayfly-guest hook fork|warnings");
            ExitCode::from(2)
        }
    }
}

/// The parts of an event that say where its code comes from.
#[derive(Debug, Default, Deserialize)]
struct Event {
    #[serde(default)]
    repository: Option<Repository>,
    #[serde(default)]
    pull_request: Option<PullRequest>,
}

#[derive(Debug, Deserialize)]
struct PullRequest {
    head: Head,
}

#[derive(Debug, Deserialize)]
struct Head {
    /// None if the fork was deleted.
    repo: Option<Repository>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    full_name: String,
}

impl Event {
    /// Returns the repository that a pull request comes from, if that is not the one of the job.
    fn fork(&self, job: &str) -> Option<String> {
        let head = self.pull_request.as_ref()?.head.repo.as_ref().map(|repo| repo.full_name.as_str());
        let own = self.repository.as_ref().map_or(job, |repo| &repo.full_name);
        match head {
            Some(head) if !own.is_empty() && head.eq_ignore_ascii_case(own) => None,
            Some(head) => Some(head.to_owned()),
            None => Some("a fork that was deleted".to_owned()),
        }
    }
}

/// Ends the job if it is one of a fork. A failure alone would not end it: its steps with `if: always()` would still run.
fn fork() -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let of_pull_request = variable("GITHUB_EVENT_NAME").starts_with("pull_request");
    let from = match read_event(Path::new(&variable("GITHUB_EVENT_PATH"))) {
        Ok(event) => event.fork(&variable("GITHUB_REPOSITORY")),
        // Without its event, a job of a pull request may be anyone's.
        Err(error) => of_pull_request.then(|| format!("unknown, because its event cannot be read: {error}")),
    };
    let Some(from) = from else { return ExitCode::SUCCESS };
    console::print(&command(
        "error",
        &format!(
            "these runners do not run jobs of forks, and this pull request comes from {from}. A maintainer can push its branch \
             to the repository; the owner of the runners can set allow_forks = true"
        ),
    ));
    std::thread::sleep(LAST_LINES);
    if let Some(worker) = worker() {
        // The listener reports the job as failed.
        let _ = rustix::process::kill_process(worker, Signal::KILL);
    }
    ExitCode::FAILURE
}

fn read_event(path: &Path) -> io::Result<Event> {
    let mut text = Vec::new();
    File::open(path)?.take(EVENT_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > EVENT_MAX {
        return Err(io::Error::other(format!("it has more than {EVENT_MAX} bytes")));
    }
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// Returns the process that runs the steps of this job.
fn worker() -> Option<Pid> {
    let mut pid = rustix::process::getppid();
    for _ in 0..PARENTS_MAX {
        let parent = pid?.as_raw_nonzero();
        let program = std::fs::read_link(format!("/proc/{parent}/exe")).unwrap_or_default();
        if program.file_name().is_some_and(|name| name.to_string_lossy().starts_with(WORKER)) {
            return pid;
        }
        let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
        pid = processes::parse_parent(&stat).and_then(Pid::from_raw);
    }
    None
}

/// Prints the warnings of this machine.
fn warnings() {
    let disk = rustix::fs::statvfs("/").ok().and_then(|disk| {
        let mib = |blocks: u64| blocks.saturating_mul(disk.f_frsize) >> 20;
        full(mib(disk.f_bavail), mib(disk.f_blocks))
    });
    for warning in kept(Path::new(WARNINGS_FILE)).into_iter().chain(disk) {
        console::print(&command("warning", &warning));
    }
}

/// Returns the warning about a disk with so much space left.
fn full(left_mib: u64, size_mib: u64) -> Option<String> {
    (left_mib < FULL_MIB && left_mib < size_mib / 4).then(|| {
        format!("this machine's disk is full: {left_mib} of {size_mib} MiB are left; the pool's disk sets its size")
    })
}

/// Keeps a warning for the end of the job.
pub(crate) fn keep_warning(text: &str) -> io::Result<()> {
    keep(Path::new(WARNINGS_FILE), text)
}

fn keep(file: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(file)?;
    file.write_all(format!("{}\n", text.replace(['\r', '\n'], " ")).as_bytes())
}

/// Returns the warnings that a file has; none if there is no file, as usual.
fn kept(file: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(file) {
        let _ = file.take(WARNINGS_MAX).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Returns a command of a workflow (docs.github.com, "Workflow commands").
fn command(word: &str, text: &str) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    format!("::{word} title=dayfly::{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fork_of(event: &str) -> Option<String> {
        serde_json::from_str::<Event>(event).expect("an event").fork("acme/app")
    }

    #[test]
    fn a_pull_request_of_another_repository_is_one_of_a_fork() {
        let event = |head: &str| {
            format!(
                r#"{{"repository":{{"full_name":"acme/app","fork":false}},"pull_request":{{"head":{{"repo":{head}}}}}}}"#
            )
        };
        assert_eq!(fork_of(&event(r#"{"full_name":"Acme/App"}"#)), None);
        assert_eq!(fork_of(&event(r#"{"full_name":"eve/app"}"#)).as_deref(), Some("eve/app"));
        assert_eq!(fork_of(&event("null")).as_deref(), Some("a fork that was deleted"));
    }

    #[test]
    fn other_events_are_of_no_fork() {
        for event in
            ["{}", r#"{"repository":{"full_name":"acme/app"},"commits":[]}"#, r#"{"pull_request":null}"#]
        {
            assert_eq!(fork_of(event), None, "{event}");
        }
        // Without its own repository, the event is compared with the job's.
        let bare = r#"{"pull_request":{"head":{"repo":{"full_name":"eve/app"}}}}"#;
        assert!(fork_of(bare).is_some());
    }

    #[test]
    fn a_text_cannot_be_two_commands() {
        assert_eq!(command("warning", "50%\n::error::x"), "::warning title=dayfly::50%25%0A::error::x\n");
    }

    #[test]
    fn what_the_agent_keeps_is_a_warning_of_one_line_each() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("warnings");
        assert!(kept(&file).is_empty());
        for text in ["the kernel has killed cc1", "a name\n::error::x"] {
            keep(&file, text).expect("kept");
        }
        assert_eq!(kept(&file), ["the kernel has killed cc1", "a name ::error::x"]);
        std::fs::write(&file, vec![0xff; 100_000]).expect("written");
        assert_eq!(kept(&file).len(), 1);
    }

    #[test]
    fn a_disk_is_full_if_little_of_it_is_left() {
        assert_eq!(full(300, 32_768), None);
        assert_eq!(full(200, 512), None, "a small disk is not full");
        insta::assert_snapshot!(full(12, 32_768).expect("full"), @"this machine's disk is full: 12 of 32768 MiB are left; the pool's disk sets its size");
    }

    #[test]
    fn this_test_runs_in_no_job() {
        assert_eq!(worker(), None);
    }
}

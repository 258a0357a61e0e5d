//! Parses the lines of runner apps, and defines the form in which the entrypoint relays them.

/// A fact that a line of a runner app reports.
///
/// Observations are hints and never proof, because a job that has become root in its machine can print any line. Only
/// the forge's own data counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The app has a session with the forge and waits for a job.
    Listening,
    /// The app has acquired a job and starts it.
    JobStarted {
        /// Name of the job, as the forge shows it.
        name: String,
    },
    /// The job has ended with this result.
    JobFinished {
        /// Its result.
        result: JobResult,
    },
    /// The connection to the forge does not work, and the app tries again.
    Retrying,
    /// The forge no longer knows this registration.
    Unregistered,
}

/// Result of a job, with the names that actions/runner uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "the names are clear")]
pub enum JobResult {
    Succeeded,
    SucceededWithIssues,
    Failed,
    Canceled,
    Skipped,
    Abandoned,
}

impl JobResult {
    /// Returns true if a job with this result did not fail and was not ended early.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Succeeded | Self::SucceededWithIssues | Self::Skipped)
    }

    fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "succeeded" => Self::Succeeded,
            "succeededwithissues" => Self::SucceededWithIssues,
            "failed" => Self::Failed,
            "canceled" | "cancelled" => Self::Canceled,
            "skipped" => Self::Skipped,
            "abandoned" => Self::Abandoned,
            _ => return None,
        })
    }
}

/// Returns the observation in a line of the runner app's own output, if there is one.
///
/// github-act-runner 0.13.0 (seen):
/// ```text
/// Listening for Jobs: 2-k3V9x0q ( http://10.0.2.2:8080/o/r )
/// 2-k3V9x0q ( http://10.0.2.2:8080/o/r ): Running Job 'hello'
/// 2-k3V9x0q ( http://10.0.2.2:8080/o/r ): Finished Job 'hello' with Status Failed
/// ```
/// actions/runner 2.336.0 (from its sources; `<time>: ` comes before each):
/// ```text
/// Listening for Jobs
/// Running job: build
/// Job build completed with result: Succeeded
/// ```
#[must_use]
pub fn observe(line: &str) -> Option<Observation> {
    let text = without_prefix(line.trim());
    if text == "Listening for Jobs" || text.starts_with("Listening for Jobs: ") {
        return Some(Observation::Listening);
    }
    if let Some(name) = text.strip_prefix("Running Job '").and_then(|rest| rest.strip_suffix('\'')) {
        return Some(Observation::JobStarted { name: name.to_owned() });
    }
    if let Some(name) = text.strip_prefix("Running job: ") {
        return Some(Observation::JobStarted { name: name.to_owned() });
    }
    let finished = text.strip_prefix("Finished Job '").and_then(|rest| rest.rsplit_once("' with Status "));
    let completed = text.strip_prefix("Job ").and_then(|rest| rest.rsplit_once(" completed with result: "));
    if let Some(result) = finished.or(completed).and_then(|(_, word)| JobResult::parse(word)) {
        return Some(Observation::JobFinished { result });
    }
    if text.contains("registration has been deleted from the server")
        || text.starts_with("The runner no longer exists on the server")
    {
        return Some(Observation::Unregistered);
    }
    let retrying = text.starts_with("Retry retrieving connectiondata")
        || text.starts_with("Failed to recreate Session")
        || text.contains("Retrying until reconnected");
    retrying.then_some(Observation::Retrying)
}

/// Source of the relayed lines that are the app's own diagnostics.
pub const DIAGNOSTICS: &str = "diagnostics";

/// Source of the relayed lines that are the end of the app's own log files. The entrypoint relays them after a failure.
pub const APP_LOG: &str = "app-log";

/// Returns true if a line belongs to the app's own diagnostics. actions/runner prints them, some 350 lines a job, if
/// `ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT` is set, which GitHub's own image does (2.336.0, seen):
/// ```text
/// [RUNNER 2026-01-02 03:04:05Z INFO Listener] Version: 2.336.0
/// [WORKER 2026-01-02 03:04:05Z INFO JobRunner] Job ID ...
/// ```
#[must_use]
pub fn is_diagnostic(line: &str) -> bool {
    let Some((_, rest)) = line.split_once('[').filter(|(before, _)| before.is_empty()) else { return false };
    let Some(rest) = rest.strip_prefix("RUNNER ").or_else(|| rest.strip_prefix("WORKER ")) else {
        return false;
    };
    rest.split_once("Z ").is_some_and(|(time, _)| time.len() == 19 && time.starts_with('2'))
}

/// Returns the text after `<time>Z: ` (actions/runner) or `<name> ( <url> ): ` (github-act-runner).
fn without_prefix(line: &str) -> &str {
    let timestamp = |prefix: &str| prefix.len() == 20 && prefix.ends_with('Z') && prefix.starts_with('2');
    match line.split_once(": ") {
        Some((prefix, text))
            if timestamp(prefix) || prefix.ends_with(" )") && !line.starts_with("Listening") =>
        {
            text
        }
        _ => line,
    }
}

/// A parsed line of the entrypoint's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed<'a> {
    /// The source of the line, such as `runner` (the runner app) or `entrypoint`.
    pub source: &'a str,
    /// Id of the runner.
    pub runner_id: &'a str,
    /// The line itself.
    pub text: &'a str,
}

/// Parses a line `[runner@runner-<id>] text` of the entrypoint.
///
/// ```
/// use dayfly_guest::runner_app::{observe, parse_relayed, Observation};
/// let line = parse_relayed("[runner@runner-2-k3V9x0q] Listening for Jobs: 2-k3V9x0q ( http://h/o/r )").unwrap();
/// assert_eq!((line.source, line.runner_id), ("runner", "2-k3V9x0q"));
/// assert_eq!(observe(line.text), Some(Observation::Listening));
/// ```
#[must_use]
pub fn parse_relayed(line: &str) -> Option<Relayed<'_>> {
    let (head, text) = line.strip_prefix('[')?.split_once(']')?;
    let (source, runner_id) = head.split_once("@runner-")?;
    let text = text.strip_prefix(' ').unwrap_or(text);
    crate::environment::is_runner_id(runner_id).then_some(Relayed { source, runner_id, text })
}

/// Formats a line so that [`parse_relayed`] can parse it.
#[must_use]
pub fn relay(source: &str, runner_id: &str, text: &str) -> String {
    format!("[{source}@runner-{runner_id}] {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_github_act_runner_are_understood() {
        let at = "2-abcdefg ( http://127.0.0.1:18911/o/r )";
        assert_eq!(observe(&format!("Listening for Jobs: {at}")), Some(Observation::Listening));
        let started = Observation::JobStarted { name: "it's: a job".to_owned() };
        assert_eq!(observe(&format!("{at}: Running Job 'it's: a job'")), Some(started));
        for (word, result) in [
            ("Succeeded", JobResult::Succeeded),
            ("Failed", JobResult::Failed),
            ("Canceled", JobResult::Canceled),
            ("Cancelled", JobResult::Canceled),
        ] {
            let line = format!("{at}: Finished Job 'hello' with Status {word}");
            assert_eq!(observe(&line), Some(Observation::JobFinished { result }));
        }
        assert_eq!(observe(&format!("{at}: Finished Job 'hello'")), None);
        assert_eq!(observe(&format!("{at}: Last Job finished, cancel Message loop")), None);
        let retry = "Retry retrieving connectiondata from the server in 8ns seconds";
        assert_eq!(observe(retry), Some(Observation::Retrying));
    }

    #[test]
    fn lines_of_the_official_runner_are_understood() {
        assert_eq!(observe("2026-01-02 03:04:05Z: Listening for Jobs"), Some(Observation::Listening));
        let started = Observation::JobStarted { name: "build: all".to_owned() };
        assert_eq!(observe("2026-01-02 03:05:00Z: Running job: build: all"), Some(started));
        let line = "2026-01-02 03:06:00Z: Job build completed with result: SucceededWithIssues";
        assert_eq!(observe(line), Some(Observation::JobFinished { result: JobResult::SucceededWithIssues }));
        let line = "The runner no longer exists on the server. Cleaning up local configuration.";
        assert_eq!(observe(line), Some(Observation::Unregistered));
    }

    #[test]
    fn the_apps_own_diagnostics_are_told_apart() {
        assert!(is_diagnostic("[RUNNER 2026-01-02 03:04:05Z INFO Listener] Version: 2.336.0"));
        assert!(is_diagnostic("[WORKER 2026-01-02 03:04:05Z ERR  StepsRunner] System.Exception: x"));
        for line in [
            "2026-01-02 03:04:05Z: Running job: a",
            "[RUNNER] x",
            "a [WORKER 2026-01-02 03:04:05Z INFO x] y",
            "",
        ] {
            assert!(!is_diagnostic(line), "{line}");
        }
    }

    #[test]
    fn other_lines_say_nothing() {
        for line in
            ["", "Listening", "Job x completed with result: Great", "Running Job 'x", "√ Connected to GitHub"]
        {
            assert_eq!(observe(line), None, "{line}");
        }
    }

    #[test]
    fn a_relayed_line_is_taken_apart_and_others_are_left_alone() {
        let line = relay("runner", "2-k3V9x0q", "a [b] c");
        let relayed = parse_relayed(&line).expect("relayed");
        assert_eq!(relayed, Relayed { source: "runner", runner_id: "2-k3V9x0q", text: "a [b] c" });
        assert_eq!(parse_relayed(&relay("runner", "1", "")).map(|relayed| relayed.text), Some(""));
        for line in ["", "[runner@runner-] x", "[runner] x", "runner@runner-1 x", "[runner@runner-a b] x"] {
            assert_eq!(parse_relayed(line), None, "{line}");
        }
    }
}

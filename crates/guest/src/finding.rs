//! The findings of a check of a machine. `dayfly-guest check` prints each as one line of JSON.

use serde::{Deserialize, Serialize};

/// First argument of `dayfly-guest` that runs the check.
pub const COMMAND: &str = "check";

/// Most findings that are accepted from one machine.
pub const FINDINGS_MAX: usize = 256;

/// The use of a machine that a finding concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// All kinds of jobs.
    Jobs,
    /// Jobs with containers.
    Docker,
    /// The runner app, which speaks with the forge.
    RunnerApp,
}

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// The checked thing is as it should be.
    Ok,
    /// It is missing or does not work, and some jobs fail without it.
    Wanted,
    /// It is missing or does not work, and no job can do without it.
    Missing,
}

/// One checked thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The use of a machine that it concerns.
    pub part: Part,
    /// Its name.
    pub name: String,
    /// The result of its check.
    pub state: FindingState,
    /// Details of the result, or the consequence of its absence.
    pub seen: String,
}

impl Finding {
    /// Creates a finding.
    pub fn new(part: Part, name: &str, state: FindingState, seen: impl Into<String>) -> Self {
        Self { part, name: name.to_owned(), state, seen: seen.into() }
    }

    /// Returns the finding that a line of output contains at any position; `None` if it contains none.
    pub fn in_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.get(line.find("{\"part\"")?..)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_survives_the_words_that_a_log_puts_before_it() {
        let finding = Finding::new(Part::RunnerApp, "version", FindingState::Ok, "0.13.0 {\"part\"}");
        let line = format!("[entrypoint 0-check] {}", serde_json::to_string(&finding).expect("JSON"));
        assert_eq!(Finding::in_line(&line), Some(finding));
        for other in ["", "{\"part\"", "{\"part\":\"elsewhere\"}", "ready"] {
            assert_eq!(Finding::in_line(other), None, "{other}");
        }
    }
}

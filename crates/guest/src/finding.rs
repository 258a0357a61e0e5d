//! What a look into a machine finds: one line of JSON each, as `dayfly-guest check` prints them.

use serde::{Deserialize, Serialize};

/// The program's word for the look.
pub const COMMAND: &str = "check";

/// Most findings that are taken from one machine.
pub const FINDINGS_MAX: usize = 256;

/// What it matters for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Any job.
    Jobs,
    /// Containers.
    Docker,
    /// The program that speaks to the forge.
    RunnerApp,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Some jobs want it, and fail without.
    Wanted,
    /// No job can do without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it matters for.
    pub part: Part,
    /// What was looked for.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What was seen, or what follows from its absence.
    pub seen: String,
}

impl Finding {
    /// A finding.
    pub fn new(part: Part, name: &str, state: State, seen: impl Into<String>) -> Self {
        Self { part, name: name.to_owned(), state, seen: seen.into() }
    }

    /// The finding that a line of output holds, wherever in it; none where it holds none.
    pub fn in_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.get(line.find("{\"part\"")?..)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_survives_the_words_that_a_log_puts_before_it() {
        let finding = Finding::new(Part::RunnerApp, "version", State::Ok, "0.13.0 {\"part\"}");
        let line = format!("[entrypoint 0-check] {}", serde_json::to_string(&finding).expect("JSON"));
        assert_eq!(Finding::in_line(&line), Some(finding));
        for other in ["", "{\"part\"", "{\"part\":\"elsewhere\"}", "ready"] {
            assert_eq!(Finding::in_line(other), None, "{other}");
        }
    }
}

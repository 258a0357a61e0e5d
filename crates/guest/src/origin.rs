//! The origin of a runner's machine: what the log of a job says about the place in which the job runs.
//!
//! The loop writes it for the entrypoint, and the entrypoint gives it to the runner app.

use serde::{Deserialize, Serialize};

/// Name of the variable of an entrypoint that says what its machine was started from: [`Start`] as text. Only the process that
/// has started the machine knows it.
pub const START: &str = "DAYFLY_START";

/// Longest value that is shown, characters.
pub const VALUE_MAX: usize = 128;

/// The place in which a job runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the host; none if the pool does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Name of the machine.
    pub machine: String,
    /// Size of the machine, in words.
    pub size: String,
    /// Name of the image, and its id.
    pub image: String,
}

impl Origin {
    /// Returns the lines for the log of a job. `start` is the value of [`START`], if there is one.
    #[must_use]
    pub fn lines(&self, start: Option<&str>) -> Vec<String> {
        let pairs = [
            ("Host", self.host.as_deref()),
            ("Machine", Some(self.machine.as_str())),
            ("Size", Some(self.size.as_str())),
            ("Image", Some(self.image.as_str())),
            ("Start", start),
        ];
        let shown = pairs.into_iter().filter_map(|(key, value)| Some((key, plain(value?))));
        shown.filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key}: {value}")).collect()
    }
}

/// Returns a text for a log: without control characters, and at most [`VALUE_MAX`] characters.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(VALUE_MAX).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_say_where_a_job_runs_and_nothing_that_is_not_known() {
        let origin = Origin {
            host: Some("build-7".to_owned()),
            machine: "GH-runner-2-k3V9x0q".to_owned(),
            size: "2 CPUs, 2048 MiB of memory, 32 GiB of disk".to_owned(),
            image: "ubuntu:24.04 (0123456789ab)".to_owned(),
        };
        insta::assert_snapshot!(origin.lines(Some("fork of template 0f3c")).join("\n"), @r"
        Host: build-7
        Machine: GH-runner-2-k3V9x0q
        Size: 2 CPUs, 2048 MiB of memory, 32 GiB of disk
        Image: ubuntu:24.04 (0123456789ab)
        Start: fork of template 0f3c
        ");
        let unnamed = Origin { host: None, ..origin };
        assert_eq!(unnamed.lines(None).len(), 3);
    }

    #[test]
    fn a_value_is_one_short_line() {
        let origin = Origin { host: Some(format!("a\n::error::{}", "x".repeat(300))), ..Origin::default() };
        let lines = origin.lines(None);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("Host: a::error::xx") && lines[0].len() == "Host: ".len() + VALUE_MAX);
    }
}

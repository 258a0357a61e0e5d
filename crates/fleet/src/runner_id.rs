//! Names of runners: `<loop>-<7 random alphanumerics>`, e.g. `2-k3V9x0q`.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;
use rand::distr::Alphanumeric;

/// Number of random characters after the loop's number.
const RANDOM_LENGTH: usize = 7;

/// One runner: one registration at a forge, one VM, one job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunnerId(String);

impl RunnerId {
    /// Creates a new id for a runner of loop number `index`. The id is random, so that a new attempt does not collide with
    /// the name of an attempt whose answer was lost.
    pub fn random(index: u32) -> Self {
        let random: String =
            rand::rng().sample_iter(Alphanumeric).take(RANDOM_LENGTH).map(char::from).collect();
        Self(format!("{index}-{random}"))
    }

    /// Returns the text, e.g. `2-k3V9x0q`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the VM and of the registration: `<prefix>-<id>`.
    pub fn name(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.0)
    }
}

impl fmt::Display for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error for a text that is no runner id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is no runner id (expected <loop>-<{RANDOM_LENGTH} letters or digits>, e.g. 2-k3V9x0q)")]
pub struct RunnerIdError(String);

impl FromStr for RunnerId {
    type Err = RunnerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.split_once('-').is_some_and(|(index, random)| {
            index.parse::<u32>().is_ok_and(|number| number.to_string() == index)
                && random.len() == RANDOM_LENGTH
                && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if valid { Ok(Self(text.to_owned())) } else { Err(RunnerIdError(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in
            ["", "2", "-k3V9x0q", "2-", "2-k3V9x0", "2-k3V9x0qq", "2-k3V9x/q", "02-k3V9x0q", "x-k3V9x0q"]
        {
            assert!(text.parse::<RunnerId>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_random_id_reads_back_as_itself(index: u32) {
            let id = RunnerId::random(index);
            prop_assert_eq!(id.as_str().parse::<RunnerId>().expect("valid"), id);
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = text.parse::<RunnerId>();
        }
    }
}

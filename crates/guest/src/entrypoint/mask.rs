//! Masks the secrets that the entrypoint knows in texts that go to its log.

use super::settings::{Settings, Task};

/// Replacement of a secret, as the runner apps write it.
const MASKED: &str = "***";

/// The secrets of one runner. It has no `Debug`, because it holds them.
pub(super) struct Mask {
    /// The longest first, because a shorter one may be a part of it.
    secrets: Vec<String>,
}

impl Mask {
    /// Collects the secrets: the loop's, and the JIT config with all of its parts. `token` is the registration token or PAT
    /// while the app uses it. After that, the entrypoint has forgotten it.
    pub(super) fn of(settings: &Settings, token: impl IntoIterator<Item = String>) -> Self {
        let mut secrets = vec![settings.secret.clone()];
        secrets.extend(token);
        match &settings.task {
            Task::Jit { config, encoded } => {
                secrets.push(encoded.clone());
                secrets.extend(config.secrets());
            }
            Task::Register(_) | Task::Command(_) => {}
        }
        Self::new(secrets)
    }

    fn new(mut secrets: Vec<String>) -> Self {
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// Returns the text with each secret replaced by `***`.
    pub(super) fn apply(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, MASKED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_is_masked_and_the_longest_as_a_whole() {
        let mask = Mask::new(["abc", "", "abcdef"].map(str::to_owned).to_vec());
        assert_eq!(mask.apply("abcdef, abc, ab"), "***, ***, ab");
    }
}

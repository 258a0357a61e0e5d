//! Mask hints: patterns that the runner must mask in logs in addition to the secrets' own text.
//!
//! Both runner apps mask the whole value of each secret variable. actions/runner also masks each line of a multi-line
//! secret and its base64. github-act-runner 0.13.0 does not, so the message lists them as patterns. The lab does not rely on
//! them: it masks by itself ([`crate::mask`]).

use std::collections::BTreeSet;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value as Json, json};

use crate::mask::base64_forms;

/// Shortest pattern, in bytes. Shorter text occurs everywhere, and masking it would make a log unreadable.
const LENGTH_MIN: usize = 4;
/// Most hints of a job, because the runner tries each of them on every line of the log. The lab masks the others, too.
const HINTS_MAX: usize = 1000;

/// Returns patterns for the lines and the base64 forms of secrets.
pub(super) fn hints<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Vec<Json> {
    let mut texts = BTreeSet::new();
    for secret in secrets {
        let secret = secret.expose_secret();
        texts.insert(secret.trim().to_owned());
        texts.extend(secret.lines().map(|line| line.trim().to_owned()));
        if secret.len() > LENGTH_MIN {
            texts.extend(base64_forms(secret));
        }
    }
    // Longer texts come first, because masking a short one first could cut a longer one in two.
    let mut texts: Vec<String> = texts.into_iter().filter(|text| text.len() >= LENGTH_MIN).collect();
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts.iter().take(HINTS_MAX).map(|text| json!({ "type": "regex", "value": escaped(text) })).collect()
}

/// Returns a pattern that matches exactly this text, for .NET's and for Go's regular expressions.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_punctuation() && character != '_' {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    use super::*;

    fn values(secrets: &[&str]) -> Vec<String> {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).into()).collect();
        hints(&secrets).iter().map(|hint| hint["value"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_line_of_a_secret_is_masked_and_short_ones_are_not() {
        let values = values(&["-----BEGIN-----\nabc+def/ghi\n{\n"]);
        assert!(values.contains(&r"abc\+def\/ghi".to_owned()), "{values:?}");
        assert!(!values.contains(&r"\{".to_owned()), "{values:?}");
    }

    #[test]
    fn the_base64_of_a_secret_is_masked_wherever_it_stands() {
        let values = values(&["correct horse"]);
        for prefix in ["", "a", "ab", "abc"] {
            let encoded = STANDARD_NO_PAD.encode(format!("{prefix}correct horse and more"));
            assert!(
                values.iter().any(|value| encoded.contains(&value.replace('\\', ""))),
                "{prefix}: {encoded} {values:?}"
            );
        }
    }

    #[test]
    fn no_secret_makes_no_hint() {
        assert!(values(&["", "abc"]).is_empty());
    }
}

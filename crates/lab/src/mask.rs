//! Masks secrets in logs before a line is stored or published, even if the runner did not mask them.

use secrecy::{ExposeSecret as _, SecretString};

/// The secrets of one job.
pub(crate) struct Mask {
    /// The secrets, longest first, so that masking a short secret does not leave a part of a longer one that contains it.
    secrets: Vec<SecretString>,
}

impl Mask {
    /// Creates a mask from the secrets' values. A value of several lines is masked line by line, because logs are
    /// processed by lines. Its lines of one or two characters (a brace, for example) are not masked, because that would
    /// hide much of a log and protect nothing.
    pub(crate) fn new(values: Vec<SecretString>) -> Self {
        let mut secrets: Vec<SecretString> = Vec::new();
        for value in values {
            let lines: Vec<&str> =
                value.expose_secret().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let several = lines.len() > 1;
            let kept = lines.into_iter().filter(|line| !several || line.len() > 2);
            secrets.extend(kept.map(SecretString::from));
        }
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
        Self { secrets }
    }

    /// Returns the line with its secrets replaced.
    pub(crate) fn apply(&self, line: &str) -> String {
        let masked = |line: String, secret: &SecretString| {
            let secret = secret.expose_secret();
            if line.contains(secret) { line.replace(secret, "***") } else { line }
        };
        self.secrets.iter().fold(line.to_owned(), masked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_the_longest_first() {
        let mask = Mask::new(vec!["hunter".into(), "hunter2".into(), SecretString::default()]);
        assert_eq!(mask.apply("my hunter2 and hunter"), "my *** and ***");
        assert_eq!(mask.apply("nothing here"), "nothing here");
    }

    #[test]
    fn a_secret_of_several_lines_is_masked_line_by_line() {
        let mask = Mask::new(vec!["-----BEGIN\nabcdef\n}\n".into()]);
        assert_eq!(mask.apply("abcdef }"), "*** }");
    }
}

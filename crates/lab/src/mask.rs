//! Masks secrets in logs before a line is stored or published, even if the runner did not mask them.

/// The secrets of one job.
pub(crate) struct Mask {
    /// The secrets, longest first, so that masking a short secret does not leave a part of a longer one that contains it.
    secrets: Vec<String>,
}

impl Mask {
    /// Creates a mask from the secrets' values. A value of several lines is masked line by line, because logs are
    /// processed by lines. Its lines of one or two characters (a brace, for example) are not masked, because that would
    /// hide much of a log and protect nothing.
    pub(crate) fn new(values: Vec<String>) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        for value in values {
            let lines: Vec<&str> = value.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let several = lines.len() > 1;
            let kept = lines.into_iter().filter(|line| !several || line.len() > 2);
            secrets.extend(kept.map(str::to_owned));
        }
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    /// Returns the line with its secrets replaced.
    pub(crate) fn apply(&self, line: &str) -> String {
        let masked = |line: String, secret: &String| {
            if line.contains(secret.as_str()) { line.replace(secret.as_str(), "***") } else { line }
        };
        self.secrets.iter().fold(line.to_owned(), masked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_the_longest_first() {
        let mask = Mask::new(vec!["hunter".into(), "hunter2".into(), String::new()]);
        assert_eq!(mask.apply("my hunter2 and hunter"), "my *** and ***");
        assert_eq!(mask.apply("nothing here"), "nothing here");
    }

    #[test]
    fn a_secret_of_several_lines_is_masked_line_by_line() {
        let mask = Mask::new(vec!["-----BEGIN\nabcdef\n}\n".into()]);
        assert_eq!(mask.apply("abcdef }"), "*** }");
    }
}

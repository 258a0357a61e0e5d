//! Secrets in logs: replaced before a line is stored or told, even where the runner forgot to.

/// The secrets of one job.
pub(crate) struct Mask {
    /// Longest first, so that a secret within another does not leave a part of the other.
    secrets: Vec<String>,
}

impl Mask {
    /// Takes the secrets' values. A value of several lines is masked line by line, since logs come in lines; lines of
    /// one or two characters (a brace, say) would blacken whole logs and tell nothing.
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

    /// The line without its secrets.
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

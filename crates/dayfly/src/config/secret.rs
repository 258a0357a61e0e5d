//! Secrets that a user has written into the file although they do not belong there: how they are recognised, and how they are
//! hidden in the messages that refuse them.

use dayfly_guest::variables;

/// Keys under which people write a secret into the files of other programs.
const KEYS: [&str; 9] =
    ["token", "pat", "github_token", "password", "secret", "key", "app_key", "private_key", "webhook_secret"];

/// Replaces a secret.
const HIDDEN: &str = "***";

/// Returns true if `key` is one that would hold a secret.
pub(super) fn is_its_key(key: &str) -> bool {
    KEYS.contains(&key.to_ascii_lowercase().replace('-', "_").as_str())
}

/// Returns true if a text looks like a token or a private key.
pub(super) fn looks_like_one(text: &str) -> bool {
    variables::looks_secret(text)
}

/// Returns a line in which the value of a key that would hold a secret is hidden, and each word that looks like one.
pub(super) fn hidden_in_line(line: &str) -> String {
    let names = |at: usize, key: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let value = line[at + key.len()..].trim_start_matches(['"', '\'', ' ', '\t']);
        let is_word = !line[..at].ends_with(is_part) && value.starts_with('=');
        is_word.then(|| line.len() - value.len() + 1)
    };
    let lower = line.to_ascii_lowercase().replace('-', "_");
    let values = KEYS.into_iter().flat_map(|key| {
        let found: Vec<usize> = lower.match_indices(key).filter_map(|(at, _)| names(at, key)).collect();
        found
    });
    match values.min() {
        Some(value) => format!("{} {HIDDEN}", hidden_in_words(&line[..value])),
        None => hidden_in_words(line),
    }
}

/// Returns a text in which each word that looks like a secret is hidden.
pub(super) fn hidden_in_words(text: &str) -> String {
    if !looks_like_one(text) {
        return text.to_owned();
    }
    let is_end = |c: char| c.is_whitespace() || "\"'`,;()[]{}=".contains(c);
    let words = text.split_inclusive(is_end).map(|word| {
        let inner = word.trim_end_matches(is_end);
        if looks_like_one(inner) { format!("{HIDDEN}{}", &word[inner.len()..]) } else { word.to_owned() }
    });
    let hidden: String = words.collect();
    // A PEM block has blanks in its first line.
    if looks_like_one(&hidden) { HIDDEN.to_owned() } else { hidden }
}

/// Returns true if a place behind `before` is inside a PEM block.
pub(super) fn is_in_key(before: &str) -> bool {
    match (before.rfind("-----BEGIN "), before.rfind("-----END ")) {
        (Some(begin), Some(end)) => begin > end,
        (begin, None) => begin.is_some(),
        (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_key_that_would_hold_a_secret_is_hidden() {
        for (line, shown) in [
            ("token = \"abc\"", "token = ***"),
            ("Private-Key=abc", "Private-Key= ***"),
            ("main = { url = \"x\", \"pat\" = 'abc' }", "main = { url = \"x\", \"pat\" = ***"),
            ("token_file = \"/etc/x\"", "token_file = \"/etc/x\""),
            ("keep = true # the token is elsewhere", "keep = true # the token is elsewhere"),
            ("ü.secret = 'ü'", "ü.secret = ***"),
        ] {
            assert_eq!(hidden_in_line(line), shown);
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden_wherever_it_is() {
        assert_eq!(hidden_in_line("token_env = \"ghp_abc\" # x"), "token_env = \"***\" # x");
        assert_eq!(
            hidden_in_words("invalid type: string \"github_pat_1\", expected"),
            "invalid type: string \"***\", expected"
        );
        assert_eq!(hidden_in_words("x = -----BEGIN RSA PRIVATE KEY-----abc"), "***");
    }

    #[test]
    fn lines_inside_a_private_key_are_known() {
        assert!(is_in_key("k = \"\"\"\n-----BEGIN RSA PRIVATE KEY-----\nabc\n"));
        assert!(!is_in_key("-----BEGIN X-----\nabc\n-----END X-----\n"));
        assert!(!is_in_key("a = 1\n"));
    }
}

//! Workflow commands in the output of a step (`::name key=value::text`), and files in which a step leaves commands.

use std::collections::BTreeMap;

use thiserror::Error;

/// A workflow command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) name: String,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Command {
    /// Parses a line; `None` if it is no command.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (head, text) = line.trim_start().strip_prefix("::")?.split_once("::")?;
        let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return None;
        }
        let pairs = properties.split(',').filter_map(|pair| pair.trim().split_once('='));
        let property = |value: &str| unescaped(value).replace("%3A", ":").replace("%2C", ",");
        let properties = pairs.map(|(key, value)| (key.to_owned(), property(value))).collect();
        Some(Self { name: name.to_ascii_lowercase(), properties, text: unescaped(text) })
    }
}

fn unescaped(text: &str) -> String {
    text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
}

/// An error of a file of commands. Its texts are those of actions/runner 2.336.0.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum FileCommandError {
    #[error("Invalid format '{0}'")]
    Format(String),
    #[error("Invalid value. Matching delimiter not found '{0}'")]
    Delimiter(String),
}

/// Parses `NAME=VALUE` and `NAME<<DELIMITER` lines, as in `GITHUB_OUTPUT` and `GITHUB_ENV`.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, FileCommandError> {
    let mut pairs = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (equals, heredoc) = (line.find('='), line.find("<<"));
        match (equals, heredoc) {
            (Some(at), heredoc) if at > 0 && heredoc.is_none_or(|heredoc| at < heredoc) => {
                pairs.push((line[..at].to_owned(), line[at + 1..].to_owned()));
            }
            (_, Some(at)) if at > 0 && line.len() > at + 2 => {
                let delimiter = &line[at + 2..];
                let mut value = Vec::new();
                loop {
                    match lines.next() {
                        Some(end) if end == delimiter => break,
                        Some(line) => value.push(line),
                        None => return Err(FileCommandError::Delimiter(delimiter.to_owned())),
                    }
                }
                pairs.push((line[..at].to_owned(), value.join("\n")));
            }
            _ => return Err(FileCommandError::Format(line.to_owned())),
        }
    }
    Ok(pairs)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_other_lines() {
        let command = Command::parse("::warning file=a.c,line=3,title=T%3A::care%0Aful%25").unwrap();
        assert_eq!((command.name.as_str(), command.text.as_str()), ("warning", "care\nful%"));
        assert_eq!(command.properties["title"], "T:");
        assert_eq!(command.properties["line"], "3");
        assert_eq!(Command::parse("::endgroup::").unwrap().text, "");
        for line in ["", "::", "a ::error::b", ":: ::", "::no end", "std::vec::Vec"] {
            assert_eq!(Command::parse(line), None, "{line}");
        }
    }

    #[test]
    fn pairs_have_one_line_or_end_with_their_delimiter() {
        let text = "a=1\n\nb<<END\none\n\ntwo=2\nEND\nc=x<<y\n";
        let expected = [("a", "1"), ("b", "one\n\ntwo=2"), ("c", "x<<y")];
        let expected: Vec<_> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
        assert_eq!(pairs(text).unwrap(), expected);
        assert_eq!(pairs("junk\n").unwrap_err().to_string(), "Invalid format 'junk'");
        assert_eq!(pairs("=v\n").unwrap_err(), FileCommandError::Format("=v".to_owned()));
        assert_eq!(pairs("b<<END\none\n").unwrap_err(), FileCommandError::Delimiter("END".to_owned()));
    }
}

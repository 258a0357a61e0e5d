//! The `<id>.env` file: `KEY=value` lines with the quoting of a shell, which are **parsed, never executed**.
//!
//! ```
//! use dayfly_guest::envfile;
//! let text = envfile::render(&[("RUNNER_NAME", "it's mine")])?;
//! assert_eq!(text, "RUNNER_NAME='it'\\''s mine'\n");
//! assert_eq!(envfile::parse(&text)?.get("RUNNER_NAME"), Some("it's mine"));
//! # Ok::<(), envfile::EnvFileError>(())
//! ```

use std::iter::Peekable;
use std::str::Chars;

/// Longest file that is accepted, bytes.
pub const LENGTH_MAX: usize = 160 * 1024;

/// Most variables in one file.
pub const VARIABLES_MAX: usize = 256;

/// Reasons why a file cannot be written or parsed. No variant holds a value, because values are secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvFileError {
    /// The name of a variable is not valid.
    #[error("line {line}: `{name}` is no name of a variable (letters, digits and `_`, no digit first)")]
    Name {
        /// Line in the file, from 1; when writing, the line of the variable.
        line: usize,
        /// The invalid name, 40 characters at most.
        name: String,
    },
    /// A line is neither empty, nor a comment, nor `KEY=value`.
    #[error("line {line}: no `=`; a line is `KEY=value`, empty, or a comment that starts with `#`")]
    NoAssignment {
        /// Line in the file, from 1.
        line: usize,
    },
    /// A quote is not closed.
    #[error("line {line}: the quote {quote} that opens in the value of {name} is never closed")]
    Unclosed {
        /// Line on which the assignment starts.
        line: usize,
        /// The variable.
        name: String,
        /// `'` or `"`.
        quote: char,
    },
    /// A character that a shell would interpret is not quoted.
    #[error(
        "line {line}: {character:?} in the value of {name} needs quotes; nothing in this file is executed"
    )]
    NeedsQuotes {
        /// Line on which the assignment starts.
        line: usize,
        /// The variable.
        name: String,
        /// The character.
        character: char,
    },
    /// A variable is set twice.
    #[error("line {line}: {name} is set a second time")]
    Twice {
        /// Line of the second assignment.
        line: usize,
        /// The variable.
        name: String,
    },
    /// A value holds a NUL byte, which no environment can carry.
    #[error("line {line}: the value of {name} holds a NUL byte")]
    Nul {
        /// Line on which the assignment starts.
        line: usize,
        /// The variable.
        name: String,
    },
    /// The file has more than [`LENGTH_MAX`] bytes or [`VARIABLES_MAX`] variables.
    #[error("the file is too large: at most {VARIABLES_MAX} variables and {LENGTH_MAX} bytes")]
    TooLarge,
}

/// The variables of a file, in the file's order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<(String, String)>);

impl std::fmt::Debug for Variables {
    /// Prints names only, because values are secrets.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Variables {
    /// Returns the value of a variable, if it is set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Returns all variables, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Returns the text of a file that yields exactly these variables when it is parsed.
///
/// # Errors
/// [`EnvFileError::Name`], [`EnvFileError::Twice`], [`EnvFileError::Nul`] or [`EnvFileError::TooLarge`].
pub fn render(variables: &[(&str, &str)]) -> Result<String, EnvFileError> {
    let mut text = String::new();
    for (index, (name, value)) in variables.iter().enumerate() {
        let line = index + 1;
        check_name(name, line)?;
        if variables[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(EnvFileError::Twice { line, name: (*name).to_owned() });
        }
        if value.contains('\0') {
            return Err(EnvFileError::Nul { line, name: (*name).to_owned() });
        }
        text.push_str(&format!("{name}={}\n", quote(value)));
    }
    if text.len() > LENGTH_MAX || variables.len() > VARIABLES_MAX {
        return Err(EnvFileError::TooLarge);
    }
    Ok(text)
}

fn quote(value: &str) -> String {
    if !value.is_empty() && value.chars().all(needs_no_quotes) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Returns true for characters that no shell interprets anywhere in a value.
fn needs_no_quotes(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_-+=.,:/@%^".contains(character)
}

/// Parses a file of empty lines, `#` comments, and assignments with an optional `export` before them. Values may be
/// bare, in single or double quotes, or a mix of these. Quotes may span lines. Nothing is expanded.
///
/// # Errors
/// Any [`EnvFileError`]. A file with an error yields no variables at all.
pub fn parse(text: &str) -> Result<Variables, EnvFileError> {
    if text.len() > LENGTH_MAX {
        return Err(EnvFileError::TooLarge);
    }
    let mut parser = Parser { characters: text.chars().peekable(), line: 1 };
    let mut variables = Variables::default();
    while let Some((line, name, value)) = parser.assignment()? {
        if variables.get(&name).is_some() {
            return Err(EnvFileError::Twice { line, name });
        }
        if variables.0.len() == VARIABLES_MAX {
            return Err(EnvFileError::TooLarge);
        }
        variables.0.push((name, value));
    }
    Ok(variables)
}

fn check_name(name: &str, line: usize) -> Result<(), EnvFileError> {
    let good = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if good { Ok(()) } else { Err(EnvFileError::Name { line, name: name.chars().take(40).collect() }) }
}

struct Parser<'a> {
    characters: Peekable<Chars<'a>>,
    line: usize,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        let character = self.characters.next();
        self.line += usize::from(character == Some('\n'));
        character
    }

    /// Parses the next assignment. Returns it with the line that it starts on.
    fn assignment(&mut self) -> Result<Option<(usize, String, String)>, EnvFileError> {
        loop {
            while self.characters.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
            match self.characters.peek() {
                None => return Ok(None),
                Some('\n') => drop(self.next()),
                Some('#') => self.skip_line(),
                Some(_) => break,
            }
        }
        let line = self.line;
        let name = self.name(line)?;
        let value = self.value(line, &name)?;
        if value.contains('\0') {
            return Err(EnvFileError::Nul { line, name });
        }
        Ok(Some((line, name, value)))
    }

    fn skip_line(&mut self) {
        while self.characters.next_if(|c| *c != '\n').is_some() {}
    }

    fn name(&mut self, line: usize) -> Result<String, EnvFileError> {
        let mut name = String::new();
        while let Some(character) = self.characters.next_if(|c| *c != '=' && *c != '\n') {
            name.push(character);
        }
        if self.characters.next_if_eq(&'=').is_none() {
            return Err(EnvFileError::NoAssignment { line });
        }
        let name = name.strip_prefix("export ").map_or(name.as_str(), str::trim_start);
        check_name(name, line)?;
        Ok(name.to_owned())
    }

    fn value(&mut self, line: usize, name: &str) -> Result<String, EnvFileError> {
        let mut value = String::new();
        while let Some(character) = self.next() {
            match character {
                '\n' => break,
                '\'' => self.single_quoted(&mut value, line, name)?,
                '"' => self.double_quoted(&mut value, line, name)?,
                '\\' => match self.next() {
                    Some('\n') => {}
                    Some(escaped) => value.push(escaped),
                    None => {
                        return Err(EnvFileError::NeedsQuotes {
                            line,
                            name: name.to_owned(),
                            character: '\\',
                        });
                    }
                },
                ' ' | '\t' => {
                    self.rest_is_blank(line, name)?;
                    break;
                }
                '$' | '`' | ';' | '&' | '|' | '<' | '>' | '(' | ')' | '*' | '?' | '[' | '~' => {
                    return Err(EnvFileError::NeedsQuotes { line, name: name.to_owned(), character });
                }
                plain => value.push(plain),
            }
        }
        Ok(value)
    }

    /// Checks that only blanks and a comment follow a value.
    fn rest_is_blank(&mut self, line: usize, name: &str) -> Result<(), EnvFileError> {
        while let Some(character) = self.next() {
            match character {
                ' ' | '\t' => {}
                '\n' => return Ok(()),
                '#' => self.skip_line(),
                _ => return Err(EnvFileError::NeedsQuotes { line, name: name.to_owned(), character: ' ' }),
            }
        }
        Ok(())
    }

    fn single_quoted(&mut self, value: &mut String, line: usize, name: &str) -> Result<(), EnvFileError> {
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(character) => value.push(character),
                None => return Err(EnvFileError::Unclosed { line, name: name.to_owned(), quote: '\'' }),
            }
        }
    }

    fn double_quoted(&mut self, value: &mut String, line: usize, name: &str) -> Result<(), EnvFileError> {
        while let Some(character) = self.next() {
            match character {
                '"' => return Ok(()),
                '\\' => match self.next() {
                    Some('\n') => {}
                    Some(escaped @ ('"' | '\\' | '$' | '`')) => value.push(escaped),
                    Some(other) => value.extend(['\\', other]),
                    None => break,
                },
                // A shell would expand these characters, so a file that contains them was not meant for this parser.
                '$' | '`' => {
                    return Err(EnvFileError::NeedsQuotes { line, name: name.to_owned(), character });
                }
                plain => value.push(plain),
            }
        }
        Err(EnvFileError::Unclosed { line, name: name.to_owned(), quote: '"' })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_back(
            variables in proptest::collection::btree_map("[A-Za-z_][A-Za-z0-9_]{0,10}", "[^\0]{0,60}", 0..8),
        ) {
            let variables: Vec<_> = variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let text = render(&variables).expect("names are good");
            let parsed = parse(&text).expect("what we wrote");
            prop_assert_eq!(parsed.iter().collect::<Vec<_>>(), variables);
        }

        #[test]
        fn nothing_makes_the_parser_panic(text in "[=#'\"\\\\ \nA-C$]{0,60}|.{0,60}") {
            let _ = parse(&text);
        }
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).expect("good").0
    }

    #[test]
    fn a_real_shell_reads_what_was_written_in_the_same_way() {
        let value = "it's $HOME `id` \"x\" \\ ; & \n ü #";
        let text = render(&[("V", value), ("W", "")]).expect("good");
        let script = format!("{text}printf '%s|%s' \"$V\" \"$W\"");
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().expect("sh");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{value}|"));
    }

    #[test]
    fn comments_exports_quotes_and_continuations_are_understood() {
        let text = "# top\n\nexport A=1  # one\n  B='x y'\"z\\\"\\n\"\\ end\nC=\nD=a\\\nb\nE=\"l1\nl2\"";
        let wanted = [("A", "1"), ("B", "x yz\"\\n end"), ("C", ""), ("D", "ab"), ("E", "l1\nl2")];
        assert_eq!(pairs(text), wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_a_shell_would_execute_or_expand_is_refused() {
        for (text, character) in [
            ("A=$(id)", '$'),
            ("A=x;reboot", ';'),
            ("A=\"`id`\"", '`'),
            ("A=b c", ' '),
            ("A=*", '*'),
            ("A=a\\", '\\'),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error, EnvFileError::NeedsQuotes { line: 1, name: "A".to_owned(), character });
        }
    }

    #[test]
    fn errors_say_the_line_and_never_the_value() {
        let error = parse("A=1\nB='s3cret").expect_err("unclosed");
        assert_eq!(error.to_string(), "line 2: the quote ' that opens in the value of B is never closed");
        assert_eq!(parse("\nwhat").expect_err("no ="), EnvFileError::NoAssignment { line: 2 });
        assert!(matches!(parse("1A=x").expect_err("name"), EnvFileError::Name { line: 1, .. }));
        assert_eq!(
            parse("A=1\nA=2").expect_err("twice"),
            EnvFileError::Twice { line: 2, name: "A".to_owned() }
        );
        assert_eq!(format!("{:?}", parse("A=s3cret").expect("good")), r#"{"A"}"#);
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        assert_eq!(parse(&"#".repeat(LENGTH_MAX + 1)), Err(EnvFileError::TooLarge));
        let many: String = (0..=VARIABLES_MAX).map(|n| format!("A{n}=1\n")).collect();
        assert_eq!(parse(&many), Err(EnvFileError::TooLarge));
    }
}

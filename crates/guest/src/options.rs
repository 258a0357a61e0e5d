//! Command-line options of the programs in this binary: definition, parsing, and the values in force.

/// The value that an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// A value, with its name in the help.
    Value(&'static str),
    /// No value: the option is a switch.
    Nothing,
    /// No value: the option counts how often it is given.
    Count,
}

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    /// Its letter; `None` if it has only a long name.
    pub(crate) short: Option<char>,
    pub(crate) long: &'static str,
    pub(crate) takes: Takes,
    /// The variable with the same meaning; empty if there is none.
    pub(crate) variable: &'static str,
    pub(crate) help: &'static str,
}

/// Defines an option with a letter.
pub(crate) const fn option(
    short: char,
    long: &'static str,
    takes: Takes,
    variable: &'static str,
    help: &'static str,
) -> Switch {
    Switch { short: Some(short), long, takes, variable, help }
}

/// Defines an option without a letter and without a variable.
pub(crate) const fn long(long: &'static str, takes: Takes, help: &'static str) -> Switch {
    Switch { short: None, long, takes, variable: "", help }
}

/// The command line that a program accepts.
#[derive(Debug)]
pub(crate) struct Grammar {
    /// Name of the program in messages.
    pub(crate) program: &'static str,
    /// Its options, in the order of the help.
    pub(crate) switches: &'static [Switch],
    pub(crate) words: Words,
}

/// The words that a command line may have besides options.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Words {
    /// A command, only after `--`, in place of the named thing.
    CommandInPlaceOf(&'static str),
    /// At most so many words, at any position. After `--` all arguments are words.
    AtMost(usize),
}

/// The parsed command line. No value is validated yet. `Debug` is left out because options may hold secrets.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// The options in their order. If an option was given twice, the last one counts.
    values: Vec<(&'static Switch, String)>,
    /// The arguments that are no options, see [`Words`].
    pub(crate) words: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("{0} needs a value")]
    NoValue(String),
    #[error("{0} takes no value")]
    SpareValue(String),
    #[error("{shown} is no option of {program}")]
    Unknown { shown: String, program: &'static str },
    #[error("{given:?} is no option; a command in place of {place} comes after --")]
    Argument { given: String, place: &'static str },
    #[error("{given:?} is one word too many for {program}")]
    SpareWord { given: String, program: &'static str },
}

impl Options {
    pub(crate) fn parse(grammar: &Grammar, args: &[String]) -> Result<Self, UsageError> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                options.words.extend(args.by_ref().cloned());
            } else if let Some(name) = arg.strip_prefix("--") {
                options.take_long(grammar, name, &mut args)?;
            } else if let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                options.take_short(grammar, letters, &mut args)?;
            } else if let Words::CommandInPlaceOf(place) = grammar.words {
                return Err(UsageError::Argument { given: arg.clone(), place });
            } else {
                options.words.push(arg.clone());
            }
        }
        match grammar.words {
            Words::AtMost(most) if options.words.len() > most => {
                Err(UsageError::SpareWord { given: options.words.remove(most), program: grammar.program })
            }
            _ => Ok(options),
        }
    }

    /// Parses `--name`, `--name VALUE` or `--name=VALUE`.
    fn take_long<'a>(
        &mut self,
        grammar: &Grammar,
        text: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), UsageError> {
        let (name, given) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let shown = format!("--{name}");
        let Some(option) = grammar.switches.iter().find(|option| option.long == name) else {
            return Err(UsageError::Unknown { shown, program: grammar.program });
        };
        match (option.takes, given) {
            (Takes::Value(_), Some(value)) => self.set(option, value.to_owned()),
            (Takes::Value(_), None) => {
                self.set(option, rest.next().ok_or(UsageError::NoValue(shown))?.clone());
            }
            (_, Some(_)) => return Err(UsageError::SpareValue(shown)),
            (_, None) => self.switch_on(option),
        }
        Ok(())
    }

    /// Parses `-vve`, `-i VALUE` or `-iVALUE`, as getopts does.
    fn take_short<'a>(
        &mut self,
        grammar: &Grammar,
        letters: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), UsageError> {
        for (at, letter) in letters.char_indices() {
            let shown = format!("-{letter}");
            let Some(option) = grammar.switches.iter().find(|option| option.short == Some(letter)) else {
                return Err(UsageError::Unknown { shown, program: grammar.program });
            };
            if matches!(option.takes, Takes::Value(_)) {
                let value = match &letters[at + letter.len_utf8()..] {
                    "" => rest.next().ok_or(UsageError::NoValue(shown))?.clone(),
                    value => value.to_owned(),
                };
                self.set(option, value);
                return Ok(());
            }
            self.switch_on(option);
        }
        Ok(())
    }

    fn set(&mut self, option: &'static Switch, value: String) {
        self.values.push((option, value));
    }

    fn switch_on(&mut self, option: &'static Switch) {
        let before = self.get(option.long).and_then(|value| value.parse::<u8>().ok()).unwrap_or(0);
        let value = if option.takes == Takes::Count { before.saturating_add(1) } else { 1 };
        self.set(option, value.to_string());
    }

    /// Returns the value of an option, by its long name.
    pub(crate) fn get(&self, long: &str) -> Option<&str> {
        self.last(|option| option.long == long)
    }

    /// Returns the value of the option that has the same meaning as a variable.
    pub(crate) fn get_variable(&self, variable: &str) -> Option<&str> {
        self.last(|option| option.variable == variable)
    }

    fn last(&self, wanted: impl Fn(&Switch) -> bool) -> Option<&str> {
        self.values.iter().rev().find(|(option, _)| wanted(option)).map(|(_, value)| value.as_str())
    }
}

/// The options and the environment of this process. Options take precedence, and an empty value counts as none.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) options: &'a Options,
    pub(crate) environment: &'a [(String, String)],
}

impl<'a> Given<'a> {
    /// Returns the value of a variable, from its option or from the environment.
    pub(crate) fn get(self, variable: &str) -> Option<&'a str> {
        let set = |value: &&str| !value.is_empty();
        self.options.get_variable(variable).filter(set).or_else(|| self.process(variable).filter(set))
    }

    /// Returns a variable of this process's environment.
    pub(crate) fn process(self, variable: &str) -> Option<&'a str> {
        let found = self.environment.iter().find(|(name, _)| name == variable);
        found.map(|(_, value)| value.as_str())
    }
}

/// Returns the environment of this process, as text.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect()
}

/// Parses a switch's value. Returns `None` if it is neither on nor off.
pub(crate) fn is_on(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Returns the part of a help text that lists options, each with its variable and the value that `in_force` returns for it.
pub(crate) fn help(switches: &[Switch], in_force: impl Fn(&Switch) -> String) -> String {
    let mut text = String::new();
    for option in switches {
        let short = option.short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let value = if let Takes::Value(name) = option.takes { format!(" {name}") } else { String::new() };
        let name = format!("{short}--{}{value}", option.long);
        let holds = match (option.variable, in_force(option).as_str()) {
            ("", _) if option.long == "help" => String::new(),
            ("", "") => String::new(),
            ("", value) => format!(" [{value}]"),
            (variable, value) => format!(" [{variable}={value}]"),
        };
        text.push_str(&format!("  {name:<26} {}{holds}\n", option.help));
    }
    text
}

/// Returns the part of a help text that lists variables without an option.
pub(crate) fn help_of_variables(variables: &[(&str, &str)], in_force: impl Fn(&str) -> String) -> String {
    let line =
        |(variable, help): &(&str, &str)| format!("  {variable:<26} {help} [{}]\n", in_force(variable));
    variables.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static GRAMMAR: Grammar = Grammar {
        program: "cook",
        switches: &[
            option('d', "dish", Takes::Value("DISH"), "COOK_DISH", "what"),
            option('v', "verbose", Takes::Count, "COOK_VERBOSE", "say more"),
            option('q', "quick", Takes::Nothing, "COOK_QUICK", "in a hurry"),
        ],
        words: Words::AtMost(2),
    };

    fn parse(line: &str) -> Result<Options, UsageError> {
        Options::parse(&GRAMMAR, &line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_stand_anywhere_and_after_two_dashes_all_are_words() {
        assert_eq!(parse("2.3.4 -v arm64").expect("good").words, ["2.3.4", "arm64"]);
        assert_eq!(parse("-v -- -q").expect("good").words, ["-q"]);
        let error = parse("a b -q c").err().expect("refused").to_string();
        assert_eq!(error, "\"c\" is one word too many for cook");
    }

    #[test]
    fn options_win_over_the_environment_and_an_empty_value_is_none() {
        let environment = [("COOK_DISH", "soup"), ("COOK_QUICK", "")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let dish = |line| {
            let options = parse(line).expect("good");
            Given { options: &options, environment: &environment }.get("COOK_DISH").map(str::to_owned)
        };
        assert_eq!(dish("-d stew").as_deref(), Some("stew"));
        assert_eq!(dish("--dish=").as_deref(), Some("soup"));
        let options = Options::default();
        assert_eq!(Given { options: &options, environment: &environment }.get("COOK_QUICK"), None);
    }
}

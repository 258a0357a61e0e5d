//! The entrypoint's arguments: which there are, and what was given.

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// A value, named so in the help.
    Value(&'static str),
    /// Nothing: it switches on.
    Nothing,
    /// Nothing, and it counts.
    Count,
}

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Switch {
    /// Its letter; `None` for a long one only.
    pub(super) short: Option<char>,
    pub(super) long: &'static str,
    pub(super) takes: Takes,
    /// The variable that says the same; empty where there is none.
    pub(super) variable: &'static str,
    pub(super) help: &'static str,
}

const fn option(
    short: char,
    long: &'static str,
    takes: Takes,
    variable: &'static str,
    help: &'static str,
) -> Switch {
    Switch { short: Some(short), long, takes, variable, help }
}

const fn long(long: &'static str, takes: Takes, help: &'static str) -> Switch {
    Switch { short: None, long, takes, variable: "", help }
}

use Takes::{Count, Nothing, Value};

/// All options, in the order of the help.
pub(super) const OPTIONS: [Switch; 21] = [
    option('e', "ephemeral", Nothing, "RUNNER_EPHEMERAL", "end after one job"),
    option(
        'E',
        "env-file",
        Value("FILE"),
        "RUNNER_ENVFILE",
        "settings, read and removed; they win over options",
    ),
    option('g', "forge", Value("HOST"), "RUNNER_GITHUB", "forge: a host or a URL"),
    option('G', "group", Value("GROUP"), "RUNNER_GROUP", "runner group"),
    option('i', "id", Value("ID"), "RUNNER_ID", "id of the runner, names its files"),
    option('k', "token-file", Value("FILE"), "RUNNER_TOKENFILE", "written when the runner is registered"),
    option('l', "log", Value("LOG"), "RUNNER_LOG", "lines go there too: a descriptor's number, or a file"),
    option('L', "labels", Value("LABELS"), "RUNNER_LABELS", "all labels, separated by commas"),
    option('n', "name", Value("NAME"), "RUNNER_NAME", "name of the runner at the forge"),
    option('p', "principal", Value("NAME"), "RUNNER_PRINCIPAL", "OWNER/REPO, organisation or enterprise"),
    option('s', "scope", Value("SCOPE"), "RUNNER_SCOPE", "what the principal is: repo, org or ent"),
    option('S', "secret", Value("SECRET"), "RUNNER_SECRET", "secret of the loop, proves its .trm"),
    option('t', "token", Value("TOKEN"), "RUNNER_TOKEN", "registration token"),
    option('T', "pat", Value("PAT"), "", "personal access token, only without an env file"),
    option('u', "user", Value("USER"), "RUNNER_USER", "who runs the app; '' for the current user"),
    option('U', "update", Nothing, "RUNNER_UPDATE", "the app may update itself"),
    option('v', "verbose", Count, "RUNNER_VERBOSE", "say more"),
    option('h', "help", Nothing, "", "this text"),
    long("environment", Value("DIR"), "the environment directory"),
    long("app", Value("PROGRAM"), "the runner app, wherever it is"),
    long("app-dir", Value("DIR"), "its folder, made anew"),
];

/// Options that were given, none of them believed yet. `Debug` is left out: they hold secrets.
#[derive(Clone, Default)]
pub(super) struct Options {
    /// In their order; of one that was given twice the last counts.
    values: Vec<(&'static Switch, String)>,
    /// What runs in place of the runner app; empty without one.
    pub(super) command: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageError {
    #[error("{0} needs a value")]
    NoValue(String),
    #[error("{0} takes no value")]
    SpareValue(String),
    #[error("{0} is no option of the entrypoint")]
    Unknown(String),
    #[error("{0:?} is no option; a command in place of the runner app comes after --")]
    Argument(String),
    #[error("-i ID is missing, or RUNNER_ID")]
    NoId,
    #[error("{0:?} is no id of a runner: 1 to 64 letters, digits, `-` and `_`")]
    Id(String),
}

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Self, UsageError> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                options.command = args.cloned().collect();
                break;
            } else if let Some(name) = arg.strip_prefix("--") {
                options.take_long(name, &mut args)?;
            } else if let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                options.take_short(letters, &mut args)?;
            } else {
                return Err(UsageError::Argument(arg.clone()));
            }
        }
        Ok(options)
    }

    /// `--name`, `--name VALUE` or `--name=VALUE`.
    fn take_long<'a>(
        &mut self,
        text: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), UsageError> {
        let (name, given) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let shown = format!("--{name}");
        let Some(option) = OPTIONS.iter().find(|option| option.long == name) else {
            return Err(UsageError::Unknown(shown));
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

    /// `-vve`, `-i VALUE` or `-iVALUE`, as getopts has it.
    fn take_short<'a>(
        &mut self,
        letters: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), UsageError> {
        for (at, letter) in letters.char_indices() {
            let shown = format!("-{letter}");
            let Some(option) = OPTIONS.iter().find(|option| option.short == Some(letter)) else {
                return Err(UsageError::Unknown(shown));
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

    /// The value of an option, by its long name.
    pub(super) fn get(&self, long: &str) -> Option<&str> {
        self.last(|option| option.long == long)
    }

    /// The value of the option that says the same as a variable.
    pub(super) fn get_variable(&self, variable: &str) -> Option<&str> {
        self.last(|option| option.variable == variable)
    }

    fn last(&self, wanted: impl Fn(&Switch) -> bool) -> Option<&str> {
        self.values.iter().rev().find(|(option, _)| wanted(option)).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, UsageError> {
        Options::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_option_is_taken_by_its_letter_and_by_its_name() {
        for option in &OPTIONS {
            let (value, wanted) = match option.takes {
                Takes::Value(_) => (Some("x".to_owned()), "x"),
                Takes::Nothing | Takes::Count => (None, "1"),
            };
            let short = option.short.map(|letter| format!("-{letter}"));
            for name in short.into_iter().chain([format!("--{}", option.long)]) {
                let args: Vec<_> = [name.clone()].into_iter().chain(value.clone()).collect();
                let options = Options::parse(&args).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(options.get(option.long), Some(wanted), "{name}");
            }
        }
    }

    #[test]
    fn letters_stand_together_and_the_last_of_an_option_counts() {
        let options = parse("-vve -v -i1-a --id=1-b -u ").expect("good");
        assert_eq!(options.get("verbose"), Some("3"));
        assert_eq!(options.get_variable("RUNNER_EPHEMERAL"), Some("1"));
        assert_eq!(options.get_variable("RUNNER_ID"), Some("1-b"));
        assert_eq!(options.get("user"), Some(""));
        assert_eq!(options.get("labels"), None);
    }

    #[test]
    fn what_comes_after_two_dashes_is_a_command() {
        let options = parse("-v -- sh -c -x").expect("good");
        assert_eq!(options.command, ["sh", "-c", "-x"]);
    }

    #[test]
    fn wrong_usage_says_what_and_never_a_value() {
        let error = |line| parse(line).err().expect("refused").to_string();
        assert_eq!(error("-i"), "-i needs a value");
        assert_eq!(error("-vx"), "-x is no option of the entrypoint");
        assert_eq!(error("--tokn=s3cret"), "--tokn is no option of the entrypoint");
        assert_eq!(error("--update=1"), "--update takes no value");
        assert_eq!(error("sh"), "\"sh\" is no option; a command in place of the runner app comes after --");
    }
}

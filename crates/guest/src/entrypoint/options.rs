//! The options of the entrypoint.

use crate::options::Takes::{Count, Nothing, Value};
use crate::options::{Grammar, Switch, Words, long, option};

pub(super) use crate::options::Options;

/// All options, in the order of the help.
pub(super) static OPTIONS: [Switch; 21] = [
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

/// The entrypoint's command line.
static GRAMMAR: Grammar = Grammar {
    program: "the entrypoint",
    switches: &OPTIONS,
    words: Words::CommandInPlaceOf("the runner app"),
};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageError {
    #[error(transparent)]
    Options(#[from] crate::options::UsageError),
    #[error("-i ID is missing, or RUNNER_ID")]
    NoId,
    #[error("{0:?} is no id of a runner: 1 to 64 letters, digits, `-` and `_`")]
    Id(String),
}

/// Parses the arguments.
pub(super) fn parse(args: &[String]) -> Result<Options, UsageError> {
    Ok(Options::parse(&GRAMMAR, args)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, UsageError> {
        super::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_option_is_taken_by_its_letter_and_by_its_name() {
        for option in &OPTIONS {
            let (value, wanted) = match option.takes {
                Value(_) => (Some("x".to_owned()), "x"),
                Nothing | Count => (None, "1"),
            };
            let short = option.short.map(|letter| format!("-{letter}"));
            for name in short.into_iter().chain([format!("--{}", option.long)]) {
                let args: Vec<_> = [name.clone()].into_iter().chain(value.clone()).collect();
                let options = super::parse(&args).unwrap_or_else(|error| panic!("{name}: {error}"));
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
        assert_eq!(options.words, ["sh", "-c", "-x"]);
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

//! Parses the process's arguments to [`Cli`].

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use super::{Cli, Common, LoopCommand, RunnerArgs, orchestrator, runner, short_help, token};

/// The parsed command line, and the source of each value.
pub(crate) struct Parsed {
    pub(crate) common: Common,
    pub(crate) command: super::Command,
    /// The matches of the subcommand.
    pub(crate) matches: ArgMatches,
}

/// A loop's options, and which of them are on the command line.
#[derive(Debug)]
pub(crate) struct LoopOptions {
    pub(crate) args: RunnerArgs,
    /// Number of `-v` options.
    pub(crate) verbose: u8,
    /// Ids of the options on the command line. They take precedence over the values that an orchestrator hands down.
    arguments: Vec<String>,
}

impl LoopOptions {
    /// Creates the options from the matches of `dayfly runner`; `verbose` is the number of `-v` options.
    pub(crate) fn new(args: RunnerArgs, verbose: u8, matches: &ArgMatches) -> Self {
        let ids = matches.ids().map(|id| id.as_str());
        let arguments = ids.filter(|id| is_argument(matches, id)).map(str::to_owned).collect();
        Self { args, verbose, arguments }
    }

    /// Returns true if an option is on the command line.
    pub(crate) fn is_argument(&self, id: &str) -> bool {
        self.arguments.iter().any(|argument| argument == id)
    }
}

/// Parses the process's arguments. Exits the process after help, version and errors.
pub(crate) fn parse() -> Parsed {
    let mut command = without_empty_variables(Cli::command());
    let matches = command.clone().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    let (name, matches) = matches
        .subcommand()
        .map_or_else(Default::default, |(name, matches)| (name.to_owned(), matches.clone()));
    if let Some(variables) = variables_of(&name).filter(|_| wants_short_help(&matches)) {
        let mut whole = Cli::command();
        whole.build();
        if let Some(command) = whole.find_subcommand(&name) {
            show(&short_help::text(command, &matches, variables, crate::printer::columns()));
        }
    }
    let Cli { common, command } = cli;
    Parsed { common, command, matches }
}

/// Returns true if an option is on the command line, i.e. neither in a variable nor at its default.
pub(crate) fn is_argument(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// Parses the words after an orchestrator's `--` as options of `dayfly runner`. Exits the process after help and errors.
pub(crate) fn parse_loop(words: &[OsString]) -> LoopOptions {
    let (options, matches) = try_parse_loop(words).unwrap_or_else(|error| error.exit());
    if options.args.short_help {
        show(&short_help::text(
            &LoopCommand::command(),
            &matches,
            runner::VARIABLES,
            crate::printer::columns(),
        ));
    }
    options
}

fn show(help: &str) -> ! {
    crate::printer::line(help);
    std::process::exit(0)
}

fn try_parse_loop(words: &[OsString]) -> Result<(LoopOptions, ArgMatches), clap::Error> {
    let mut command = without_empty_variables(LoopCommand::command());
    let matches = command.try_get_matches_from_mut(words)?;
    let LoopCommand { verbose, args } = LoopCommand::from_arg_matches(&matches)?;
    if args.index.is_some() {
        let text = "an orchestrator numbers its loops itself: give no LOOP\n";
        return Err(clap::Error::raw(ErrorKind::UnknownArgument, text));
    }
    Ok((LoopOptions::new(args, verbose, &matches), matches))
}

fn wants_short_help(matches: &ArgMatches) -> bool {
    matches.try_get_one::<bool>("short_help").ok().flatten() == Some(&true)
}

fn variables_of(subcommand: &str) -> Option<&'static [(&'static str, &'static str)]> {
    match subcommand {
        "orchestrator" => Some(orchestrator::VARIABLES),
        "runner" => Some(runner::VARIABLES),
        "token" => Some(token::VARIABLES),
        _ => None,
    }
}

/// Makes clap ignore empty variables, as a shell's `${VARIABLE:-default}` does.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let forget = |arg: clap::Arg| {
        let empty =
            arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
        if empty { arg.env(None::<&'static str>) } else { arg }
    };
    command.mut_args(forget).mut_subcommands(without_empty_variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<LoopOptions, clap::Error> {
        let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        try_parse_loop(&words).map(|(options, _)| options)
    }

    #[test]
    fn the_short_help_shows_values_in_force_and_no_secret() {
        let mut command = LoopCommand::command();
        let words = ["-T", "ghp_XXXX", "-S", "hush", "-c", "4", "-h"];
        let matches = command.try_get_matches_from_mut(words).expect("good");
        let text = short_help::text(&command, &matches, runner::VARIABLES, None);
        assert!(!text.contains("ghp_XXXX") && !text.contains("hush"), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_original_systems_command_line_is_read() {
        let options = options("-T ghp_XXXX -p efrecon/gh-runner-krunvm -r 1 -k 40").expect("good");
        assert!(options.is_argument("pat") && options.is_argument("repeat") && !options.is_argument("scope"));
        assert_eq!(options.args.forge.access.principal.as_deref(), Some("efrecon/gh-runner-krunvm"));
        assert_eq!((options.args.looping.repeat, options.args.looping.terminate), (1, Some(40)));
    }

    #[test]
    fn what_a_loop_does_not_know_is_refused_before_anything_starts() {
        for line in ["--nonsense", "--state /x", "-c x", "-p o/r -- 3", "-r"] {
            let error = options(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(options("-r -5").expect("for ever").args.looping.repeat, -5);
    }
}

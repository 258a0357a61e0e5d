//! `docs/reference/commands.md`: each command with its options, from the definitions that `--help` prints.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::{cell, code, head, row};
use crate::cli::Cli;

/// The beginning of the page.
const BEGIN: &str = "# Commands and options

This page is written from the definitions that `--help` prints. A variable gives the value of its option if the option is not on the
command line. `dayfly COMMAND --help` shows the same, and `man dayfly-COMMAND` too if dayfly is [installed](../install.md).

";

fn page() -> String {
    let mut whole = Cli::command();
    whole.build();
    let mut text = BEGIN.to_owned();
    let _ = write!(text, "## Options of every command\n\n{}", options(whole.get_arguments()));
    for command in whole.get_subcommands().filter(|command| !command.is_hide_set()) {
        section(command, &mut text);
    }
    text
}

fn section(command: &Command, text: &mut String) {
    let usage = command.clone().render_usage().to_string();
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string);
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let _ = write!(text, "\n## {name}\n\n{}.\n", super::escaped(&about.unwrap_or_default()));
    let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
    let visible: Vec<&Command> = visible.collect();
    if visible.is_empty() {
        let usage = usage.trim_start_matches("Usage: ").replace('\n', "\n    ");
        let _ = write!(text, "\n    {usage}\n");
    }
    let own = options(command.get_arguments().filter(|arg| !arg.is_global_set()));
    if !own.is_empty() {
        let _ = write!(text, "\n{own}");
    }
    visible.into_iter().for_each(|command| section(command, text));
}

/// Returns the table of options; empty if there is none.
fn options<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let is_shown = |arg: &&Arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version");
    let rows: String = args.filter(is_shown).map(option).collect();
    if rows.is_empty() { rows } else { head(["option", "variable", "default", "meaning"]) + &rows }
}

fn option(arg: &Arg) -> String {
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let defaults = defaults.collect::<Vec<_>>().join(",");
    let default = if arg.get_action().takes_values() { code(&defaults) } else { String::new() };
    row([names(arg), code(&variable), default, meaning(arg)])
}

/// Returns the names of an option with its value, or the name of an argument.
fn names(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str());
    let value = values.collect::<Vec<_>>().join(" ");
    let takes_value = arg.get_action().takes_values();
    if arg.is_positional() {
        return code(&value);
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let aliases = arg.get_visible_aliases().unwrap_or_default();
    let long = arg.get_long().into_iter().chain(aliases).map(|name| format!("--{name}"));
    let mut names: Vec<String> = short.into_iter().chain(long).collect();
    if let Some(last) = names.last_mut().filter(|_| takes_value && !value.is_empty()) {
        last.push_str(&format!(" {value}"));
    }
    names.iter().map(|name| code(name)).collect::<Vec<_>>().join(", ")
}

/// Returns the meaning of an option, with that of each word that it takes.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut text = cell(&help);
    for word in arg.get_possible_values() {
        if let Some(help) = word.get_help().filter(|_| !word.is_hide_set() && arg.get_action().takes_values())
        {
            let _ = write!(text, "<br>{}: {}", code(word.get_name()), cell(&help.to_string()));
        }
    }
    text
}

#[test]
fn the_page_of_commands_is_that_of_the_definitions() {
    super::assert_current("commands.md", &page());
}

#[test]
fn the_page_of_commands_does_not_depend_on_the_environment() {
    let page = page();
    for internal in ["vmm-launch", "runner-app"] {
        assert!(!page.contains(&format!("## dayfly {internal}")), "{internal}");
    }
    for part in ["`RUNNER_CPUS`", "## dayfly lab fault add", "`-R`, `--runtime`, `--driver DRIVER`"] {
        assert!(page.contains(part), "{part}");
    }
}

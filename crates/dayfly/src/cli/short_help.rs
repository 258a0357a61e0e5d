//! The output of `-h` for the commands of the shell version: one line per option, with its variable and its current value.
//! A secret is shown as "set".

use std::fmt::Write as _;

use clap::{Arg, ArgMatches, Command};

/// Returns the short help of a command with the values of `matches`, wrapped at `columns`.
pub(crate) fn text(
    command: &Command,
    matches: &ArgMatches,
    variables: &[(&str, &str)],
    columns: Option<usize>,
) -> String {
    let mut text = format!("{}\n\nUsage: {}\n", about(command), usage(command));
    let options = command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set());
    let rows: Vec<[String; 3]> = options.map(|arg| row(arg, matches)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (names, values) = (width(0), width(1).min(VALUE_WIDTH_MAX));
    for [name, value, what] in &rows {
        text.push_str(&entry(&format!("  {name:names$}  {value:values$}  "), what, columns));
    }
    if !variables.is_empty() {
        text.push_str("\n\nVariables without an option:");
        let width = variables.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, what) in variables {
            text.push_str(&entry(&format!("  {name:width$}  "), what, columns));
        }
    }
    text.push_str("\n\nUse --help for more.");
    text
}

/// Least columns for an option's meaning. If fewer are left, the meaning starts on a line of its own.
const MEANING_WIDTH_MIN: usize = 28;
/// Column of a meaning that has a line of its own.
const MEANING_INDENT: usize = 10;

/// Returns a line that begins with `head`; `what` is wrapped at `columns` and indented below itself.
fn entry(head: &str, what: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns else { return format!("\n{head}{what}").trim_end().to_owned() };
    let beside = head.chars().count();
    let (mut text, indent) = if columns >= beside + MEANING_WIDTH_MIN {
        (format!("\n{head}"), beside)
    } else {
        (format!("\n{}\n{:MEANING_INDENT$}", head.trim_end(), ""), MEANING_INDENT)
    };
    let mut used = indent;
    for word in what.split(' ') {
        let length = word.chars().count();
        if used > indent && used + 1 + length > columns {
            let _ = write!(text, "\n{:indent$}", "");
            used = indent;
        } else if used > indent {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += length;
    }
    text.trim_end().to_owned()
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.trim_start_matches("Usage: ").to_owned()
}

/// Widest column of values. A longer value moves the meaning to the right in its own line only.
const VALUE_WIDTH_MAX: usize = 32;

/// Returns an option's names, its variable with the current value, and its meaning.
fn row(arg: &Arg, matches: &ArgMatches) -> [String; 3] {
    let names = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("    --{long}"),
        (None, None) => String::new(),
    };
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let value = match (variable.is_empty(), value_in_force(arg, matches)) {
        (true, value) => value,
        (false, value) => format!("{variable}={value}"),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    [names, value, first_clause(&help).to_owned()]
}

/// Returns the first clause of an option's help; `--help` prints the rest.
fn first_clause(help: &str) -> &str {
    let ends = ["; ", " [", " (", ": ", "\n"].into_iter().filter_map(|mark| help.find(mark));
    &help[..ends.min().unwrap_or(help.len())]
}

fn value_in_force(arg: &Arg, matches: &ArgMatches) -> String {
    let id = arg.get_id().as_str();
    if id == "short_help" {
        return String::new();
    }
    if matches!(arg.get_action(), clap::ArgAction::Count) {
        return matches.get_count(id).to_string();
    }
    // Flags such as --help hold no value.
    let Ok(Some(values)) = matches.try_get_raw(id) else { return String::new() };
    let values: Vec<_> = values.map(|value| value.to_string_lossy().into_owned()).collect();
    if values.is_empty() {
        return String::new();
    }
    if arg.is_hide_env_values_set() && arg.get_env().is_some_and(is_secret) {
        return "set".to_owned();
    }
    match values.join(",").as_str() {
        "true" => "1".to_owned(),
        "false" => "0".to_owned(),
        value => value.to_owned(),
    }
}

/// Returns true if the value of a variable must not be shown.
fn is_secret(variable: &std::ffi::OsStr) -> bool {
    let name = variable.to_string_lossy();
    ["_PAT", "_SECRET", "_TOKEN"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meaning_goes_on_below_itself_and_below_its_option_where_the_terminal_is_narrow() {
        let shown = |columns| entry("  -n, --runners  RUNNERS=1  ", "Number of loops that run", columns);
        assert_eq!(shown(None), "\n  -n, --runners  RUNNERS=1  Number of loops that run");
        assert_eq!(shown(Some(40)), "\n  -n, --runners  RUNNERS=1\n          Number of loops that run");
        assert_eq!(
            shown(Some(30)),
            "\n  -n, --runners  RUNNERS=1\n          Number of loops that\n          run"
        );
        let what = "Number of loops that run side by side";
        let beside = entry("  -n  ", what, Some(36));
        assert_eq!(beside, "\n  -n  Number of loops that run side\n      by side");
    }
}

//! `dayfly completions SHELL`: prints a script with which a shell asks dayfly itself for completions, so that it also completes
//! the names of pools, runners and instances that are there at this moment.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::env::{CompleteEnv, Shells};

use crate::cli::Cli;
use crate::exit::{Failure, Outcome, Result};
use crate::printer;

/// Name of the program, as users type it.
const PROGRAM: &str = "dayfly";
/// The variable with which the script asks; it holds the name of the shell.
const VARIABLE: &str = "DAYFLY_COMPLETE";

/// Answers the question of a script, and exits, if this process was started for one. Nothing may be printed before.
pub(crate) fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin(PROGRAM).complete();
}

/// Runs the command. `program` is the path of dayfly in the script; without it, this program is meant.
pub(crate) fn run(shell: clap_complete::Shell, program: Option<PathBuf>) -> Result<Outcome> {
    let program = match program {
        Some(program) => program,
        None => std::env::current_exe().map_err(Failure::cannot)?,
    };
    printer::line(script(shell, &program.display().to_string())?.trim_end());
    Ok(Outcome::Success)
}

/// Returns the script. `program` is the path of dayfly.
///
/// # Errors
/// The shell is not known.
fn script(shell: clap_complete::Shell, program: &str) -> Result<String> {
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string());
    let completer = completer.ok_or_else(|| Failure::usage(format!("no completions for {shell}")))?;
    let mut script = Vec::new();
    let written = completer.write_registration(VARIABLE, PROGRAM, PROGRAM, program, &mut script);
    written.map_err(Failure::cannot)?;
    Ok(String::from_utf8_lossy(&script).into_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::ValueEnum as _;
    use clap_complete::Shell;
    use clap_complete::engine::complete;

    use super::*;

    #[test]
    fn every_shell_has_a_script_that_asks_this_program() {
        for &shell in Shell::value_variants() {
            let script = script(shell, "/usr/bin/dayfly").expect("known");
            assert!(script.contains("/usr/bin/dayfly") && script.contains(VARIABLE), "{shell}: {script}");
        }
    }

    /// Returns the completions of the last word.
    fn of(words: &[&str]) -> Vec<String> {
        let args: Vec<OsString> = words.iter().map(OsString::from).collect();
        let found = complete(&mut Cli::command(), args, words.len() - 1, None).expect("completed");
        found.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn commands_options_and_values_are_completed() {
        assert_eq!(of(&["dayfly", "pau"]), ["pause"]);
        assert_eq!(of(&["dayfly", "scale", "x", "--min"]), ["--min-idle"]);
        assert_eq!(of(&["dayfly", "completions", "ba"]), ["bash"]);
    }
}

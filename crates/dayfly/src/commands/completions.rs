//! `dayfly completions SHELL`: prints a completion script.

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::exit::Outcome;
use crate::printer;

pub(crate) fn run(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dayfly", &mut script);
    printer::line(String::from_utf8_lossy(&script).trim_end());
    Outcome::Success
}

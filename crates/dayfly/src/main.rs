//! The `dayfly` command: the only crate that prints, reads the environment and ends the process.
//!
//! One file per command under [`commands`]; how dayfly ends is in [`exit`], what it prints goes through [`printer`].

mod cli;
mod commands;
mod exit;
mod printer;
mod settings;
mod signals;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command, ImageCommand, LabCommand};
use crate::exit::{Failure, Outcome};
use crate::settings::Places;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Single-threaded until it becomes the VMM: nothing else may have been started before.
    if let Command::VmmLaunch { fd } = cli.command {
        return commands::vmm_launch::run(fd);
    }
    start_log(cli.common.verbose);
    match run(cli) {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            printer::error(&failure, failure.what_to_do());
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> exit::Result<Outcome> {
    if let Command::Completions { shell } = cli.command {
        return commands::completions::run(shell);
    }
    let places = Places::resolve(&cli.common)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::cannot)?;
    runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => commands::demo::run(&places, args).await,
            Command::Runner(args) => commands::runner::run(&places, args).await,
            Command::Lab(LabCommand::Serve(args)) => commands::lab::serve(args).await,
            Command::Image(ImageCommand::Build { json }) => commands::image::build(&places, json).await,
            Command::Image(ImageCommand::Ls { json }) => commands::image::ls(&places, json),
            Command::Image(ImageCommand::Rm { id }) => commands::image::rm(&places, &id),
            Command::Image(ImageCommand::RunnerApp) => commands::image::runner_app(&places).await,
            Command::Doctor(args) => commands::doctor::run(&places, &args).await,
            Command::Completions { .. } | Command::VmmLaunch { .. } => Ok(Outcome::Success),
        }
    })
}

/// Warnings and errors of the parts inside go to standard error; `-v` shows more.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let ours = ["dayfly", "dayfly_fleet", "dayfly_forge", "dayfly_vm"];
    let filter =
        ours.iter().fold(tracing_subscriber::EnvFilter::new("warn"), |filter, target| {
            match format!("{target}={level}").parse() {
                Ok(directive) => filter.add_directive(directive),
                Err(_) => filter,
            }
        });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never)
        .init();
}

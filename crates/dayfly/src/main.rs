//! The `dayfly` command: the only crate that prints, reads the environment and ends the process.
//!
//! One file per command under [`commands`]; how dayfly ends is in [`exit`], what it prints goes through [`printer`].

mod cli;
mod commands;
mod exit;
mod labels;
mod log;
mod printer;
mod proxy;
mod settings;
mod signals;

use std::process::ExitCode;

use crate::cli::{Command, ImageCommand, LabCommand, Parsed, RunnerArgs, TemplateCommand};
use crate::exit::{Failure, Outcome};
use crate::settings::Places;

fn main() -> ExitCode {
    let parsed = cli::parse();
    // Single-threaded until it becomes the VMM: nothing else may have been started before.
    if let Command::VmmLaunch { fd } = parsed.cli.command {
        return commands::vmm_launch::run(fd);
    }
    match run(parsed) {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            printer::error(&failure, failure.what_to_do());
            ExitCode::from(failure.code())
        }
    }
}

fn run(parsed: Parsed) -> exit::Result<Outcome> {
    let places = Places::resolve(&parsed.cli.common)?;
    match parsed.cli.command {
        Command::Completions { shell } => commands::completions::run(shell),
        Command::VmmLaunch { .. } => Ok(Outcome::Success),
        Command::Runner(ref args) => {
            let options = parsed.loop_options(RunnerArgs::clone(args));
            log::start(&options.args.looping.log, options.verbosity())?;
            block_on(commands::runner::run(&places, options))
        }
        Command::Orchestrator(args) => {
            // Before anything starts, so that what is wrong with the loops' options is told at once.
            let mut options = cli::parse_loop(&args.runner);
            commands::orchestrator::hand_down(&args, parsed.cli.common.verbose, &mut options);
            log::start(&options.args.looping.log, options.verbosity())?;
            block_on(commands::orchestrator::run(&places, args, options))
        }
        Command::Token(ref args) => {
            let verbose = parsed.cli.common.verbose;
            log::start(&args.log, if verbose > 0 { verbose } else { args.verbosity })?;
            block_on(commands::token::run(args, parsed.is_argument("pat")))
        }
        command => {
            log::start("2", parsed.cli.common.verbose)?;
            block_on(run_other(&places, command))
        }
    }
}

/// The commands whose log is as it is everywhere.
async fn run_other(places: &Places, command: Command) -> exit::Result<Outcome> {
    match command {
        Command::Demo(args) => commands::demo::run(places, args).await,
        Command::Ps(args) => commands::ps::run(places, &args),
        Command::Trace(args) => commands::trace::run(places, &args),
        Command::Logs(args) => commands::logs::run(places, &args).await,
        Command::Lab(LabCommand::Serve(args)) => commands::lab::serve(args).await,
        Command::Image(command) => run_image(places, command).await,
        Command::Template(TemplateCommand::Build(args)) => commands::template::build(places, *args).await,
        Command::Template(TemplateCommand::Ls { json }) => commands::template::ls(places, json),
        Command::Template(TemplateCommand::Rm { ids, all }) => commands::template::rm(places, &ids, all),
        Command::Template(TemplateCommand::Gc { keep_bytes }) => commands::template::gc(places, keep_bytes),
        Command::Doctor(args) => commands::doctor::run(places, &args).await,
        Command::Runner(_)
        | Command::Orchestrator(_)
        | Command::Token(_)
        | Command::Completions { .. }
        | Command::VmmLaunch { .. } => Ok(Outcome::Success),
    }
}

async fn run_image(places: &Places, command: ImageCommand) -> exit::Result<Outcome> {
    match command {
        ImageCommand::Build(args) => commands::image::build(places, args).await,
        ImageCommand::Pull { name, fetch, json } => commands::image::pull(places, &name, fetch, json).await,
        ImageCommand::Ls { json } => commands::image::ls(places, json),
        ImageCommand::Inspect { image, json } => commands::image::inspect(places, &image, json),
        ImageCommand::Check(args) => commands::image::check::run(places, args).await,
        ImageCommand::Rm { id } => commands::image::rm(places, &id),
        ImageCommand::Gc { keep_bytes, json } => commands::image::gc(places, keep_bytes, json),
        ImageCommand::Kernel { json } => commands::image::kernel(places, json).await,
        ImageCommand::Tools { json } => commands::image::tools(places, json).await,
        ImageCommand::RunnerApp => commands::image::runner_app(places).await,
    }
}

fn block_on(work: impl Future<Output = exit::Result<Outcome>>) -> exit::Result<Outcome> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::cannot)?;
    runtime.block_on(work)
}

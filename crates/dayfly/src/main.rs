//! The `dayfly` command: the only crate that prints, reads the environment and exits the process.
//!
//! Each command has one file under [`commands`]. [`exit`] defines how dayfly ends, and [`printer`] prints.

mod cli;
mod commands;
mod config;
mod control;
mod defaults;
mod exit;
mod labels;
mod log;
#[cfg(test)]
mod pages;
mod printer;
mod proxy;
mod rules;
mod service;
mod settings;
mod signals;
#[cfg(test)]
mod test_forge;
mod units;

use std::process::ExitCode;

use crate::cli::{Command, Common, ImageCommand, LabCommand, LoopOptions, Parsed, TemplateCommand};
use crate::exit::{Failure, Outcome};
use crate::settings::Places;
use crate::signals::unless_stopped;

fn main() -> ExitCode {
    commands::completions::answer();
    run(cli::parse()).unwrap_or_else(|failure| {
        printer::error(&failure, failure.what_to_do());
        ExitCode::from(failure.code())
    })
}

/// Runs the command. The runtime, and with it other threads, starts inside the branch of a command that needs it, because
/// a process that becomes a VMM must have a single thread.
fn run(parsed: Parsed) -> exit::Result<ExitCode> {
    let Parsed { common, command, matches } = parsed;
    match command {
        Command::VmmLaunch { fd } => Ok(commands::vmm_launch::run(fd)),
        Command::Completions { shell, program } => {
            commands::completions::run(shell, program).map(ExitCode::from)
        }
        Command::Man { folder } => commands::man::run(&folder).map(ExitCode::from),
        Command::Runner(args) => {
            let options = LoopOptions::new(*args, common.verbose, &matches);
            log::start(&options.args.looping.log, options.verbosity())?;
            block_on(&common, async |places| commands::runner::run(places, options).await)
        }
        Command::Orchestrator(args) => {
            // The loops' options are parsed before anything starts, so that an error in them is reported at once.
            let mut options = cli::parse_loop(&args.runner);
            commands::orchestrator::hand_down(&args, common.verbose, &mut options);
            log::start(&options.args.looping.log, options.verbosity())?;
            block_on(&common, async |places| commands::orchestrator::run(places, args, options).await)
        }
        Command::Token(args) => {
            log::start(&args.log, if common.verbose > 0 { common.verbose } else { args.verbosity })?;
            let is_argument = |id: &str| cli::is_argument(&matches, id);
            block_on(&common, async |_| commands::token::run(&args, is_argument).await)
        }
        Command::Init(args) => commands::init::run(&args).map(ExitCode::from),
        Command::App(command) => logged(&common, async |_| unless_stopped(commands::app::run(command)).await),
        Command::Validate(args) => {
            commands::validate::run(&Places::resolve(&common)?, &args).map(ExitCode::from)
        }
        Command::Demo(args) => logged(&common, async |places| commands::demo::run(places, args).await),
        Command::Ps(args) => logged(&common, async |places| commands::ps::run(places, &args)),
        Command::Top => logged(&common, async |places| commands::top::run(places).await),
        Command::Disk(args) => logged(&common, async |places| commands::disk::run(places, &args)),
        Command::Jobs(args) => logged(&common, async |places| commands::jobs::run(places, &args)),
        Command::Why(args) => logged(&common, async |places| commands::why::run(places, &args)),
        Command::Runs(args) => logged(&common, async |places| commands::runs::run(places, &args)),
        Command::Net(args) => logged(&common, async |places| commands::net::run(places, &args)),
        Command::Usage(args) => logged(&common, async |places| commands::usage::run(places, &args)),
        Command::Clear(args) => {
            let is_argument = |id: &str| cli::is_argument(&matches, id);
            logged(&common, async |places| {
                unless_stopped(commands::clear::run(places, &args, is_argument)).await
            })
        }
        Command::Uninstall(args) => {
            let is_argument = |id: &str| cli::is_argument(&matches, id);
            logged(&common, async |places| {
                unless_stopped(commands::uninstall::run(places, &args, is_argument)).await
            })
        }
        Command::Reload(args) => logged(&common, async |places| commands::reload::run(places, &args).await),
        Command::Pause(args) => logged(&common, async |places| commands::steer::pause(places, args).await),
        Command::Resume(args) => logged(&common, async |places| commands::steer::resume(places, args).await),
        Command::Drain(args) => logged(&common, async |places| commands::steer::drain(places, args).await),
        Command::Scale(args) => logged(&common, async |places| commands::steer::scale(places, args).await),
        Command::Logs(args) => logged(&common, async |places| commands::logs::run(places, &args).await),
        Command::Exec(args) => logged(&common, async |places| commands::session::exec(places, args).await),
        Command::Shell(args) => logged(&common, async |places| commands::session::shell(places, args).await),
        Command::Cp(args) => logged(&common, async |places| commands::session::cp(places, args).await),
        Command::Thaw(args) => logged(&common, async |places| commands::thaw::run(places, args).await),
        Command::Trace(args) => logged(&common, async |places| commands::trace::run(places, &args)),
        Command::Lab(LabCommand::Serve(args)) => logged(&common, async |_| commands::lab::serve(args).await),
        Command::Lab(LabCommand::Fault(args)) => {
            logged(&common, async |_| unless_stopped(commands::lab::fault::run(args)).await)
        }
        Command::Lab(LabCommand::Soak(args)) => {
            logged(&common, async |places| commands::lab::soak::run(places, &args).await)
        }
        Command::Image(command) => logged(&common, async |places| run_image(places, command).await),
        Command::Template(command) => logged(&common, async |places| run_template(places, command).await),
        Command::Doctor(args) if args.at_forge => {
            let is_argument = |id: &str| cli::is_argument(&matches, id);
            logged(&common, async |places| {
                unless_stopped(commands::doctor::run_at_forge(places, &args, is_argument)).await
            })
        }
        Command::Doctor(args) if args.jail => {
            logged(&common, async |places| commands::doctor::run_at_jail(places, &args))
        }
        Command::Doctor(args) => logged(&common, async |places| commands::doctor::run(places, &args).await),
    }
}

async fn run_image(places: &Places, command: ImageCommand) -> exit::Result<Outcome> {
    use commands::image;
    match command {
        ImageCommand::Build(args) => unless_stopped(image::build(places, args)).await,
        ImageCommand::Pull { name, fetch, json } => {
            unless_stopped(image::pull(places, &name, fetch, json)).await
        }
        ImageCommand::Ls { json } => image::ls::run(places, json),
        ImageCommand::Inspect { image, json } => image::inspect::run(places, &image, json),
        ImageCommand::Check(args) => unless_stopped(image::check::run(places, args)).await,
        ImageCommand::Rm { id } => image::rm(places, &id),
        ImageCommand::Gc { keep_bytes, dry_run, json } => image::gc::run(places, keep_bytes, dry_run, json),
        ImageCommand::Kernel(args) => unless_stopped(image::kernel(places, args)).await,
        ImageCommand::Tools(args) => unless_stopped(image::tools(places, args)).await,
        ImageCommand::RunnerApp => image::runner_app(places).await,
    }
}

async fn run_template(places: &Places, command: TemplateCommand) -> exit::Result<Outcome> {
    use commands::template;
    match command {
        TemplateCommand::Build(args) => unless_stopped(template::build(places, *args)).await,
        TemplateCommand::Ls { json } => template::ls(places, json),
        TemplateCommand::Rm { ids, all } => template::rm(places, &ids, all),
        TemplateCommand::Gc { keep_bytes } => template::gc(places, keep_bytes),
    }
}

/// Runs a command that has no log options of its own: its log goes to standard error.
fn logged(
    common: &Common,
    command: impl AsyncFnOnce(&Places) -> exit::Result<Outcome>,
) -> exit::Result<ExitCode> {
    log::start("2", common.verbose)?;
    block_on(common, command)
}

/// Keeps the secrets in the memory of this process out of core dumps and debuggers of the same user. A program that it
/// executes is not concerned.
fn hide_memory() -> rustix::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Runs a command in a runtime of its own.
fn block_on(
    common: &Common,
    command: impl AsyncFnOnce(&Places) -> exit::Result<Outcome>,
) -> exit::Result<ExitCode> {
    // Each machine takes some twenty descriptors. A process that becomes a VMM sets a limit of its own.
    dayfly_host::descriptors::raise_limit().map_err(Failure::cannot)?;
    hide_memory().map_err(Failure::cannot)?;
    dayfly_host::tool::set_environment(settings::environment());
    let places = Places::resolve(common)?;
    places.close_to_others()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::cannot)?;
    runtime.block_on(command(&places)).map(ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_of_dayfly_leaves_no_memory_behind() {
        use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
        hide_memory().expect("hidden");
        assert_eq!(dumpable_behavior().expect("known"), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}

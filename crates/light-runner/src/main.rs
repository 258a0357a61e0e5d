//! The program `light-runner`: `bin/Runner.Listener` of an installation without the official app.

#![expect(clippy::print_stdout, reason = "a program prints")]
#![expect(clippy::print_stderr, reason = "a program prints")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use dayfly_forge::jit::JitConfig;
use dayfly_light_runner::{Exit, Settings, install, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

const HELP: &str = "\
light-runner: a light stand-in for the official runner app, for tests with the lab

  light-runner run [--jitconfig TEXT]   runs as the runner of a JIT config
  light-runner install DIR              lays out DIR so that dayfly takes it for the official app

Variables of `run`:
  ACTIONS_RUNNER_INPUT_JITCONFIG  the JIT config; jobs do not see it
  RUNNER_LIGHT_MOOD               crash-before-steps, vanish-at-step=N, hang-after-job or lose-session
  RUNNER_LIGHT_SLOW_MS            wait before each call of a job
  RUNNER_LIGHT_PAUSE_MS           pause after a poll that failed [15000]
";
const JIT_CONFIG: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";
/// Variables that jobs do not see begin with one of these.
const OWN: [&str; 2] = ["ACTIONS_RUNNER_INPUT_", "RUNNER_LIGHT_"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let from_environment = || std::env::var(JIT_CONFIG).ok();
    let done = match words.as_slice() {
        ["run"] => from_environment().ok_or_else(|| format!("neither --jitconfig nor {JIT_CONFIG}")),
        ["run", "--jitconfig", text] => Ok((*text).to_owned()),
        ["install", folder] => return lay_out(folder),
        ["--version"] => {
            println!("{}", dayfly_light_runner::VERSION);
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::FAILURE;
        }
    };
    match done.and_then(|text| start(&text)) {
        Ok(Exit::Vanished) => vanish(),
        Ok(exit) => ExitCode::from(exit.code().unwrap_or(1)),
        Err(error) => {
            eprintln!("light-runner: {error}");
            ExitCode::FAILURE
        }
    }
}

fn lay_out(folder: &str) -> ExitCode {
    let own = std::env::current_exe();
    match own.and_then(|own| install(&own, Path::new(folder))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("light-runner: cannot lay out {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(text: &str) -> Result<Exit, String> {
    let config = JitConfig::decode(text).map_err(|error| error.to_string())?;
    let settings = settings()?;
    // One thread is enough for a runner, and cheap for thousands of them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(async {
        let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return Err("no signals".to_owned()) };
        let (stopper, stop) = watch::channel(false);
        let mut running = pin!(run(config, &settings, &print, stop));
        loop {
            tokio::select! {
                exit = &mut running => return Ok(exit),
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            // The first signal stops the runner; further ones change nothing.
            stopper.send_replace(true);
        }
    })
}

/// Prints a line. A reader that is gone is no error.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Returns the folder above `bin` if this program was started as `bin/Runner.Listener`, else the working folder. The path
/// is the one that this program was started by, because in an installation it is a link.
fn folder() -> std::io::Result<PathBuf> {
    let Some(own) = std::env::args_os().next() else { return std::env::current_dir() };
    let own = std::path::absolute(own)?;
    let is_installed = own.file_name().is_some_and(|name| name == "Runner.Listener");
    match own.parent().and_then(Path::parent) {
        Some(folder) if is_installed => Ok(folder.to_owned()),
        _ => std::env::current_dir(),
    }
}

fn settings() -> Result<Settings, String> {
    let folder = folder().map_err(|error| format!("no folder: {error}"))?;
    let millis = |name: &str| -> Result<Option<Duration>, String> {
        let Ok(text) = std::env::var(name) else { return Ok(None) };
        let number = text.parse().map_err(|_| format!("{name} is {text:?}, and must be milliseconds"))?;
        Ok(Some(Duration::from_millis(number)))
    };
    let mut settings = Settings::new(folder);
    settings.env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !OWN.iter().any(|own| name.starts_with(own)))
        .collect();
    settings.pause = millis("RUNNER_LIGHT_PAUSE_MS")?.unwrap_or(settings.pause);
    settings.slowness = millis("RUNNER_LIGHT_SLOW_MS")?.unwrap_or_default();
    settings.mood = std::env::var("RUNNER_LIGHT_MOOD").ok().map(|mood| mood.parse()).transpose()?;
    Ok(settings)
}

/// Kills this process, as the kernel kills one that takes too much memory.
fn vanish() -> ExitCode {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    ExitCode::FAILURE
}

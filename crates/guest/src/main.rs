//! `dayfly-guest`: the programs that run inside a dayfly machine or build its image, in one static binary:
//!
//! - process 1 of the machine ([`boot`]): mounts, modules, network, then the agent ([`agent`]) until power-off;
//! - `dayfly-guest entrypoint ...` ([`entrypoint`]): starts and stops the runner app. This program uses only files and
//!   standard output, so that it works with every driver;
//! - `dayfly-guest agent ...` ([`agent::run_on_host`]): the agent as a process of the host, in its own process tree, for
//!   hosts that want to try everything but the machine;
//! - `dayfly-guest base ...` and `dayfly-guest install ...` ([`image`]): the steps of an image's Dockerfile;
//! - `dayfly-guest check [USER]` ([`check`]): reports what jobs would miss in this machine's image;
//! - `dayfly-guest docker ...`, or under the name `docker` ([`wrapper`]): Docker's client with the machine's network;
//! - under the name `Runner.Worker` ([`entrypoint::worker`]): the official app's worker with its runner's environment;
//! - `dayfly-guest listening ...` ([`listening`]): becomes a program that gets a listening socket;
//! - `dayfly-guest step ...` ([`step`]): runs the program of a step without a terminal;
//! - `dayfly-guest pause ...` and `dayfly-guest resume` ([`pause`]): a step that waits for a person;
//! - `dayfly-guest hook ...` ([`hook`]): dayfly's own part of the hooks of a job;
//! - `dayfly-guest --version`.
//!
//! The binary has no async runtime, no shell and no argument parser crate, because it also runs under software emulation,
//! under which starting a process costs 20-50 ms and every page of code is translated again.

mod agent;
mod boot;
mod check;
mod console;
mod docker;
mod entrypoint;
mod folder;
mod forgetful;
mod hook;
mod image;
mod image_env;
mod lines;
mod listening;
mod memory;
mod options;
mod pause;
mod processes;
mod sink;
mod step;
mod wrapper;

use dayfly_guest::environment::STEP;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: forgetful::Forgetful = forgetful::Forgetful;

/// Version of this build, which the agent's hello contains.
const BUILD: &str = env!("CARGO_PKG_VERSION");

const USAGE: &str = "usage: dayfly-guest entrypoint -i RUNNER_ID [OPTIONS] | base [OPTIONS]
       dayfly-guest install [OPTIONS] [VERSION|FILE [ARCH]] | check [USER] | docker ... | --version
       dayfly-guest pause [--for TIME] | resume
As process 1 of a machine (its initramfs's /init) it takes no arguments.
";

fn main() -> ExitCode {
    let mut given = std::env::args_os();
    let program = given.next().unwrap_or_default();
    let given: Vec<OsString> = given.collect();
    match given.first() {
        _ if wrapper::is_meant(&program) => return wrapper::run(given),
        _ if entrypoint::worker::is_meant(&program) => return entrypoint::worker::run(&program, given),
        Some(first) if first == wrapper::NAME => return wrapper::run(given[1..].to_vec()),
        Some(first) if first == STEP => return step::run(&given[1..]),
        _ => {}
    }
    let args: Vec<String> = given.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["entrypoint", ..] => ExitCode::from(entrypoint::run(&args[1..])),
        ["base", ..] => image::base::run(&args[1..]),
        ["install", ..] => image::install::run(&args[1..]),
        [dayfly_guest::finding::COMMAND, ..] => check::run(&args[1..]),
        ["agent", ..] => agent::run_on_host(&args[1..]),
        [listening::COMMAND, ..] => listening::run(&args[1..]),
        [step::DROP] => step::drop_output(),
        [hook::COMMAND, ..] => hook::run(&args[1..]),
        [pause::PAUSE, ..] => pause::run(&args[1..]),
        [pause::RESUME, ..] => pause::resume(&args[1..]),
        ["--version"] => {
            // If the write fails, no process reads the output, so nothing is lost.
            let _ = writeln!(std::io::stdout(), "dayfly-guest {BUILD}");
            ExitCode::SUCCESS
        }
        // Arguments are ignored, because the kernel passes on words of its command line that it does not know.
        _ if std::process::id() == 1 => boot::run(),
        _ => {
            let _ = std::io::stderr().write_all(USAGE.as_bytes());
            ExitCode::from(2)
        }
    }
}

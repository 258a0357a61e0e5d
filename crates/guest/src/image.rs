//! Turns a distribution's image into an image for jobs: `dayfly-guest base` and `dayfly-guest install`. Each is one step of
//! a Dockerfile. This binary is mounted while the step runs, and is not stored in the image.
//!
//! ```text
//!   FROM debian ── base ──> packages, user, container engine ── install ──> runner app, /_work, tool cache
//! ```
//!
//! Both change the system that they run in, so they are only for an image that is being built. They run the image's own
//! programs (apt-get, dnf, useradd, curl, tar, sha256sum), because this binary is in the memory of every machine: each
//! machine would pay for a TLS stack or an archive library here, and never use it.

pub(crate) mod base;
mod distribution;
pub(crate) mod install;
mod log;
mod manager;
mod program;

use crate::options::{Given, Options, UsageError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The reason why a step of an image failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("{0}")]
    Usage(String),
    #[error("{variable} is {value:?}, and {wanted}")]
    Setting { variable: &'static str, value: String, wanted: &'static str },
    #[error(
        "it changes the system it runs in, which only root may: use it in a Dockerfile's RUN, not on a host"
    )]
    NotRoot,
    #[error(transparent)]
    Distribution(#[from] distribution::Unknown),
    #[error(transparent)]
    Program(#[from] program::ProgramError),
    #[error(transparent)]
    Manager(#[from] manager::ManagerError),
    #[error(transparent)]
    Account(#[from] base::AccountError),
    #[error(transparent)]
    Install(#[from] install::InstallError),
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl From<UsageError> for ImageError {
    fn from(error: UsageError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Adds the step and the path to an error.
fn at<E: Into<std::io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { what, path, source: source.into() }
}

fn check_root() -> Result<(), ImageError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(ImageError::NotRoot) }
}

/// A command that is a step of an image.
struct Command {
    name: &'static str,
    usage: &'static str,
    parse: fn(&[String]) -> Result<Options, UsageError>,
    help: fn(Given<'_>) -> String,
    run: fn(Given<'_>, &log::Log) -> Result<(), ImageError>,
    /// Its variables for the log and for verbose output.
    log: (&'static str, &'static str),
}

impl Command {
    /// Runs with the arguments after its name. Returns 0, 1 if the step failed, or 2 for wrong usage or settings.
    fn start(&self, args: &[String]) -> ExitCode {
        let environment = crate::options::environment();
        let options = match (self.parse)(args) {
            Ok(options) => options,
            Err(error) => {
                crate::console::say(&format!("{error}\n{}; -h tells more", self.usage));
                return ExitCode::from(2);
            }
        };
        let given = Given { options: &options, environment: &environment };
        if options.get("help").is_some() {
            // If standard output has no reader, nothing is lost.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), (self.help)(given).as_bytes());
            return ExitCode::SUCCESS;
        }
        let log = log::Log::open(self.name, given.get(self.log.0), given.get(self.log.1));
        match (self.run)(given, &log) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log.say(&format!("error: {error}"));
                let usage = matches!(error, ImageError::Usage(_) | ImageError::Setting { .. });
                ExitCode::from(if usage { 2 } else { 1 })
            }
        }
    }
}

//! `dayfly-guest base`: installs what an image needs before the runner app: packages, the user that jobs run as, and the
//! container engine, or its client.
//!
//! The step can be repeated: anything that already exists as requested stays unchanged.

mod accounts;
mod containers;
mod settings;

pub(crate) use accounts::AccountError;

use super::distribution::{Family, List};
use super::log::Log;
use super::manager::Manager;
use super::{Command, ImageError, at, check_root};
use crate::options::Given;
use settings::Settings;
use std::path::Path;
use std::process::ExitCode;

/// Runs with the arguments after `base`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let command = Command {
        name: "base",
        usage: settings::USAGE,
        parse: settings::parse,
        help: settings::help,
        run: make,
        log: ("BASE_LOG", "BASE_VERBOSE"),
    };
    command.start(args)
}

fn make(given: Given<'_>, log: &Log) -> Result<(), ImageError> {
    check_root()?;
    let family = Family::here()?;
    let settings = Settings::resolve(given, family)?;
    let manager = Manager { family, log };
    manager.refresh()?;
    // The group comes first, so that no package takes its number.
    accounts::make_group(&settings, log)?;
    if settings.wrapper.is_some() {
        containers::divert_client(&manager)?;
    }
    let mut packages = family.list(List::Jobs);
    packages.extend(family.list(if settings.docker { List::Docker } else { List::Podman }));
    manager.install(&packages)?;
    accounts::make_user(&settings, log)?;
    if !settings.docker {
        containers::configure()?;
        containers::take_client(&manager)?;
    }
    if let Some(program) = &settings.wrapper {
        containers::wrap_client(program, log)?;
    }
    name_python()?;
    manager.clean()?;
    log.say(&format!("done: jobs run as {}", settings.user.name));
    Ok(())
}

/// Makes `python` a link to `python3`. Workflows call `python` as often as the name with a version.
fn name_python() -> Result<(), ImageError> {
    let path = Path::new("/usr/bin/python");
    match std::os::unix::fs::symlink("python3", path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(at("cannot make", path)(error))
        }
        _ => Ok(()),
    }
}

//! `dayfly-guest install`: puts the runner app into an image.
//!
//! ```text
//!   a file ────────────────┐
//!   runners/downloads ─────┤─> archive, sha256 ─> stage ─> checked ─> tried ─> <dir>/runner-<version>
//!   a release of a project ┘
//!   github-act-runner beside this program, if the official app was not requested and cannot be reached
//! ```
//!
//! A `runner-<version>` is complete or does not exist, whatever fails. The entrypoint uses the newest of them.

mod archive;
mod fetch;
mod release;
mod settings;

use super::distribution::{Family, List};
use super::log::Log;
use super::manager::Manager;
use super::program::Program;
use super::{Command, ImageError, at, check_root};
use crate::entrypoint::user::Account;
use crate::options::Given;
use archive::Stage;
use release::{Archive, ArchiveSource};
use settings::{App, RequestedApp, Settings};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// The reason why a runner app could not be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    #[error(transparent)]
    Release(#[from] release::ReleaseError),
    #[error(transparent)]
    Archive(#[from] archive::ArchiveError),
    #[error(transparent)]
    User(#[from] crate::entrypoint::user::UserError),
    #[error(
        "{reason}; and there is no github-act-runner beside this program that could take its place ({beside}): give the \
         archive as a file (`install /path/to/actions-runner-linux-x64-2.336.0.tar.gz`), or see -h"
    )]
    NoApp { reason: String, beside: String },
    #[error("{program} does not say that it is version {version}, but {said:?}")]
    OtherVersion { program: String, version: String, said: String },
}

impl From<fetch::FetchError> for ImageError {
    fn from(error: fetch::FetchError) -> Self {
        InstallError::from(error).into()
    }
}

impl From<release::ReleaseError> for ImageError {
    fn from(error: release::ReleaseError) -> Self {
        InstallError::from(error).into()
    }
}

impl From<archive::ArchiveError> for ImageError {
    fn from(error: archive::ArchiveError) -> Self {
        InstallError::from(error).into()
    }
}

/// Runs with the arguments after `install`.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let command = Command {
        name: "install",
        usage: settings::USAGE,
        parse: settings::parse,
        help: settings::help,
        run: make,
        log: ("INSTALL_LOG", "INSTALL_VERBOSE"),
    };
    command.start(args)
}

fn make(given: Given<'_>, log: &Log) -> Result<(), ImageError> {
    check_root()?;
    let settings = Settings::resolve(given)?;
    let account = Account::to_become(&settings.user).map_err(InstallError::from)?;
    let stage = Stage::make(&settings.dir)?;
    let archive = choose(&settings, &stage, log)?;
    log.say(&format!("{} {} from {}", archive.app.name(), archive.version, archive.place.shown()));
    let folder = settings.dir.join(format!("runner-{}", archive.version));
    if archive.app.program_in(&folder).is_file() {
        log.say(&format!("it is in {} already", folder.display()));
    } else {
        let tree = unpack(&archive, &stage, log)?;
        if settings.dependencies && archive.app == App::Official {
            dependencies(log)?;
        }
        try_it(&archive, &settings, &tree, log)?;
        archive::give(&tree, account.as_ref())?;
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&tree, &folder).map_err(at("cannot move the runner app to", &folder))?;
    }
    for path in settings.directories.iter().chain([&settings.tool_cache]) {
        fs::create_dir_all(path).map_err(at("cannot make the folder", path))?;
        archive::give_one(path, account.as_ref())?;
    }
    log.say(&format!("done: {}", archive.app.program_in(&folder).display()));
    Ok(())
}

/// Chooses the archive, and the place that it comes from.
fn choose(settings: &Settings, stage: &Stage, log: &Log) -> Result<Archive, ImageError> {
    let beside = |reason: String| release::beside(&settings.beside).map_err(|absent| absent.unless(reason));
    if let RequestedApp::File(path) = &settings.wanted {
        return Ok(release::of_file(path, settings.sha256.as_deref())?);
    }
    if settings.app() == App::GithubActRunner
        && let Ok(archive) = beside(String::new())
        && settings.wants(&archive.version)
    {
        return Ok(archive);
    }
    match release::find(settings, stage.path(), log) {
        Err(ImageError::Install(InstallError::Fetch(error)))
            if error.is_unreachable() && settings.is_default() =>
        {
            let found = beside(error.to_string())?;
            log.say(&format!("{error}: taking github-act-runner in place of the official runner app"));
            Ok(found)
        }
        found => found,
    }
}

fn unpack(archive: &Archive, stage: &Stage, log: &Log) -> Result<std::path::PathBuf, ImageError> {
    let tree = match &archive.place {
        ArchiveSource::Beside(program) => stage.take(program, archive.app.program(), &archive.sha256, log)?,
        ArchiveSource::File(path) => stage.unpack(path, &archive.sha256, log)?,
        ArchiveSource::Url { url, token } => {
            let path = stage.path().join("archive.tar.gz");
            fetch::archive(url, token.as_deref(), &path, log)?;
            stage.unpack(&path, &archive.sha256, log)?
        }
    };
    let program = archive.app.program_in(&tree);
    if program.is_file() {
        Ok(tree)
    } else {
        let program = archive.app.program().to_owned();
        Err(archive::ArchiveError::NoProgram { program }.into())
    }
}

/// Installs the libraries that the official app links. The app's own script installs the same with the same package
/// managers.
fn dependencies(log: &Log) -> Result<(), ImageError> {
    let family = Family::here()?;
    let manager = Manager { family, log };
    manager.refresh()?;
    manager.install(&family.list(List::Runner))?;
    Ok(manager.clean()?)
}

/// Starts the app once, if it is for this architecture, so that a missing library is found now and not by the first job.
/// The official app prints only its version, which must match. github-act-runner prints no meaningful version.
fn try_it(archive: &Archive, settings: &Settings, tree: &Path, log: &Log) -> Result<(), ImageError> {
    if settings.is_foreign() {
        return Ok(());
    }
    let program = archive.app.program_in(tree).display().to_string();
    let said = Program::new([program.as_str(), "--version"]).in_folder(tree).answer(log)?;
    if archive.app != App::Official || said.lines().any(|line| line.trim() == archive.version) {
        return Ok(());
    }
    let version = archive.version.clone();
    let said = said.lines().next().unwrap_or_default().chars().take(200).collect();
    Err(InstallError::OtherVersion { program, version, said }.into())
}

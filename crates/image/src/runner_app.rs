//! Builds the runner app of images: github-act-runner, from its Go module at a pinned version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::{Step, mortal};
use super::error::failed;
use super::in_use::InUse;
use super::manifest::RunnerAppManifest;
use super::once::{Once, read_manifest, write_manifest};
use super::{BuildSettings, Go, ImageError, Progress, recipe};
use dayfly_host::digest::{digest_of, digest_of_file, id_of};
use dayfly_host::stage::Stage;
use dayfly_host::tool::Reach;

/// Name of the folder of runner apps in the state folder.
pub(super) const RUNNER_APPS: &str = "runner-apps";
/// Name of the program.
pub(super) const PROGRAM: &str = "github-act-runner";
/// Its module.
const MODULE: &str = "github.com/ChristopherHX/github-act-runner";

/// Name of the program that starts before its runner is known, and its package in the module.
pub(super) const STANDBY: &str = "act-standby";
const STANDBY_PACKAGE: &str = "./standby";

/// A built runner app.
#[derive(Debug, Clone)]
pub struct RunnerApp {
    /// The program: static, for x86-64.
    pub program: PathBuf,
    /// The program for a runner that is not known yet.
    pub standby: PathBuf,
    /// Its manifest.
    pub manifest: RunnerAppManifest,
    /// Keeps it from being removed.
    pub in_use: InUse,
}

/// Returns the runner app. Builds it if it does not exist yet (takes a minute and downloads from Go's module proxy).
///
/// # Errors
/// Go, the network or space on the disk is missing.
pub fn runner_app(
    settings: &BuildSettings,
    progress: &mut dyn FnMut(Progress),
) -> Result<RunnerApp, ImageError> {
    let go = Go::find(&settings.go_folders)?;
    let id = id_of_version(&go.version);
    let once = Once { settings, store: RUNNER_APPS, what: "the runner app" };
    once.get(&id, progress, open, |stage, progress| {
        progress(Progress::Phase { name: "building the runner app" });
        build(settings, &go, stage, progress)
    })
}

/// Returns the id of the app that [`runner_app`] would return, or an empty text if no Go is installed to build it.
pub(super) fn id(settings: &BuildSettings) -> String {
    Go::find(&settings.go_folders).map_or_else(|_| String::new(), |go| id_of_version(&go.version))
}

fn id_of_version(go: &str) -> String {
    format!("{PROGRAM}-{}", id_of(&digest_of(&[recipe::GO_MOD, recipe::GO_SUM, recipe::STANDBY, go])))
}

fn open(folder: &Path) -> Result<Option<RunnerApp>, ImageError> {
    let (program, standby) = (folder.join(PROGRAM), folder.join(STANDBY));
    if !program.is_file() || !standby.is_file() {
        return Ok(None);
    }
    let Some(in_use) = InUse::of(folder)? else { return Ok(None) };
    let manifest = read_manifest(folder)?;
    Ok(manifest.map(|manifest| RunnerApp { program, standby, manifest, in_use }))
}

fn build(
    settings: &BuildSettings,
    go: &Go,
    stage: &Stage,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ImageError> {
    let write = |name: &str, text: &[u8]| {
        let path = stage.path().join(name);
        fs::write(&path, text).map_err(failed("write", &path))
    };
    write("go.mod", recipe::GO_MOD.as_bytes())?;
    write("go.sum", recipe::GO_SUM.as_bytes())?;
    let source = stage.path().join("standby");
    fs::create_dir(&source).map_err(failed("make the folder", &source))?;
    write("standby/main.go", recipe::STANDBY.as_bytes())?;
    let log = stage.path().join("build.log");
    let mut log = fs::File::create(&log).map_err(failed("make", &log))?;
    for (name, package) in [(PROGRAM, MODULE), (STANDBY, STANDBY_PACKAGE)] {
        let step = Step {
            program: "go",
            package: "golang-go",
            phase: "building the runner app",
            cancel: &settings.cancel,
            log: &mut log,
            progress: &mut *progress,
        };
        step.run(vec![go_build(go, stage, name, package)])?;
    }
    let program = stage.path().join(PROGRAM);
    fs::remove_dir_all(&source).map_err(failed("remove", &source))?;
    let manifest = RunnerAppManifest {
        name: PROGRAM.to_owned(),
        version: version().to_owned(),
        sha256: digest_of_file(&program).map_err(failed("read", &program))?,
        toolchain: go.version.clone(),
    };
    write_manifest(stage.path(), &manifest)
}

/// Returns the command that builds a program. The build is reproducible: the same version of Go gives the same bytes
/// anywhere.
fn go_build(go: &Go, stage: &Stage, name: &str, package: &str) -> Command {
    let mut command = mortal(&go.program.to_string_lossy(), Reach::Network, false);
    command
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(stage.path().join(name))
        .arg(package)
        .current_dir(stage.path())
        .envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOOS", "linux"), ("GOARCH", "amd64")])
        .envs([("GOFLAGS", "-mod=readonly"), ("GOWORK", "off")]);
    command
}

/// Returns the runner app's version that the module requires.
fn version() -> &'static str {
    recipe::GO_MOD
        .lines()
        .filter_map(|line| line.trim().strip_prefix("require "))
        .find_map(|rest| rest.trim().strip_prefix(MODULE))
        .map_or("", str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_the_version() {
        assert_eq!(version(), "v0.13.0");
    }
}

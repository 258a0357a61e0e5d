//! The stage of a soak: a state folder of its own, a lab with a repository, and the command lines of dayfly.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_forge::RunnerScope;
use dayfly_host::tool::{self, Reach};
use dayfly_lab::{LabSettings, Limits, TOKEN_FILE};
use secrecy::ExposeSecret as _;

use super::children::CommandLine;
use super::left;
use super::mounts;
use super::plan::Lane;
use crate::cli::{LabSoakArgs, SoakDriver};
use crate::commands::init::quoted;
use crate::commands::private_lab::PrivateLab;
use crate::exit::{Failure, Result};
use crate::settings::Places;

/// The repository whose jobs the soak dispatches.
pub(super) const OWNER: &str = "dayfly";
pub(super) const REPOSITORY: &str = "soak";
/// The folders of the state that are expensive to create, which a soak shares with other commands.
const SHARED: [&str; 6] = ["images", "blobs", "kernels", "tools", "runner-apps", "templates"];
/// The orchestrator, for people.
const ORCHESTRATOR: &str = "the orchestrator";
/// The folder in which a runner app works, below its own.
const WORK: &str = "_work";
/// The variable with the folder in which an execution of a job leaves a line.
const LEDGER: &str = "RUNNER_SOAK_LEDGER";
/// How long a runner waits for a job that does not come, before it makes room.
const IDLE: &str = "1m";
/// The pause of the light runner app after a poll that failed, which is 15 s for the official one.
const LIGHT_PAUSE: (&str, &str) = ("RUNNER_LIGHT_PAUSE_MS", "2000");

/// Returns the scope of the runners.
pub(super) fn scope() -> RunnerScope {
    RunnerScope::Repository { owner: OWNER.to_owned(), name: REPOSITORY.to_owned() }
}

/// The folder of a soak.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// True if the state folder in it is a disk that only this process and its children see.
    has_disk: bool,
    /// The lock, which says that the soak runs.
    _lock: Option<File>,
}

impl Folder {
    /// Creates the folder, with a state folder in it that shares images and templates with `places`, and is a disk of its own if it
    /// is to be made full.
    ///
    /// # Errors
    /// It cannot be created.
    pub(super) fn create(places: &Places, args: &LabSoakArgs, seed: u64, has_disk: bool) -> Result<Self> {
        let path = places.state.join(left::FOLDER).join(format!("{seed}-{}", std::process::id()));
        let failed = |error| Failure::cannot(format!("cannot create {}: {error}", path.display()));
        private().recursive(true).create(&path).map_err(failed)?;
        let lock = Some(left::lock(&path).map_err(failed)?);
        let folder = Self { path: path.clone(), has_disk, _lock: lock };
        for part in [folder.state(), folder.temporary(), folder.ledger()] {
            private().recursive(true).create(part).map_err(failed)?;
        }
        if has_disk {
            mounts::make_disk(&folder.state()).map_err(failed)?;
        }
        for name in SHARED {
            let common = places.state.join(name);
            private().recursive(true).create(&common).map_err(failed)?;
            std::os::unix::fs::symlink(common, folder.state().join(name)).map_err(failed)?;
        }
        args.runner_app.as_deref().map_or(Ok(()), |app| folder.link_app(app)).map_err(failed)?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the state folder of dayfly's processes.
    pub(super) fn state(&self) -> PathBuf {
        self.path.join(left::STATE)
    }

    /// Returns the folder in which each execution of a job leaves a line.
    pub(super) fn ledger(&self) -> PathBuf {
        self.path.join("ledger")
    }

    fn temporary(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// Returns the folder of the runner app, if the user has named one.
    fn app(&self) -> PathBuf {
        self.path.join("app")
    }

    /// Lays out a runner app by links into its folder. An app works in the folder that it was started from, and an app
    /// that was killed leaves files there, which are removed with the folder of the soak.
    fn link_app(&self, app: &Path) -> io::Result<()> {
        let app = std::path::absolute(app)?;
        private().create(self.app())?;
        for entry in super::host::entries(&app) {
            let name = entry.file_name().unwrap_or_default().to_owned();
            if name != WORK {
                std::os::unix::fs::symlink(&entry, self.app().join(name))?;
            }
        }
        Ok(())
    }

    fn lab(&self) -> PathBuf {
        self.path.join("lab")
    }

    fn config(&self) -> PathBuf {
        self.path.join("dayfly.toml")
    }

    /// Returns the files that dayfly's processes should have removed. Logs, the history, shared folders and remembered probes stay.
    pub(super) fn files_left(&self) -> Vec<PathBuf> {
        let of_state = super::host::entries(&self.state()).into_iter().flat_map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match name.as_str() {
                "logs" | "history" | "probes.json" => Vec::new(),
                name if SHARED.contains(&name) => Vec::new(),
                "instances" => super::host::entries(&path),
                _ => vec![path],
            }
        });
        of_state.chain(super::host::entries(&self.temporary())).collect()
    }

    /// Notes that the soak has ended and its folder stays, so that `dayfly clear` leaves it alone. Puts what is on the disk of the
    /// state folder into a folder that others see too.
    ///
    /// # Errors
    /// The note cannot be written, or the disk cannot be copied.
    pub(super) fn keep(&self) -> io::Result<()> {
        left::unlock(&self.path)?;
        if !self.has_disk {
            return Ok(());
        }
        let copy = self.path.join("state.copy");
        let copied =
            tool::command("cp", Reach::Host).arg("-a").args([self.state(), copy.clone()]).status()?;
        if !copied.success() {
            return Err(io::Error::other(format!("cp has ended with {copied}")));
        }
        mounts::remove_disk(&self.state())?;
        fs::remove_dir(self.state())?;
        fs::rename(copy, self.state())
    }

    /// Removes the folder, and that of all soaks if it was the last one.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(super) fn remove(&self) -> io::Result<()> {
        if self.has_disk {
            mounts::remove_disk(&self.state())?;
        }
        fs::remove_dir_all(&self.path)?;
        if let Some(all) = self.path.parent() {
            // Another soak may have its folder there.
            let _ = fs::remove_dir(all);
        }
        Ok(())
    }
}

fn private() -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Starts the lab, and puts the workflows into its repository.
///
/// # Errors
/// The lab cannot be started.
pub(super) async fn open_lab(folder: &Folder, args: &LabSoakArgs, seed: u64) -> Result<PrivateLab> {
    let jobs = args.jobs as usize;
    let defaults = Limits::default();
    let limits = Limits {
        runs_max: defaults.runs_max.max(jobs + 100),
        jobs_max: defaults.jobs_max.max(jobs + 100),
        ..defaults
    };
    let settings = LabSettings { limits, fault_seed: Some(seed), ..LabSettings::new(folder.lab()) };
    let lab = PrivateLab::open(settings).await?;
    for lane in Lane::ALL {
        let put = lab.forge.put_workflow(OWNER, REPOSITORY, &workflow_file(lane), &workflow(lane)).await;
        put.map_err(Failure::cannot)?;
    }
    Ok(lab)
}

/// Returns the name of a lane's workflow file.
pub(super) fn workflow_file(lane: Lane) -> String {
    format!("{}.yml", lane.name())
}

/// Returns the workflow of a lane's jobs. The step prints a line when it begins and when it ends, and leaves a line in
/// a file of the host if it runs there, so that lab and host both see how often it has run.
fn workflow(lane: Lane) -> String {
    include_str!("stage/workflow.yml").replace("LANE", lane.name())
}

/// The numbers of runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Most runners of the pool with the scale set.
    pub(super) scale_set: u32,
    /// Runners of each other lane.
    pub(super) other: u32,
}

impl Sizes {
    /// Returns the numbers for a soak in which the scale set may have so many runners.
    pub(super) fn of(parallel: u32) -> Self {
        Self { scale_set: parallel, other: parallel.div_ceil(2) }
    }
}

/// The settings of runners, as variables.
fn settings(folder: &Folder, args: &LabSoakArgs) -> Vec<(String, String)> {
    let mut all = vec![(LIGHT_PAUSE.0.to_owned(), LIGHT_PAUSE.1.to_owned())];
    if args.runner_app.is_some() {
        all.push(("RUNNER_INSTALL".to_owned(), folder.app().display().to_string()));
    }
    if args.driver == SoakDriver::Process {
        all.push((LEDGER.to_owned(), folder.ledger().display().to_string()));
    }
    all
}

/// Writes the configuration file of the orchestrator.
///
/// # Errors
/// It cannot be written.
pub(super) fn write_config(folder: &Folder, lab: &PrivateLab, args: &LabSoakArgs) -> Result<()> {
    let text = config(folder, lab.forge.base().url().as_str(), args);
    let path = folder.config();
    fs::write(&path, text)
        .map_err(|error| Failure::cannot(format!("cannot write {}: {error}", path.display())))
}

fn config(folder: &Folder, url: &str, args: &LabSoakArgs) -> String {
    let sizes = Sizes::of(args.parallel);
    let settings = settings(folder, args);
    let settings: Vec<String> =
        settings.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
    let image = args.image.as_deref().map(|image| format!("image = {}\n", quoted(image))).unwrap_or_default();
    let machine = format!(
        "driver = '{}'\naccel = '{}'\ncpus = {}\nmemory = '{}MiB'\nmax_age = 'never'\n{image}settings = {{ {} }}\n",
        args.driver.word(),
        args.accel.word(),
        args.cpus,
        args.memory,
        settings.join(", ")
    );
    let pool = |lane: Lane, demand: &str, max: u32| {
        let name = lane.name();
        format!(
            "\n[pools.{name}]\nforge = 'lab'\nprincipal = '{OWNER}/{REPOSITORY}'\n\
             prefix = '{name}'\nlabels = ['{name}']\ndemand = '{demand}'\nmax = {max}\n\
             timeouts = {{ idle = '{IDLE}' }}\n{machine}"
        )
    };
    let token = folder.lab().join(TOKEN_FILE).display().to_string();
    format!("[forges.lab]\nurl = {}\ntoken_file = {}\n", quoted(url), quoted(&token))
        + &pool(Lane::ScaleSet, "scale-set", sizes.scale_set)
        + &pool(Lane::Fixed, "static", sizes.other)
        + &pool(Lane::Polled, "poll", sizes.other)
}

/// Returns the command lines of dayfly's processes: first the orchestrator, then the loops.
///
/// # Errors
/// The guest binary is missing.
pub(super) fn commands(
    places: &Places,
    folder: &Folder,
    lab: &PrivateLab,
    args: &LabSoakArgs,
) -> Result<Vec<CommandLine>> {
    let common = common_arguments(places, folder)?;
    let line = |name: String, log: &str, rest: Vec<String>, env| CommandLine {
        is_loop: name != ORCHESTRATOR,
        name,
        args: rest.into_iter().chain(common.clone()).collect(),
        env,
        log: folder.path().join(log),
        temporary: folder.temporary(),
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let config = folder.config().display().to_string();
    let orchestrator = words(&["orchestrator", "--json", "-v", "--config", &config]);
    let mut all = vec![line(ORCHESTRATOR.to_owned(), "orchestrator.log", orchestrator, Vec::new())];
    for number in 1..=Sizes::of(args.parallel).other {
        let mut env = settings(folder, args);
        env.extend(runner_variables(lab, args));
        let mut rest = words(&["runner", "--json", "-v", "--accel", args.accel.word()]);
        rest.extend(args.image.iter().flat_map(|image| ["--image".to_owned(), image.clone()]));
        // The number of a loop comes after all options.
        let mut command = line(format!("loop {number}"), &format!("loop-{number}.log"), rest, env);
        command.args.extend(["--".to_owned(), number.to_string()]);
        all.push(command);
    }
    Ok(all)
}

fn common_arguments(places: &Places, folder: &Folder) -> Result<Vec<String>> {
    let guest = places.guest_binary_path()?.display().to_string();
    let state = folder.state().display().to_string();
    let mut common = vec!["--state".to_owned(), state, "--guest-binary".to_owned(), guest];
    if let Some(qemu) = &places.qemu {
        common.extend(["--qemu".to_owned(), qemu.display().to_string()]);
    }
    Ok(common)
}

/// Returns the settings of a loop. They are variables because others may read arguments, and the token is among them.
fn runner_variables(lab: &PrivateLab, args: &LabSoakArgs) -> Vec<(String, String)> {
    let lane = Lane::Loops.name();
    [
        ("RUNNER_GITHUB", lab.forge.base().url().to_string()),
        ("RUNNER_PRINCIPAL", format!("{OWNER}/{REPOSITORY}")),
        ("RUNNER_PAT", lab.lab.token().expose_secret().to_owned()),
        ("RUNNER_LABELS", lane.to_owned()),
        ("RUNNER_PREFIX", lane.to_owned()),
        ("RUNNER_RUNTIME", args.driver.word().to_owned()),
        ("RUNNER_CPUS", args.cpus.to_string()),
        ("RUNNER_MEMORY", args.memory.to_string()),
        ("RUNNER_MAX_AGE", "never".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// The inputs of a job's run.
pub(super) fn inputs(number: u32, sleep: Duration) -> indexmap::IndexMap<String, String> {
    let seconds = format!("{:.3}", sleep.as_secs_f64());
    [("number".to_owned(), number.to_string()), ("seconds".to_owned(), seconds)].into_iter().collect()
}

#[cfg(test)]
mod tests;

//! Resolves the settings from all sources, once.
//!
//! The env file comes from the loop and overrides options. Options override the environment of this process, which
//! overrides the defaults. An empty value counts as unset, except for the user: with `-u ''` a driver says that the app
//! runs as the current user, whatever the env file says.

use super::options::Options;
use super::outside::Outside;
use super::registration::{self, RegistrationError};
use crate::options::{Given, is_on};
use dayfly_guest::envfile::{EnvFileError, Variables};
use dayfly_guest::environment::{self, Suffix, file_name};
use dayfly_guest::hooks::Hooks;
use dayfly_guest::origin::{Origin, START};
use dayfly_guest::os_release::OsRelease;
use dayfly_guest::runner_app::{JitConfig, JitConfigError, Registration};
use dayfly_guest::variables::is_for_guest;
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// Largest size of a registration token in bytes. GitHub's have 29.
const TOKEN_LENGTH_MAX: usize = 1024;

/// Variables without an option, with their meaning.
pub(super) const VARIABLES: [(&str, &str); 10] = [
    ("RUNNER_DOCKER", "1: start the container engine (1 where docker is in PATH)"),
    ("RUNNER_INSTALL", "where the runner app is installed, or runner-<version> folders with it"),
    ("RUNNER_WORKDIR", "where jobs work"),
    ("RUNNER_LOGDIR", "where all lines are kept in files"),
    ("RUNNER_DEFAULT_LABELS", "labels of a runner that is given none"),
    ("RUNNER_DISTRO", "distribution, a label of a runner that is given none"),
    ("RUNNER_CONTAINERS_CONFDIR", "configuration of the container engine"),
    ("RUNNER_HTTP_PROXY", "proxy of the runner app, of jobs and of Docker for http"),
    ("RUNNER_HTTPS_PROXY", "the same for https"),
    ("RUNNER_NO_PROXY", "hosts and domains that are reached without a proxy"),
];

/// The sources of a value, except for the defaults.
pub(super) struct Layers<'a> {
    pub(super) file: Option<&'a Variables>,
    pub(super) options: &'a Options,
    /// The environment of this process.
    pub(super) environment: &'a [(String, String)],
}

impl Layers<'_> {
    /// Returns the value of a variable, if any source sets it.
    pub(super) fn get(&self, variable: &str) -> Option<&str> {
        let set = |value: &&str| !value.is_empty();
        let file = self.file.and_then(|file| file.get(variable)).filter(set);
        file.or_else(|| self.given().get(variable))
    }

    /// Returns a variable of this process's environment.
    pub(super) fn process(&self, variable: &str) -> Option<&str> {
        self.given().process(variable)
    }

    /// Returns all sources except for the file.
    fn given(&self) -> Given<'_> {
        Given { options: self.options, environment: self.environment }
    }

    /// Returns the id of the runner. If there is an env file but no id, the id is taken from the file's name.
    pub(super) fn runner_id(&self) -> Option<String> {
        let of_file = || {
            let name = Path::new(self.get("RUNNER_ENVFILE")?).file_name()?.to_str()?;
            environment::parse_file_name(name).map(|(id, _)| id.to_owned())
        };
        self.get("RUNNER_ID").map(str::to_owned).or_else(of_file)
    }

    /// Returns the value of a variable, or its default; empty if it has none.
    pub(super) fn in_force(&self, variable: &str) -> String {
        self.get(variable).map_or_else(|| self.default(variable), str::to_owned)
    }

    fn default(&self, variable: &str) -> String {
        match variable {
            "RUNNER_EPHEMERAL" => "1".to_owned(),
            "RUNNER_GITHUB" => "github.com".to_owned(),
            "RUNNER_NAME" => format!("GH-runner-{}", self.runner_id().unwrap_or_else(|| "<id>".to_owned())),
            "RUNNER_SCOPE" => "repo".to_owned(),
            "RUNNER_USER" => "runner".to_owned(),
            "RUNNER_UPDATE" | "RUNNER_VERBOSE" => "0".to_owned(),
            "RUNNER_DOCKER" => u8::from(self.docker_is_in_path()).to_string(),
            "RUNNER_WORKDIR" => format!("/_work/{}", self.in_force("RUNNER_NAME")),
            "RUNNER_LOGDIR" => "/var/log/runner".to_owned(),
            "RUNNER_DEFAULT_LABELS" => "krun".to_owned(),
            "RUNNER_DISTRO" => distribution(),
            "RUNNER_CONTAINERS_CONFDIR" => "/etc/containers".to_owned(),
            _ => String::new(),
        }
    }

    /// Returns true if `docker` is in `PATH`. The agent starts Docker itself, and the entrypoint without a `PATH`.
    fn docker_is_in_path(&self) -> bool {
        let mut folders =
            self.process("PATH").unwrap_or_default().split(':').filter(|folder| !folder.is_empty());
        folders.any(|folder| Path::new(folder).join("docker").exists())
    }

    /// Returns true if details are logged.
    pub(super) fn is_verbose(&self) -> bool {
        !matches!(self.in_force("RUNNER_VERBOSE").as_str(), "" | "0")
    }

    /// Returns the user that the app runs as; `None`: no change of user.
    pub(super) fn user(&self) -> Option<String> {
        let own = self.options.get("user") == Some("");
        Some(self.in_force("RUNNER_USER")).filter(|_| !own)
    }

    fn is_on(&self, variable: &'static str) -> Result<bool, SettingsError> {
        let value = self.in_force(variable);
        let wrong = || SettingsError::Switch { variable, value: value.chars().take(40).collect() };
        is_on(&value).ok_or_else(wrong)
    }
}

fn distribution() -> String {
    let id = OsRelease::of_this_system().id;
    if id.is_empty() { "linux".to_owned() } else { id }
}

/// The program that runs.
pub(super) enum Task {
    /// A runner app that is registered already.
    Jit { config: JitConfig, encoded: String },
    /// A runner app that registers itself first. The registration is taken out when it is used.
    Register(Cell<Option<Registration>>),
    /// A user's command in place of a runner app; nothing is registered.
    Command(Vec<String>),
}

/// Settings of one runner. They have no `Debug`, because they hold secrets.
pub(super) struct Settings {
    pub(super) runner_id: String,
    /// The runner's name at the forge.
    pub(super) name: String,
    /// The loop's secret. If it is empty, there is none, and every note is ignored.
    pub(super) secret: String,
    /// The user that the app runs as; `None`: no change of user.
    pub(super) user: Option<String>,
    pub(super) task: Task,
    pub(super) ephemeral: bool,
    /// True if the container engine is started.
    pub(super) engine: bool,
    pub(super) install: Option<PathBuf>,
    pub(super) work_folder: PathBuf,
    pub(super) containers_conf: PathBuf,
    /// Variables that the user has set for jobs.
    pub(super) for_jobs: Vec<(String, String)>,
    /// The way from jobs to the world.
    pub(super) outside: Outside,
    /// The place in which the job runs, if the loop says it.
    pub(super) origin: Option<Origin>,
    /// The source of the machine's start, if the host says it.
    pub(super) start: Option<String>,
    /// The hooks of jobs, if the loop gives some.
    pub(super) hooks: Option<Hooks>,
    pub(super) environment: PathBuf,
    /// Path of the `.tkn` note; `None`: the usual path, if there is an environment directory.
    pub(super) tkn: Option<PathBuf>,
    pub(super) app: Option<PathBuf>,
    pub(super) app_dir: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("settings: {0}")]
    File(#[from] EnvFileError),
    #[error("settings: {0} is missing in the env file")]
    Missing(&'static str),
    #[error("settings: they are for runner {found}, and this is {wanted}")]
    OtherRunner { found: String, wanted: String },
    #[error("settings: {variable} is {value:?}, and can be 1 or 0")]
    Switch { variable: &'static str, value: String },
    #[error("settings: RUNNER_JITCONFIG: {0}")]
    JitConfig(#[from] JitConfigError),
    #[error(
        "settings: the env file holds both RUNNER_JITCONFIG and RUNNER_TOKEN: a runner is registered once"
    )]
    TwoRegistrations,
    #[error("settings: RUNNER_EPHEMERAL=0 needs a registration token: a JIT config is for one job")]
    JitForEver,
    #[error(
        "settings: the env file holds RUNNER_PAT, which must never leave the host; its writer must be fixed"
    )]
    PatInFile,
    #[error(
        "settings: -T is for a run by hand, and there is an env file; see `dayfly token` for a registration token"
    )]
    PatWithFile,
    #[error("settings: the registration token has more than {TOKEN_LENGTH_MAX} bytes")]
    LongToken,
    #[error(
        "settings: no registration: no env file at {}, no -t TOKEN, no -T PAT, and no -- COMMAND", .0.display()
    )]
    NoRegistration(PathBuf),
    #[error("settings: RUNNER_HOOKS: {0}")]
    Hooks(serde_json::Error),
    #[error("settings: RUNNER_CA is not base64: {0}")]
    Authorities(base64::DecodeError),
    #[error("settings: {0}")]
    Registration(#[from] RegistrationError),
}

impl Settings {
    /// Resolves all settings for the runner `runner_id`.
    pub(super) fn resolve(layers: &Layers<'_>, runner_id: &str) -> Result<Self, SettingsError> {
        check_file(layers, runner_id)?;
        let options = layers.options;
        let path = |variable| layers.get(variable).map(PathBuf::from);
        let task = task(layers, runner_id)?;
        let ephemeral = layers.is_on("RUNNER_EPHEMERAL")?;
        if matches!(task, Task::Jit { .. }) && !ephemeral {
            return Err(SettingsError::JitForEver);
        }
        Ok(Self {
            runner_id: runner_id.to_owned(),
            name: layers.in_force("RUNNER_NAME"),
            secret: layers.in_force("RUNNER_SECRET"),
            user: layers.user(),
            task,
            ephemeral,
            engine: layers.is_on("RUNNER_DOCKER")?,
            install: path("RUNNER_INSTALL"),
            work_folder: layers.in_force("RUNNER_WORKDIR").into(),
            containers_conf: layers.in_force("RUNNER_CONTAINERS_CONFDIR").into(),
            for_jobs: for_jobs(layers),
            outside: Outside::resolve(|variable| layers.get(variable)).map_err(SettingsError::Authorities)?,
            origin: of_loop(layers, "RUNNER_ORIGIN").and_then(|text| serde_json::from_str(text).ok()),
            start: layers.process(START).map(str::to_owned),
            hooks: hooks(layers)?,
            environment: environment_directory(options),
            tkn: path("RUNNER_TOKENFILE"),
            app: app(layers),
            app_dir: options.get("app-dir").map(PathBuf::from),
        })
    }

    /// Takes the registration out of a task that registers a runner, so that its token is forgotten with the result.
    pub(super) fn take_registration(&self) -> Option<Registration> {
        match &self.task {
            Task::Register(registration) => registration.take(),
            Task::Jit { .. } | Task::Command(_) => None,
        }
    }
}

/// Returns a variable that only a loop sets, so that only its file is read.
fn of_loop<'a>(layers: &Layers<'a>, variable: &str) -> Option<&'a str> {
    layers.file.and_then(|file| file.get(variable)).filter(|value| !value.is_empty())
}

/// Returns the hooks of the loop. They are not left out if they cannot be read, because a pool may rely on them.
fn hooks(layers: &Layers<'_>) -> Result<Option<Hooks>, SettingsError> {
    let hooks = of_loop(layers, "RUNNER_HOOKS").map(serde_json::from_str);
    hooks.transpose().map_err(SettingsError::Hooks)
}

/// Returns the program that `--app` names. An installation that the env file names replaces it, because the env file
/// overrides options; so the driver `process`, which always names an app, can start another one.
fn app(layers: &Layers<'_>) -> Option<PathBuf> {
    let install = layers.file.and_then(|file| file.get("RUNNER_INSTALL")).filter(|path| !path.is_empty());
    layers.options.get("app").filter(|_| install.is_none()).map(PathBuf::from)
}

/// Checks the env file for errors of the loop.
fn check_file(layers: &Layers<'_>, runner_id: &str) -> Result<(), SettingsError> {
    let Some(file) = layers.file else { return Ok(()) };
    if file.get("RUNNER_PAT").is_some() {
        return Err(SettingsError::PatInFile);
    }
    if layers.options.get("pat").is_some() {
        return Err(SettingsError::PatWithFile);
    }
    if let Some(found) = file.get("RUNNER_ID").filter(|id| !id.is_empty() && *id != runner_id) {
        return Err(SettingsError::OtherRunner { found: found.to_owned(), wanted: runner_id.to_owned() });
    }
    // Without a secret the loop could never stop this runner.
    if layers.get("RUNNER_SECRET").is_none() { Err(SettingsError::Missing("RUNNER_SECRET")) } else { Ok(()) }
}

fn task(layers: &Layers<'_>, runner_id: &str) -> Result<Task, SettingsError> {
    if !layers.options.words.is_empty() {
        return Ok(Task::Command(layers.options.words.clone()));
    }
    let jit_config = of_loop(layers, "RUNNER_JITCONFIG");
    let token = layers.get("RUNNER_TOKEN");
    if let Some(encoded) = jit_config {
        if layers.file.is_some_and(|file| file.get("RUNNER_TOKEN").is_some_and(|token| !token.is_empty())) {
            return Err(SettingsError::TwoRegistrations);
        }
        let encoded = encoded.trim().to_owned();
        return Ok(Task::Jit { config: JitConfig::parse(&encoded)?, encoded });
    }
    if token.is_some_and(|token| token.len() > TOKEN_LENGTH_MAX) {
        return Err(SettingsError::LongToken);
    }
    let switches = (layers.is_on("RUNNER_EPHEMERAL")?, layers.is_on("RUNNER_UPDATE")?);
    match registration::resolve(layers, switches)? {
        Some(registration) => Ok(Task::Register(Cell::new(Some(registration)))),
        None if layers.file.is_some() => Err(SettingsError::Missing("RUNNER_JITCONFIG or RUNNER_TOKEN")),
        None => Err(SettingsError::NoRegistration(env_path(layers.options, layers.environment, runner_id).0)),
    }
}

/// Returns the variables for jobs. Those of the env file override those of this process.
fn for_jobs(layers: &Layers<'_>) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let process = layers.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in process.chain(layers.file.into_iter().flat_map(Variables::iter)) {
        if is_for_guest(name, value) && !value.contains('\0') {
            variables.retain(|(known, _)| known != name);
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    variables
}

pub(super) fn environment_directory(options: &Options) -> PathBuf {
    options.get("environment").unwrap_or(environment::DIRECTORY).into()
}

/// Returns the path of the env file, and true if it was named, so that it must exist.
pub(super) fn env_path(options: &Options, environment: &[(String, String)], id: &str) -> (PathBuf, bool) {
    let layers = Layers { file: None, options, environment };
    match layers.get("RUNNER_ENVFILE") {
        Some(path) => (path.into(), true),
        None => (environment_directory(options).join(file_name(id, Suffix::Env)), false),
    }
}

#[cfg(test)]
mod tests;

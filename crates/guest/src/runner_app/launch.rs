//! The command lines that configure and start a runner app.

use super::{RunnerApp, StopSignal};
use std::path::{Path, PathBuf};

/// The user that a runner app runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name in `/etc/passwd`.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// A variable whose value is a secret: `Debug` shows its name only.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretVariable {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

impl std::fmt::Debug for SecretVariable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}=...", self.name)
    }
}

/// The secret by which a new runner proves to the forge that it may register.
#[derive(Clone)]
pub enum Proof {
    /// A registration token, which is valid for an hour.
    Token(String),
    /// A personal access token, with which the app requests a registration token itself. It is only given if the
    /// entrypoint is run by hand.
    Pat(String),
}

/// The data that a runner app needs to register itself.
#[derive(Clone)]
pub struct Registration {
    /// Web address of the repository, organisation or enterprise.
    pub url: String,
    /// The secret that allows the registration.
    pub proof: Proof,
    /// The runner's name at the forge.
    pub name: String,
    /// The runner group; `None` for the forge's default.
    pub group: Option<String>,
    /// All labels, separated by commas; the app adds none.
    pub labels: String,
    /// The folder for jobs. The official app uses it; github-act-runner 0.13.0 accepts and ignores it.
    pub work_folder: PathBuf,
    /// True if the forge forgets the runner after one job.
    pub ephemeral: bool,
    /// True if the app may update itself.
    pub update: bool,
}

/// The search path of programs, unless the image or the user sets another one.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that name the folder for tools that actions install.
const TOOL_CACHE: [&str; 2] = ["RUNNER_TOOL_CACHE", "AGENT_TOOLSDIRECTORY"];

/// Variables that depend on the user that a program runs as.
const USERS_OWN: [&str; 4] = ["HOME", "USER", "LOGNAME", "SHELL"];

/// A runner app's command line. It is a value, so that it can be inspected before anything runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments. None of them is a secret.
    pub args: Vec<String>,
    /// Its environment. Nothing is inherited.
    pub env: Vec<(String, String)>,
    /// A secret variable that its environment also holds. Both apps remove such variables (`ACTIONS_RUNNER_INPUT_*`) from
    /// their environment before a job starts (seen in the sources of 2.336.0 and 0.13.0).
    pub secret: Option<SecretVariable>,
    /// Its working folder.
    pub folder: PathBuf,
    /// The signal that stops it.
    pub stop_signal: StopSignal,
}

impl Launch {
    /// Returns the command line of a user's program in place of the runner app.
    #[must_use]
    pub fn command(program: &Path, args: &[String], folder: &Path, user: &User) -> Self {
        let env = [
            ("HOME", user.home.to_string_lossy().as_ref()),
            ("USER", &user.name),
            ("LOGNAME", &user.name),
            ("SHELL", user.shell.to_string_lossy().as_ref()),
            ("PATH", SEARCH_PATH),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            ("BUILDKIT_PROGRESS", "plain"),
            (TOOL_CACHE[0], "/opt/hostedtoolcache"),
            (TOOL_CACHE[1], "/opt/hostedtoolcache"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        Self {
            program: program.to_owned(),
            args: args.to_vec(),
            env,
            secret: None,
            folder: folder.to_owned(),
            stop_signal: StopSignal::Terminate,
        }
    }

    /// Returns the command line of the app's `run`, in a folder that holds its configuration.
    ///
    /// With github-act-runner each step gets a pseudo terminal of its own (`--terminal`, on by default, seen with
    /// 0.13.0). Without a terminal, a step lasts as long as any process that holds its output, even if the step was
    /// cancelled or has timed out. GitHub's steps have no terminal, so `TERM` tells programs not to draw on it; the lab
    /// takes it away from steps ([`STEP`](crate::environment::STEP)).
    #[must_use]
    pub fn run(program: &Path, folder: &Path, user: &User) -> Self {
        let app = RunnerApp::of(program);
        let mut launch = Self::command(program, &["run".to_owned()], folder, user);
        launch.stop_signal = app.stop_signal();
        if app == RunnerApp::ActionsRunner {
            // Makes the app exit with a status of its own (7) if its version is too old.
            launch.set("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1");
        } else {
            // The official app sets it itself. github-act-runner passes such variables on to steps.
            launch.set("RUNNER_ENVIRONMENT", "self-hosted");
        }
        launch
    }

    /// Returns the command line of the app's `configure`, which registers a runner. The proof goes through the environment.
    #[must_use]
    pub fn configure(program: &Path, folder: &Path, user: &User, registration: &Registration) -> Self {
        let mut launch = Self::command(program, &configure_args(registration), folder, user);
        launch.secret = Some(match &registration.proof {
            Proof::Token(value) => {
                SecretVariable { name: "ACTIONS_RUNNER_INPUT_TOKEN", value: value.clone() }
            }
            Proof::Pat(value) => SecretVariable { name: "ACTIONS_RUNNER_INPUT_PAT", value: value.clone() },
        });
        launch
    }

    /// Adds a JIT config for an app that reads it itself, as the official app does.
    #[must_use]
    pub fn with_jit_config(mut self, encoded: &str) -> Self {
        let value = encoded.to_owned();
        self.secret = Some(SecretVariable { name: "ACTIONS_RUNNER_INPUT_JITCONFIG", value });
        self
    }

    /// Sets the variables that an image wants in its programs' environment, except for those that depend on the user,
    /// because the image does not choose the user.
    pub fn set_of_image<'a>(&mut self, variables: impl Iterator<Item = (&'a str, &'a str)>) {
        self.set_all(variables.filter(|(name, _)| !USERS_OWN.contains(name)));
    }

    /// Sets variables that one source names, and replaces their old values. If the source names one of the variables of the
    /// tool cache, the other gets the same value, because actions read either of them.
    pub fn set_all<'a>(&mut self, variables: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut caches = Vec::new();
        for (name, value) in variables {
            self.set(name, value);
            if TOOL_CACHE.contains(&name) {
                caches.push((name, value));
            }
        }
        if let [(named, value)] = caches[..] {
            TOOL_CACHE.iter().filter(|name| **name != named).for_each(|name| self.set(name, value));
        }
    }

    /// Returns the value of a variable.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Removes a variable.
    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// Sets a variable, and replaces its old value.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }
}

/// Returns the arguments of `configure`. Both apps take the same options.
fn configure_args(registration: &Registration) -> Vec<String> {
    let mut args = vec!["configure", "--unattended", "--url", &registration.url];
    args.extend(["--name", &registration.name, "--no-default-labels", "--labels", &registration.labels]);
    let work_folder = registration.work_folder.to_string_lossy();
    args.extend(["--work", &work_folder]);
    if let Some(group) = &registration.group {
        args.extend(["--runnergroup", group]);
    }
    if registration.ephemeral {
        args.push("--ephemeral");
    }
    if !registration.update {
        args.push("--disableupdate");
    }
    args.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::PROGRAM;
    use super::*;

    const LISTENER: &str = "/opt/runner/runner-2.336.0/bin/Runner.Listener";

    fn text(launch: &Launch) -> String {
        let env: Vec<_> = launch.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (program, args) = (launch.program.display(), launch.args.join(" "));
        format!("{program} {args}\n{}\n{:?} {:?}", env.join("\n"), launch.secret, launch.stop_signal)
    }

    fn user() -> User {
        User { name: "runner".into(), home: "/home/runner".into(), shell: "/bin/bash".into() }
    }

    fn registration() -> Registration {
        Registration {
            url: "http://10.0.2.2:8080/o/r".into(),
            proof: Proof::Token("s3cret".into()),
            name: "GH-runner-2-k3V9x0q".into(),
            group: None,
            labels: "self-hosted,Linux,X64,krun,debian,dayfly".into(),
            work_folder: "/_work/GH-runner-2-k3V9x0q".into(),
            ephemeral: true,
            update: false,
        }
    }

    #[test]
    fn the_command_line_and_the_environment_are_these() {
        let launch = Launch::run(Path::new(PROGRAM), Path::new("/home/runner/app"), &user());
        insta::assert_snapshot!(text(&launch), @r"
        /opt/runner/github-act-runner run
        HOME=/home/runner
        USER=runner
        LOGNAME=runner
        SHELL=/bin/bash
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        LANG=C.UTF-8
        TERM=dumb
        BUILDKIT_PROGRESS=plain
        RUNNER_TOOL_CACHE=/opt/hostedtoolcache
        AGENT_TOOLSDIRECTORY=/opt/hostedtoolcache
        RUNNER_ENVIRONMENT=self-hosted
        None Terminate
        ");
    }

    #[test]
    fn the_official_app_reads_its_jit_config_from_the_environment() {
        let launch = Launch::run(Path::new(LISTENER), Path::new("/opt/runner/runner-2.336.0"), &user());
        let launch = launch.with_jit_config("s3cret");
        assert_eq!(launch.args, ["run"]);
        assert_eq!(launch.stop_signal, StopSignal::Interrupt);
        let secret = launch.secret.expect("set");
        assert_eq!((secret.name, secret.value.as_str()), ("ACTIONS_RUNNER_INPUT_JITCONFIG", "s3cret"));
    }

    #[test]
    fn the_proof_of_a_registration_is_no_argument_and_shows_nowhere() {
        let folder = Path::new("/home/runner/app");
        let launch = Launch::configure(Path::new(PROGRAM), folder, &user(), &registration());
        insta::assert_snapshot!(launch.args.join(" "), @"configure --unattended --url http://10.0.2.2:8080/o/r --name GH-runner-2-k3V9x0q --no-default-labels --labels self-hosted,Linux,X64,krun,debian,dayfly --work /_work/GH-runner-2-k3V9x0q --ephemeral --disableupdate");
        assert_eq!(launch.secret.as_ref().expect("set").name, "ACTIONS_RUNNER_INPUT_TOKEN");
        assert!(!format!("{launch:?}").contains("s3cret"));
        let by_hand = Registration {
            proof: Proof::Pat("s3cret".into()),
            group: Some("big".into()),
            ephemeral: false,
            update: true,
            ..registration()
        };
        let launch = Launch::configure(Path::new(LISTENER), folder, &user(), &by_hand);
        assert!(launch.args.ends_with(&["--runnergroup".to_owned(), "big".to_owned()]), "{:?}", launch.args);
        assert_eq!(launch.secret.expect("set").name, "ACTIONS_RUNNER_INPUT_PAT");
    }

    #[test]
    fn an_image_says_where_its_programs_are_but_not_who_runs_them() {
        let mut launch = Launch::command(Path::new("/bin/true"), &[], Path::new("/"), &user());
        let image = [("PATH", "/usr/local/go/bin:/usr/bin:/bin"), ("GOPATH", "/go"), ("HOME", "/root")];
        launch.set_of_image(image.into_iter());
        let get = |wanted: &str| {
            let all: Vec<&str> = launch
                .env
                .iter()
                .filter(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
                .collect();
            all.join(" and ")
        };
        assert_eq!(get("PATH"), "/usr/local/go/bin:/usr/bin:/bin");
        assert_eq!((get("GOPATH"), get("HOME")), ("/go".to_owned(), "/home/runner".to_owned()));
    }

    #[test]
    fn the_tool_cache_that_an_image_or_a_user_names_is_the_only_one() {
        let mut launch = Launch::command(Path::new("/bin/true"), &[], Path::new("/"), &user());
        let both = |launch: &Launch| TOOL_CACHE.map(|name| launch.value(name).unwrap_or_default().to_owned());
        launch.set_of_image([("AGENT_TOOLSDIRECTORY", "/image")].into_iter());
        assert_eq!(both(&launch), ["/image", "/image"]);
        launch.set_all([("RUNNER_TOOL_CACHE", "/user")].into_iter());
        assert_eq!(both(&launch), ["/user", "/user"]);
        launch.set_all([("RUNNER_TOOL_CACHE", "/a"), ("AGENT_TOOLSDIRECTORY", "/b")].into_iter());
        assert_eq!(both(&launch), ["/a", "/b"]);
        launch.set_all([("X", "1")].into_iter());
        assert_eq!(both(&launch), ["/a", "/b"]);
    }

    #[test]
    fn a_variable_that_is_set_replaces_the_usual_one() {
        let mut launch = Launch::command(Path::new("/bin/true"), &[], Path::new("/"), &user());
        launch.set("RUNNER_TOOL_CACHE", "/tools");
        let values: Vec<_> = launch
            .env
            .iter()
            .filter(|(name, _)| name == "RUNNER_TOOL_CACHE")
            .map(|(_, value)| value)
            .collect();
        assert_eq!(values, ["/tools"]);
    }
}

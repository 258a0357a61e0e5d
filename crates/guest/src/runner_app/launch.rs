//! How a runner app is started.

use std::path::{Path, PathBuf};

/// Where an image keeps the runner app.
pub const PROGRAM: &str = "/opt/runner/github-act-runner";

/// Whom a runner app runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name in `/etc/passwd`.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// The signal that makes a runner app cancel its job, sign off and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

/// A runner app's command line: a value, so that it can be looked at before anything runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments. None of them is a secret: the configuration is in files.
    pub args: Vec<String>,
    /// Its whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Its working folder, which holds the files of the JIT config; the work folder (`_work`) is made below it.
    pub folder: PathBuf,
    /// How it is asked to end.
    pub stop_signal: StopSignal,
}

impl Launch {
    /// `github-act-runner run` in a folder that holds the files of a JIT config.
    ///
    /// Each step gets a pseudo terminal of its own (`--terminal`, on by default, seen with 0.13.0). Without it a step
    /// lasts as long as any process that holds its output, even when it was cancelled or is out of time. GitHub's
    /// steps have none, so programs are told by `TERM` not to draw on it.
    ///
    /// It is stopped by SIGTERM: its first SIGINT only means "no further jobs", and it lets the job run to its end.
    /// After SIGTERM the job is reported as cancelled (both seen with 0.13.0).
    #[must_use]
    pub fn new(program: &Path, folder: &Path, user: &User) -> Self {
        let env = [
            ("HOME", user.home.to_string_lossy().as_ref()),
            ("USER", &user.name),
            ("LOGNAME", &user.name),
            ("SHELL", user.shell.to_string_lossy().as_ref()),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            ("BUILDKIT_PROGRESS", "plain"),
            ("RUNNER_TOOL_CACHE", "/opt/hostedtoolcache"),
            ("AGENT_TOOLSDIRECTORY", "/opt/hostedtoolcache"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        let args = vec!["run".to_owned()];
        Self {
            program: program.to_owned(),
            args,
            env,
            folder: folder.to_owned(),
            stop_signal: StopSignal::Terminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_and_the_environment_are_these() {
        let user = User { name: "runner".into(), home: "/home/runner".into(), shell: "/bin/bash".into() };
        let launch = Launch::new(Path::new(PROGRAM), Path::new("/home/runner/app"), &user);
        let env: Vec<_> = launch.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text = format!("{} {}\n{}", launch.program.display(), launch.args.join(" "), env.join("\n"));
        insta::assert_snapshot!(text, @r"
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
        ");
    }
}

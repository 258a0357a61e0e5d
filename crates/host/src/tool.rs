//! Runs programs of this host: tools (podman, krunvm, buildah) with a time limit, and all others with a clean environment.
//! Their exit status decides whether they succeeded.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Most bytes of a tool's output that are stored. The answers that dayfly needs are shorter.
const OUTPUT_MAX: u64 = 64 * 1024;
/// Lines of a failed tool's output that the error quotes.
const LINES_QUOTED: usize = 10;

/// A command line with its whole environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, without its name. They never contain a secret.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
}

impl Invocation {
    /// Returns this invocation with more arguments at its end.
    pub fn with<T: Into<String>>(&self, args: impl IntoIterator<Item = T>) -> Self {
        let mut longer = self.clone();
        longer.args.extend(args.into_iter().map(Into::into));
        longer
    }

    /// Returns the first words, for an error.
    fn shown(&self) -> String {
        let program = self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy();
        let words: Vec<&str> =
            self.args.iter().map(String::as_str).take_while(|arg| *arg != "--").take(4).collect();
        format!("{program} {}", words.join(" ")).trim_end().to_owned()
    }

    /// Returns the command, in a process group of its own, so that Ctrl-C reaches only dayfly and a signal to the group also
    /// reaches the tool's children.
    pub fn command(&self) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        command
    }
}

/// Errors of running a tool.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The tool could not be started, or waiting for it failed.
    #[error("cannot run {}: {source}", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The tool failed.
    #[error("`{call}` failed ({status}): {said}")]
    Failed {
        /// The first words of the command line.
        call: String,
        /// Its exit status.
        status: ExitStatus,
        /// The last lines of its output.
        said: String,
    },
    /// The tool exceeded the time limit and was killed.
    #[error("`{call}` did not end within {} s and was killed", limit.as_secs_f32())]
    TooLong {
        /// The first words of the command line.
        call: String,
        /// The time limit.
        limit: Duration,
    },
}

/// Runs a tool until it exits and returns its standard output.
pub async fn run(invocation: &Invocation, limit: Duration) -> Result<String, ToolError> {
    let failed = |source| ToolError::Run { program: invocation.program.clone(), source };
    let mut command = tokio::process::Command::from(invocation.command());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let group = GroupGuard(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let (output, complaint) = (child.stdout.take(), child.stderr.take());
    let work = async { tokio::join!(read(output), read(complaint), child.wait()) };
    let Ok((output, complaint, status)) = tokio::time::timeout(limit, work).await else {
        drop(group);
        return Err(ToolError::TooLong { call: invocation.shown(), limit });
    };
    group.release();
    let status = status.map_err(failed)?;
    if status.success() {
        return Ok(output);
    }
    // krunvm writes its errors to standard output.
    let said = if complaint.trim().is_empty() { output } else { complaint };
    Err(ToolError::Failed { call: invocation.shown(), status, said: tail(&said) })
}

/// Kills a tool's process group when it is dropped, unless it was released.
struct GroupGuard(Option<Pid>);

impl GroupGuard {
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The leader is not reaped yet, so no other group has its number. It is no error if the group has exited.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // Read errors are ignored, because the exit status decides.
        let _ = (&mut stream).take(OUTPUT_MAX).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_QUOTED)..].join("\n")
}

/// Returns the path of the named program in the first of these folders that has it.
pub fn find(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The environment variables of this process, for the programs that it starts. Set once, by the program that may read them.
static ENVIRONMENT: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Sets the variables from which [`command`] chooses. Only the first call counts.
pub fn set_environment(variables: Vec<(String, String)>) {
    let _ = ENVIRONMENT.set(variables);
}

/// The reach of a program that dayfly starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It works with files of this host.
    Host,
    /// It downloads, so it gets the settings of proxies and mirrors too.
    Network,
}

/// Returns the command of a program with a clean environment. Converters, compilers and package managers work on the bytes of
/// strangers and run their scripts, so they get no variable that could hold a secret, first of all no PAT.
pub fn command(program: impl AsRef<OsStr>, reach: Reach) -> Command {
    command_in(ENVIRONMENT.get().map_or(&[], Vec::as_slice), program, reach)
}

/// Search path of programs if this process has none.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn command_in(variables: &[(String, String)], program: impl AsRef<OsStr>, reach: Reach) -> Command {
    let mut command = Command::new(program);
    let chosen = variables.iter().filter(|(name, _)| is_for_program(name, reach));
    command.env_clear().env("PATH", SEARCH_PATH).envs(chosen.map(|(name, value)| (name, value)));
    command
}

/// Returns true if a program of this reach may see a variable.
fn is_for_program(name: &str, reach: Reach) -> bool {
    const HOST: [&str; 6] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR"];
    const NETWORK: [&str; 5] = ["APT_CONFIG", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME"];
    // Go's module proxy, checksum database and caches. GOAUTH and GITHUB_TOKEN stay out.
    const GO: [&str; 8] =
        ["GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOPATH", "GOMODCACHE", "GOCACHE"];
    let is_proxy = || name.to_ascii_lowercase().ends_with("_proxy");
    HOST.contains(&name)
        || name.starts_with("LC_")
        || reach == Reach::Network && (NETWORK.contains(&name) || GO.contains(&name) || is_proxy())
}

/// Returns true if podman, krunvm or buildah may see an environment variable. They need to find their storage, their session
/// and a proxy, and nothing else. dayfly's own variables stay hidden because they may hold a secret.
#[must_use]
pub fn is_for_tools(name: &str) -> bool {
    const NAMES: [&str; 15] = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TMPDIR",
        "BUILDAH_ISOLATION",
        "REGISTRY_AUTH_FILE",
        "DBUS_SESSION_BUS_ADDRESS",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ];
    NAMES.contains(&name)
        || ["XDG_", "CONTAINERS_", "LC_", "STORAGE_"].iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Invocation {
        Invocation {
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_tool_is_believed_by_its_status_and_quoted_where_it_fails() {
        let limit = Duration::from_secs(10);
        assert_eq!(run(&shell("echo out; echo err >&2"), limit).await.expect("works"), "out\n");
        let error =
            run(&shell("echo out; echo err >&2; exit 3"), limit).await.expect_err("fails").to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("): err"), "{error}");
        let error = run(&shell("echo only out; exit 255"), limit).await.expect_err("fails").to_string();
        assert!(error.ends_with("only out"), "{error}");
        let nowhere = Invocation { program: "/nonexistent".into(), args: Vec::new(), env: Vec::new() };
        assert!(matches!(run(&nowhere, limit).await, Err(ToolError::Run { .. })));
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_killed_with_what_it_has_started() {
        let folder = tempfile::tempdir().expect("folder");
        let note = folder.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; wait", note.display());
        let limit = Duration::from_millis(500);
        assert!(matches!(run(&shell(&script), limit).await, Err(ToolError::TooLong { .. })));
        let pid = std::fs::read_to_string(note).expect("written");
        let stat = format!("/proc/{}/stat", pid.trim());
        // The signal may not have arrived yet. A zombie waits for its new parent to reap it.
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while lives() && std::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!lives(), "{stat}");
    }

    #[tokio::test]
    async fn a_flood_is_cut_and_does_not_hold_the_tool_up() {
        let flood = run(&shell("head -c 1000000 /dev/zero"), Duration::from_secs(10)).await.expect("works");
        assert_eq!(flood.len() as u64, OUTPUT_MAX);
    }

    #[test]
    fn a_program_sees_no_secret_and_only_one_that_downloads_sees_a_proxy() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("folder");
        let stand_in = folder.path().join("mksquashfs");
        std::fs::write(&stand_in, "#!/bin/sh\nexec env\n").expect("written");
        std::fs::set_permissions(&stand_in, std::fs::Permissions::from_mode(0o755)).expect("mode");
        let path = format!("{}:{SEARCH_PATH}", folder.path().display());
        let given = [
            ("PATH", &*path),
            ("HOME", "/h"),
            ("RUNNER_PAT", "ghp_secret"),
            ("RUNNER_SECRET", "secret"),
            ("GITHUB_TOKEN", "secret"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("GOAUTH", "secret"),
            ("LD_PRELOAD", "/x.so"),
            ("https_proxy", "http://user:password@proxy"),
            ("GOPROXY", "https://p"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let seen = |reach| {
            // By its name alone, so that it is found on the given path.
            let output = command_in(&given, "mksquashfs", reach).output().expect("it runs");
            let text = String::from_utf8(output.stdout).expect("text");
            let mut names: Vec<String> =
                text.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
            // The shell sets these itself.
            names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()));
            names.sort();
            names
        };
        assert_eq!(seen(Reach::Host), ["HOME", "PATH"]);
        assert_eq!(seen(Reach::Network), ["GOPROXY", "HOME", "PATH", "https_proxy"]);
    }

    #[test]
    fn tools_see_no_variable_of_our_own() {
        for name in ["PATH", "XDG_RUNTIME_DIR", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "LC_ALL"] {
            assert!(is_for_tools(name), "{name}");
        }
        for name in
            ["RUNNER_PAT", "TOKEN_PAT", "RUNNER_SECRET", "DAYFLY_STATE", "GITHUB_TOKEN", "NOTIFY_SOCKET"]
        {
            assert!(!is_for_tools(name), "{name}");
        }
    }
}

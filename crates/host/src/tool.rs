//! Tools of this host (podman, krunvm, buildah): called, waited for with a limit, and believed by their exit status.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Most bytes of a tool's output that are kept. What is asked of them is shorter.
const OUTPUT_MAX: u64 = 64 * 1024;
/// Lines of its complaint that are quoted.
const LINES_QUOTED: usize = 10;

/// A command line with its whole environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, without its name. No secret is ever among them.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
}

impl Invocation {
    /// The same with more arguments at its end.
    pub fn with<T: Into<String>>(&self, args: impl IntoIterator<Item = T>) -> Self {
        let mut longer = self.clone();
        longer.args.extend(args.into_iter().map(Into::into));
        longer
    }

    /// The first words, for an error.
    fn shown(&self) -> String {
        let program = self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy();
        let words: Vec<&str> =
            self.args.iter().map(String::as_str).take_while(|arg| *arg != "--").take(4).collect();
        format!("{program} {}", words.join(" ")).trim_end().to_owned()
    }

    /// As a command, in a process group of its own: Ctrl-C is for dayfly, and what the tool starts can be ended with it.
    pub fn command(&self) -> std::process::Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        command
    }
}

/// Why a tool did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be started, or not be waited for.
    #[error("cannot run {}: {source}", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// It failed.
    #[error("`{call}` failed ({status}): {said}")]
    Failed {
        /// What was called.
        call: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        said: String,
    },
    /// It took too long, and was killed.
    #[error("`{call}` did not end within {} s and was killed", limit.as_secs_f32())]
    TooLong {
        /// What was called.
        call: String,
        /// How long it was given.
        limit: Duration,
    },
}

/// Runs a tool to its end; what it printed on standard output.
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
    // krunvm complains on standard output.
    let said = if complaint.trim().is_empty() { output } else { complaint };
    Err(ToolError::Failed { call: invocation.shown(), status, said: tail(&said) })
}

/// Kills a tool, and what it has started, that nobody waits for any more.
struct GroupGuard(Option<Pid>);

impl GroupGuard {
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Its leader is not reaped yet, so the number is still its own. A group that has ended is fine.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What cannot be read is not there; the exit status counts.
        let _ = (&mut stream).take(OUTPUT_MAX).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_QUOTED)..].join("\n")
}

/// The first of some folders that holds a program of this name.
pub fn find(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Whether podman, krunvm or buildah may see an environment variable: they need to find their storage, their session and
/// a proxy, and nothing else. Above all none of dayfly's own, which may hold a secret.
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
        // The signal is on its way; a zombie waits for whoever adopted it.
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

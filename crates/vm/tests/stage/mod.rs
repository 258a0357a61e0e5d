//! Shared helpers for the tests of drivers: the folders of one runner, its settings, and a script for a runner app.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "each test uses what it needs"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_guest::envfile;
use dayfly_vm::{
    Driver, Entrypoint, Exit, Launcher, Machine, Network, NetworkPolicy, Vm, VmEvent, VmHost, VmSpec,
};

pub(crate) const SECRET: &str = "s3cret of the loop";

/// Timeout of each wait, far more than any of them takes; a test that reaches it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An app that runs until it is stopped, and then prints that. It waits in steps, so that the trap runs soon.
pub(crate) const UNTIL_STOPPED: &str =
    "trap 'echo stopped; exit 0' TERM\necho 'Listening for Jobs'\nwhile :; do sleep 0.05; done\n";

pub(crate) struct Stage {
    folder: tempfile::TempDir,
    id: String,
    /// Content of the runner's `<id>.env`.
    settings: String,
}

impl Stage {
    /// Creates a folder with an environment directory, the settings of runner `id`, and a script for a runner app.
    pub(crate) fn new(id: &str, app: &str) -> Self {
        let jit = serde_json::json!({
            ".runner": STANDARD.encode(r#"{"AgentName":"n"}"#),
            ".credentials": STANDARD.encode("{}"),
            ".credentials_rsaparams": STANDARD.encode(r#"{"d":"key"}"#),
        });
        let jit = STANDARD.encode(jit.to_string());
        let variables = [
            ("RUNNER_JITCONFIG", jit.as_str()),
            ("RUNNER_SECRET", SECRET),
            ("RUNNER_NAME", "GH-runner"),
            ("RUNNER_ID", id),
            ("RUNNER_USER", ""),
        ];
        let settings = envfile::render(&variables).unwrap();
        let stage = Self { folder: tempfile::tempdir().unwrap(), id: id.to_owned(), settings };
        for folder in ["environment", "run", "state", "tools"] {
            fs::create_dir(stage.path(folder)).unwrap();
        }
        script(&stage.path("app.sh"), app);
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the path of the runner's file with a suffix in the environment directory.
    pub(crate) fn note(&self, suffix: &str) -> PathBuf {
        self.path("environment").join(format!("{}.{suffix}", self.id))
    }

    /// Returns a host whose tools are only in this stage's folder.
    pub(crate) fn host(&self) -> VmHost {
        let launcher = Launcher { program: "/nonexistent".into(), args: Vec::new() };
        let mut host = VmHost::new(self.path("state"), launcher);
        host.tool_folders = vec![self.path("tools")];
        host
    }

    pub(crate) fn spec(&self, driver: Driver) -> VmSpec {
        VmSpec {
            name: format!("GH-runner-{}", self.id),
            runner_id: self.id.clone(),
            machine: Machine {
                cpus: 2,
                memory_mib: 512,
                boot_limit: None,
                guest_binary: guest_binary(),
                driver,
            },
            network: Network::new(NetworkPolicy::default(), [1, 1, 1, 1].into()),
            environment: self.path("environment"),
            settings: self.settings.clone().into(),
            entrypoint: Entrypoint::default(),
            mounts: Vec::new(),
            shell: false,
        }
    }

    /// Returns the names in the run folder.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("run"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Writes a shell script that can be run. Another process writes it, because a descriptor of this process would pass to a
/// program that another thread starts meanwhile, and a script that is open for writing cannot be run.
pub(crate) fn script(path: &Path, text: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("#!/bin/sh\n{}", text.trim_start_matches("#!/bin/sh\n"));
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Returns the path of the static guest binary that `make build` creates.
pub(crate) fn guest_binary() -> PathBuf {
    let dayfly = std::env::var_os("DAYFLY_BINARY").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/dayfly"),
        PathBuf::from,
    );
    let guest = dayfly.with_file_name("dayfly-guest");
    assert!(guest.is_file(), "{} is not there: `make build` makes it", guest.display());
    guest.canonicalize().unwrap()
}

/// Receives events up to the first one for which `wanted` is true, and returns all of them.
pub(crate) async fn events_until(vm: &mut Vm, mut wanted: impl FnMut(&VmEvent) -> bool) -> Vec<VmEvent> {
    let mut seen = Vec::new();
    let fetch = async {
        while let Some(event) = vm.next_event().await {
            let last = wanted(&event);
            seen.push(event);
            if last {
                return true;
            }
        }
        false
    };
    let found = tokio::time::timeout(PATIENCE, fetch).await;
    assert!(matches!(found, Ok(true)), "not seen ({found:?}) among:\n{seen:#?}\n{}", vm.console_tail());
    seen
}

/// Returns a condition that is true for a line that contains a text.
pub(crate) fn line(text: &str) -> impl FnMut(&VmEvent) -> bool {
    move |event| matches!(event, VmEvent::Line { text: line, .. } if line.contains(text))
}

/// Returns all events before the last, and how the machine exited.
pub(crate) async fn events_to_end(vm: &mut Vm) -> (Vec<VmEvent>, Exit) {
    let mut events = events_until(vm, |event| matches!(event, VmEvent::Gone { .. })).await;
    match events.pop() {
        Some(VmEvent::Gone { exit, .. }) => (events, exit),
        other => panic!("the last event is {other:?}"),
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

/// Returns the command lines of living processes that contain a text.
pub(crate) fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
            && let Ok(words) = fs::read(entry.path().join("cmdline"))
        {
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            if words.contains(text) {
                found.push(words);
            }
        }
    }
    found
}

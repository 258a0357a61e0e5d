//! A headless Chromium, steered by its DevTools protocol through a pair of pipes.
//!
//! The protocol is at chromedevtools.github.io/devtools-protocol. With `--remote-debugging-pipe`, messages are JSON with a zero byte
//! at the end of each, read from file descriptor 3 and written to 4.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest time that anything may take in the browser on a loaded host.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Names of the browser in PATH.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser with one page. It ends when this is dropped.
pub(crate) struct Chromium {
    process: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// The errors that pages have reported, and requests that failed.
    errors: Vec<String>,
    loads: u64,
    _profile: TempDir,
}

/// Returns the browser. If there is none, the panic message says how to get it.
fn program() -> PathBuf {
    let named = std::env::var_os("DAYFLY_TEST_CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    let found = || {
        folders.find_map(|folder| NAMES.map(|name| folder.join(name)).into_iter().find(|one| one.is_file()))
    };
    named.or_else(found).unwrap_or_else(|| {
        panic!("there is no Chromium: scripts/setup --full installs it on Debian, and DAYFLY_TEST_CHROMIUM names another one")
    })
}

impl Chromium {
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // The shell gives the browser the pipes of its standard input and output as 3 and 4.
        let mut process = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#])
            .arg(program())
            .args(["--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run"])
            // Its own sandbox needs privileges that a container lacks. It shows pages of this test only.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|length| length > 1) {
                message.pop();
                let _ = sender.send(serde_json::from_slice(&message).unwrap_or_default());
                message.clear();
            }
        });
        let (session, calls, errors, loads) = (None, 0, Vec::new(), 0);
        let mut browser = Self { process, input, messages, session, calls, errors, loads, _profile: profile };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let to = json!({ "targetId": target["targetId"], "flatten": true });
        self.session = self.call("Target.attachToTarget", to)["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network", "Accessibility"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Calls a method, and returns its result.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.next(until, method);
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    /// Returns the next message, and notes what it says about the page.
    fn next(&mut self, until: Instant, what: &str) -> Value {
        let left = until.saturating_duration_since(Instant::now());
        let message = self.messages.recv_timeout(left).unwrap_or_else(|error| panic!("{what}: {error}"));
        let parameters = &message["params"];
        let error = match message["method"].as_str() {
            Some("Page.loadEventFired") => {
                self.loads += 1;
                None
            }
            Some("Runtime.exceptionThrown") => Some(parameters["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if parameters["type"] == "error" => {
                Some(parameters["args"].to_string())
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                Some(parameters["entry"].to_string())
            }
            // A source of events ends with its page.
            Some("Network.loadingFailed") if parameters["canceled"] != true => Some(parameters.to_string()),
            _ => None,
        };
        self.errors.extend(error);
        message
    }

    /// Opens an address, and waits until it is complete.
    pub(crate) fn open(&mut self, url: &str) {
        let before = self.loads;
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        let until = Instant::now() + PATIENCE;
        while self.loads == before {
            self.next(until, url);
        }
    }

    /// Returns the value of an expression in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true. Returns the time that it took.
    pub(crate) fn wait_until(&mut self, expression: &str) -> Duration {
        let began = Instant::now();
        while self.value(expression) != true {
            assert!(began.elapsed() < PATIENCE, "it never became true: {expression}");
            std::thread::sleep(Duration::from_millis(10));
        }
        began.elapsed()
    }

    /// Sets the width of the window, and the colours that the person prefers.
    pub(crate) fn look(&mut self, width: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Returns the errors since the last call.
    pub(crate) fn errors(&mut self) -> Vec<String> {
        std::mem::take(&mut self.errors)
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

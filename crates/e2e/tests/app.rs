//! Tests of `dayfly app create`, and of a lab that is used with the App: real processes, and a browser that the tests play.

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, Ended, Running};
use rustix::process::Signal;
use tempfile::TempDir;

/// A folder for the key of an App.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn file(&self) -> String {
        self.0.path().join("app.pem").display().to_string()
    }

    fn count(&self) -> usize {
        std::fs::read_dir(self.0.path()).expect("the folder").count()
    }
}

fn create<'a>(forge: &'a str, key: &'a str, more: &[&'a str]) -> Running {
    let words = ["app", "create", "--json", "-g", forge, "--key-file", key];
    Dayfly::new(words.into_iter().chain(more.iter().copied())).start()
}

/// Opens the page, sends its form to the lab, and follows the redirect. Returns the text of the last page.
async fn confirm(page: &str, lab: &LabProcess) -> String {
    // It installs what reqwest needs for any client.
    drop(dayfly_e2e::lab::http());
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    let client = client.build().expect("a client");
    let form = client.get(page).send().await.expect("the page").text().await.expect("text");
    let between = |from: &str| {
        let text = form.split_once(from).expect(from).1.split_once('"').expect("its end").0;
        text.replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
    };
    let manifest = between("name=\"manifest\" value=\"");
    let encoded =
        reqwest::Url::parse_with_params("http://x/", [("manifest", &manifest)]).expect("an address");
    let sent = client
        .post(between("form action=\""))
        .bearer_auth(&lab.token)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(encoded.query().expect("a form").to_owned());
    let answer = sent.send().await.expect("the lab's answer");
    assert_eq!(answer.status().as_u16(), 302);
    let back = answer.headers().get("location").expect("a redirect").to_str().expect("text").to_owned();
    client.get(back).send().await.expect("the callback").text().await.expect("text")
}

fn with_app(command: &[&str], lab: &LabProcess, id: &str, key: &str) -> Ended {
    let app = ["-g", &lab.url, "-p", &lab.principal, "--app-id", id, "--app-key-file", key];
    Dayfly::new(command.iter().copied().chain(app)).run()
}

#[tokio::test]
async fn an_app_that_a_browser_confirms_can_register_runners_and_doctor_says_so() {
    let (lab, keys) = (LabProcess::start(), Keys::new());
    let key = keys.file();
    let mut creating = create(&lab.url, &key, &[]);
    let page = creating.wait_for_event("listening")["url"].as_str().expect("an address").to_owned();
    let last = confirm(&page, &lab).await;
    assert!(last.contains("The App exists") && last.contains("/installations/new"), "{last}");
    let created = creating.wait_for_event("created");
    creating.wait().assert_status(0);
    assert_eq!(created["key_file"], key.as_str());
    let id = created["app_id"].to_string();

    let doctor = with_app(&["doctor", "--forge", "--json"], &lab, &id, &key);
    doctor.assert_status(0);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&doctor.stdout).expect("a list");
    assert!(checks.iter().all(|check| check["state"] == "ok"), "{checks:#?}");
    let names: Vec<&str> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    assert_eq!(names, ["forge", "clock", "credential", "rate limit", "o/r", "o/r: runners"]);
    assert!(lab.registrations().await.is_empty());

    let token = with_app(&["token"], &lab, &id, &key);
    token.assert_status(0);
    assert!(!token.stdout.trim().is_empty());
    lab.stop();
}

#[test]
fn a_signal_ends_the_wait_and_leaves_no_file() {
    let keys = Keys::new();
    let mut creating = create("http://127.0.0.1:1", &keys.file(), &[]);
    creating.wait_for_event("listening");
    creating.signal(Signal::INT);
    creating.wait().assert_status(130);
    assert_eq!(keys.count(), 0);
}

#[test]
fn a_key_file_that_exists_and_a_port_that_is_taken_are_told_before_anything_is_created() {
    let keys = Keys::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let ended = create("http://127.0.0.1:1", &keys.file(), &["--port", &port]).wait();
    ended.assert_status(3);
    assert!(ended.stderr.contains(&port) && ended.stderr.contains("--port"), "{}", ended.stderr);
    std::fs::write(keys.file(), "mine").expect("written");
    let ended = create("http://127.0.0.1:1", &keys.file(), &[]).wait();
    ended.assert_status(2);
    assert!(ended.stderr.contains("exists already"), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(keys.file()).expect("there"), "mine");
}

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use dayfly_forge::ApiBase;

use super::*;

/// A forge with one runner, whose registration has the id 7 and the name of the runner of the test facts.
pub(crate) struct ScriptedForge {
    pub(crate) forge: Forge,
    pub(crate) address: String,
    calls: Arc<Mutex<Vec<String>>>,
}

impl ScriptedForge {
    /// Starts a forge that answers deletions with these statuses one after another, and further ones with the last of them.
    /// `is_listed` tells whether its list of runners has the runner.
    pub(crate) fn start(deletions: &[u16], is_listed: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let calls = Arc::<Mutex<Vec<String>>>::default();
        let (seen, mut deletions) = (Arc::clone(&calls), deletions.to_vec());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut head) = (stream.expect("a connection"), Vec::new());
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).expect("a request");
                    head.extend(byte);
                }
                let head = String::from_utf8(head).expect("text");
                let method = head.split(' ').next().expect("a method").to_owned();
                let (status, body) = match method.as_str() {
                    "DELETE" if deletions.len() > 1 => (deletions.remove(0), String::new()),
                    "DELETE" => (deletions[0], String::new()),
                    _ => (200, list(is_listed)),
                };
                seen.lock().expect("no panic").push(format!("{method} {status}"));
                let answer = format!(
                    "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).expect("answered");
            }
        });
        let base = ApiBase::from_host_or_url(&address).expect("an address");
        Self { forge: Forge::new(base, "x").expect("a client"), address, calls }
    }

    /// Returns the calls so far, each as its method and the status of the answer.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("no panic").clone()
    }
}

fn list(is_listed: bool) -> String {
    let runner = serde_json::json!({
        "id": 7, "name": "p-0-aaaaaaa", "os": "linux", "status": "online", "busy": true, "labels": [],
    });
    let runners = if is_listed { vec![runner] } else { Vec::new() };
    serde_json::json!({ "total_count": runners.len(), "runners": runners }).to_string()
}

async fn ended(
    forge: &ScriptedForge,
    state: RegistrationState,
    when_busy: WhenBusy,
) -> Result<RegistrationEnd, ForgeError> {
    let scope = RunnerScope::Organization("o".to_owned());
    end(&forge.forge, &scope, "p-0-aaaaaaa", state, when_busy).await.map(|outcome| outcome.how)
}

#[tokio::test]
async fn the_answer_to_a_deletion_decides_if_a_machine_may_go() {
    use RegistrationEnd::{Busy, Deleted, Gone};
    for (status, is_listed, expected, calls) in [
        (204, true, Some(Deleted), vec!["DELETE 204"]),
        (422, true, Some(Busy), vec!["DELETE 422"]),
        (404, false, Some(Gone), vec!["DELETE 404", "GET 200"]),
        // A token that has lost its right to delete.
        (404, true, Some(Busy), vec!["DELETE 404", "GET 200"]),
        (401, true, None, vec!["DELETE 401"]),
        (403, true, None, vec!["DELETE 403"]),
    ] {
        let forge = ScriptedForge::start(&[status], is_listed);
        let ended = ended(&forge, RegistrationState::Exists(7), WhenBusy::Leave).await;
        assert_eq!(
            (ended.ok(), forge.calls()),
            (expected, calls.iter().map(|call| (*call).to_owned()).collect()),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_registration_whose_id_was_lost_is_looked_up_by_its_name() {
    for (is_listed, expected) in [(true, RegistrationEnd::Deleted), (false, RegistrationEnd::Gone)] {
        let forge = ScriptedForge::start(&[204], is_listed);
        let ended = ended(&forge, RegistrationState::Requested, WhenBusy::Leave).await;
        assert_eq!(ended.expect("an answer"), expected);
    }
}

#[tokio::test]
async fn a_busy_registration_without_a_machine_is_tried_again_until_it_is_deleted_or_the_time_is_over() {
    let until = Instant::now() + Duration::from_secs(60);
    let forge = ScriptedForge::start(&[422, 204], true);
    let insisted = ended(&forge, RegistrationState::Exists(7), WhenBusy::Insist { until }).await;
    assert_eq!(insisted.expect("an answer"), RegistrationEnd::Deleted);
    let forge = ScriptedForge::start(&[422], true);
    let over = WhenBusy::Insist { until: Instant::now() };
    let kept = ended(&forge, RegistrationState::Exists(7), over).await;
    assert_eq!(kept.expect("an answer"), RegistrationEnd::Busy);
}

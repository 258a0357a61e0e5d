//! A forge with an Actions Service, which behaves well unless a test scripts another answer.
//!
//! It checks every token: the user's and the registration token at the REST API, the admin token at the service, the queue's
//! token at the queue. So a call with a wrong token fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::clock::TestClock;
use super::http::{Reply, Request, serve};
use crate::scale_set::{ScaleSetClient, ScaleSetListener, ScaleSetSpec};
use crate::{ApiBase, Forge, RunnerScope};

/// Time for which the queue holds a poll. GitHub's takes 50 s; the listener only asks whether it is longer than a second.
pub(super) const HOLD: Duration = Duration::from_secs(2);
/// Path of the service, and of its calls.
pub(super) const SETS: &str = "/tenant/1/_apis/runtime/runnerscalesets";
pub(super) const AGENTS: &str = "/tenant/1/_apis/distributedtask/pools/0/agents";
pub(super) const EXCHANGE: &str = "POST /api/v3/actions/runner-registration";
pub(super) const REGISTRATION_TOKEN: &str = "POST /api/v3/orgs/o/actions/runners/registration-token";

/// The state of the forge.
pub(super) struct State {
    /// Answers for the next requests whose lines begin with these words, in place of the usual ones.
    scripted: Vec<(String, Reply)>,
    pub(super) requests: Vec<Request>,
    /// Address and path of the service, and address of the queue.
    pub(super) service_url: String,
    pub(super) queue_url: String,
    pub(super) scale_sets: BTreeMap<u64, Value>,
    /// Number of the session of each scale set.
    pub(super) sessions: BTreeMap<u64, u64>,
    /// Messages that were not deleted.
    pub(super) messages: BTreeMap<u64, Value>,
    pub(super) statistics: Value,
    pub(super) acquirable: Vec<i64>,
    pub(super) runners: BTreeMap<u64, Value>,
    pub(super) admin_life_s: i64,
    /// Seconds by which the forge's clock is ahead; it is stated if there is a difference.
    pub(super) ahead_s: i64,
    /// Number of the last object or token of any kind.
    last: u64,
    admin: String,
    queue_token: String,
}

/// A running forge.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
    _clock: TestClock,
}

impl Service {
    pub(super) async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            scripted: Vec::new(),
            requests: Vec::new(),
            service_url: String::new(),
            queue_url: String::new(),
            scale_sets: BTreeMap::new(),
            sessions: BTreeMap::new(),
            messages: BTreeMap::new(),
            statistics: json!({"totalAssignedJobs": 0, "totalAvailableJobs": 0}),
            acquirable: Vec::new(),
            runners: BTreeMap::new(),
            admin_life_s: 3600,
            ahead_s: 0,
            last: 0,
            admin: String::new(),
            queue_token: String::new(),
        }));
        let shared = state.clone();
        let address = serve(move |request| shared.lock().unwrap().answer(request)).await;
        let url = format!("http://{address}");
        {
            let mut state = state.lock().unwrap();
            state.service_url = format!("{url}/tenant/1");
            state.queue_url = format!("{url}/queue/messages");
        }
        Self { url, state, _clock: TestClock::hold() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn client(&self) -> ScaleSetClient {
        let forge = Forge::new(ApiBase::from_host_or_url(&self.url).unwrap(), "PAT").unwrap();
        ScaleSetClient::new(forge, RunnerScope::Organization("o".into()))
    }

    pub(super) fn listener(&self) -> ScaleSetListener {
        ScaleSetListener::new(self.client(), spec("vm"))
    }

    /// Answers the next request whose line begins with `line` by `reply`. Several answers are given in their order.
    pub(super) fn script(&self, line: impl Into<String>, reply: Reply) {
        self.state().scripted.push((line.into(), reply));
    }

    /// Forgets the answers that were scripted and not used.
    pub(super) fn forget_scripts(&self) {
        self.state().scripted.clear();
    }

    /// Adds a message with news to the queue.
    pub(super) fn message(&self, id: u64, assigned: u32, news: Value) {
        let statistics = json!({"totalAssignedJobs": assigned, "totalAvailableJobs": 0});
        let message = json!({
            "messageId": id, "messageType": "RunnerScaleSetJobMessages", "body": news.to_string(),
            "statistics": statistics,
        });
        let mut state = self.state();
        state.statistics = statistics;
        state.messages.insert(id, message);
    }

    /// Returns the requests whose lines begin with `line`.
    pub(super) fn requests(&self, line: &str) -> Vec<Request> {
        self.state().requests.iter().filter(|request| request.line.starts_with(line)).cloned().collect()
    }

    /// Returns the lines of all requests since the last call, with short names for the long paths.
    pub(super) fn lines(&self) -> String {
        let requests = std::mem::take(&mut self.state().requests);
        let lines = requests.iter().map(|request| {
            let line = request.line.replace(SETS, "SETS").replace("?api-version=6.0-preview", "");
            format!("{line} {}", request.body).trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Returns the description of a scale set with the labels of its name.
pub(super) fn spec(name: &str) -> ScaleSetSpec {
    ScaleSetSpec { name: name.into(), group: "Default".into(), labels: Vec::new(), owner: "host-1".into() }
}

/// Returns the refusal of a call for a reason that the service names.
pub(super) fn refusal(status: u16, type_name: &str, message: &str) -> Reply {
    let type_name = format!("GitHub.Actions.Runtime.WebApi.{type_name}, GitHub.Actions.Runtime.WebApi");
    Reply::new(status, json!({"message": message, "typeName": type_name, "typeKey": "X", "errorCode": 0}))
}

impl State {
    fn answer(&mut self, request: Request) -> Reply {
        self.requests.push(request.clone());
        let scripted = self.scripted.iter().position(|(line, _)| request.line.starts_with(line.as_str()));
        let reply = match scripted {
            Some(index) => self.scripted.remove(index).1,
            None => self.usual(&request),
        };
        match self.ahead_s {
            0 => reply,
            _ => reply.header("date", self.now().strftime("%a, %d %b %Y %H:%M:%S GMT")),
        }
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(dayfly_host::clock::now_s() + self.ahead_s).unwrap()
    }

    fn usual(&mut self, request: &Request) -> Reply {
        let (method, path) = request.line.split_once(' ').unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let acquires = path.ends_with("/acquirejobs");
        let expected = match path {
            _ if path.starts_with("/api/v3/orgs/") => "Bearer PAT".to_owned(),
            "/api/v3/actions/runner-registration" => format!("RemoteAuth REG-{}", self.last),
            _ if path.starts_with("/tenant/1/") && !acquires => format!("Bearer {}", self.admin),
            _ => format!("Bearer {}", self.queue_token),
        };
        if request.authorization != expected {
            return Reply::new(401, json!({"message": "Bad credentials"}));
        }
        let body: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (method, &parts[..]) {
            ("POST", ["api", "v3", "orgs", "o", "actions", "runners", "registration-token"]) => {
                let token = format!("REG-{}", self.number());
                Reply::new(201, json!({"token": token, "expires_at": "2030-01-01T00:00:00Z"}))
            }
            ("POST", ["api", "v3", "actions", "runner-registration"]) => self.exchange(),
            ("GET" | "DELETE", ["queue", "messages", ..]) => self.queue(method, parts.get(2), query),
            (_, [_, _, _, "distributedtask", .., "agents"]) => Reply::new(200, list(self.runners.values())),
            ("DELETE", [_, _, _, "distributedtask", .., id]) => {
                Reply::new(if self.runners.remove(&number(id)).is_some() { 204 } else { 404 }, "")
            }
            (_, [_, _, _, "runtime", "runnerscalesets", rest @ ..]) => self.scale_set(method, rest, &body),
            _ => Reply::new(404, json!({"message": format!("no {method} {path}")})),
        }
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn exchange(&mut self) -> Reply {
        let claims = json!({"exp": self.now().as_second() + self.admin_life_s, "jti": self.number()});
        self.admin = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        Reply::new(
            200,
            json!({"url": self.service_url, "token": self.admin, "token_schema": "OAuthAccessToken"}),
        )
    }

    fn scale_set(&mut self, method: &str, path: &[&str], body: &Value) -> Reply {
        let Some(id) = path.first().map(|id| number(id)) else {
            if method == "GET" {
                return Reply::new(200, list(self.scale_sets.values()));
            }
            let mut made = body.clone();
            let id = self.number();
            made["id"] = json!(id);
            self.scale_sets.insert(id, made.clone());
            return Reply::new(200, made);
        };
        if !self.scale_sets.contains_key(&id) {
            return refusal(
                404,
                "RunnerScaleSetNotFoundException",
                &format!("No runner scale set found with identifier {id}."),
            );
        }
        match (method, &path[1..]) {
            ("GET", []) => Reply::new(200, &self.scale_sets[&id]),
            ("PATCH", []) => {
                self.scale_sets.insert(id, body.clone());
                Reply::new(200, body)
            }
            ("DELETE", []) => {
                self.scale_sets.remove(&id);
                self.sessions.remove(&id);
                Reply::new(204, "")
            }
            ("POST", ["sessions"]) if self.sessions.contains_key(&id) => {
                let name = self.scale_sets[&id]["name"].as_str().unwrap();
                let message = format!("The actions runner scaleset {name} already has an active session.");
                refusal(409, "RunnerScaleSetSessionConflictException", &message)
            }
            ("POST", ["sessions"]) => {
                let session = self.number();
                self.sessions.insert(id, session);
                self.session(session)
            }
            (_, ["sessions", session]) => match self.sessions.get(&id).copied() {
                Some(own) if session_id(own) == *session && method == "PATCH" => self.session(own),
                Some(own) if session_id(own) == *session && method == "DELETE" => {
                    self.sessions.remove(&id);
                    Reply::new(204, "")
                }
                _ => Reply::new(404, json!({"message": "no such session"})),
            },
            ("POST", ["acquirejobs"]) => Reply::new(200, list(body.as_array().unwrap().iter())),
            ("GET", ["acquirablejobs"]) => {
                let offers = self.acquirable.iter().map(|id| json!({"runnerRequestId": id}));
                Reply::new(200, json!({"value": offers.collect::<Vec<_>>()}))
            }
            ("POST", ["generatejitconfig"]) => {
                let runner = self.number();
                self.runners
                    .insert(runner, json!({"id": runner, "name": body["name"], "runnerScaleSetId": id}));
                let config = crate::jit::sample("http://10.0.2.2:1/").encode();
                let encoded = config.expose_secret();
                Reply::new(200, json!({"runner": self.runners[&runner], "encodedJITConfig": encoded}))
            }
            _ => Reply::new(404, json!({"message": "no such call"})),
        }
    }

    fn session(&mut self, session: u64) -> Reply {
        self.queue_token = format!("QUEUE-{}", self.number());
        Reply::new(
            200,
            json!({
                "sessionId": session_id(session), "ownerName": "host-1", "statistics": self.statistics,
                "messageQueueUrl": format!("{}?sessionId={session}", self.queue_url),
                "messageQueueAccessToken": self.queue_token,
            }),
        )
    }

    pub(super) fn queue(&mut self, method: &str, message: Option<&&str>, query: &str) -> Reply {
        if method == "DELETE" {
            self.messages.remove(&number(message.unwrap()));
            return Reply::new(204, "");
        }
        let last = query.split("lastMessageId=").nth(1).map_or(0, number);
        match self.messages.range(last + 1..).next() {
            Some((_, message)) => Reply::new(200, message),
            None => Reply::new(202, "").after(HOLD),
        }
    }
}

fn number(text: &str) -> u64 {
    text.split('&').next().unwrap().parse().unwrap()
}

fn session_id(session: u64) -> String {
    format!("00000000-0000-0000-0000-{session:012}")
}

fn list<'a>(values: impl Iterator<Item = &'a Value>) -> Value {
    let value: Vec<&Value> = values.collect();
    json!({"count": value.len(), "value": value})
}

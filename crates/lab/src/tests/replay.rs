//! Replays recordings of the official runner app (see `recordings/README.md`): the lab must answer each request so that the
//! app goes on.

use std::time::Duration;

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::bench::{Bench, Script, http};
use super::registration::script;
use crate::keys::KeyPair;

const WORKFLOW: &str = "on: workflow_dispatch\njobs:\n  a:\n    runs-on: [self-hosted]\n    outputs:\n      o: ${{ steps.s.outputs.v }}\n    steps:\n      - id: s\n        run: echo v=1 >>$GITHUB_OUTPUT\n";

/// One exchange of a recording.
#[derive(Debug, Clone, Deserialize)]
struct Exchange {
    start_s: f64,
    /// None for the live feed, which stays open.
    end_s: Option<f64>,
    method: String,
    path: String,
    headers: std::collections::BTreeMap<String, String>,
    body: String,
    status: u16,
    answer: String,
}

impl Exchange {
    /// Returns true if the recorded answer is a message of this type.
    fn brings(&self, kind: &str) -> bool {
        self.answer.contains(&format!("\"messageType\":\"{kind}\"")) && self.path.contains("/broker/message")
    }

    /// Returns true if the app takes this status. The recorded lab answered the poll that is open when an ephemeral runner's
    /// job ends with an error, which made the app call its job cancelled.
    fn takes(&self, status: u16) -> bool {
        let is_poll = self.path.contains("/broker/message");
        match self.status {
            404 if is_poll => [200, 204].contains(&status),
            recorded => status == recorded,
        }
    }
}

/// A request that is open.
struct Open {
    exchange: Exchange,
    answer: JoinHandle<(u16, String)>,
}

struct Replay<'a> {
    bench: &'a Bench,
    script: Option<Script>,
    key: Option<KeyPair>,
    /// Recorded words, such as ids and tokens, with the words that the lab answered now.
    words: Vec<(String, String)>,
    access_token: String,
    job_token: String,
    open: Vec<Open>,
    feeds: Vec<reqwest::Response>,
    run: u64,
}

/// Replays a recording. Returns its runs.
async fn replay(bench: &Bench, recording: &str) -> Vec<u64> {
    let mut replay = Replay {
        bench,
        script: None,
        key: None,
        words: vec![("http://FORGE".to_owned(), bench.url.clone())],
        access_token: String::new(),
        job_token: String::new(),
        open: Vec::new(),
        feeds: Vec::new(),
        run: 0,
    };
    if !recording.contains("/api/v3/actions/runner-registration") {
        let runner = bench.register("off-103-1", &["self-hosted"]).await;
        replay.words.push(("\"id\":105".to_owned(), format!("\"id\":{}", runner.runner_id)));
        replay.script = Some(Script::new(runner));
    }
    let exchanges: Vec<Exchange> =
        recording.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut runs = Vec::new();
    for exchange in exchanges {
        replay.settle_until(exchange.start_s, &mut runs).await;
        replay.send(exchange).await;
    }
    replay.settle_until(f64::INFINITY, &mut runs).await;
    runs
}

/// Asserts that a recording has so many runs and that each of them has this conclusion.
async fn assert_conclusion(bench: &Bench, recording: &str, runs: usize, conclusion: &str) -> Vec<u64> {
    let all = replay(bench, recording).await;
    assert_eq!(all.len(), runs);
    for run in &all {
        assert_eq!(bench.conclusion(*run).await.as_deref(), Some(conclusion));
    }
    all
}

impl Replay<'_> {
    /// Waits for the answers that had come by this time in the recording.
    async fn settle_until(&mut self, time_s: f64, runs: &mut Vec<u64>) {
        let is_due = |open: &Open| open.exchange.end_s.is_some_and(|end| end <= time_s);
        let (mut due, rest): (Vec<_>, Vec<_>) = self.open.drain(..).partition(is_due);
        self.open = rest;
        due.sort_by(|one, other| one.exchange.end_s.unwrap().total_cmp(&other.exchange.end_s.unwrap()));
        for Open { exchange, answer } in due {
            if exchange.brings("RunnerJobRequest") {
                self.run = self.bench.start(WORKFLOW).await;
                runs.push(self.run);
            }
            if exchange.brings("JobCancellation") {
                self.bench.forge.cancel_run("o", "r", self.run).await.unwrap();
            }
            let (status, text) = tokio::time::timeout(Duration::from_secs(10), answer)
                .await
                .unwrap_or_else(|_| panic!("{} is not answered", exchange.path))
                .unwrap();
            assert!(exchange.takes(status), "{} {}: {status} {text}", exchange.method, exchange.path);
            self.learn(&exchange, &text);
        }
    }

    async fn send(&mut self, exchange: Exchange) {
        if exchange.path.ends_with("/oauth/token") {
            // Only the holder of the key can sign, so that the recorded assertion is of no use.
            let answer = self.script.as_mut().unwrap().sign_in().await.unwrap();
            answer["access_token"].as_str().unwrap().clone_into(&mut self.access_token);
            return;
        }
        let request = self.request(&exchange).await;
        if exchange.path == "/runner/feed" {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 101);
            self.feeds.push(response);
            return;
        }
        let answer = tokio::spawn(async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        });
        self.open.push(Open { exchange, answer });
    }

    async fn request(&mut self, exchange: &Exchange) -> reqwest::RequestBuilder {
        let method: Method = exchange.method.parse().unwrap();
        let url = format!("{}{}", self.bench.url, self.with_words(&exchange.path));
        assert!(!url.contains("<token"), "no answer has brought a token of {}", exchange.path);
        let mut body = self.with_words(&exchange.body);
        if exchange.path.ends_with("/runners/register") {
            let key = KeyPair::generate().unwrap();
            let (modulus, exponent) = (&key.public.modulus, &key.public.exponent);
            let mut register: Value = serde_json::from_str(&body).unwrap();
            register["public_key"] = format!(
                "<RSAKeyValue><Modulus>{modulus}</Modulus><Exponent>{exponent}</Exponent></RSAKeyValue>"
            )
            .into();
            body = register.to_string();
            self.key = Some(key);
        }
        let mut request = http().request(method, url).body(body);
        for (name, value) in &exchange.headers {
            request = request.header(name, self.with_words(value));
        }
        if exchange.path == "/runner/feed" {
            request = request
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        }
        match self.authorization(&exchange.path).await {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    /// Returns the credentials that the app shows at a path. The recording has none.
    async fn authorization(&self, path: &str) -> Option<String> {
        let word = |name: &str| self.words.iter().find(|(old, _)| old == name).map(|(_, new)| new.clone());
        if path.starts_with("/runner/results/blob") {
            return None;
        }
        if path.ends_with("/runner-registration") {
            let token = self.bench.forge.registration_token(&Bench::scope()).await.unwrap().token;
            return Some(format!("RemoteAuth {}", token.expose_secret()));
        }
        let token = match path {
            path if path.starts_with("/api/v3/") => word("<token 1>").unwrap(),
            path if path.starts_with("/runner/broker/") || path.ends_with("/acquirejob") => {
                self.access_token.clone()
            }
            _ => self.job_token.clone(),
        };
        Some(format!("Bearer {token}"))
    }

    fn with_words(&self, text: &str) -> String {
        // The newest words first, because a number of a token may come again with another meaning.
        self.words.iter().rev().fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    }

    /// Compares a recorded answer with that of now, and remembers the words in which they differ.
    fn learn(&mut self, exchange: &Exchange, text: &str) {
        let (Ok(recorded), Ok(now)) = (serde_json::from_str(&exchange.answer), serde_json::from_str(text))
        else {
            return;
        };
        self.align(&recorded, &now);
        if exchange.path.ends_with("/acquirejob") {
            let token = &now["resources"]["endpoints"][0]["authorization"]["parameters"]["AccessToken"];
            token.as_str().unwrap().clone_into(&mut self.job_token);
        }
        if exchange.path.ends_with("/runners/register") {
            let (old, new) = (recorded["id"].to_string(), now["id"].to_string());
            self.words.push((format!("/runners/{old}"), format!("/runners/{new}")));
            self.words.push((format!("\"id\":{old},"), format!("\"id\":{new},")));
            self.script = Some(script(&now, self.key.take().unwrap()));
        }
    }

    fn align(&mut self, recorded: &Value, now: &Value) {
        match (recorded, now) {
            (Value::Object(recorded), Value::Object(now)) => {
                for (key, value) in recorded {
                    self.align(value, now.get(key).unwrap_or(&Value::Null));
                }
            }
            (Value::Array(recorded), Value::Array(now)) => {
                recorded.iter().zip(now).for_each(|(recorded, now)| self.align(recorded, now));
            }
            (Value::String(recorded), Value::String(now)) if recorded != now => {
                self.align_texts(recorded, now);
            }
            _ => {}
        }
    }

    fn align_texts(&mut self, recorded: &str, now: &str) {
        if let (Ok(recorded @ Value::Object(_)), Ok(now)) =
            (serde_json::from_str(recorded), serde_json::from_str(now))
        {
            return self.align(&recorded, &now);
        }
        if let (Some(start), Some(end)) = (recorded.find("<token "), recorded.find('>')) {
            let before = recorded[..start].replace("http://FORGE", &self.bench.url);
            let after = &recorded[end + 1..];
            let token = now.strip_prefix(&before).and_then(|rest| rest.strip_suffix(after));
            if let Some(token) = token {
                self.words.push((recorded[start..=end].to_owned(), token.to_owned()));
            }
        } else if uuid::Uuid::try_parse(recorded).is_ok() {
            self.words.push((recorded.to_owned(), now.to_owned()));
        }
    }
}

async fn bench() -> Bench {
    // Longer than a replay takes, so that a poll ends because something happens and not because its time is over.
    Bench::with(|limits| limits.long_poll = Duration::from_secs(2)).await
}

/// Returns the first job of a run.
async fn first_job(bench: &Bench, run: u64) -> Value {
    let path = format!("/api/v3/repos/o/r/actions/runs/{run}/jobs");
    let (_, jobs) = bench.call(Method::GET, &path, None).await;
    jobs["jobs"][0].clone()
}

/// Returns the annotations of a job.
async fn annotations(bench: &Bench, job: &Value) -> Value {
    let path = format!("/api/v3/repos/o/r/check-runs/{}/annotations", job["id"]);
    bench.call(Method::GET, &path, None).await.1
}

#[tokio::test]
async fn the_official_app_runs_a_job_and_its_last_poll_is_no_error() {
    let recording = include_str!("recordings/jit-job.jsonl");
    assert_conclusion(&bench().await, recording, 1, "success").await;
}

#[tokio::test]
async fn the_summary_and_the_annotations_of_the_official_apps_job_can_be_read_back() {
    let bench = bench().await;
    let run = assert_conclusion(&bench, include_str!("recordings/jit-job.jsonl"), 1, "success").await[0];
    let job = first_job(&bench, run).await;
    let path = job["summary_url"].as_str().unwrap().strip_prefix(&bench.url).unwrap();
    let (status, summary) = bench.call(Method::GET, path, None).await;
    let step = "Run echo \"::warning file=a.c,line=3,col=2,title=T::careful\"";
    assert_eq!((status, summary), (200, json!([{"number": 2, "step": step, "text": "# Summary\n"}])));
    let annotations = annotations(&bench, &job).await;
    let of = |place: usize, key: &str| annotations[place][key].clone();
    assert_eq!(
        [of(0, "path"), of(0, "start_line"), of(0, "message")],
        [json!("a.c"), 3.into(), "careful".into()]
    );
    assert_eq!([of(1, "annotation_level"), of(1, "message")], [json!("failure"), "bad thing".into()]);
}

#[tokio::test]
async fn the_official_app_is_told_that_its_job_was_cancelled() {
    let recording = include_str!("recordings/cancelled.jsonl");
    assert_conclusion(&bench().await, recording, 1, "cancelled").await;
}

#[tokio::test]
async fn the_official_app_that_is_interrupted_fails_its_job_and_closes_its_session() {
    let recording = include_str!("recordings/interrupted.jsonl");
    assert_conclusion(&bench().await, recording, 1, "failure").await;
}

#[tokio::test]
async fn a_worker_that_crashes_leaves_its_reason_at_the_job() {
    let bench = bench().await;
    let recording = include_str!("recordings/worker-crashed.jsonl");
    let run = assert_conclusion(&bench, recording, 1, "failure").await[0];
    let annotations = annotations(&bench, &first_job(&bench, run).await).await;
    let message = annotations[0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("FileNotFoundException"), "{annotations}");
    assert_eq!(annotations[0]["annotation_level"], "failure");
}

#[tokio::test]
async fn the_official_app_registers_itself_runs_two_jobs_and_is_removed() {
    let bench = bench().await;
    let recording = include_str!("recordings/registered-two-jobs.jsonl");
    assert_conclusion(&bench, recording, 2, "success").await;
    assert!(bench.forge.list_runners(&Bench::scope()).await.unwrap().is_empty());
}

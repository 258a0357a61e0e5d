//! The calls of the runner protocol, each as one method and without any policy: no retry, no new token.
//!
//! The paths and members are those that actions/runner 2.336.0 sends (recorded: `crates/lab/src/tests/recordings`).

use std::sync::{Arc, Mutex};

use dayfly_forge::jit::JitConfig;
use hyper::Method;
use serde_json::{Value, json};

use crate::VERSION;
use crate::assertion::sign;
use crate::http::{Call, CallError, Http};

/// The steps' service and the receiver of logs, below the results service.
const STEPS: &str = "github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate";
const RECEIVER: &str = "results.services.receiver.Receiver";
/// Longest piece of an append blob, in bytes.
const PIECE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The state of a runner, as its polls tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerStatus {
    /// It waits for a job.
    Online,
    /// It has a job.
    Busy,
}

/// A message of the broker.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its type, such as `RunnerJobRequest`.
    pub kind: String,
    /// Its body.
    pub body: Value,
}

/// A registered runner's calls to the broker and the run service.
#[derive(Debug)]
pub struct Client {
    http: Arc<Http>,
    config: JitConfig,
    token: Mutex<String>,
    session: Mutex<String>,
}

impl Client {
    /// Creates a client that is not signed in.
    pub fn new(config: JitConfig) -> Self {
        Self { http: Arc::default(), config, token: Mutex::default(), session: Mutex::default() }
    }

    /// Returns its JIT config.
    pub fn config(&self) -> &JitConfig {
        &self.config
    }

    /// Returns its JIT config, to point it at another address of the same lab.
    pub fn config_mut(&mut self) -> &mut JitConfig {
        &mut self.config
    }

    fn token(&self) -> String {
        self.token.lock().expect("no thread panics while it holds the lock").clone()
    }

    fn session(&self) -> String {
        self.session.lock().expect("no thread panics while it holds the lock").clone()
    }

    fn broker(&self, path: &str) -> String {
        format!("{}{path}", self.config.runner.server_url_v2)
    }

    /// Exchanges a signed assertion for an access token.
    ///
    /// # Errors
    /// If the lab refuses it (400 `invalid_client`: the registration is gone) or the config's key is none.
    pub async fn sign_in(&self) -> Result<Value, CallError> {
        let data = &self.config.credentials.data;
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "sub": data.client_id, "iss": data.client_id, "aud": data.authorization_url,
            "jti": uuid::Uuid::new_v4(), "nbf": now - 10, "iat": now, "exp": now + 300,
        });
        let algorithm =
            if data.require_fips_cryptography.eq_ignore_ascii_case("true") { "PS256" } else { "RS256" };
        let assertion = sign(&self.config.key, algorithm, &claims)
            .ok_or(CallError::Incomplete { call: "generate-jitconfig", member: "usable RSA key" })?;
        let call = Call {
            method: Method::POST,
            url: &data.authorization_url,
            bearer: None,
            headers: &[("content-type", "application/x-www-form-urlencoded")],
            body: format!(
                "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type\
                 %3Ajwt-bearer&client_assertion={assertion}"
            ),
        };
        let answer = self.http.send(call).await?;
        let token = text(&answer, "oauth/token", "access_token")?;
        *self.token.lock().expect("no thread panics while it holds the lock") = token;
        Ok(answer)
    }

    /// Opens the runner's session.
    ///
    /// # Errors
    /// If the lab refuses it: 401 for a registration that is gone, 409 if there is a session.
    pub async fn open_session(&self) -> Result<Value, CallError> {
        let runner = &self.config.runner;
        let id: Value = runner.agent_id.parse::<u64>().map_or(Value::Null, Value::from);
        let body = json!({
            "sessionId": "00000000-0000-0000-0000-000000000000",
            "ownerName": format!("light (PID: {})", std::process::id()),
            "agent": {
                "id": id, "name": runner.agent_name, "version": VERSION, "osDescription": "light-runner",
                "ephemeral": null, "status": 0, "provisioningState": null,
            },
            "useFipsEncryption": false,
        });
        let answer = self.http.send(Call::post(&self.broker("session"), &self.token(), &body)).await?;
        let session = text(&answer, "session", "sessionId")?;
        *self.session.lock().expect("no thread panics while it holds the lock") = session;
        Ok(answer)
    }

    /// Polls once; the lab holds the call until a message comes. Returns `None` if none came.
    ///
    /// # Errors
    /// If the lab refuses it, for example 404 with the kind `RunnerNotFound` or `RunnerSessionInvalid`.
    pub async fn poll(&self, status: RunnerStatus) -> Result<Option<Message>, CallError> {
        let url = self.broker(&format!(
            "message?sessionId={}&status={status:?}&runnerVersion={VERSION}&os=Linux&architecture=X64&disableUpdate=true",
            self.session()
        ));
        let answer = self.http.send(Call::new(Method::GET, &url, &self.token())).await?;
        if answer.is_null() {
            return Ok(None);
        }
        let kind = text(&answer, "message", "messageType")?;
        let body = text(&answer, "message", "body")?;
        Ok(Some(Message { kind, body: serde_json::from_str(&body).unwrap_or(Value::Null) }))
    }

    /// Acquires the job of a `RunnerJobRequest`, and returns the job's message. `run_service_url` is the message's.
    ///
    /// # Errors
    /// If the lab refuses it: 404 if the job is not this runner's, 409 if it was acquired before.
    pub async fn acquire(&self, run_service_url: &str, request: &str) -> Result<Value, CallError> {
        let body = json!({"jobMessageId": request, "runnerOS": "Linux", "billingOwnerId": ""});
        self.acquire_with(run_service_url, &body).await
    }

    /// Acquires a job with the request of another runner app.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub async fn acquire_with(&self, run_service_url: &str, body: &Value) -> Result<Value, CallError> {
        let url = format!("{run_service_url}acquirejob");
        self.http.send(Call::post(&url, &self.token(), body)).await
    }

    /// Returns the calls of a job, whose message [`Self::acquire`] returned.
    ///
    /// # Errors
    /// If the message lacks ids, addresses or the token.
    pub fn of_job(&self, message: &Value) -> Result<JobClient, CallError> {
        JobClient::new(Arc::clone(&self.http), message)
    }

    /// Closes the runner's session.
    ///
    /// # Errors
    /// If the lab refuses it or cannot be reached.
    pub async fn close_session(&self) -> Result<Value, CallError> {
        self.http.send(Call::new(Method::DELETE, &self.broker("session"), &self.token())).await
    }
}

/// A log, by the step that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upload<'a> {
    /// The log of a step.
    StepLog(&'a str),
    /// The log of the whole job.
    JobLog,
    /// The summary of a step.
    StepSummary(&'a str),
}

/// A job's calls to the run service and the results service, with the job's own token.
#[derive(Debug)]
pub struct JobClient {
    http: Arc<Http>,
    url: String,
    results_url: Option<String>,
    token: String,
    plan_id: String,
    job_id: String,
}

impl JobClient {
    fn new(http: Arc<Http>, message: &Value) -> Result<Self, CallError> {
        let call = "acquirejob";
        let member = |pointer: &'static str| {
            let value = message.pointer(pointer).and_then(Value::as_str);
            value.map(str::to_owned).ok_or(CallError::Incomplete { call, member: pointer })
        };
        let results_url = &message["variables"]["system.github.results_endpoint"]["value"];
        Ok(Self {
            http,
            url: member("/resources/endpoints/0/url")?,
            results_url: results_url.as_str().map(str::to_owned),
            token: member("/resources/endpoints/0/authorization/parameters/AccessToken")?,
            plan_id: member("/plan/planId")?,
            job_id: member("/jobId")?,
        })
    }

    /// Returns the job's id, a GUID.
    pub fn job_id(&self) -> &str {
        &self.job_id
    }

    /// Renews the job's lock.
    ///
    /// # Errors
    /// If the lab refuses it: 404 if the job is no longer this runner's.
    pub async fn renew(&self) -> Result<Value, CallError> {
        let body = json!({"planId": self.plan_id, "jobId": self.job_id});
        self.http.send(Call::post(&format!("{}renewjob", self.url), &self.token, &body)).await
    }

    /// Completes the job. `body` holds the members of `completejob` other than the ids.
    ///
    /// # Errors
    /// If the lab refuses it or cannot be reached.
    pub async fn complete(&self, mut body: Value) -> Result<Value, CallError> {
        body["planId"] = self.plan_id.as_str().into();
        body["jobId"] = self.job_id.as_str().into();
        body["billingOwnerId"] = "".into();
        self.http.send(Call::post(&format!("{}completejob", self.url), &self.token, &body)).await
    }

    /// Calls a method of the results service.
    ///
    /// # Errors
    /// If the lab refuses it, or the job has no results service.
    pub async fn twirp(&self, method: &str, mut body: Value) -> Result<Value, CallError> {
        let incomplete =
            CallError::Incomplete { call: "acquirejob", member: "system.github.results_endpoint" };
        let url = format!("{}twirp/{method}", self.results_url.as_ref().ok_or(incomplete)?);
        body["workflow_run_backend_id"] = self.plan_id.as_str().into();
        body["workflow_job_run_backend_id"] = self.job_id.as_str().into();
        self.http.send(Call::post(&url, &self.token, &body)).await
    }

    /// Reports the states of steps. `change_order` counts the reports from 1.
    ///
    /// # Errors
    /// As [`Self::twirp`].
    pub async fn update_steps(&self, steps: Value, change_order: u64) -> Result<Value, CallError> {
        self.twirp(STEPS, json!({"steps": steps, "change_order": change_order})).await
    }

    /// Uploads a whole log or summary with its metadata. A text longer than one piece is appended piece by piece.
    ///
    /// # Errors
    /// As [`Self::twirp`].
    pub async fn upload(&self, what: Upload<'_>, content: &str) -> Result<(), CallError> {
        let (name, step, is_log) = match what {
            Upload::StepLog(step) => ("StepLogs", step, true),
            Upload::JobLog => ("JobLogs", "", true),
            Upload::StepSummary(step) => ("StepSummary", step, false),
        };
        let mut ids = json!({});
        if !step.is_empty() {
            ids["step_backend_id"] = step.into();
        }
        let method = format!("{RECEIVER}/Get{name}SignedBlobURL");
        let answer = self.twirp(&method, ids.clone()).await?;
        let url = text(&answer, "Get...SignedBlobURL", if is_log { "logs_url" } else { "summary_url" })?;
        self.put_blob(&url, content).await?;
        ids["uploaded_at"] = now().into();
        match is_log {
            true => ids["line_count"] = content.lines().count().into(),
            false => ids["size"] = content.len().into(),
        }
        self.twirp(&format!("{RECEIVER}/Create{name}Metadata"), ids).await?;
        Ok(())
    }

    async fn put_blob(&self, url: &str, content: &str) -> Result<(), CallError> {
        if content.len() <= PIECE_BYTES_MAX {
            return self.put(url, "BlockBlob", content).await;
        }
        self.put(url, "AppendBlob", "").await?;
        let pieces = pieces(content, PIECE_BYTES_MAX);
        for (place, piece) in pieces.iter().enumerate() {
            let seal = if place + 1 == pieces.len() { "&seal=true" } else { "" };
            self.put(&format!("{url}&comp=appendblock{seal}"), "AppendBlob", piece).await?;
        }
        Ok(())
    }

    async fn put(&self, url: &str, kind: &'static str, content: &str) -> Result<(), CallError> {
        let call = Call {
            method: Method::PUT,
            url,
            bearer: None,
            headers: &[("x-ms-blob-type", kind), ("content-type", "text/plain")],
            body: content.to_owned(),
        };
        self.http.send(call).await.map(drop)
    }
}

/// Returns the current time as the results service writes it.
pub(crate) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

fn text(answer: &Value, call: &'static str, member: &'static str) -> Result<String, CallError> {
    let text = answer[member].as_str().map(str::to_owned);
    text.ok_or(CallError::Incomplete { call, member })
}

/// Splits a text into pieces of at most `bytes_max` bytes, between characters.
fn pieces(mut text: &str, bytes_max: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    while text.len() > bytes_max {
        let end = (1..=bytes_max).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(text.len());
        let (piece, rest) = text.split_at(end);
        pieces.push(piece);
        text = rest;
    }
    pieces.push(text);
    pieces
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn a_long_text_is_split_between_characters() {
        assert_eq!(pieces("abcdef", 4), ["abcd", "ef"]);
        assert_eq!(pieces("aäbcd", 2), ["a", "ä", "bc", "d"]);
        assert_eq!(pieces("", 4), [""]);
    }
}

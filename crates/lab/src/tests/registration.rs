//! Tests of runner apps that register themselves with a token.

use std::time::Duration;

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::bench::{Bench, ONE_JOB, RunnerStatus, Script, http};
use crate::keys::KeyPair;
use dayfly_forge::{ForgeError, RunnerScope};
use dayfly_light_runner::registered;

/// A runner app with a token, reduced to its calls.
struct App<'a> {
    bench: &'a Bench,
    page: &'static str,
    authorization: String,
}

impl<'a> App<'a> {
    fn new(bench: &'a Bench, page: &'static str, token: &str) -> Self {
        Self { bench, page, authorization: format!("RemoteAuth {token}") }
    }

    /// Creates an app with a registration token for the repository `o/r`.
    async fn of_repository(bench: &'a Bench) -> Self {
        let token = bench.forge.registration_token(&Bench::scope()).await.unwrap().token;
        Self::new(bench, "o/r", token.expose_secret())
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{}/api/v3/{path}", self.bench.url);
        let mut request = http().request(method, url).header("authorization", &self.authorization);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn begin(&self, event: &str) -> (u16, Value) {
        let body = json!({"url": format!("{}/{}", self.bench.url, self.page), "runner_event": event});
        self.call(Method::POST, "actions/runner-registration", Some(body)).await
    }

    /// Registers with a new key. Members of `more` are added to the body and replace members of the same name.
    async fn register(&self, name: &str, more: Value) -> (u16, Value, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let (modulus, exponent) = (&key.public.modulus, &key.public.exponent);
        let mut body = json!({
            "url": format!("{}/{}", self.bench.url, self.page), "group_id": 1, "name": name, "version": "3.0.0",
            "updates_disabled": true, "ephemeral": true,
            "labels": [{"ID": 0, "Name": "self-hosted", "Type": "system"}, {"id": 0, "name": "big", "type": "user"}],
            "public_key": format!("<RSAKeyValue><Modulus>{modulus}</Modulus><Exponent>{exponent}</Exponent></RSAKeyValue>"),
        });
        for (member, value) in more.as_object().unwrap() {
            body[member] = value.clone();
        }
        let (status, answer) = self.call(Method::POST, "actions/runners/register", Some(body)).await;
        (status, answer, key)
    }

    async fn runner(&self, name: &str, more: Value) -> Script {
        let (status, answer, key) = self.register(name, more).await;
        assert_eq!(status, 200, "{answer}");
        script(&answer, key).connect().await
    }
}

/// Returns the runner that an answer of `runners/register` is about.
pub(super) fn script(answer: &Value, key: KeyPair) -> Script {
    Script::with(answer["id"].as_u64().unwrap(), registered(answer, key.private, true))
}

#[tokio::test]
async fn a_runner_app_registers_itself_and_goes_with_its_job() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let app = App::of_repository(&bench).await;
    let (status, answer) = app.begin("register").await;
    assert_eq!((status, answer["use_v2_flow"].as_bool()), (200, Some(true)), "{answer}");
    assert_eq!(answer["url"], format!("{}/runner/broker/", bench.url));
    let again = App::new(&bench, "o/r", answer["token"].as_str().unwrap());
    let again = App { authorization: again.authorization.replace("RemoteAuth", "Bearer"), ..again };
    let (_, groups) = again.call(Method::GET, "repos/o/r/actions/runner-groups", None).await;
    assert_eq!(
        (groups["total_count"].as_u64(), groups["runner_groups"][0]["name"].as_str()),
        (Some(1), Some("Default"))
    );
    let mut runner = again.runner("self-made", json!({})).await;
    let shown = bench.call(Method::GET, "/api/v3/repos/o/r/actions/runners", None).await.1;
    assert_eq!(shown["runners"][0]["ephemeral"], true, "{shown}");
    runner.take_job().await;
    runner.complete("succeeded", json!({})).await.unwrap();
    assert!(bench.forge.list_runners(&Bench::scope()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_runner_that_is_not_ephemeral_takes_job_after_job_and_stays() {
    let bench = Bench::new().await;
    let run = bench.start(ONE_JOB).await;
    let app = App::of_repository(&bench).await;
    let mut runner = app.runner("steady", json!({"ephemeral": false})).await;
    for _ in 0..2 {
        runner.take_job().await;
        runner.complete("succeeded", json!({})).await.unwrap();
    }
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("success"));
    let list = bench.call(Method::GET, "/api/v3/repos/o/r/actions/runners", None).await.1;
    assert_eq!(
        (&list["runners"][0]["ephemeral"], &list["runners"][0]["busy"]),
        (&json!(false), &json!(false))
    );

    // The registration also stays if a job ends without a report of the runner.
    let lost = bench.start(ONE_JOB).await;
    runner.take_job().await;
    bench.advance(Duration::from_secs(151)).await;
    assert_eq!(bench.conclusion(lost).await.as_deref(), Some("failure"));
    let _next = bench.start(ONE_JOB).await;
    runner.take_job().await;

    // The registration survives a restart unchanged. If it is unused, the lab removes it after two weeks.
    let old_url = bench.url.clone();
    let bench = bench.killed_and_opened().await;
    runner.moved(&old_url, &bench.url);
    runner.complete("succeeded", json!({})).await.unwrap();
    assert_eq!(bench.forge.list_runners(&Bench::scope()).await.unwrap().len(), 1);
    bench.advance(Duration::from_secs(13 * 24 * 3600)).await;
    assert_eq!(bench.forge.list_runners(&Bench::scope()).await.unwrap().len(), 1);
    bench.advance(Duration::from_secs(24 * 3600 + 60)).await;
    assert!(bench.forge.list_runners(&Bench::scope()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_registration_token_is_good_for_an_hour_and_its_own_scope() {
    let bench = Bench::new().await;
    let made = bench.forge.registration_token(&Bench::scope()).await.unwrap();
    let left = made.expires_at.as_second() - bench.clock.now_ms() / 1000;
    assert!((3590..=3600).contains(&left), "{left}");
    let bench = bench.killed_and_opened().await;
    let app = App::new(&bench, "o/r", made.token.expose_secret());
    assert_eq!(app.begin("register").await.0, 200, "it outlives the lab's process");

    let elsewhere = App::new(&bench, "o/other", made.token.expose_secret());
    assert_eq!(elsewhere.begin("register").await.0, 404);
    assert_eq!(elsewhere.register("a", json!({})).await.0, 404);
    for path in ["repos/o/other/actions/runners", "orgs/o/actions/runner-groups", "repos/o/r/actions/runs/1"]
    {
        let status = app.call(Method::GET, path, None).await.0;
        assert!(matches!(status, 401 | 404), "{path}: {status}");
    }
    assert_eq!(App::new(&bench, "o/r", "junk").begin("register").await.0, 404);
    assert_eq!(App::new(&bench, "o/r", bench.lab.token().expose_secret()).begin("register").await.0, 404);

    bench.advance(Duration::from_secs(3601)).await;
    assert_eq!(app.begin("register").await.0, 404);
    assert_eq!(app.register("a", json!({})).await.0, 404);
    assert_eq!(app.call(Method::GET, "repos/o/r/actions/runners", None).await.0, 404);
}

#[tokio::test]
async fn a_remove_token_removes_and_does_not_register() {
    let bench = Bench::new().await;
    let app = App::of_repository(&bench).await;
    let (first, second) = (app.register("one", json!({})).await.1, app.register("two", json!({})).await.1);
    let (status, made) =
        bench.call(Method::POST, "/api/v3/repos/o/r/actions/runners/remove-token", None).await;
    assert_eq!(status, 201);
    let remover = App::new(&bench, "o/r", made["token"].as_str().unwrap());
    assert_eq!(remover.begin("register").await.0, 404);
    assert_eq!(remover.register("three", json!({})).await.0, 404);
    assert_eq!(remover.begin("remove").await.0, 200);
    let path = |runner: &Value| format!("repos/o/r/actions/runners/{}", runner["id"]);
    assert_eq!(remover.call(Method::DELETE, &path(&first), None).await.0, 204);
    assert_eq!(remover.call(Method::DELETE, &path(&first), None).await.0, 404);
    assert_eq!(
        app.call(Method::DELETE, &path(&second), None).await.0,
        204,
        "a registration token removes too"
    );
}

#[tokio::test]
async fn a_name_that_is_taken_can_be_replaced_while_its_runner_is_idle() {
    let bench = Bench::new().await;
    let _run = bench.start(ONE_JOB).await;
    let app = App::of_repository(&bench).await;
    let first = app.runner("twin", json!({"labels": [{"name": "x"}]})).await;
    assert_eq!(app.register("twin", json!({})).await.0, 409);
    assert_eq!(app.register("twin", json!({"replace": true, "runner_id": 77})).await.0, 404);
    let mut second = app.runner("twin", json!({"replace": true, "runner_id": first.id})).await;
    assert_eq!(
        first.poll(RunnerStatus::Online).await.unwrap_err().0,
        404,
        "the first session is no longer valid"
    );
    assert_eq!(first.sign_in().await.unwrap_err().0, 400);
    second.take_job().await;
    assert_eq!(app.register("twin", json!({"replace": true, "runner_id": second.id})).await.0, 422);
    assert_eq!(app.register("new", json!({"replace": true})).await.0, 200);
}

#[tokio::test]
async fn registrations_that_cannot_be_are_refused() {
    let bench = Bench::new().await;
    let app = App::of_repository(&bench).await;
    for (more, expected) in [
        (json!({"group_id": 77}), 404),
        (json!({"public_key": "<RSAKeyValue/>"}), 422),
        (json!({"labels": []}), 422),
        (json!({"name": ""}), 422),
        (json!({"url": "not an address"}), 404),
        (json!({"labels": "x"}), 422),
    ] {
        assert_eq!(app.register("a", more.clone()).await.0, expected, "{more}");
    }
    assert_eq!(app.begin("dance").await.0, 422);
    assert!(bench.forge.list_runners(&Bench::scope()).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_organisations_runner_app_finds_its_group_by_name() {
    let bench = Bench::new().await;
    let make = json!({"name": "fast"});
    bench.call(Method::POST, "/api/v3/orgs/o/actions/runner-groups", Some(make)).await;
    let scope = RunnerScope::Organization("o".into());
    let token = bench.forge.registration_token(&scope).await.unwrap().token;
    let app = App::new(&bench, "o", token.expose_secret());
    let (_, groups) = app.call(Method::GET, "orgs/o/actions/runner-groups", None).await;
    let named = |group: &&Value| group["name"] == "fast";
    let id = groups["runner_groups"].as_array().unwrap().iter().find(named).unwrap()["id"].as_u64().unwrap();
    assert_eq!(bench.forge.group_id(&scope, "FAST").await.unwrap(), id);
    let answer = app.register("quick", json!({"group_id": id})).await.1;
    let runner = bench.forge.get_runner(&scope, answer["id"].as_u64().unwrap()).await.unwrap();
    assert_eq!(runner.unwrap().name, "quick");
    let stranger = RunnerScope::Organization("p".into());
    assert!(bench.forge.list_runners(&stranger).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_token_that_is_not_the_admins_makes_no_registration_tokens() {
    let bench = Bench::new().await;
    let app = App::of_repository(&bench).await;
    let path = "repos/o/r/actions/runners/registration-token";
    assert_eq!(app.call(Method::POST, path, None).await.0, 401);
    let base = dayfly_forge::ApiBase::from_host_or_url(&bench.url).unwrap();
    let wrong = dayfly_forge::Forge::new(base, "wrong").unwrap();
    let error = wrong.registration_token(&Bench::scope()).await.unwrap_err();
    assert!(matches!(error, ForgeError::Unauthorized { .. }));
    assert!(error.to_string().contains("Administration"), "{error}");
}

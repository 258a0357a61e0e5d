use std::sync::atomic::{AtomicU32, Ordering};

use dayfly_fleet::pool::MachineSpec;
use dayfly_forge::{ApiBase, Credential};
use serde_json::json;

use super::*;
use crate::commands::runner::request::forge_client;
use crate::test_forge::{Answer, TestForge};

const SCOPE: &str = "o/r";

fn spec(url: &str) -> PoolSpec {
    let base = ApiBase::from_host_or_url(url).expect("an address");
    let scope = RunnerScope::parse("repo", SCOPE).expect("a scope");
    let machine: MachineSpec = crate::cli::parse_loop(&[]).args.machine.spec();
    PoolSpec::new(base, scope, machine)
}

/// Asks the forge at this address.
async fn asked(url: &str, patience: Patience<'_>) -> Result<(bool, Group)> {
    asked_for(spec(url), patience).await
}

async fn asked_for(spec: PoolSpec, patience: Patience<'_>) -> Result<(bool, Group)> {
    let forge = forge_client(spec.forge.clone(), Credential::token("x".to_owned()), None).expect("a client");
    ask_patiently(&spec, &forge, patience).await
}

/// Starts a forge that is no lab, and whose registration tokens have these answers, of which the last one is repeated.
async fn forge(tokens: &'static [(u16, &'static str)]) -> TestForge {
    let calls = AtomicU32::new(0);
    TestForge::start(move |request| -> Answer {
        if request.ends_with(" /api/v3/repos/o/r") {
            return (200, Vec::new(), json!({ "private": true }));
        }
        if !request.ends_with("registration-token") {
            return (404, Vec::new(), json!({ "message": "Not Found" }));
        }
        let call = calls.fetch_add(1, Ordering::SeqCst) as usize;
        let (status, message) = tokens[call.min(tokens.len() - 1)];
        (
            status,
            Vec::new(),
            json!({ "message": message, "token": "T", "expires_at": "2030-01-01T00:00:00Z" }),
        )
    })
    .await
}

#[tokio::test]
async fn a_forge_that_fails_at_the_start_is_waited_for_only_if_the_caller_is_patient() {
    let service = Service::default();
    let failing = forge(&[(503, "maintenance"), (201, "")]).await;
    let (is_lab, group) = asked(&failing.url, Patience::Waits(&service)).await.expect("it answers again");
    assert_eq!((is_lab, group.id), (false, 1));
    let impatient = forge(&[(503, "maintenance")]).await;
    let error = asked(&impatient.url, Patience::None).await.expect_err("no patience");
    assert_eq!(error.code(), 3);
    assert!(error.to_string().contains("the forge answered 503 (maintenance)"), "{error}");
}

#[tokio::test]
async fn a_forge_that_is_not_there_is_waited_for_without_an_end() {
    let service = Service::default();
    let waiting = asked("http://127.0.0.1:1", Patience::Waits(&service));
    let ended = tokio::time::timeout(Duration::from_secs(4), waiting).await;
    assert!(ended.is_err(), "{:?}", ended.map(|ended| ended.err()));
}

#[tokio::test]
async fn a_token_without_the_right_is_not_waited_for_and_the_right_is_named() {
    let service = Service::default();
    let refusing = forge(&[(403, "Resource not accessible by personal access token")]).await;
    let error = asked(&refusing.url, Patience::Waits(&service)).await.expect_err("refused");
    assert_eq!(error.code(), 3);
    insta::assert_snapshot!(error.to_string());
}

/// Starts a forge that knows a public repository, and an organisation with a group for public repositories.
async fn public_forge() -> TestForge {
    let groups = json!({ "runner_groups": [
        { "id": 1, "name": "Default", "allows_public_repositories": false },
        { "id": 2, "name": "open", "allows_public_repositories": true },
        { "id": 3, "name": "old" },
    ] });
    TestForge::start(move |request| -> Answer {
        let answer = match request {
            token if token.ends_with("registration-token") => {
                return (201, Vec::new(), json!({ "token": "T", "expires_at": "2030-01-01T00:00:00Z" }));
            }
            list if list.contains("/runner-groups") => groups.clone(),
            repository if repository.ends_with(" /api/v3/repos/o/r") => json!({ "private": false }),
            _ => return (404, Vec::new(), json!({ "message": "Not Found" })),
        };
        (200, Vec::new(), answer)
    })
    .await
}

#[tokio::test]
async fn runners_to_which_strangers_may_bring_jobs_need_a_word_of_the_administrator() {
    let forge = public_forge().await;
    let of_group = |group: &str| {
        let scope = RunnerScope::Organization("acme".into());
        PoolSpec { scope, group: group.to_owned(), ..spec(&forge.url) }
    };
    let mut texts = Vec::new();
    for spec in [spec(&forge.url), of_group("Open")] {
        let error = asked_for(spec.clone(), Patience::None).await.expect_err("public");
        assert_eq!(error.code(), 2);
        texts.push(error.to_string());
        asked_for(PoolSpec { allow_public: true, ..spec }, Patience::None).await.expect("allowed");
    }
    insta::assert_snapshot!(texts.join("\n"));
    for closed in ["Default", "old"] {
        asked_for(of_group(closed), Patience::None).await.expect(closed);
    }
}

#[test]
fn the_wait_is_said_with_the_time_of_the_next_attempt() {
    let what = "create a registration token for o/r".to_owned();
    let error = ForgeError::Server { what, status: 503, message: "maintenance".to_owned(), wait: None };
    insta::assert_snapshot!(
        waiting(&error, Duration::from_secs(8)),
        @"cannot create a registration token for o/r: the forge answered 503 (maintenance); try again later; the start waits for the forge, next attempt in 8 s"
    );
}

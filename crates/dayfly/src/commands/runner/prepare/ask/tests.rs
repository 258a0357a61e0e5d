use std::sync::atomic::{AtomicU32, Ordering};

use dayfly_fleet::pool::{MachineSpec, PoolSpec};
use dayfly_forge::{ApiBase, Credential, RunnerScope};
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

/// Returns the request for a pool at this address.
fn request(url: &str) -> PoolRequest {
    request_for(spec(url))
}

fn request_for(spec: PoolSpec) -> PoolRequest {
    let forge = forge_client(spec.forge.clone(), Credential::token("x".to_owned()), None).expect("a client");
    PoolRequest::new(spec, forge)
}

/// Waits for the forges at these addresses, and returns the numbers of those that answer and of those that are waited for.
async fn waited(urls: &[&str]) -> Result<(Vec<usize>, Vec<usize>)> {
    let pools = urls.iter().map(|url| request(url)).enumerate().collect();
    let asked = ask_patiently(pools, &Service::default()).await?;
    let waiting = asked.waiting.into_iter().map(|(at, ..)| at).collect();
    Ok((asked.known.into_iter().map(|(at, _)| at).collect(), waiting))
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
    let failing = forge(&[(503, "maintenance"), (201, "")]).await;
    assert_eq!(waited(&[&failing.url]).await.expect("it answers again"), (vec![0], vec![]));
    let known = ask(vec![request(&failing.url)]).await.expect("it answers");
    assert_eq!((known[0].answer.is_lab, known[0].answer.group.id), (false, 1));
    let impatient = forge(&[(503, "maintenance")]).await;
    let error = ask(vec![request(&impatient.url)]).await.err().expect("no patience");
    assert_eq!(error.code(), 3);
    assert!(error.to_string().contains("the forge answered 503 (maintenance)"), "{error}");
}

#[tokio::test]
async fn a_forge_that_is_not_there_is_waited_for_without_an_end() {
    let ended = tokio::time::timeout(Duration::from_secs(4), waited(&["http://127.0.0.1:1"])).await;
    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn a_forge_that_is_not_there_does_not_hold_up_the_pools_of_another_one() {
    let (failing, good) = (forge(&[(503, "maintenance")]).await, forge(&[(201, "")]).await);
    let urls = ["http://127.0.0.1:1", &good.url, &failing.url, &good.url];
    assert_eq!(waited(&urls).await.expect("one answers"), (vec![1, 3], vec![0, 2]));
}

#[tokio::test]
async fn a_forge_that_answers_for_one_pool_is_asked_again_for_the_others_a_few_times() {
    let once = forge(&[(201, ""), (503, "maintenance"), (201, "")]).await;
    let (known, waiting) = waited(&[&once.url, &once.url]).await.expect("it answers");
    assert_eq!((known.len(), waiting), (2, vec![]));
    let flaky = forge(&[(201, ""), (503, "maintenance")]).await;
    let (known, waiting) = waited(&[&flaky.url, &flaky.url]).await.expect("it answers for one");
    assert_eq!((known.len(), waiting.len()), (1, 1));
}

#[tokio::test]
async fn a_token_without_the_right_is_not_waited_for_and_the_right_is_named() {
    let refusing = forge(&[(403, "Resource not accessible by personal access token")]).await;
    let error = waited(&["http://127.0.0.1:1", &refusing.url]).await.expect_err("refused");
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
        let error = ask(vec![request_for(spec.clone())]).await.err().expect("public");
        assert_eq!(error.code(), 2);
        texts.push(error.to_string());
        ask(vec![request_for(PoolSpec { allow_public: true, ..spec })]).await.map(drop).expect("allowed");
    }
    insta::assert_snapshot!(texts.join("\n"));
    for closed in ["Default", "old"] {
        ask(vec![request_for(of_group(closed))]).await.map(drop).expect(closed);
    }
}

#[test]
fn the_wait_is_said_with_the_time_of_the_next_attempt() {
    let what = "create a registration token for o/r".to_owned();
    let error = ForgeError::Server { what, status: 503, message: "maintenance".to_owned(), wait: None };
    insta::assert_snapshot!(
        waiting_for(&error, Duration::from_secs(8)),
        @"cannot create a registration token for o/r: the forge answered 503 (maintenance); try again later; the start waits for the forge, next attempt in 8 s"
    );
}

//! Tests of rate limits against forges that impose them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::scripted::{Reply, ScriptedForge};
use crate::{ApiBase, CallEnd, Credential, Deletion, Forge, ForgeError, Importance, JitRequest, RunnerScope};

fn scope() -> RunnerScope {
    RunnerScope::Organization("o".into())
}

fn client(server: &ScriptedForge, credential: impl Into<Credential>) -> Forge {
    Forge::new(ApiBase::from_host_or_url(&server.url).unwrap(), credential).unwrap()
}

fn runners() -> Reply {
    Reply::new(200, json!({"total_count": 0, "runners": []}))
}

fn limited(reply: Reply, limit: usize, remaining: usize, reset_s: i64) -> Reply {
    reply
        .dated(0)
        .header("x-ratelimit-limit", limit)
        .header("x-ratelimit-remaining", remaining)
        .header("x-ratelimit-used", limit - remaining)
        .header("x-ratelimit-reset", dayfly_host::clock::now_s() + reset_s)
        .header("x-ratelimit-resource", "core")
}

fn request() -> JitRequest {
    let labels = vec!["x".to_owned()];
    JitRequest { name: "n".into(), group_id: 1, labels, work_folder: "_work".into(), runner_url: None }
}

#[tokio::test]
async fn looks_end_before_registrations_and_deletions_go_on_to_the_last_call() {
    let left = AtomicUsize::new(40);
    let server = ScriptedForge::start(move |request| {
        let remaining = left.fetch_sub(1, Ordering::Relaxed) - 1;
        let reply = match request.line.split(' ').next().unwrap() {
            "GET" => runners(),
            "POST" => {
                Reply::new(201, json!({"token": "AABB", "expires_at": "2030-01-22T12:13:35.123-08:00"}))
            }
            _ => Reply::new(204, ""),
        };
        limited(reply, 100, remaining, 3000)
    })
    .await;
    let forge = client(&server, "x");
    let (mut looks, mut tokens, mut deletions) = (0, 0, 0);
    let look = loop {
        match forge.list_runners(&scope()).await {
            Ok(_) => looks += 1,
            Err(error) => break error,
        }
    };
    while forge.registration_token(&scope()).await.is_ok() {
        tokens += 1;
    }
    let deletion = loop {
        match forge.delete_runner(&scope(), 1).await {
            Ok(_) => deletions += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((looks, tokens, deletions), (25, 10, 5));
    assert_eq!(server.requests("").len(), 40, "no call was sent in vain");
    let text = look.to_string();
    assert!(look.is_temporary() && text.contains("the last 15 of 100 calls of \"core\" are kept"), "{text}");
    assert!(text.starts_with("cannot list the runners of o now: dayfly holds the call back"), "{text}");
    assert!(deletion.to_string().contains("all 100 calls of \"core\" are used"), "{deletion}");
}

#[tokio::test]
async fn a_short_pause_that_the_forge_demands_is_kept_by_all_clients_of_the_credential() {
    let calls = AtomicUsize::new(0);
    let server = ScriptedForge::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::new(403, json!({"message": "You have exceeded a secondary rate limit."}))
            .header("retry-after", 2),
        _ => Reply::new(204, ""),
    })
    .await;
    let credential = Credential::token("x");
    let began = Instant::now();
    assert_eq!(
        client(&server, credential.clone()).delete_runner(&scope(), 1).await.unwrap(),
        Deletion::Deleted
    );
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());

    let second = client(&server, credential.clone());
    assert_eq!(second.delete_runner(&scope(), 2).await.unwrap(), Deletion::Deleted);
    let usage = second.credential().usage();
    assert_eq!(usage.calls.of(Importance::Essential, CallEnd::Limited), 1);
    assert_eq!(usage.calls.of(Importance::Essential, CallEnd::Success), 2);
    assert_eq!(usage.delayed, 1);
}

#[tokio::test]
async fn a_long_pause_is_an_error_with_the_forges_words_and_no_call_follows() {
    let server = ScriptedForge::start(|_| {
        Reply::new(429, json!({"message": "API rate limit exceeded for installation ID 123."}))
            .header("retry-after", 600)
    })
    .await;
    let forge = client(&server, "x");
    let error = forge.delete_runner(&scope(), 1).await.unwrap_err();
    insta::assert_snapshot!(error, @"cannot delete the runner 1 at o: the forge's rate limit is used up (API rate limit exceeded for installation ID 123.); try again in 600 s");
    let error = forge.list_runners(&scope()).await.unwrap_err();
    assert!(matches!(&error, ForgeError::Shed { wait, .. } if wait.as_secs() > 590), "{error}");
    assert_eq!(server.requests("").len(), 1);
    let usage = forge.credential().usage();
    assert_eq!(usage.calls.of(Importance::Look, CallEnd::Shed), 1);
    assert!(usage.blocked_for.is_some_and(|left| left.as_secs() > 590));
}

#[tokio::test]
async fn a_registration_that_a_limit_refused_is_not_repeated() {
    let server = ScriptedForge::start(|_| {
        Reply::new(403, json!({"message": "You have exceeded a secondary rate limit."}))
            .header("retry-after", 1)
    })
    .await;
    let error = client(&server, "x").generate_jit_config(&scope(), &request()).await.unwrap_err();
    assert!(matches!(&error, ForgeError::RateLimited { wait, .. } if wait.as_secs() == 1), "{error}");
    assert_eq!(server.requests("").len(), 1);
}

#[tokio::test]
async fn a_missing_permission_is_no_limit() {
    let server = ScriptedForge::start(|_| {
        limited(
            Reply::new(403, json!({"message": "Must have admin rights to Repository."})),
            5000,
            4999,
            3000,
        )
    })
    .await;
    let forge = client(&server, "x");
    assert!(matches!(forge.list_runners(&scope()).await.unwrap_err(), ForgeError::Forbidden { .. }));
    assert!(forge.credential().usage().blocked_for.is_none());
    assert_eq!(forge.credential().usage().limits[0].remaining, 4999);
}

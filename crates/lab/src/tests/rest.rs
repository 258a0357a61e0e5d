//! Tests of the REST API: tokens, names, limits, pages.

use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::bench::{Bench, ONE_JOB, http};
use dayfly_forge::{ApiBase, Dispatch, Forge, ForgeError};

#[tokio::test]
async fn every_call_needs_the_token() {
    let bench = Bench::new().await;
    let base = ApiBase::from_host_or_url(&bench.url).unwrap();
    let stranger = Forge::new(base, "wrong").unwrap();
    assert!(matches!(stranger.check().await.unwrap_err(), ForgeError::Unauthorized { .. }));
    assert!(matches!(
        stranger.list_runners(&Bench::scope()).await.unwrap_err(),
        ForgeError::Unauthorized { .. }
    ));
    bench.forge.check().await.unwrap();
    let get = |path: &str| http().get(format!("{}{path}", bench.url));
    for path in ["/lab/v1/events", "/api/v3/repos/o/r/actions/runs", "/runner/broker/message", "/runner/feed"]
    {
        assert_eq!(get(path).send().await.unwrap().status().as_u16(), 401, "{path}");
    }
    let basic =
        get("/api/v3/").basic_auth("anyone", Some(bench.lab.token().expose_secret())).send().await.unwrap();
    assert_eq!(basic.status().as_u16(), 200);
    let word = get("/api/v3/")
        .header("authorization", format!("token {}", bench.lab.token().expose_secret()))
        .send()
        .await
        .unwrap();
    assert_eq!(word.status().as_u16(), 200);
}

#[tokio::test]
async fn the_token_is_kept_in_a_private_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new().await;
    let path = bench.folder.path().join("token");
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), bench.lab.token().expose_secret());
    for entry in std::fs::read_dir(bench.folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn a_workflow_that_is_refused_comes_back_with_every_reason() {
    let bench = Bench::new().await;
    let bad = "on: push\njobs:\n  a:\n    runs-on: x\n    stepz: []\n    steps:\n      - uses: actions/checkout@v4\n";
    match bench.forge.put_workflow("o", "r", "bad.yml", bad).await.unwrap_err() {
        ForgeError::Invalid { errors, .. } => {
            assert!(
                errors.iter().any(|error| error.contains("bad.yml:5") && error.contains("stepz")),
                "{errors:?}"
            );
            assert!(errors.iter().any(|error| error.contains("not yet")), "{errors:?}");
        }
        other => panic!("{other}"),
    }
    let missing = bench.forge.dispatch("o", "r", "bad.yml", &Dispatch::default()).await.unwrap_err();
    assert!(matches!(missing, ForgeError::NotFound { .. }), "{missing}");
}

#[tokio::test]
async fn dispatches_are_answered_as_github_does() {
    let bench = Bench::new().await;
    bench.forge.put_workflow("o", "r", "ci.yml", ONE_JOB).await.unwrap();
    let path = "/api/v3/repos/O/R/actions/workflows/ci.yml/dispatches";
    assert_eq!(bench.call(Method::POST, path, Some(json!({"ref": "main"}))).await.0, 204);
    let (status, body) =
        bench.call(Method::POST, path, Some(json!({"ref": "main", "return_run_details": true}))).await;
    assert_eq!(status, 200);
    let run = body["workflow_run_id"].as_u64().unwrap();
    assert_eq!(bench.forge.run("o", "r", run).await.unwrap().status, "queued");
    let (status, body) =
        bench.call(Method::POST, path, Some(json!({"ref": "main", "inputs": {"no": "such"}}))).await;
    assert_eq!((status, body["status"].as_str()), (422, Some("422")), "{body}");
    bench
        .forge
        .put_workflow("o", "r", "push.yml", &ONE_JOB.replace("workflow_dispatch", "push"))
        .await
        .unwrap();
    let refused = bench.forge.dispatch("o", "r", "push.yml", &Dispatch::default()).await.unwrap_err();
    assert!(refused.to_string().contains("workflow_dispatch"), "{refused}");
    let any_event = Dispatch { any_event: true, ..Dispatch::default() };
    bench.forge.dispatch("o", "r", "push.yml", &any_event).await.unwrap();
    let (_, list) =
        bench.call(Method::GET, "/api/v3/repos/o/r/actions/runs?status=queued&per_page=2", None).await;
    assert_eq!((list["total_count"].as_u64(), list["workflow_runs"].as_array().unwrap().len()), (Some(3), 2));
}

#[tokio::test]
async fn hostile_names_and_bodies_get_an_error_and_nothing_else() {
    let bench = Bench::with(|limits| limits.body_bytes_max = 64 * 1024).await;
    let file = |path: &str| format!("/api/v3/repos/{path}");
    let content = json!({"content": "b246IHB1c2g="});
    for path in [
        "o/r/contents/.github/workflows/..%2F..%2Ftoken",
        "o/r/contents/..%2F..%2Fetc%2Fpasswd",
        "..%2Fx/r/contents/.github/workflows/a.yml",
        "o/%2e%2e/contents/.github/workflows/a.yml",
        "o/r/contents/.github/workflows/a%00.yml",
    ] {
        let (status, _) = bench.call(Method::PUT, &file(path), Some(content.clone())).await;
        assert!(matches!(status, 404 | 422), "{path}: {status}");
    }
    let huge = json!({"content": "A".repeat(100 * 1024)});
    assert_eq!(
        bench.call(Method::PUT, &file("o/r/contents/.github/workflows/a.yml"), Some(huge)).await.0,
        413
    );
    let odd = json!({"content": "%%%"});
    assert_eq!(
        bench.call(Method::PUT, &file("o/r/contents/.github/workflows/a.yml"), Some(odd)).await.0,
        422
    );
    for path in
        ["runs/18446744073709551616", "runs/-1", "runs/x", "runs/7", "jobs/7", "jobs/7/logs", "runners/7"]
    {
        assert_eq!(
            bench.call(Method::GET, &file(&format!("o/r/actions/{path}")), None).await.0,
            404,
            "{path}"
        );
    }
    let jit = file("o/r/actions/runners/generate-jitconfig");
    let (status, body) = bench.call(Method::POST, &jit, Some(json!(["not", "an", "object"]))).await;
    assert_eq!(status, 422, "{body}");
    assert!(bench.forge.list_runners(&Bench::scope()).await.unwrap().is_empty());
}

#[tokio::test]
async fn variables_and_secrets_have_names_like_githubs() {
    let bench = Bench::new().await;
    bench.forge.put_variable("o", "r", "Level_2", "x").await.unwrap();
    for name in ["2fast", "GITHUB_TOKEN", "a-b", "a b"] {
        let refused = bench.forge.put_secret("o", "r", name, "x").await.unwrap_err();
        assert!(matches!(refused, ForgeError::Invalid { .. }), "{name}: {refused}");
    }
}

#[tokio::test]
async fn a_forge_that_is_not_there_is_named() {
    let forge = Forge::new(ApiBase::from_host_or_url("http://127.0.0.1:1").unwrap(), "x").unwrap();
    let error = forge.check().await.unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("http://127.0.0.1:1/"), "{error}");
}

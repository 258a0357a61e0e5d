//! Checks answers against GitHub's own description of them.
//!
//! `schema.json` is an extract of the OpenAPI description of GitHub's REST API (MIT licence,
//! <https://github.com/github/rest-api-description>, release 23.0.2): some schemas, without their texts.

use reqwest::Method;
use serde_json::{Value, json};

use super::bench::{Bench, ONE_JOB};

fn schemas() -> Value {
    serde_json::from_str(include_str!("schema.json")).unwrap()
}

/// Panics if `value` does not match `schema`, and names the place. Supports the parts of OpenAPI 3.0 that the extract uses.
fn check(schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return check(&schemas()[name], value, at);
    }
    if value.is_null() {
        assert_eq!(schema["nullable"], true, "{at} is null");
        return;
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at} is {value}");
    }
    match schema["type"].as_str().unwrap() {
        "object" => {
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(value.get(name.as_str().unwrap()).is_some(), "{at} has no {name}: {value}");
            }
            for (name, schema) in schema["properties"].as_object().unwrap() {
                if let Some(value) = value.get(name) {
                    check(schema, value, &format!("{at}.{name}"));
                }
            }
        }
        "array" => {
            for value in value.as_array().unwrap_or_else(|| panic!("{at} is no list: {value}")) {
                check(&schema["items"], value, &format!("{at}[]"));
            }
        }
        "string" => {
            let text = value.as_str().unwrap_or_else(|| panic!("{at} is no string: {value}"));
            if schema["format"] == "date-time" {
                text.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{at}: {error}"));
            }
        }
        "integer" => assert!(value.is_u64() || value.is_i64(), "{at} is no integer: {value}"),
        "number" => assert!(value.is_number(), "{at} is no number: {value}"),
        "boolean" => assert!(value.is_boolean(), "{at} is no boolean: {value}"),
        other => panic!("{at}: the schema has a type {other}"),
    }
}

#[tokio::test]
async fn answers_are_what_githubs_description_says() {
    let bench = Bench::new().await;
    let schemas = schemas();
    let run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("vm-1", &["self-hosted", "big"]).await;
    let jobs_path = format!("/api/v3/repos/o/r/actions/runs/{run}/jobs");
    let (_, queued) = bench.call(Method::GET, &jobs_path, None).await;
    check(&schemas["job"], &queued["jobs"][0], "queued job");
    runner.take_job().await;
    runner
        .update_steps(json!([{"external_id": "s", "name": "speak", "started_at": "2026-01-01T00:00:00Z"}]))
        .await;
    let (_, running) = bench.call(Method::GET, &jobs_path, None).await;
    check(&schemas["job"], &running["jobs"][0], "running job");
    let (_, list) = bench.call(Method::GET, "/api/v3/repos/o/r/actions/runners", None).await;
    check(&schemas["runner"], &list["runners"][0], "runner");
    let one = format!("/api/v3/repos/o/r/actions/runners/{}", runner.id);
    let (status, busy) = bench.call(Method::DELETE, &one, None).await;
    assert_eq!(status, 422);
    check(&schemas["basic-error"], &busy, "busy");
    runner.complete("failed", json!({})).await.unwrap();
    let (_, done) = bench.call(Method::GET, &jobs_path, None).await;
    check(&schemas["job"], &done["jobs"][0], "completed job");

    let jit = "/api/v3/repos/o/r/actions/runners/generate-jitconfig";
    let body = json!({"name": "vm-2", "runner_group_id": 1, "labels": ["x"]});
    let (_, made) = bench.call(Method::POST, jit, Some(body.clone())).await;
    check(&schemas["runner"], &made["runner"], "new runner");
    let (status, taken) = bench.call(Method::POST, jit, Some(body)).await;
    assert_eq!(status, 409);
    check(&schemas["basic-error"], &taken, "conflict");
    let (status, bad) =
        bench.call(Method::POST, jit, Some(json!({"name": "a", "runner_group_id": 1, "labels": []}))).await;
    assert_eq!(status, 422);
    check(&schemas["validation-error-simple"], &bad, "validation");
    let (_, groups) = bench.call(Method::GET, "/api/v3/orgs/o/actions/runner-groups", None).await;
    check(&schemas["runner-groups-org"], &groups["runner_groups"][0], "group");
    let (status, missing) = bench.call(Method::GET, "/api/v3/repos/o/r/actions/runners/1", None).await;
    assert_eq!(status, 404);
    check(&schemas["basic-error"], &missing, "missing");
}

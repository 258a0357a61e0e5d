//! Tests of organisations and enterprises, and of their runner groups.

use reqwest::Method;
use serde_json::json;

use super::bench::{Bench, RunnerStatus, Script, next_event, request};
use crate::LabEventKind;
use crate::state::{GROUPS_MAX, LabState};
use dayfly_forge::{ForgeError, JitRequest, RunnerScope};

fn organization() -> RunnerScope {
    RunnerScope::Organization("o".into())
}

fn enterprise() -> RunnerScope {
    RunnerScope::Enterprise("big".into())
}

const GROUPED: &str = "on: workflow_dispatch\njobs:\n  a:\n    runs-on:\n      group: fast\n      labels: [x]\n    steps:\n      - run: echo\n";

#[tokio::test]
async fn a_job_goes_to_the_runners_of_its_organisation_and_of_an_enterprise() {
    let bench = Bench::new().await;
    let workflow = "on: workflow_dispatch\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: echo\n";
    let stranger = RunnerScope::Organization("p".into());
    let made = bench.forge.generate_jit_config(&stranger, &request("theirs", &["x"])).await.unwrap();
    let theirs = Script::new(made).connect().await;
    for (scope, name) in [(organization(), "of-org"), (enterprise(), "of-enterprise")] {
        let run = bench.start(workflow).await;
        assert!(
            theirs.poll(RunnerStatus::Online).await.unwrap().is_null(),
            "another organisation's runner gets nothing"
        );
        let made = bench.forge.generate_jit_config(&scope, &request(name, &["x"])).await.unwrap();
        let mut runner = Script::new(made).connect().await;
        runner.take_job().await;
        runner.complete("succeeded", json!({})).await.unwrap();
        assert_eq!(bench.conclusion(run).await.as_deref(), Some("success"), "{scope}");
    }
}

#[tokio::test]
async fn a_group_and_labels_choose_among_the_runners_of_an_enterprise() {
    let bench = Bench::new().await;
    let _run = bench.start(GROUPED).await;
    let group_id = bench.forge.group_id(&enterprise(), "fast").await.unwrap();
    let cases = [
        ("plain", JitRequest { group_id: 1, ..request("plain", &["x"]) }),
        ("unlabelled", JitRequest { group_id, ..request("unlabelled", &["y"]) }),
    ];
    for (name, wrong) in cases {
        let made = bench.forge.generate_jit_config(&enterprise(), &wrong).await.unwrap();
        let runner = Script::new(made).connect().await;
        assert!(runner.poll(RunnerStatus::Online).await.unwrap().is_null(), "{name}");
    }
    let right = JitRequest { group_id, ..request("right", &["x"]) };
    let made = bench.forge.generate_jit_config(&enterprise(), &right).await.unwrap();
    Script::new(made).connect().await.take_job().await;
}

#[tokio::test]
async fn an_enterprises_runners_and_groups_outlive_the_lab() {
    let bench = Bench::new().await;
    let path = "/api/v3/enterprises/big/actions/runner-groups";
    let (status, group) = bench.call(Method::POST, path, Some(json!({"name": "fast"}))).await;
    assert_eq!(status, 201);
    let group_id = group["id"].as_u64().unwrap();
    let asked = JitRequest { group_id, ..request("kept", &["x"]) };
    let id = bench.forge.generate_jit_config(&enterprise(), &asked).await.unwrap().runner_id;
    let bench = bench.killed_and_opened().await;
    assert_eq!(bench.forge.group_id(&enterprise(), "fast").await.unwrap(), group_id);
    assert_eq!(bench.forge.find_runner_by_name(&enterprise(), "kept").await.unwrap().unwrap().id, id);
    assert!(bench.forge.get_runner(&RunnerScope::Enterprise("small".into()), id).await.unwrap().is_none());
    assert!(bench.forge.get_runner(&RunnerScope::Organization("big".into()), id).await.unwrap().is_none());
}

#[tokio::test]
async fn groups_are_found_by_name_over_many_pages_and_unknown_ones_are_told_with_those_there_are() {
    let bench = Bench::new().await;
    for number in 0..105 {
        let body = json!({"name": format!("group-{number}")});
        let (status, _) = bench.call(Method::POST, "/api/v3/orgs/o/actions/runner-groups", Some(body)).await;
        assert_eq!(status, 201);
    }
    let forge = &bench.forge;
    let last = forge.group_id(&organization(), "Group-104").await.unwrap();
    assert!(last > forge.group_id(&organization(), "group-0").await.unwrap());
    assert_eq!(forge.group_id(&organization(), "default").await.unwrap(), 1);
    let error = forge.group_id(&organization(), "nope").await.unwrap_err().to_string();
    insta::assert_snapshot!(error, @r#"o has no runner group "nope"; it has Default, group-0, group-1, group-2, group-3, group-4, group-5, group-6, group-7, group-8, and 96 more"#);
    assert_eq!(forge.group_id(&Bench::scope(), "Default").await.unwrap(), 1);
    let error = forge.group_id(&Bench::scope(), "group-0").await.unwrap_err();
    assert!(matches!(error, ForgeError::RepositoryGroup { .. }), "{error}");
    let (status, _) =
        bench.call(Method::POST, "/api/v3/repos/o/r/actions/runner-groups", Some(json!({"name": "x"}))).await;
    assert_eq!(status, 404, "a repository has no groups of its own");
}

#[tokio::test]
async fn a_repository_and_a_group_are_closed_to_strangers_until_they_are_opened() {
    let bench = Bench::new().await;
    let takes = async |bench: &Bench, scope: &RunnerScope, group| {
        bench.forge.takes_public_jobs(scope, group).await.unwrap()
    };
    assert!(!takes(&bench, &Bench::scope(), "Default").await);
    assert!(!takes(&bench, &organization(), "Default").await);
    let (status, shown) =
        bench.call(Method::PATCH, "/api/v3/repos/o/r", Some(json!({"private": false}))).await;
    assert_eq!((status, &shown["visibility"]), (200, &json!("public")));
    let body = json!({"name": "open", "allows_public_repositories": true});
    bench.call(Method::POST, "/api/v3/orgs/o/actions/runner-groups", Some(body)).await;

    let bench = bench.killed_and_opened().await;
    assert!(takes(&bench, &Bench::scope(), "Default").await);
    assert!(takes(&bench, &organization(), "OPEN").await);
    assert!(!takes(&bench, &organization(), "Default").await);
    bench.call(Method::PATCH, "/api/v3/repos/o/r", Some(json!({"private": true}))).await;
    assert!(!takes(&bench, &Bench::scope(), "Default").await);
}

#[tokio::test]
async fn a_job_cannot_make_more_groups_than_the_lab_holds() {
    let bench = Bench::new().await;
    let fill = |state: &mut LabState| {
        (1..GROUPS_MAX).for_each(|number| drop(state.make_group(&format!("group-{number}"), false).unwrap()));
        state.make_group("fast", false).unwrap_err().message
    };
    let refused = bench.lab.inner.hub.ask(fill).await.unwrap();
    let mut events = bench.lab.subscribe();
    bench.start(GROUPED).await;
    let notice = next_event(&mut events, |event| match &event.kind {
        LabEventKind::Notice { text } => Some(text.clone()),
        _ => None,
    });
    assert_eq!(
        notice.await,
        format!("no runner gets the job \"a\", because there is no group \"fast\": {refused}")
    );
    let queued = next_event(&mut events, |event| match event.kind {
        LabEventKind::JobQueued { group_id, .. } => Some(group_id),
        _ => None,
    });
    assert_eq!(queued.await, 0);
    let runner = bench.runner("other", &["x"]).await;
    assert!(runner.poll(RunnerStatus::Online).await.unwrap().is_null());
    let made = bench.lab.inner.hub.ask(|state: &mut LabState| state.groups.len()).await.unwrap();
    assert_eq!(made, GROUPS_MAX);
}

#[tokio::test]
async fn a_job_with_an_impossible_group_fails_and_makes_none() {
    let bench = Bench::new().await;
    for name in ["x".repeat(101), "a\\tb".to_owned()] {
        let run = bench.start(&GROUPED.replace("group: fast", &format!("group: \"{name}\""))).await;
        assert_eq!(bench.conclusion(run).await.as_deref(), Some("failure"), "{name}");
        let remark = bench.forge.jobs("o", "r", run).await.unwrap()[0].remark.clone().unwrap();
        assert!(remark.contains("must be a runner group's name of 1 to 100 characters"), "{remark}");
        let body = Some(json!({"name": name.replace("\\t", "\t")}));
        let (status, _) = bench.call(Method::POST, "/api/v3/orgs/o/actions/runner-groups", body).await;
        assert_eq!(status, 422, "{name}");
    }
    let made = bench.lab.inner.hub.ask(|state: &mut LabState| state.groups.len()).await.unwrap();
    assert_eq!(made, 1);
}

//! Scale sets themselves: their names, scopes and runners.

use reqwest::Method;
use serde_json::json;

use super::super::bench::{Bench, RunnerStatus};
use super::{Owner, workflow};

const SETS: &str = "runtime/runnerscalesets";

#[tokio::test]
async fn a_scale_set_is_found_in_its_scope_and_its_group_alone() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o").await;
    let id = owner.make("Small VMs", &[]).await;
    let group =
        bench.call(Method::POST, "/api/v3/orgs/o/actions/runner-groups", Some(json!({"name": "fast"}))).await;
    let group = group.1["id"].as_u64().unwrap();
    let body = json!({"name": "small vms", "runnerGroupId": group});
    let (status, other) = owner.call(Method::POST, SETS, Some(body)).await;
    assert_eq!(
        (status, other["runnerGroupName"].as_str()),
        (200, Some("fast")),
        "a name is taken in one group only"
    );

    let (_, found) = owner.call(Method::GET, &format!("{SETS}?runnerGroupId=1&name=small+vms"), None).await;
    assert_eq!((&found["count"], &found["value"][0]["id"]), (&json!(1), &json!(id)));
    assert_eq!(found["value"][0]["labels"], json!([{"name": "Small VMs", "type": "System"}]));
    let (_, all) = owner.call(Method::GET, SETS, None).await;
    assert_eq!(all["count"], 2);
    for page in ["p", "o/r", "enterprises/o"] {
        let stranger = Owner::of(&bench, page).await;
        assert_eq!(stranger.call(Method::GET, SETS, None).await.1["count"], 0, "{page}");
        let (status, error) = stranger.call(Method::GET, &format!("{SETS}/{id}"), None).await;
        assert_eq!((status, error["typeKey"].as_str()), (404, Some("RunnerScaleSetNotFoundException")));
        assert_eq!((stranger.delete(id).await, stranger.open(id).await.0), (404, 404), "{page}");
    }
    let repository = Owner::of(&bench, "o/r").await;
    let body = Some(json!({"name": "x", "runnerGroupId": group}));
    assert_eq!(
        repository.call(Method::POST, SETS, body).await.0,
        404,
        "a repository has only the default group"
    );
}

#[tokio::test]
async fn scale_sets_that_cannot_be_are_refused() {
    let bench = Bench::with(|limits| limits.scale_sets_max = 2).await;
    let owner = Owner::of(&bench, "o/r").await;
    owner.make("one", &[]).await;
    let many: Vec<_> = (0..101).map(|number| json!({"name": number.to_string()})).collect();
    for (body, expected) in [
        (json!({"name": "ONE"}), 409),
        (json!({"name": ""}), 400),
        (json!({"name": "a,b"}), 400),
        (json!({}), 400),
        (json!({"name": "x", "labels": [{"name": " "}]}), 400),
        (json!({"name": "x", "labels": many}), 400),
        (json!({"name": "x", "labels": "x"}), 400),
        (json!({"name": "x", "RunnerSetting": {"a": "x".repeat(5000)}}), 400),
        (json!({"name": "x", "runnerGroupId": 77}), 404),
        (json!({"name": "x".repeat(300_000)}), 413),
    ] {
        let (status, error) = owner.call(Method::POST, SETS, Some(body.clone())).await;
        assert_eq!(status, expected, "{error}");
    }
    owner.make("two", &[]).await;
    let (status, error) = owner.call(Method::POST, SETS, Some(json!({"name": "three"}))).await;
    assert_eq!(status, 400);
    assert_eq!(error["message"], "The lab holds 2 runner scale sets at most");
}

#[tokio::test]
async fn only_a_token_that_registers_opens_the_service() {
    let bench = Bench::new().await;
    let (_, remove) = bench.call(Method::POST, "/api/v3/repos/o/r/actions/runners/remove-token", None).await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("one", &[]).await;
    let listener = owner.listen(set).await;
    for token in [remove["token"].as_str().unwrap(), "junk", listener.token.as_str()] {
        let other = Owner { bench: &bench, token: token.to_owned() };
        let (status, error) = other.call(Method::GET, SETS, None).await;
        assert_eq!((status, error["typeKey"].as_str()), (401, Some("UnauthorizedRequestException")));
    }
    let runs = format!("{}/api/v3/repos/o/r/actions/runs", bench.url);
    let (status, _) = super::answer(super::http().get(runs).bearer_auth(&owner.token)).await;
    assert_eq!(status, 401, "the service's token is not the admin's");
    bench.advance(std::time::Duration::from_secs(3601)).await;
    assert_eq!(owner.call(Method::GET, SETS, None).await.0, 401);
}

#[tokio::test]
async fn a_runner_of_a_scale_set_gets_that_sets_jobs_alone() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let (first, second) = (owner.make("first", &["x"]).await, owner.make("second", &["x"]).await);
    let of_second = owner.runner(second, "of-second").await;
    let mut of_first = owner.runner(first, "of-first").await;
    let run = bench.start(&workflow("x", &[1])).await;
    assert!(of_first.poll(RunnerStatus::Online).await.unwrap().is_null(), "the job is not acquired");
    let listener = owner.listen(first).await;
    assert_eq!(owner.statistics(second).await[0], 1, "it is available to both");
    let rival = owner.listen(second).await;
    let job = listener.acquire_all().await[0];
    assert_eq!(owner.statistics(second).await[0], 0);
    assert_eq!(rival.acquire(&[job]).await.1["count"], 0, "the first one has it");
    assert!(of_second.poll(RunnerStatus::Online).await.unwrap().is_null());
    let plain = bench.runner("plain", &["x"]).await;
    assert!(plain.poll(RunnerStatus::Online).await.unwrap().is_null());
    of_first.take_job().await;
    of_first.complete("succeeded", json!({})).await.unwrap();
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("success"));
}

#[tokio::test]
async fn jobs_match_by_all_of_their_labels_their_group_and_the_scope() {
    let bench = Bench::new().await;
    let (of_org, of_big) = (Owner::of(&bench, "o").await, Owner::of(&bench, "enterprises/big").await);
    let stranger = Owner::of(&bench, "p").await;
    let both = of_org.make("both", &["Linux", "GPU"]).await;
    let one = of_big.make("one", &["gpu"]).await;
    let theirs = stranger.make("theirs", &["linux", "gpu"]).await;
    bench.start(&workflow("[linux, gpu]", &[1])).await;
    bench.start(&workflow("[GPU]", &[1])).await;
    bench.start(&workflow("{group: fast, labels: [gpu]}", &[1])).await;
    bench.start(&workflow("both", &[1])).await;
    assert_eq!(of_org.statistics(both).await[0], 2, "a name is a label only if no other label is given");
    assert_eq!(of_big.statistics(one).await[0], 1);
    assert_eq!(stranger.statistics(theirs).await[0], 0);
    let group =
        bench.forge.group_id(&dayfly_forge::RunnerScope::Organization("o".into()), "fast").await.unwrap();
    let path = format!("{SETS}/{both}");
    let (status, changed) = of_org.call(Method::PATCH, &path, Some(json!({"runnerGroupId": group}))).await;
    assert_eq!((status, changed["runnerGroupName"].as_str()), (200, Some("fast")));
    assert_eq!(changed["labels"].as_array().unwrap().len(), 2, "members that are not named stay");
    assert_eq!(of_org.statistics(both).await[0], 3);
    let labels = json!({"labels": [{"name": "both"}]});
    of_org.call(Method::PATCH, &path, Some(labels)).await;
    assert_eq!(of_org.statistics(both).await[0], 1);
}

#[tokio::test]
async fn a_deleted_scale_set_gives_back_what_does_not_run() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o").await;
    let set = owner.make("x", &[]).await;
    let run = bench.start(&workflow("x", &[1, 2, 3])).await;
    owner.listen(set).await.acquire_all().await;
    let mut busy = owner.runner(set, "busy").await;
    busy.take_job().await;
    let sent = owner.runner(set, "sent").await;
    sent.message("RunnerJobRequest").await;
    assert_eq!(owner.statistics(set).await, [0, 0, 3, 1, 2, 2, 0]);
    let other = Owner::of(&bench, "o/r").await.make("heir", &["x"]).await;
    assert_eq!(owner.delete(set).await, 204);
    assert_eq!(owner.delete(set).await, 404);

    assert_eq!(sent.poll(RunnerStatus::Online).await.unwrap_err().0, 404, "its runner is gone");
    assert_eq!(Owner::of(&bench, "o/r").await.statistics(other).await[0], 2);
    let bench = {
        let (old, bench) = (bench.url.clone(), bench.killed_and_opened().await);
        busy.moved(&old, &bench.url);
        bench
    };
    let repository = Owner::of(&bench, "o/r").await;
    assert_eq!(repository.statistics(other).await[0], 2);
    busy.complete("succeeded", json!({})).await.unwrap();
    for name in ["plain-1", "plain-2"] {
        let mut plain = bench.runner(name, &["x"]).await;
        plain.take_job().await;
        plain.complete("succeeded", json!({})).await.unwrap();
    }
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("success"));
}

#[tokio::test]
async fn runners_are_agents_of_the_service_too() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("x", &[]).await;
    bench.start(&workflow("x", &[1])).await;
    owner.listen(set).await.acquire_all().await;
    let mut runner = owner.runner(set, "agent").await;
    let agents = "distributedtask/pools/0/agents";
    let path = format!("{agents}/{}", runner.id);
    let (_, shown) = owner.call(Method::GET, &path, None).await;
    assert_eq!(shown, json!({"id": runner.id, "name": "agent", "runnerScaleSetId": set}));
    let plain = bench.register("plain", &["x"]).await;
    let (_, found) = owner.call(Method::GET, &format!("{agents}?agentName=plain"), None).await;
    assert_eq!((&found["count"], &found["value"][0]["runnerScaleSetId"]), (&json!(1), &json!(0)));
    assert_eq!(owner.call(Method::DELETE, &format!("{agents}/{}", plain.runner_id), None).await.0, 204);

    let taken = json!({"name": "agent", "workFolder": "_work"});
    let (status, error) =
        owner.call(Method::POST, &format!("{SETS}/{set}/generatejitconfig"), Some(taken)).await;
    assert_eq!((status, error["typeKey"].as_str()), (409, Some("TaskAgentExistsException")));
    runner.take_job().await;
    let (status, error) = owner.call(Method::DELETE, &path, None).await;
    assert_eq!((status, error["typeKey"].as_str()), (400, Some("TaskAgentJobStillRunningException")));
    let stranger = Owner::of(&bench, "o").await;
    for (method, path) in
        [(Method::GET, &path), (Method::DELETE, &path), (Method::GET, &format!("{agents}/x"))]
    {
        let (status, error) = stranger.call(method, path, None).await;
        assert_eq!((status, error["typeKey"].as_str()), (404, Some("TaskAgentNotFoundException")));
    }
    runner.complete("succeeded", json!({})).await.unwrap();
    assert_eq!(owner.call(Method::GET, &path, None).await.0, 404);
}

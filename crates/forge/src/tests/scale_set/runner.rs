//! Tests of the calls for runners of a scale set.

use serde_json::json;

use super::http::Reply;
use super::service::{AGENTS, SETS, Service, refusal};
use crate::scale_set::{NewScaleSet, NewScaleSetRunner, ScaleSetClient};
use crate::{Deletion, ForgeError};

async fn scale_set(client: &ScaleSetClient) -> u64 {
    let new = NewScaleSet { name: "vm".into(), group_id: 1, labels: Vec::new() };
    client.create_scale_set(&new).await.unwrap().id
}

fn vm_1(work_folder: &str) -> NewScaleSetRunner<'_> {
    NewScaleSetRunner { name: "vm-1", work_folder, runner_url: None }
}

fn taken() -> Reply {
    refusal(409, "TaskAgentExistsException", "Already exists - A runner with the name vm-1 already exists.")
}

fn jit(set: u64) -> String {
    format!("POST {SETS}/{set}/generatejitconfig")
}

#[tokio::test]
async fn a_runner_is_registered_found_and_removed() {
    let service = Service::start().await;
    let client = service.client();
    let set = scale_set(&client).await;
    let made = client.register_runner(set, &vm_1("_work")).await.unwrap();
    assert_eq!(made.config.runner.agent_name, "vm-1");
    let found = client.find_runner("vm-1").await.unwrap().unwrap();
    assert_eq!((found.id, found.runner_scale_set_id), (made.runner_id, Some(set)));
    assert_eq!(client.find_runner("vm").await.unwrap(), None);
    assert_eq!(client.remove_runner(found.id).await.unwrap(), Deletion::Deleted);
    assert_eq!(client.remove_runner(found.id).await.unwrap(), Deletion::Gone);
    assert_eq!(service.requests(&jit(set))[0].body, r#"{"name":"vm-1","workFolder":"_work"}"#);
}

#[tokio::test]
async fn a_runner_that_has_a_job_is_busy_and_one_that_is_unknown_is_gone() {
    let service = Service::start().await;
    let client = service.client();
    for (reply, expected) in [
        (
            refusal(400, "JobStillRunningException", "Runner vm-1 is still running a job"),
            Some(Deletion::Busy),
        ),
        (refusal(404, "TaskAgentNotFoundException", "Agent 7 not found"), Some(Deletion::Gone)),
        (Reply::new(200, "<html>Please log in</html>"), None),
        (Reply::new(400, ""), None),
    ] {
        service.script(format!("DELETE {AGENTS}/7"), reply);
        assert_eq!(client.remove_runner(7).await.ok(), expected);
    }
}

#[tokio::test]
async fn a_name_that_an_own_runner_has_left_is_freed() {
    let service = Service::start().await;
    let client = service.client();
    let set = scale_set(&client).await;
    service.state().runners.insert(77, json!({"id": 77, "name": "vm-1", "runnerScaleSetId": set}));
    service.script(jit(set), taken());
    assert!(client.register_runner(set, &vm_1("")).await.is_ok());
    assert_eq!(service.requests(&format!("DELETE {AGENTS}/77")).len(), 1);
    assert_eq!(service.requests(&jit(set)).len(), 2);

    service.script(jit(set), taken());
    service.script(jit(set), taken());
    assert!(client.register_runner(set, &vm_1("")).await.is_err(), "it is freed only once");
    assert_eq!(service.requests(&jit(set)).len(), 4);
}

#[tokio::test]
async fn a_name_of_another_scale_set_or_of_a_busy_runner_is_left_alone() {
    let service = Service::start().await;
    let client = service.client();
    let set = scale_set(&client).await;
    let mut texts = Vec::new();
    for owner in [json!(set + 1), json!(0), json!(null)] {
        service.state().runners.insert(77, json!({"id": 77, "name": "vm-1", "runnerScaleSetId": owner}));
        service.script(jit(set), taken());
        texts.push(client.register_runner(set, &vm_1("")).await.unwrap_err().to_string());
    }
    texts.dedup();
    insta::assert_snapshot!(texts.join("\n"), @r#"cannot register the runner "vm-1" in the scale set 3 of o: Already exists - A runner with the name vm-1 already exists"#);
    assert!(service.requests("DELETE ").is_empty());

    service.state().runners.insert(77, json!({"id": 77, "name": "vm-1", "runnerScaleSetId": set}));
    service.script(jit(set), taken());
    service.script(format!("DELETE {AGENTS}/77"), refusal(409, "JobStillRunningException", "busy"));
    assert!(client.register_runner(set, &vm_1("")).await.is_err());
    assert_eq!(service.requests(&jit(set)).len(), 4, "a busy runner keeps its name");
}

#[tokio::test]
async fn a_registration_whose_answer_is_lost_is_not_repeated() {
    let service = Service::start().await;
    let client = service.client();
    let set = scale_set(&client).await;
    for reply in
        [Reply::new(200, "{}").cut(0), Reply::new(500, ""), Reply::new(429, "").header("retry-after", 1)]
    {
        service.script(jit(set), reply);
        let before = service.requests(&jit(set)).len();
        let error = client.register_runner(set, &vm_1("")).await.unwrap_err();
        assert!(error.is_temporary(), "{error}");
        assert_eq!(service.requests(&jit(set)).len(), before + 1);
    }
    let error = client.register_runner(set + 1, &vm_1("")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Service { .. }), "{error}");
    insta::assert_snapshot!(error, @r#"cannot register the runner "vm-1" in the scale set 4 of o: No runner scale set found with identifier 4"#);
}

//! Tests of the calls for scale sets, groups and sessions.

use serde_json::json;

use super::http::Reply;
use super::service::{SETS, Service};
use crate::scale_set::{NewScaleSet, ScaleSetClient, ServiceFault};
use crate::{ApiBase, Deletion, Forge, ForgeError, RunnerScope};

fn new(name: &str, labels: &[&str]) -> NewScaleSet {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    NewScaleSet { name: name.into(), group_id: 1, labels }
}

#[tokio::test]
async fn a_scale_set_is_created_found_relabelled_and_deleted() {
    let service = Service::start().await;
    let client = service.client();
    assert_eq!(client.find_scale_set(1, "vm small").await.unwrap(), None);
    let made = client.create_scale_set(&new("vm small", &[])).await.unwrap();
    let changed = client.set_labels(&made, &["gpu".to_owned(), "vm small".to_owned()]).await.unwrap();
    assert_eq!(client.find_scale_set(1, "vm small").await.unwrap().unwrap(), changed);
    assert_eq!(client.get_scale_set(made.id).await.unwrap().unwrap().labels.len(), 2);
    assert_eq!(client.delete_scale_set(made.id).await.unwrap(), Deletion::Deleted);
    assert_eq!(client.delete_scale_set(made.id).await.unwrap(), Deletion::Gone);
    assert_eq!(client.get_scale_set(made.id).await.unwrap(), None);
    insta::assert_snapshot!(service.lines().replace(&service.url, "URL"), @r#"
    POST /api/v3/orgs/o/actions/runners/registration-token
    POST /api/v3/actions/runner-registration {"url":"URL/o","runner_event":"register"}
    GET SETS?runnerGroupId=1&name=vm+small&api-version=6.0-preview
    POST SETS {"name":"vm small","runnerGroupId":1,"labels":[{"name":"vm small","type":"System"}],"RunnerSetting":{"disableUpdate":true}}
    PATCH SETS/3 {"id":3,"name":"vm small","runnerGroupId":1,"labels":[{"name":"gpu","type":"System"},{"name":"vm small","type":"System"}],"RunnerSetting":{"disableUpdate":true}}
    GET SETS?runnerGroupId=1&name=vm+small&api-version=6.0-preview
    GET SETS/3
    DELETE SETS/3
    DELETE SETS/3
    GET SETS/3
    "#);
}

#[tokio::test]
async fn a_creation_is_never_repeated_and_a_lookup_is() {
    let service = Service::start().await;
    let client = service.client();
    let lost = || Reply::new(200, "{}").cut(0);
    service.script(format!("POST {SETS}"), lost());
    assert!(client.create_scale_set(&new("vm", &[])).await.unwrap_err().is_temporary());
    assert_eq!(service.requests(&format!("POST {SETS}")).len(), 1);
    service.script(format!("GET {SETS}/9"), Reply::new(502, "<html>Bad Gateway"));
    service.script(format!("GET {SETS}/9"), lost());
    assert_eq!(client.get_scale_set(9).await.unwrap(), None);
    assert_eq!(service.requests(&format!("GET {SETS}/9")).len(), 3);
}

#[tokio::test]
async fn answers_may_begin_with_a_byte_order_mark() {
    let service = Service::start().await;
    let set = json!({"id": 7, "name": "vm", "runnerGroupId": 1});
    service.script(format!("GET {SETS}/7"), Reply::new(200, set).marked());
    assert_eq!(service.client().get_scale_set(7).await.unwrap().unwrap().name, "vm");
    let refusal = super::service::refusal(404, "RunnerScaleSetNotFoundException", "gone").marked();
    service.script(format!("POST {SETS}/7/sessions"), refusal);
    let error = service.client().open_session(7, "x").await.unwrap_err();
    assert!(matches!(error, ForgeError::Service { fault: ServiceFault::ScaleSetNotFound, .. }), "{error}");
}

#[tokio::test]
async fn every_form_of_an_error_becomes_a_text() {
    let service = Service::start().await;
    let client = service.client();
    let replies = [
        super::service::refusal(
            409,
            "RunnerScaleSetExistsException",
            "The runner scale set vm already exists.",
        ),
        Reply::new(400, "Name is\ttoo long\n").header("content-type", "text/plain; charset=utf-8"),
        Reply::new(422, json!({"message": "Invalid", "errors": ["label too long", {"message": "no group"}]})),
        Reply::new(409, ""),
        Reply::new(500, "<html>Error</html>").header("content-type", "text/html"),
        Reply::new(503, json!({"message": "Maintenance"})).header("retry-after", 7),
        Reply::new(429, json!({"message": "Slow down"})).header("retry-after", 120),
        Reply::new(403, json!({"message": "Resource not accessible by integration"}))
            .header("x-accepted-github-permissions", "administration=write"),
        Reply::new(200, "not JSON"),
    ];
    let mut texts = Vec::new();
    for reply in replies {
        service.script(format!("POST {SETS}"), reply);
        texts.push(client.create_scale_set(&new("vm", &[])).await.unwrap_err().to_string());
    }
    insta::assert_snapshot!(texts.join("\n---\n"));
}

#[tokio::test]
async fn a_group_is_found_by_its_name() {
    let service = Service::start().await;
    let client = service.client();
    assert_eq!(client.group_id("default").await.unwrap(), 1);
    assert!(service.requests("").is_empty(), "the default group has this id everywhere");
    let groups = "GET /tenant/1/_apis/runtime/runnergroups/?groupName=";
    service.script(groups, Reply::new(200, json!({"count": 1, "value": [{"id": 4, "name": "Big"}]})));
    assert_eq!(client.group_id("Big one").await.unwrap(), 4);
    assert!(service.requests(groups)[0].line.contains("groupName=Big+one&"));

    service.script(groups, Reply::new(200, json!({"count": 0, "value": []})));
    let known = json!({"runner_groups": [{"id": 1, "name": "Default"}, {"id": 4, "name": "Big"}]});
    service.script("GET /api/v3/orgs/o/actions/runner-groups", Reply::new(200, known));
    insta::assert_snapshot!(client.group_id("small").await.unwrap_err(), @r#"o has no runner group "small"; it has Default, Big"#);

    let forge = Forge::new(ApiBase::from_host_or_url(&service.url).unwrap(), "PAT").unwrap();
    let repository = RunnerScope::Repository { owner: "o".into(), name: "r".into() };
    let error = ScaleSetClient::new(forge, repository).group_id("Big").await.unwrap_err();
    assert!(matches!(error, ForgeError::RepositoryGroup { .. }), "{error}");
}

#[tokio::test]
async fn a_session_needs_an_id_and_a_token() {
    let service = Service::start().await;
    let client = service.client();
    let session = |id: &str, token: &str| {
        let queue = format!("{}/queue", service.url);
        Reply::new(200, json!({"sessionId": id, "messageQueueUrl": queue, "messageQueueAccessToken": token}))
    };
    for (reply, why) in [
        (session("00000000-0000-0000-0000-000000000000", "T"), "the session has no id"),
        (session("", "T"), "the session has no id"),
        (session("7f0c", ""), "the session has no token"),
    ] {
        service.script(format!("POST {SETS}/7/sessions"), reply);
        let error = client.open_session(7, "x").await.unwrap_err().to_string();
        assert!(error.ends_with(why), "{error}");
    }
}

#[tokio::test]
async fn a_session_of_a_hostile_server_leads_to_no_other_path() {
    let service = Service::start().await;
    let client = service.client();
    let queue = format!("{}/queue", service.url);
    let session = json!({"sessionId": "../../8", "messageQueueUrl": queue, "messageQueueAccessToken": "T"});
    service.script(format!("POST {SETS}/7/sessions"), Reply::new(200, session));
    let session = client.open_session(7, "x").await.unwrap();
    let _ = client.close_session(&session.id()).await;
    assert_eq!(service.requests(&format!("DELETE {SETS}/7/sessions/..%2F..%2F8?")).len(), 1);
}

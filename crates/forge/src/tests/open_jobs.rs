//! Tests of the view of a repository's open jobs.

use serde_json::{Value, json};

use super::scripted::{Reply, Request, ScriptedForge};
use crate::{ApiBase, Forge, ForgeError, GithubJob, OpenJobs};

fn view(server: &ScriptedForge) -> OpenJobs {
    let forge = Forge::new(ApiBase::from_host_or_url(&server.url).unwrap(), "token").unwrap();
    OpenJobs::new(forge, "o", "r")
}

fn runs(ids: &[u64]) -> Value {
    let runs: Vec<_> =
        ids.iter().map(|id| json!({"id": id, "status": "queued", "conclusion": null})).collect();
    json!({"total_count": ids.len(), "workflow_runs": runs})
}

fn jobs(jobs: &[(u64, &str)]) -> Value {
    let jobs: Vec<_> = jobs
        .iter()
        .map(|(id, status)| json!({"id": id, "run_id": 1, "name": "a", "status": status, "conclusion": null}))
        .collect();
    json!({"total_count": jobs.len(), "jobs": jobs})
}

/// Answers 304 if the client knows the answer.
fn marked(request: &Request, etag: &str, body: &Value) -> Reply {
    match request.if_none_match == etag {
        true => Reply::new(304, ""),
        false => Reply::new(200, body).header("etag", etag),
    }
}

fn ids(jobs: &[GithubJob]) -> Vec<u64> {
    jobs.iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn open_jobs_are_those_of_waiting_and_of_running_runs() {
    let server = ScriptedForge::start(|request| match request.line.as_str() {
        line if line.contains("status=queued") => Reply::new(200, runs(&[8])),
        line if line.contains("status=in_progress") => Reply::new(200, runs(&[8, 7])),
        line if line.contains("/runs/8/jobs") => Reply::new(200, jobs(&[(80, "queued"), (81, "waiting")])),
        _ => Reply::new(200, jobs(&[(70, "in_progress"), (71, "queued"), (72, "completed")])),
    })
    .await;
    assert_eq!(ids(&view(&server).look().await.unwrap()), [80, 70, 71]);
    assert_eq!(server.requests("/runs/8/jobs").len(), 1, "a run in both lists is read once");
}

#[tokio::test]
async fn an_answer_that_has_not_changed_is_not_sent_again() {
    let server = ScriptedForge::start(|request| match request.line.as_str() {
        line if line.contains("status=queued") => marked(request, "\"q\"", &runs(&[8])),
        line if line.contains("status=") => marked(request, "\"p\"", &runs(&[])),
        _ => marked(request, "\"j\"", &jobs(&[(80, "queued")])),
    })
    .await;
    let mut view = view(&server);
    for _ in 0..3 {
        assert_eq!(ids(&view.look().await.unwrap()), [80]);
    }
    let marks: Vec<_> =
        server.requests("/runs/8/jobs").into_iter().map(|request| request.if_none_match).collect();
    assert_eq!(marks, ["", "\"j\"", "\"j\""]);
}

#[tokio::test]
async fn all_pages_of_a_list_are_read_and_none_of_another_host() {
    for (is_own, expected) in [(true, Some(vec![80, 81])), (false, None)] {
        let next = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
        let link = next.clone();
        let server = ScriptedForge::start(move |request| match request.line.as_str() {
            line if line.contains("page=2") => Reply::new(200, jobs(&[(81, "queued")])),
            line if line.contains("status=queued") => Reply::new(200, runs(&[8])),
            line if line.contains("status=") => Reply::new(200, runs(&[])),
            _ => Reply::new(200, jobs(&[(80, "queued")])).header("link", link.get().unwrap()),
        })
        .await;
        let host = if is_own { server.url.clone() } else { "http://127.0.0.1:1".to_owned() };
        next.set(format!("<{host}/api/v3/next?page=2>; rel=\"next\"")).unwrap();
        let looked = view(&server).look().await;
        assert_eq!(looked.ok().map(|jobs| ids(&jobs)), expected);
    }
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let server =
        ScriptedForge::start(|_| Reply::new(403, json!({"message": "Resource not accessible"}))).await;
    let error = view(&server).look().await.unwrap_err();
    assert!(matches!(error, ForgeError::Forbidden { .. }));
    insta::assert_snapshot!(error);
}

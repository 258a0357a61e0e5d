//! The faults of jobs.

use std::time::Duration;

use serde_json::{Value, json};

use super::order;
use crate::tests::bench::{Bench, ONE_JOB, RunnerStatus};
use crate::tests::scale_set::{Owner, jobs};

/// Returns the first job of a run.
async fn first_job(bench: &Bench, run: u64) -> Value {
    let path = format!("/api/v3/repos/o/r/actions/runs/{run}/jobs");
    bench.call(reqwest::Method::GET, &path, None).await.1["jobs"][0].clone()
}

#[tokio::test]
async fn a_stolen_job_runs_at_a_stranger_while_the_own_runner_stays_idle() {
    let bench = Bench::new().await;
    order(&bench, "job-theft,value=10,count=1").await;
    let run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("own", &["self-hosted", "big"]).await;
    assert_eq!(runner.poll(RunnerStatus::Online).await.unwrap(), Value::Null);
    assert_eq!(first_job(&bench, run).await["status"], "queued");
    bench.advance(Duration::from_secs(11)).await;
    let job = first_job(&bench, run).await;
    assert_eq!(job["status"], "in_progress");
    assert!(job["runner_name"].as_str().unwrap().starts_with("stranger-"), "{job}");
    let found = bench.forge.list_runners(&Bench::scope()).await.unwrap();
    let busy: Vec<(&str, bool)> = found.iter().map(|it| (it.name.as_str(), it.busy)).collect();
    assert!(busy.contains(&("own", false)) && busy.iter().any(|(name, busy)| *busy && *name != "own"));
    bench.advance(Duration::from_secs(6)).await;
    assert_eq!(first_job(&bench, run).await["conclusion"], "success");
    // The job that needs the first one goes to the own runner.
    runner.take_job().await;
}

#[tokio::test]
async fn a_job_is_cancelled_before_a_runner_gets_it() {
    let bench = Bench::new().await;
    order(&bench, "cancel-before-pick-up,value=3,count=1").await;
    let run = bench.start(ONE_JOB).await;
    let runner = bench.runner("own", &["self-hosted", "big"]).await;
    assert_eq!(runner.poll(RunnerStatus::Online).await.unwrap(), Value::Null);
    bench.advance(Duration::from_secs(4)).await;
    let job = first_job(&bench, run).await;
    assert_eq!((&job["conclusion"], &job["runner_name"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(bench.conclusion(run).await.as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn a_job_whose_message_is_lost_is_queued_again_after_a_minute() {
    let bench = Bench::new().await;
    order(&bench, "requeue,count=1").await;
    let run = bench.start(ONE_JOB).await;
    let mut runner = bench.runner("own", &["self-hosted", "big"]).await;
    for _ in 0..2 {
        assert_eq!(runner.poll(RunnerStatus::Online).await.unwrap(), Value::Null);
    }
    bench.advance(Duration::from_secs(61)).await;
    runner.take_job().await;
    runner.complete("succeeded", json!({})).await.unwrap();
    assert_eq!(first_job(&bench, run).await["conclusion"], "success");
}

#[tokio::test]
async fn a_scale_set_reads_of_a_job_that_is_queued_again_as_of_a_cancelled_one() {
    let bench = Bench::new().await;
    let owner = Owner::of(&bench, "o/r").await;
    let set = owner.make("set", &["self-hosted", "big"]).await;
    let listener = owner.listen(set).await;
    order(&bench, "requeue,count=1").await;
    bench.start(ONE_JOB).await;
    let job = listener.acquire_all().await[0];
    let runner = owner.runner(set, "r").await;
    assert_eq!(runner.poll(RunnerStatus::Online).await.unwrap(), Value::Null);
    bench.advance(Duration::from_secs(61)).await;
    let told = jobs(&listener.next(0).await);
    let shown =
        |told: &Value| (told["messageType"].clone(), told["result"].clone(), told["runnerName"].clone());
    assert_eq!(shown(&told[0]), (json!("JobCompleted"), json!("canceled"), json!("")));
    assert_eq!(shown(&told[1]), (json!("JobAvailable"), Value::Null, Value::Null));
    assert!(told.iter().all(|told| told["runnerRequestId"].as_u64() == Some(job)), "{told:?}");
    assert_eq!(owner.statistics(set).await[..3], [1, 0, 0]);
}

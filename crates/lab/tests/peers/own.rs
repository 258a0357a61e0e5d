//! The scenarios of GitHub's client, played by dayfly's own client and listener: the lab is held to the one, and the other to
//! the lab.

use std::collections::HashMap;

use dayfly_forge::scale_set::{
    NewScaleSet, NewScaleSetRunner, ScaleSet, ScaleSetClient, ScaleSetDemand, ScaleSetJobEvent,
    ScaleSetListener, ScaleSetMessage, ScaleSetSession, ScaleSetSpec, ScaleSetStatistics, ScaleSetUpdate,
    ServiceFault,
};
use dayfly_forge::{ApiBase, Credential, Deletion, Dispatch, Forge, ForgeError, RunnerScope};
use dayfly_light_runner::Exit;
use tempfile::TempDir;

use super::{PATIENCE, Runners, lab};

/// Number of the jobs that a scenario queues.
const JOBS: usize = 3;

/// A scenario's own scale set, and a repository whose jobs it gets.
struct Stage {
    _folder: TempDir,
    forge: Forge,
    client: ScaleSetClient,
    set: ScaleSet,
}

impl Stage {
    async fn new(scope: (&str, &str)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (lab, url) = lab(&folder).await;
        let credential = Credential::token(lab.token().clone());
        let forge = Forge::new(ApiBase::from_host_or_url(&url).unwrap(), credential).unwrap();
        let client = ScaleSetClient::new(forge.clone(), RunnerScope::parse(scope.0, scope.1).unwrap());
        let new = NewScaleSet { name: "set".to_owned(), group_id: 1, labels: Vec::new() };
        let set = client.create_scale_set(&new).await.unwrap();
        Self { _folder: folder, forge, client, set }
    }

    /// Queues jobs for the scale set, each of which runs until a file exists. Returns the id of their run.
    async fn offer(&self, file: &str) -> u64 {
        let workflow = format!(
            "on: workflow_dispatch\njobs:\n  job:\n    runs-on: set\n    strategy: {{ matrix: {{ number: [1, 2, 3] }} }}\n    \
             steps:\n      - run: until [ -e '{file}' ]; do sleep 0.02; done\n"
        );
        self.forge.put_workflow("o", "r", "w.yml", &workflow).await.unwrap();
        self.forge.dispatch("o", "r", "w.yml", &Dispatch::default()).await.unwrap()
    }

    async fn cancel(&self, run: u64) {
        self.forge.cancel_run("o", "r", run).await.unwrap();
    }

    async fn session(&self) -> ScaleSetSession {
        let session = self.client.open_session(self.set.id, "host-1").await.unwrap();
        assert!(session.statistics().is_some());
        session
    }

    /// Polls until a message is there.
    async fn next(&self, session: &ScaleSetSession, last: u64) -> ScaleSetMessage {
        let wait = async {
            loop {
                if let Some(message) = self.client.next_message(session, last, 3).await.unwrap() {
                    return message;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap()
    }

    async fn statistics(&self, session: &ScaleSetSession) -> ScaleSetStatistics {
        self.client.refresh_session(session).await.unwrap().statistics().unwrap()
    }

    fn listener(&self) -> ScaleSetListener {
        let spec = ScaleSetSpec {
            name: "set".to_owned(),
            group: "Default".to_owned(),
            labels: Vec::new(),
            owner: "host-1".to_owned(),
        };
        ScaleSetListener::new(self.client.clone(), spec)
    }
}

fn runner(name: &str) -> NewScaleSetRunner<'_> {
    NewScaleSetRunner { name, work_folder: "_work", runner_url: None }
}

/// Returns the requests of the jobs that a message offers.
fn offered(message: &ScaleSetMessage) -> Vec<i64> {
    let offer = |event: &ScaleSetJobEvent| match event {
        ScaleSetJobEvent::Available(job) => Some(job.runner_request_id),
        _ => None,
    };
    message.events.iter().filter_map(offer).collect()
}

/// Returns the statistics of a scale set that nothing uses.
fn nothing() -> ScaleSetStatistics {
    serde_json::from_value(serde_json::json!({ "totalAssignedJobs": 0 })).unwrap()
}

fn fault<T: std::fmt::Debug>(refused: Result<T, ForgeError>) -> ServiceFault {
    match refused {
        Err(ForgeError::Service { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

/// Returns the listener's next update that has a message.
async fn update(listener: &mut ScaleSetListener) -> ScaleSetUpdate {
    let next = listener.next(3, std::future::pending());
    tokio::time::timeout(PATIENCE, next).await.unwrap().expect("it was not stopped")
}

async fn play_all(scope: (&str, &str)) {
    set_and_its_labels(scope).await;
    one_session_at_a_time(scope).await;
    queue_of_messages(scope).await;
    capacity(scope).await;
    cancelled_jobs(scope).await;
    runners_by_name(scope).await;
    set_that_is_gone(scope).await;
    every_job_in_a_runner_of_its_own(scope).await;
}

async fn set_and_its_labels(scope: (&str, &str)) {
    let Stage { client, set, _folder, .. } = Stage::new(scope).await;
    assert_eq!(client.group_id("Default").await.unwrap(), 1);
    assert!(client.group_id("nope").await.is_err());
    assert_eq!(client.find_scale_set(1, "no such set").await.unwrap(), None);
    assert_eq!(client.find_scale_set(1, "set").await.unwrap().unwrap().id, set.id);
    let again = NewScaleSet { name: "set".to_owned(), group_id: 1, labels: Vec::new() };
    assert_eq!(fault(client.create_scale_set(&again).await), ServiceFault::ScaleSetExists);
    let labels = ["set", "second"].map(str::to_owned);
    let changed = client.set_labels(&set, &labels).await.unwrap();
    assert_eq!(changed.missing_labels(&labels), Vec::<String>::new());
    assert_eq!(client.get_scale_set(set.id).await.unwrap().unwrap().labels.len(), 2);
    assert_eq!(client.get_scale_set(set.id + 1_000_000).await.unwrap(), None);
}

async fn one_session_at_a_time(scope: (&str, &str)) {
    let stage = Stage::new(scope).await;
    let session = stage.session().await;
    let second = stage.client.open_session(stage.set.id, "host-2").await;
    assert_eq!(fault(second), ServiceFault::SessionTaken);
    let refreshed = stage.client.refresh_session(&session).await.unwrap();
    assert_eq!(stage.client.next_message(&refreshed, 0, 3).await.unwrap(), None);
    assert_eq!(stage.client.close_session(&refreshed.id()).await.unwrap(), Deletion::Deleted);
    assert_eq!(stage.client.close_session(&session.id()).await.unwrap(), Deletion::Gone);
    stage.session().await;
}

async fn queue_of_messages(scope: (&str, &str)) {
    let stage = Stage::new(scope).await;
    let (client, session) = (&stage.client, stage.session().await);
    let run = stage.offer("/never").await;
    let first = stage.next(&session, 0).await;
    let requests = offered(&first);
    assert_eq!((requests.len(), first.statistics.unwrap().total_available_jobs), (JOBS, 3));
    assert_eq!(stage.next(&session, 0).await.id, first.id, "not acknowledged, it comes again");
    assert_eq!(client.delete_message(&session, first.id).await.unwrap(), Deletion::Deleted);
    assert_eq!(client.acquire_jobs(&session, &requests).await.unwrap().len(), JOBS);
    assert_eq!(client.acquire_jobs(&session, &requests).await.unwrap(), [0; 0], "none is given twice");
    let second = stage.next(&session, first.id).await;
    let counted = second.statistics.unwrap();
    assert_eq!((counted.total_assigned_jobs, counted.total_available_jobs), (3, 0));
    client.delete_message(&session, second.id).await.unwrap();
    assert_eq!(client.next_message(&session, second.id, 3).await.unwrap(), None);
    stage.cancel(run).await;
    let third = stage.next(&session, second.id).await;
    let is_cancelled = |event: &ScaleSetJobEvent| matches!(event, ScaleSetJobEvent::Completed { result, runner: None, .. } if result == "canceled");
    assert_eq!(third.events.iter().filter(|event| is_cancelled(event)).count(), JOBS);
    assert_eq!(third.statistics.unwrap().total_assigned_jobs, 0);
}

async fn capacity(scope: (&str, &str)) {
    let stage = Stage::new(scope).await;
    let session = stage.session().await;
    stage.offer("/never").await;
    assert_eq!(stage.client.next_message(&session, 0, 0).await.unwrap(), None);
    let message = stage.client.next_message(&session, 0, 2).await.unwrap().unwrap();
    assert_eq!((offered(&message).len(), message.statistics.unwrap().total_available_jobs), (2, 3));
}

async fn cancelled_jobs(scope: (&str, &str)) {
    let stage = Stage::new(scope).await;
    let session = stage.session().await;
    let run = stage.offer("/never").await;
    let requests = offered(&stage.next(&session, 0).await);
    stage.cancel(run).await;
    assert_eq!(stage.client.acquire_jobs(&session, &requests).await.unwrap(), [0; 0]);
    assert_eq!(stage.statistics(&session).await, nothing());
}

async fn runners_by_name(scope: (&str, &str)) {
    let stage = Stage::new(scope).await;
    let (client, set) = (&stage.client, stage.set.id);
    let first = client.register_runner(set, &runner("r")).await.unwrap();
    let second = client.register_runner(set, &runner("r")).await.unwrap();
    assert_ne!(first.runner_id, second.runner_id, "a lost answer may have left the first one");
    let other = NewScaleSet { name: "other".to_owned(), group_id: 1, labels: Vec::new() };
    let other = client.create_scale_set(&other).await.unwrap();
    let foreign = client.register_runner(other.id, &runner("r")).await;
    assert_eq!(fault(foreign), ServiceFault::RunnerExists, "a runner of another scale set is not removed");
    let found = client.find_runner("r").await.unwrap().unwrap();
    assert_eq!((found.id, found.runner_scale_set_id), (second.runner_id, Some(set)));
    let counted = stage.session().await.statistics().unwrap();
    assert_eq!((counted.total_registered_runners, counted.total_idle_runners), (1, 0));
    assert_eq!(client.remove_runner(second.runner_id).await.unwrap(), Deletion::Deleted);
    assert_eq!(client.remove_runner(second.runner_id).await.unwrap(), Deletion::Gone);
    assert_eq!(client.find_runner("r").await.unwrap(), None);
}

async fn set_that_is_gone(scope: (&str, &str)) {
    let stage = Stage::new(scope).await;
    let (client, set) = (&stage.client, stage.set.id);
    let mut listener = stage.listener();
    let ScaleSetUpdate::Ready(ready) = update(&mut listener).await else { panic!("it is not ready") };
    assert_eq!((ready.scale_set.id, ready.is_new), (set, false));
    assert_eq!(client.delete_scale_set(set).await.unwrap(), Deletion::Deleted);
    assert_eq!(client.delete_scale_set(set).await.unwrap(), Deletion::Gone);
    assert_eq!(fault(client.open_session(set, "host-1").await), ServiceFault::ScaleSetNotFound);
    assert_eq!(fault(client.register_runner(set, &runner("r")).await), ServiceFault::ScaleSetNotFound);
    // The listener says what happened, and creates the scale set again.
    let mut troubles = 0;
    let again = loop {
        match update(&mut listener).await {
            ScaleSetUpdate::Ready(ready) => break ready,
            ScaleSetUpdate::Trouble(_) => troubles += 1,
            ScaleSetUpdate::Demand(_) => {}
        }
    };
    assert_eq!((again.replaces, again.is_new, troubles), (Some(set), true, 1));
    listener.close().await.unwrap();
}

/// Starts a runner for each assigned job. All jobs run at once, then a busy runner cannot be removed, and all end.
async fn every_job_in_a_runner_of_its_own(scope: (&str, &str)) {
    let stage = Stage::new(scope).await;
    let app = tempfile::tempdir().unwrap();
    let release = app.path().join("go");
    stage.offer(release.to_str().unwrap()).await;
    let mut runners = Runners::new(app.path());
    let (mut listener, mut started, mut succeeded) = (stage.listener(), HashMap::new(), 0);
    while succeeded < JOBS {
        let demand = match update(&mut listener).await {
            ScaleSetUpdate::Demand(demand) => demand,
            ScaleSetUpdate::Ready(_) => continue,
            ScaleSetUpdate::Trouble(trouble) => panic!("{trouble}"),
        };
        let ScaleSetDemand { statistics, events, unread } = demand;
        assert_eq!(unread, Vec::<String>::new());
        while runners.len() < statistics.total_assigned_jobs as usize {
            let name = format!("r{}", runners.len());
            runners.start(stage.client.register_runner(stage.set.id, &runner(&name)).await.unwrap().config);
        }
        for event in events {
            match event {
                ScaleSetJobEvent::Started(job, by) => {
                    assert!(by.name.starts_with('r') && job.request_labels == ["set"], "{job:?}");
                    started.insert(job.runner_request_id, by);
                }
                ScaleSetJobEvent::Completed { job, result, runner } => {
                    assert_eq!(
                        (result.as_str(), runner.as_ref()),
                        ("succeeded", started.get(&job.runner_request_id))
                    );
                    succeeded += 1;
                }
                ScaleSetJobEvent::Available(_) | ScaleSetJobEvent::Assigned(_) => {}
            }
        }
        if started.len() == JOBS && !release.exists() {
            assert_eq!((statistics.total_running_jobs, statistics.total_busy_runners), (3, 3));
            let busy = started.values().next().unwrap().id;
            assert_eq!(stage.client.remove_runner(busy).await.unwrap(), Deletion::Busy);
            std::fs::write(&release, "").unwrap();
        }
    }
    assert_eq!(runners.len(), JOBS);
    assert_eq!(runners.ends().await, vec![Exit::Success; JOBS]);
    let left = async {
        while !matches!(update(&mut listener).await, ScaleSetUpdate::Demand(demand) if demand.statistics == nothing())
        {
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("the statistics are empty in the end");
    listener.close().await.unwrap();
}

#[tokio::test]
async fn dayflys_client_manages_the_scale_sets_of_a_repository() {
    play_all(("repo", "o/r")).await;
}

#[tokio::test]
async fn dayflys_client_manages_the_scale_sets_of_an_organisation() {
    play_all(("org", "o")).await;
}

#[tokio::test]
async fn dayflys_client_manages_the_scale_sets_of_an_enterprise() {
    play_all(("enterprise", "big")).await;
}

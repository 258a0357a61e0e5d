//! Failures that the listener of a scale set meets.

use std::time::Duration;

use dayfly_forge::scale_set::{
    ListenerTrouble, NewScaleSetRunner, ReadyScaleSet, ScaleSetClient, ScaleSetDemand, ScaleSetListener,
    ScaleSetSpec, ScaleSetUpdate, ServiceFault,
};
use dayfly_forge::{Deletion, ForgeError};

use super::{PATIENCE, Stage, scope};

/// The listener of the scale set "set", with room for three jobs.
struct Listening(ScaleSetListener);

impl Listening {
    fn new(client: ScaleSetClient) -> Self {
        let spec = ScaleSetSpec {
            name: "set".to_owned(),
            group: "Default".to_owned(),
            labels: Vec::new(),
            owner: "host-1".to_owned(),
        };
        Self(ScaleSetListener::new(client, spec))
    }

    /// Starts a listener, and waits for its session.
    async fn start(stage: &Stage) -> Self {
        let mut listening = Self::new(stage.scale_sets());
        listening.ready().await;
        listening.demand().await;
        listening
    }

    async fn next(&mut self) -> ScaleSetUpdate {
        let next = self.0.next(3, std::future::pending());
        tokio::time::timeout(PATIENCE, next).await.unwrap().expect("it was not stopped")
    }

    async fn ready(&mut self) -> ReadyScaleSet {
        match self.next().await {
            ScaleSetUpdate::Ready(ready) => ready,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the next value, which is a demand.
    async fn demand(&mut self) -> ScaleSetDemand {
        match self.next().await {
            ScaleSetUpdate::Demand(demand) => demand,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the first demand for which `wanted` is true. No trouble may come before it.
    async fn demand_with(&mut self, wanted: impl Fn(&ScaleSetDemand) -> bool) -> ScaleSetDemand {
        for _ in 0..50 {
            let demand = self.demand().await;
            if wanted(&demand) {
                return demand;
            }
        }
        panic!("the demand does not come");
    }

    /// Returns the next trouble.
    async fn trouble(&mut self) -> ListenerTrouble {
        for _ in 0..50 {
            if let ScaleSetUpdate::Trouble(trouble) = self.next().await {
                return trouble;
            }
        }
        panic!("no trouble comes");
    }
}

fn runner(name: &str) -> NewScaleSetRunner<'_> {
    NewScaleSetRunner { name, work_folder: "_work", runner_url: None }
}

#[tokio::test]
async fn a_session_of_another_is_waited_for() {
    let stage = Stage::new().await;
    stage.scale_set().await;
    stage.order("session-conflict,on=session,for=60s").await;
    let mut listening = Listening::new(stage.scale_sets());
    listening.ready().await;
    let trouble = listening.trouble().await;
    insta::assert_snapshot!(stage.shown(&trouble));
    assert!((27.0..=33.0).contains(&trouble.pause.as_secs_f64()), "{:?}", trouble.pause);
}

#[tokio::test]
async fn the_session_of_a_process_that_died_is_ended_before_the_next_one_is_opened() {
    let stage = Stage::new().await;
    stage.scale_set().await;
    let dead = Listening::start(&stage).await;
    let session = dead.0.session().expect("a session");
    drop(dead);
    let mut next = Listening::new(stage.scale_sets());
    next.0.end_first(session.clone());
    next.ready().await;
    next.demand().await;
    let own = next.0.session().expect("a session");
    assert_ne!(own, session);
    // A listener that knows only a session which is gone meets the usual refusal, and disturbs nothing.
    let mut late = Listening::new(stage.scale_sets());
    late.0.end_first(session);
    late.ready().await;
    late.trouble().await;
    assert_eq!(next.0.session(), Some(own));
}

#[tokio::test]
async fn a_scale_set_that_is_gone_is_created_again() {
    let stage = Stage::new().await;
    let set = stage.scale_set().await;
    let mut listening = Listening::start(&stage).await;
    stage.scale_sets().delete_scale_set(set.id).await.unwrap();
    let mut texts = Vec::new();
    let ready = loop {
        match listening.next().await {
            ScaleSetUpdate::Ready(ready) => break ready,
            ScaleSetUpdate::Trouble(trouble) => texts.push(stage.shown(&trouble)),
            ScaleSetUpdate::Demand(_) => {}
        }
    };
    assert_eq!((ready.is_new, ready.replaces), (true, Some(set.id)));
    texts.push(ready.to_string());
    let ids = [(set.id, "OLD"), (ready.scale_set.id, "NEW")];
    let text = ids.iter().fold(texts.join("\n"), |text, (id, word)| text.replace(&id.to_string(), word));
    insta::assert_snapshot!(text);
    listening.demand().await;
}

#[tokio::test]
async fn a_poll_without_a_whole_answer_is_no_message_and_the_counts_come_from_a_refresh() {
    let mut texts = Vec::new();
    for fault in ["truncate-reply", "empty-reply", "drop-reply"] {
        let stage = Stage::new().await;
        stage.scale_set().await;
        let mut listening = Listening::start(&stage).await;
        stage.order(&format!("{fault},on=message,count=1")).await;
        stage.dispatch().await;
        let trouble = listening.trouble().await;
        texts.push(format!("{fault}: {}", stage.shown(&trouble)));
        assert!(trouble.pause >= Duration::from_millis(500), "{:?}", trouble.pause);
        let demand = listening.demand().await;
        assert_eq!(stage.happened(fault).await, 1);
        // A dropped reply may be one without the job, which the next poll then brings.
        let has_job = |demand: &ScaleSetDemand| {
            demand.statistics.total_available_jobs + demand.statistics.total_assigned_jobs == 1
        };
        if !has_job(&demand) {
            listening.demand_with(has_job).await;
        }
    }
    insta::assert_snapshot!(texts.join("\n"));
}

#[tokio::test]
async fn the_token_of_a_queue_that_has_ended_is_renewed_without_a_word() {
    let stage = Stage::new().await;
    stage.scale_set().await;
    stage.order("queue-token-expiry,value=30,on=session,count=1").await;
    let mut listening = Listening::start(&stage).await;
    stage.count("refresh-session").await;
    stage.clock.advance(Duration::from_secs(31));
    stage.dispatch().await;
    listening.demand_with(|demand| demand.statistics.total_assigned_jobs == 1).await;
    assert_eq!(stage.counted().await, 1);
}

#[tokio::test]
async fn a_session_that_cannot_be_refreshed_is_replaced() {
    let stage = Stage::new().await;
    stage.scale_set().await;
    let mut listening = Listening::start(&stage).await;
    // The poll needs another token, and the refresh is refused with the service's new token too.
    stage.order("unauthorized,on=message,count=1").await;
    stage.order("unauthorized,on=refresh-session,count=2").await;
    let trouble = listening.trouble().await;
    insta::assert_snapshot!(stage.shown(&trouble));
    stage.dispatch().await;
    listening.demand_with(|demand| demand.statistics.total_assigned_jobs == 1).await;
}

#[tokio::test]
async fn a_message_that_was_not_deleted_does_not_count_twice() {
    let stage = Stage::new().await;
    stage.scale_set().await;
    let mut first = Listening::start(&stage).await;
    stage.dispatch().await;
    let told = first.demand_with(|demand| !demand.events.is_empty()).await;
    assert_eq!(told.statistics.total_available_jobs, 1);
    // The process dies, and the forge ends its session after a while.
    drop(first);
    stage.clock.advance(Duration::from_secs(241));
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut second = Listening::start(&stage).await;
    let again = second.demand_with(|demand| !demand.events.is_empty()).await;
    assert_eq!(again.statistics.total_available_jobs + again.statistics.total_assigned_jobs, 1);
    second.demand_with(|demand| demand.statistics.total_assigned_jobs == 1).await;
}

#[tokio::test]
async fn a_deletion_whose_reply_is_lost_does_not_bring_the_message_back() {
    let stage = Stage::new().await;
    stage.scale_set().await;
    let mut listening = Listening::start(&stage).await;
    stage.order("drop-reply,on=delete-message,count=1").await;
    let run = stage.dispatch().await;
    listening.demand_with(|demand| demand.statistics.total_assigned_jobs == 1).await;
    stage.admin.cancel_run("o", "r", run).await.unwrap();
    listening.demand_with(|demand| demand.statistics.total_assigned_jobs == 0).await;
    assert_eq!(stage.happened("drop-reply").await, 1);
}

#[tokio::test]
async fn a_stolen_job_leaves_the_counts() {
    let stage = Stage::new().await;
    stage.scale_set().await;
    let mut listening = Listening::start(&stage).await;
    stage.order("job-theft,value=60,count=1").await;
    stage.dispatch().await;
    listening.demand_with(|demand| demand.statistics.total_assigned_jobs == 1).await;
    stage.clock.advance(Duration::from_secs(61));
    listening.demand_with(|demand| demand.statistics.total_running_jobs == 1).await;
    stage.clock.advance(Duration::from_secs(6));
    listening.demand_with(|demand| demand.statistics.total_assigned_jobs == 0).await;
}

#[tokio::test]
async fn a_runner_whose_reply_was_lost_is_replaced_by_one_of_the_same_name() {
    let stage = Stage::new().await;
    let (set, client) = (stage.scale_set().await.id, stage.scale_sets());
    stage.order("drop-reply,on=generate-jitconfig,count=1").await;
    let error = client.register_runner(set, &runner("vm-1")).await.unwrap_err();
    insta::assert_snapshot!(stage.shown(&error).replace(&set.to_string(), "ID"));
    let left = client.find_runner("vm-1").await.unwrap().unwrap();
    let second = client.register_runner(set, &runner("vm-1")).await.unwrap();
    assert_ne!(second.runner_id, left.id);
    let all = stage.forge.list_runners(&scope()).await.unwrap();
    assert_eq!(all.iter().map(|runner| runner.id).collect::<Vec<_>>(), [second.runner_id]);
}

#[tokio::test]
async fn a_name_that_stays_taken_is_said() {
    let stage = Stage::new().await;
    let set = stage.scale_set().await.id;
    stage.order("name-conflict,on=service").await;
    let error = stage.scale_sets().register_runner(set, &runner("vm-1")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Service { fault: ServiceFault::RunnerExists, .. }), "{error:?}");
    insta::assert_snapshot!(stage.shown(&error).replace(&set.to_string(), "ID"));
    assert_eq!(stage.happened("name-conflict").await, 2);
}

#[tokio::test]
async fn a_busy_runner_is_kept_and_removed_later() {
    let stage = Stage::new().await;
    let (set, client) = (stage.scale_set().await.id, stage.scale_sets());
    let id = client.register_runner(set, &runner("vm-1")).await.unwrap().runner_id;
    stage.order("busy-delete,count=2").await;
    assert_eq!(client.remove_runner(id).await.unwrap(), Deletion::Busy);
    assert_eq!(stage.forge.delete_runner(&scope(), id).await.unwrap(), Deletion::Busy);
    assert_eq!(client.remove_runner(id).await.unwrap(), Deletion::Deleted);
}

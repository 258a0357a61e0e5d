//! A scale set as the source of a pool's demand, and as the place where its runners are registered.
//!
//! The number of runners follows from the number of assigned jobs alone. The messages about single jobs may be lost or come
//! twice, so they only name the runner that has a job.

mod family;
mod note;

use std::time::Duration;

use dayfly_forge::scale_set::{
    NewScaleSetRunner, RunnerOfJob, ScaleSetClient, ScaleSetDemand, ScaleSetJob, ScaleSetJobEvent,
    ScaleSetListener, ScaleSetSpec, ScaleSetUpdate,
};
use dayfly_forge::{ForgeError, NewRunner};
use tokio::sync::watch;

use crate::cause::Cause;
use crate::demand::{DemandEvent, JobDetails, PoolDemandSender};
use crate::fact::{Fact, Moment};
use crate::job_end::{JobConclusion, JobEnd};
use crate::stop::{Stop, StopOrder};
use crate::stream::FactWriter;
use family::FamilyMember;
pub use family::ScaleSetFamily;
pub use note::SessionNote;

/// Longest wait of a runner for the scale set that it is registered in. The listener needs a few calls for it.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The word for this source in facts.
pub(super) const SCALE_SET: &str = "scale set";

/// A scale set that feeds a pool.
#[derive(Debug)]
pub struct ScaleSetSource {
    listener: ScaleSetListener,
    note: SessionNote,
    /// The most jobs that the pool may have at once, with those of its sizes.
    max: watch::Receiver<u32>,
    member: FamilyMember,
    id: watch::Sender<Option<u64>>,
}

/// Registers the runners of a pool in its scale set.
#[derive(Debug, Clone)]
pub struct ScaleSetRegistrar {
    client: ScaleSetClient,
    name: String,
    id: watch::Receiver<Option<u64>>,
}

/// The reason why a runner is not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The listener has not found or created the scale set yet.
    #[error("the scale set \"{name}\" is not ready after {} s; the forge's answer to its listener is in the log", limit.as_secs())]
    NotReady {
        /// Its name.
        name: String,
        /// The time that was waited.
        limit: Duration,
    },
    /// The forge has refused the runner.
    #[error(transparent)]
    Forge(#[from] ForgeError),
}

impl RegisterError {
    /// Returns true if another attempt may succeed.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::NotReady { .. } => true,
            Self::Forge(error) => error.is_temporary(),
        }
    }

    /// Returns true if the forge has another runner of the same name.
    pub(crate) fn is_taken_name(&self) -> bool {
        matches!(self, Self::Forge(error) if error.is_taken_name())
    }
}

/// Creates the source and the registrar of a pool of a family that has at most `max` jobs at once, which may change. Neither
/// sends anything yet. `note` names the session of a process that died, if there is one.
pub fn scale_set(
    client: ScaleSetClient,
    spec: ScaleSetSpec,
    (max, family): (watch::Receiver<u32>, &ScaleSetFamily),
    note: SessionNote,
) -> (ScaleSetSource, ScaleSetRegistrar) {
    let (sender, id) = watch::channel(None);
    let registrar = ScaleSetRegistrar { client: client.clone(), name: spec.name.clone(), id };
    let member = family.member(&spec.name);
    let listener = ScaleSetListener::new(client, spec);
    (ScaleSetSource { listener, note, max, member, id: sender }, registrar)
}

impl ScaleSetSource {
    /// Passes the demand on until a stop order, and ends the session.
    pub(super) async fn run(&mut self, demand: &PoolDemandSender, facts: &mut FactWriter, mut stop: Stop) {
        // Read only now, because the note of a source before this one is gone once that source has ended.
        if self.listener.session().is_none() {
            match self.note.read() {
                Ok(abandoned) => abandoned.into_iter().for_each(|session| self.listener.end_first(session)),
                Err(problem) => facts.tell(fact(problem, true)).await,
            }
        }
        let mut is_lost = false;
        loop {
            let max = *self.max.borrow_and_update();
            let capacity = self.member.capacity(max);
            let interrupted = async {
                tokio::select! {
                    _ = stop.above(StopOrder::None) => {}
                    Ok(()) = self.max.changed() => {}
                    () = self.member.capacity_changes_from(capacity, max) => {}
                }
            };
            let update = self.listener.next(capacity, interrupted).await;
            self.note.keep(self.listener.session());
            let update = match update {
                Some(update) => update,
                None if stop.order() == StopOrder::None => continue,
                None => break,
            };
            let is_trouble = matches!(update, ScaleSetUpdate::Trouble(_));
            if std::mem::replace(&mut is_lost, is_trouble) && !is_trouble {
                facts.tell(Fact::ForgeBack { source: SCALE_SET.to_owned() }).await;
            }
            match update {
                ScaleSetUpdate::Ready(ready) => {
                    self.id.send_replace(Some(ready.scale_set.id));
                    let is_whole = ready.missing_labels.is_empty();
                    facts.tell(fact(ready.to_string(), !is_whole)).await;
                }
                ScaleSetUpdate::Demand(news) => {
                    self.member.note(news.statistics.total_assigned_jobs);
                    events(&news).for_each(|event| demand.send(event));
                    for unread in news.unread {
                        facts.tell(fact(unread, true)).await;
                    }
                }
                ScaleSetUpdate::Trouble(trouble) => {
                    let (source, cause) =
                        (SCALE_SET.to_owned(), Cause::of_forge(&trouble.error, Moment::now()));
                    facts.tell(Fact::ForgeLost { source, cause, message: trouble.error.to_string() }).await;
                    facts.tell(fact(trouble.to_string(), true)).await;
                }
            }
        }
        match self.listener.close().await {
            Ok(()) => self.note.keep(None),
            Err(error) => facts.tell(fact(error.to_string(), true)).await,
        }
    }
}

fn fact(message: String, is_trouble: bool) -> Fact {
    let source = SCALE_SET.to_owned();
    if is_trouble { Fact::SourceTrouble { source, message } } else { Fact::SourceReady { source, message } }
}

/// Returns the changes of a pool's demand.
fn events(news: &ScaleSetDemand) -> impl Iterator<Item = DemandEvent> {
    let assigned = DemandEvent::Assigned { jobs: news.statistics.total_assigned_jobs };
    // A runner that has its job counts as busy before the jobs are counted.
    let of_jobs = news.events.iter().flat_map(|news| described(news).into_iter().chain(event(news)));
    of_jobs.chain([assigned])
}

/// Returns what an event says about its job. A job that is only offered may go to another scale set, and a job that has ended
/// needs no details.
fn described(event: &ScaleSetJobEvent) -> Option<DemandEvent> {
    let (job, waits) = match event {
        ScaleSetJobEvent::Available(_) | ScaleSetJobEvent::Completed { .. } => return None,
        ScaleSetJobEvent::Assigned(job) => (job, true),
        ScaleSetJobEvent::Started(job, _) => (job, false),
    };
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let (owner, name) = (&job.owner_name, &job.repository_name);
    Some(DemandEvent::Described(JobDetails {
        job: id_of(job),
        name: text(&job.job_display_name),
        repository: text(name).map(|name| if owner.is_empty() { name } else { format!("{owner}/{name}") }),
        workflow: text(&job.job_workflow_ref),
        labels: job.request_labels.clone(),
        queued_ms: job.queue_time.and_then(|time| u64::try_from(time.as_millisecond()).ok()),
        waits,
    }))
}

fn event(event: &ScaleSetJobEvent) -> Option<DemandEvent> {
    match event {
        // The number of assigned jobs says both.
        ScaleSetJobEvent::Available(_) | ScaleSetJobEvent::Assigned(_) => None,
        ScaleSetJobEvent::Started(job, runner) => {
            Some(DemandEvent::Taken { job: id_of(job), runner: runner.name.clone() })
        }
        ScaleSetJobEvent::Completed { job, result, runner } => Some(completed(job, result, runner.as_ref())),
    }
}

fn completed(job: &ScaleSetJob, result: &str, runner: Option<&RunnerOfJob>) -> DemandEvent {
    match (conclusion(result), runner) {
        (Some(conclusion), Some(runner)) => DemandEvent::Ended(JobEnd {
            job: id_of(job),
            name: job.job_display_name.clone(),
            runner: runner.name.clone(),
            conclusion,
            annotations: Vec::new(),
        }),
        _ => DemandEvent::Settled { job: id_of(job) },
    }
}

/// Returns the id that tells the events of one request for a runner from those of others.
fn id_of(job: &ScaleSetJob) -> u64 {
    job.runner_request_id.unsigned_abs()
}

/// Returns the conclusion for a result; none for a word that is not known.
fn conclusion(result: &str) -> Option<JobConclusion> {
    Some(match result.to_ascii_lowercase().as_str() {
        "succeeded" | "succeededwithissues" => JobConclusion::Success,
        "failed" | "abandoned" => JobConclusion::Failure,
        "canceled" | "cancelled" => JobConclusion::Cancelled,
        "skipped" => JobConclusion::Skipped,
        _ => return None,
    })
}

impl ScaleSetRegistrar {
    /// Registers a runner, once its scale set is ready. `runner_url` is the address at which the runner reaches a lab.
    ///
    /// # Errors
    /// The scale set is not ready within a minute, or the forge refuses.
    pub(crate) async fn register(
        &self,
        name: &str,
        runner_url: Option<&str>,
    ) -> Result<NewRunner, RegisterError> {
        let mut id = self.id.clone();
        let ready = tokio::time::timeout(READY_LIMIT, id.wait_for(Option::is_some)).await;
        let scale_set = ready.ok().and_then(|ready| *ready.ok()?);
        let not_ready = || RegisterError::NotReady { name: self.name.clone(), limit: READY_LIMIT };
        let scale_set = scale_set.ok_or_else(not_ready)?;
        let runner = NewScaleSetRunner { name, work_folder: "_work", runner_url };
        Ok(self.client.register_runner(scale_set, &runner).await?)
    }
}

#[cfg(test)]
mod tests {
    use dayfly_forge::scale_set::ScaleSetStatistics;

    use super::*;

    fn job(request: i64) -> ScaleSetJob {
        serde_json::from_value(serde_json::json!({"runnerRequestId": request, "jobDisplayName": "build"}))
            .expect("a job")
    }

    fn runner() -> RunnerOfJob {
        RunnerOfJob { id: 5, name: "p-1-aaaaaaa".to_owned() }
    }

    #[test]
    fn only_the_number_of_assigned_jobs_asks_for_runners() {
        let statistics: ScaleSetStatistics =
            serde_json::from_value(serde_json::json!({"totalAssignedJobs": 7})).expect("statistics");
        let news = vec![
            ScaleSetJobEvent::Available(job(1)),
            ScaleSetJobEvent::Assigned(job(2)),
            ScaleSetJobEvent::Started(job(3), runner()),
            ScaleSetJobEvent::Completed { job: job(4), result: "canceled".to_owned(), runner: None },
        ];
        let demand = ScaleSetDemand { statistics, events: news, unread: Vec::new() };
        let details = |job, waits| {
            let name = Some("build".to_owned());
            DemandEvent::Described(JobDetails { job, name, waits, ..JobDetails::default() })
        };
        let expected = [
            details(2, true),
            details(3, false),
            DemandEvent::Taken { job: 3, runner: runner().name },
            DemandEvent::Settled { job: 4 },
            DemandEvent::Assigned { jobs: 7 },
        ];
        assert_eq!(events(&demand).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_end_of_a_job_is_told_in_the_forges_words_and_an_unknown_word_settles_it() {
        let end = |result: &str| completed(&job(1), result, Some(&runner()));
        for (result, expected) in [
            ("succeeded", JobConclusion::Success),
            ("Failed", JobConclusion::Failure),
            ("abandoned", JobConclusion::Failure),
            ("canceled", JobConclusion::Cancelled),
            ("skipped", JobConclusion::Skipped),
        ] {
            let DemandEvent::Ended(end) = end(result) else { panic!("{result} is not an end") };
            assert_eq!((end.conclusion, end.name.as_str()), (expected, "build"), "{result}");
        }
        assert_eq!(end("eaten"), DemandEvent::Settled { job: 1 });
    }
}

//! The lists of a repository's jobs as a source of a pool's demand. It also finds the jobs that another source has missed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use dayfly_forge::{GithubJob, OpenJobs};
use dayfly_host::retry::RUNNER;
use rand::RngExt as _;
use tokio::sync::mpsc;

use crate::cause::Cause;
use crate::demand::labels::PoolLabels;
use crate::demand::{DemandEvent, JobDemand, JobDetails, PoolDemandSender};
use crate::fact::{Fact, Moment};
use crate::job_end::JobEnd;
use crate::stop::{Stop, StopOrder};
use crate::stream::FactWriter;

/// Time between two looks. A look whose answers have not changed costs nothing of the rate limit.
const PACE: Duration = Duration::from_secs(15);
/// The word for this source in facts.
pub(super) const POLL: &str = "poll";

/// A repository whose jobs feed a pool.
#[derive(Debug)]
pub struct PollSource {
    jobs: OpenJobs,
    fold: JobFold,
    /// The changes that another source of the pool has reported.
    reported: Option<mpsc::Receiver<DemandEvent>>,
}

impl PollSource {
    /// Creates a source for the jobs that a runner with these labels can run.
    pub fn new(jobs: OpenJobs, labels: PoolLabels) -> Self {
        Self { jobs, fold: JobFold::new(labels), reported: None }
    }

    /// Also checks the jobs that another source of the pool has reported: one that is not in the lists is settled.
    pub fn checking(mut self, reported: mpsc::Receiver<DemandEvent>) -> Self {
        self.reported = Some(reported);
        self
    }

    /// Passes changes on until a stop order.
    pub(super) async fn run(&mut self, demand: &PoolDemandSender, facts: &mut FactWriter, mut stop: Stop) {
        let mut failures = 0;
        let mut is_told = false;
        loop {
            let reported =
                self.reported.iter_mut().flat_map(|reported| std::iter::from_fn(|| reported.try_recv().ok()));
            self.fold.learn(reported);
            let looked = tokio::select! {
                biased;
                _ = stop.above(StopOrder::None) => return,
                looked = self.jobs.look() => looked,
            };
            let pause = match looked {
                Ok(jobs) => {
                    for event in self.fold.changes(&jobs) {
                        described(&event, &jobs, self.jobs.repository())
                            .into_iter()
                            .for_each(|event| demand.send(event));
                        demand.send(event);
                    }
                    for message in self.fold.mistakes(&jobs) {
                        facts.tell(Fact::SourceTrouble { source: POLL.to_owned(), message }).await;
                    }
                    if failures > 0 {
                        facts.tell(Fact::ForgeBack { source: POLL.to_owned() }).await;
                    }
                    if failures > 0 || !is_told {
                        let message = format!("reads the jobs every {} s", PACE.as_secs());
                        facts.tell(Fact::SourceReady { source: POLL.to_owned(), message }).await;
                    }
                    (failures, is_told) = (0, true);
                    PACE
                }
                Err(error) => {
                    failures += 1;
                    let pause = RUNNER.pause_after(failures).unwrap_or(RUNNER.limit).max(PACE);
                    let (source, cause) = (POLL.to_owned(), Cause::of_forge(&error, Moment::now()));
                    facts.tell(Fact::ForgeLost { source, cause, message: error.to_string() }).await;
                    let message = format!("{error}; next look in {} s", pause.as_secs());
                    facts.tell(Fact::SourceTrouble { source: POLL.to_owned(), message }).await;
                    pause
                }
            };
            // Many pools that start together must not ask together for ever.
            let spread = rand::rng().random_range(0.9..1.1);
            tokio::select! {
                _ = stop.above(StopOrder::None) => return,
                () = tokio::time::sleep(pause.mul_f64(spread)) => {}
            }
        }
    }
}

/// The jobs of the last look that concern a pool. Pure.
#[derive(Debug)]
struct JobFold {
    labels: PoolLabels,
    /// The open jobs, each with the name of its runner if it has one.
    known: HashMap<u64, Option<String>>,
    /// The jobs that another source has reported since the last look began, each with the name of its runner. The lists may
    /// lack them for a moment, so they count as known one look later.
    learned: HashMap<u64, Option<String>>,
    /// The open jobs whose labels were said to be a mistake.
    mistaken: HashSet<u64>,
}

impl JobFold {
    fn new(labels: PoolLabels) -> Self {
        Self { labels, known: HashMap::new(), learned: HashMap::new(), mistaken: HashSet::new() }
    }

    /// Takes in all open jobs. Returns a text about each new one that can never have a runner of the pool, although it asks for
    /// its size.
    fn mistakes(&mut self, open: &[GithubJob]) -> Vec<String> {
        let waiting = open.iter().filter(|job| job.status == "queued");
        let all = waiting.filter_map(|job| Some((job.id, self.labels.mistake(job.id, &job.labels)?)));
        let all: HashMap<u64, String> = all.collect();
        let before = std::mem::replace(&mut self.mistaken, all.keys().copied().collect());
        all.into_iter().filter(|(job, _)| !before.contains(job)).map(|(_, message)| message).collect()
    }

    /// Takes in what another source has reported, before a look begins.
    fn learn(&mut self, reported: impl Iterator<Item = DemandEvent>) {
        for (job, runner) in self.learned.drain() {
            self.known.entry(job).or_insert(runner);
        }
        for event in reported {
            match event {
                DemandEvent::Queued(demand) => {
                    self.learned.insert(demand.job, None);
                }
                DemandEvent::Taken { job, runner } => {
                    self.learned.insert(job, Some(runner));
                }
                DemandEvent::Ended(JobEnd { job, .. }) | DemandEvent::Settled { job } => {
                    self.learned.remove(&job);
                    self.known.remove(&job);
                }
                DemandEvent::Described(_)
                | DemandEvent::Assigned { .. }
                | DemandEvent::MinIdle(_)
                | DemandEvent::Closed => {}
            }
        }
    }

    /// Takes in all open jobs. Returns the changes since the last look.
    fn changes(&mut self, open: &[GithubJob]) -> Vec<DemandEvent> {
        let mut events = Vec::new();
        let mut known = HashMap::new();
        for job in open.iter().filter(|job| self.labels.fit(&job.labels)) {
            let runner =
                job.runner_name.clone().filter(|name| job.status == "in_progress" && !name.is_empty());
            let before = self.known.get(&job.id);
            match &runner {
                None if before != Some(&None) => events.push(DemandEvent::Queued(demand(job))),
                Some(name) if before != Some(&runner) => {
                    events.push(DemandEvent::Taken { job: job.id, runner: name.clone() });
                }
                _ => {}
            }
            known.insert(job.id, runner);
        }
        let gone = self.known.keys().filter(|job| !known.contains_key(job));
        events.extend(gone.map(|&job| DemandEvent::Settled { job }));
        self.known = known;
        events
    }
}

/// Returns what the lists say about the job of an event.
fn described(event: &DemandEvent, open: &[GithubJob], repository: String) -> Option<DemandEvent> {
    let id = match event {
        DemandEvent::Queued(demand) => demand.job,
        DemandEvent::Taken { job, .. } => *job,
        _ => return None,
    };
    let job = open.iter().find(|job| job.id == id)?;
    Some(DemandEvent::Described(JobDetails {
        job: id,
        name: Some(job.name.clone()),
        repository: Some(repository),
        workflow: job.workflow_name.clone(),
        labels: job.labels.clone(),
        queued_ms: job.queued_ms(),
        waits: false,
    }))
}

fn demand(job: &GithubJob) -> JobDemand {
    // The list does not name the group, and all runners of a scaled pool are alike.
    JobDemand { job: job.id, labels: job.labels.clone(), group: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: u64, status: &str, labels: &[&str], runner: Option<&str>) -> GithubJob {
        let job = serde_json::json!({
            "id": id, "run_id": 1, "name": "a", "status": status, "conclusion": null,
            "labels": labels, "runner_name": runner,
        });
        serde_json::from_value(job).expect("a job")
    }

    fn fold() -> JobFold {
        let labels = ["self-hosted", "Linux", "build"].map(str::to_owned).to_vec();
        JobFold::new(PoolLabels::of_pool(labels))
    }

    fn queued(id: u64, labels: &[&str]) -> DemandEvent {
        DemandEvent::Queued(demand(&job(id, "queued", labels, None)))
    }

    #[test]
    fn each_change_is_told_once() {
        let mut fold = fold();
        let waiting = job(1, "queued", &["self-hosted", "BUILD"], Some(""));
        assert_eq!(fold.changes(std::slice::from_ref(&waiting)), [queued(1, &["self-hosted", "BUILD"])]);
        assert_eq!(fold.changes(&[waiting]), []);
        let running = job(1, "in_progress", &["self-hosted", "BUILD"], Some("p-1-aaaaaaa"));
        let taken = DemandEvent::Taken { job: 1, runner: "p-1-aaaaaaa".to_owned() };
        assert_eq!(fold.changes(std::slice::from_ref(&running)), [taken]);
        assert_eq!(fold.changes(&[running]), []);
        assert_eq!(fold.changes(&[]), [DemandEvent::Settled { job: 1 }]);
        assert_eq!(fold.changes(&[]), []);
    }

    #[test]
    fn a_change_comes_with_what_the_lists_say_about_its_job() {
        let mut open = job(1, "queued", &["build"], None);
        open.workflow_name = Some("ci".to_owned());
        open.created_at = Some("1970-01-01T00:00:05Z".to_owned());
        let event = queued(1, &["build"]);
        let Some(DemandEvent::Described(details)) = described(&event, &[open.clone()], "o/r".to_owned())
        else {
            panic!("nothing is said")
        };
        assert_eq!((details.name.as_deref(), details.workflow.as_deref()), (Some("a"), Some("ci")));
        assert_eq!(
            (details.repository.as_deref(), details.queued_ms, details.waits),
            (Some("o/r"), Some(5000), false)
        );
        open.created_at = Some("soon".to_owned());
        assert_eq!(open.queued_ms(), None, "a time that is none hides nothing else");
        assert_eq!(described(&DemandEvent::Settled { job: 1 }, &[open], "o/r".to_owned()), None);
    }

    #[test]
    fn a_job_that_asks_for_a_size_and_for_more_is_said_once() {
        let mut fold = JobFold::new(PoolLabels::of_size(vec!["dayfly-4cpu-8gb".to_owned()]));
        let wrong = [job(1, "queued", &["self-hosted", "dayfly-4cpu-8gb"], None)];
        assert_eq!(fold.changes(&wrong), []);
        assert_eq!((fold.mistakes(&wrong).len(), fold.mistakes(&wrong).len()), (1, 0));
        let right = [job(2, "queued", &["dayfly-4cpu-8gb"], None)];
        assert_eq!(fold.changes(&right), [queued(2, &["dayfly-4cpu-8gb"])]);
        assert!(fold.mistakes(&right).is_empty());
    }

    #[test]
    fn a_job_that_the_forge_queues_again_waits_again() {
        let mut fold = fold();
        fold.changes(&[job(1, "in_progress", &["build"], Some("p-1-aaaaaaa"))]);
        assert_eq!(fold.changes(&[job(1, "queued", &["build"], None)]), [queued(1, &["build"])]);
    }

    #[test]
    fn a_job_that_another_source_has_reported_is_settled_if_two_looks_do_not_find_it() {
        let mut fold = fold();
        fold.learn([queued(1, &["build"]), queued(2, &["build"])].into_iter());
        assert_eq!(fold.changes(&[]), [], "the lists may lack it for a moment");
        fold.learn(std::iter::empty());
        let waiting = job(2, "queued", &["build"], None);
        assert_eq!(fold.changes(std::slice::from_ref(&waiting)), [DemandEvent::Settled { job: 1 }]);
        fold.learn([DemandEvent::Settled { job: 2 }, queued(3, &["build"])].into_iter());
        fold.learn([DemandEvent::Settled { job: 3 }].into_iter());
        assert_eq!(fold.changes(&[]), [], "both are settled already");
    }

    #[test]
    fn jobs_that_other_runners_are_for_are_no_demand() {
        let mut fold = fold();
        let others = [
            job(1, "queued", &["build", "gpu"], None),
            job(2, "queued", &["ubuntu-latest"], None),
            job(3, "queued", &[], None),
        ];
        assert_eq!(fold.changes(&others), []);
    }
}

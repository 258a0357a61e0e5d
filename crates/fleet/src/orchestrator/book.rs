//! The jobs that an orchestrator knows, with what their sources have told of them. Pure: time is passed in.

use std::collections::{HashMap, VecDeque};

use crate::demand::{DemandEvent, JobDetails};
use crate::fact::SeenJob;

/// Most jobs that are remembered. The first one that does not wait goes first; if all of them wait, further ones are not remembered.
const JOBS_MAX: usize = 10_000;

/// The news about a job in a change of the demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobNews {
    /// The job waits for a runner of the pool, and was not seen before.
    Seen(SeenJob),
    /// A runner has the job.
    Taken {
        /// The job.
        job: SeenJob,
        /// Name of the runner.
        runner: String,
    },
    /// The job does not wait any more, and no runner that is known has it.
    Left(u64),
}

/// The jobs of all pools, by the pool's number and the job's id.
#[derive(Debug, Default)]
pub(super) struct JobBook {
    jobs: HashMap<(u32, u64), Page>,
    order: VecDeque<(u32, u64)>,
}

/// A job.
#[derive(Debug, Clone)]
struct Page {
    job: SeenJob,
    waits: bool,
}

impl JobBook {
    /// Takes in a change of a pool's demand. Returns what it says about a job, if that is new.
    pub(super) fn take(&mut self, pool: u32, event: &DemandEvent, now_ms: u64) -> Option<JobNews> {
        match event {
            DemandEvent::Described(details) => {
                let page = self.page((pool, details.job))?;
                describe(&mut page.job, details);
                if details.waits { self.waits((pool, details.job), now_ms) } else { None }
            }
            DemandEvent::Queued(demand) => {
                let page = self.page((pool, demand.job))?;
                page.job.labels.clone_from(&demand.labels);
                self.waits((pool, demand.job), now_ms)
            }
            DemandEvent::Taken { job, runner } => {
                let page = self.page((pool, *job))?;
                page.waits = false;
                Some(JobNews::Taken { job: page.job.clone(), runner: runner.clone() })
            }
            DemandEvent::Settled { job } => self.left((pool, *job)),
            DemandEvent::Ended(end) => self.left((pool, end.job)),
            DemandEvent::Assigned { .. } | DemandEvent::MinIdle(_) | DemandEvent::Closed => None,
        }
    }

    fn waits(&mut self, key: (u32, u64), now_ms: u64) -> Option<JobNews> {
        let page = self.page(key)?;
        if std::mem::replace(&mut page.waits, true) {
            return None;
        }
        // A job that the forge queues again was seen when it was first queued.
        page.job.seen_ms.get_or_insert(now_ms);
        Some(JobNews::Seen(page.job.clone()))
    }

    /// Forgets a job that is over.
    fn left(&mut self, key: (u32, u64)) -> Option<JobNews> {
        let page = self.jobs.remove(&key)?;
        self.order.retain(|other| *other != key);
        page.waits.then_some(JobNews::Left(key.1))
    }

    /// Returns the page of a job, a new one if there is none; none if there is no room.
    fn page(&mut self, key: (u32, u64)) -> Option<&mut Page> {
        if !self.jobs.contains_key(&key) {
            if self.order.len() >= JOBS_MAX {
                let at =
                    self.order.iter().position(|key| self.jobs.get(key).is_none_or(|page| !page.waits))?;
                let gone = self.order.remove(at)?;
                self.jobs.remove(&gone);
            }
            self.order.push_back(key);
        }
        let new = || Page { job: SeenJob { id: key.1, ..SeenJob::default() }, waits: false };
        Some(self.jobs.entry(key).or_insert_with(new))
    }
}

/// Adds what a source tells. A source that does not know a detail leaves what another one has told.
fn describe(job: &mut SeenJob, details: &JobDetails) {
    let JobDetails { job: _, name, repository, workflow, labels, queued_ms, waits: _ } = details;
    for (own, told) in
        [(&mut job.name, name), (&mut job.repository, repository), (&mut job.workflow, workflow)]
    {
        if told.is_some() {
            own.clone_from(told);
        }
    }
    if !labels.is_empty() {
        job.labels.clone_from(labels);
    }
    job.queued_ms = job.queued_ms.or(*queued_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::JobDemand;

    fn queued(job: u64) -> DemandEvent {
        DemandEvent::Queued(JobDemand { job, labels: vec!["a".to_owned()], group: 1 })
    }

    fn described(job: u64, waits: bool) -> DemandEvent {
        let name = Some("build".to_owned());
        let repository = Some("o/r".to_owned());
        DemandEvent::Described(JobDetails {
            job,
            name,
            repository,
            waits,
            queued_ms: Some(5),
            ..JobDetails::default()
        })
    }

    fn taken(job: u64) -> DemandEvent {
        DemandEvent::Taken { job, runner: "p-1-aaaaaaa".to_owned() }
    }

    #[test]
    fn a_job_is_seen_once_with_what_its_source_has_told_and_taken_with_the_same() {
        let mut book = JobBook::default();
        assert_eq!(book.take(0, &described(7, false), 10), None);
        let Some(JobNews::Seen(seen)) = book.take(0, &queued(7), 11) else { panic!("not seen") };
        assert_eq!(
            (seen.id, seen.name.as_deref(), seen.seen_ms, seen.queued_ms),
            (7, Some("build"), Some(11), Some(5))
        );
        assert_eq!(seen.labels, ["a"]);
        assert_eq!(book.take(0, &queued(7), 12), None);
        let runner = "p-1-aaaaaaa".to_owned();
        assert_eq!(book.take(0, &taken(7), 13), Some(JobNews::Taken { job: seen, runner }));
        assert_eq!(book.take(0, &DemandEvent::Settled { job: 7 }, 14), None, "it did not wait");
        assert!(book.jobs.is_empty() && book.order.is_empty());
    }

    #[test]
    fn a_job_of_a_scale_set_waits_from_its_description_on() {
        let mut book = JobBook::default();
        assert!(matches!(book.take(0, &described(7, true), 1), Some(JobNews::Seen(_))));
        assert_eq!(book.take(0, &described(7, true), 2), None);
        assert_eq!(book.take(0, &DemandEvent::Settled { job: 7 }, 3), Some(JobNews::Left(7)));
    }

    #[test]
    fn a_job_that_waits_again_was_seen_at_its_first_time() {
        let mut book = JobBook::default();
        book.take(0, &queued(7), 1);
        book.take(0, &taken(7), 2);
        let Some(JobNews::Seen(seen)) = book.take(0, &queued(7), 3) else { panic!("it waits again") };
        assert_eq!(seen.seen_ms, Some(1));
    }

    #[test]
    fn pools_do_not_share_jobs_and_the_book_has_a_bound() {
        let mut book = JobBook::default();
        book.take(0, &queued(7), 1);
        assert!(matches!(book.take(1, &queued(7), 2), Some(JobNews::Seen(_))));
        book.take(1, &taken(7), 3);
        (0..JOBS_MAX as u64 + 100).for_each(|job| drop(book.take(2, &queued(job), 4)));
        assert_eq!((book.jobs.len(), book.order.len()), (JOBS_MAX, JOBS_MAX));
        assert!(book.jobs.contains_key(&(0, 7)) && !book.jobs.contains_key(&(1, 7)), "one that waits stays");
    }
}

//! The labels of metrics, and the bounds of their number. Pure.

use std::collections::HashSet;

use dayfly_fleet::cause::Cause;
use dayfly_fleet::fact::{OverHow, SeenJob};
use dayfly_fleet::job_end::JobConclusion;
use dayfly_fleet::orchestrator::{Scarce, Wait};
use dayfly_forge::RunnerScope;
use dayfly_guest::runner_app::JobResult;

use crate::publish::PoolEntry;

/// Labels of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Longest value that comes from a forge or a guest, characters.
const VALUE_LENGTH_MAX: usize = 100;
/// Most repositories that are told apart in each pool's histograms, which have some fifty lines for each.
const REPOSITORIES_MAX: usize = 24;
/// Most jobs that are told apart in counters.
const JOBS_MAX: usize = 200;
/// The value for everything beyond these bounds.
pub(super) const OTHER: &str = "other";

/// The place of a job: the owner and the name of its repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct JobPlace {
    enterprise: String,
    owner: String,
    repository: String,
}

/// Returns the place of a job of a pool, as far as it is known.
pub(super) fn place_of(job: Option<&SeenJob>, pool: Option<&PoolEntry>) -> JobPlace {
    let (enterprise, owner, repository) = pool.map(|pool| scope_of(&pool.scope)).unwrap_or_default();
    let told = job.and_then(|job| job.repository.as_deref()).and_then(|name| name.split_once('/'));
    let (owner, repository) = told.unwrap_or((owner, repository));
    JobPlace { enterprise: shortened(enterprise), owner: shortened(owner), repository: shortened(repository) }
}

/// Returns the name that Actions Runner Controller has for a pool: that of its scale set, if it has one.
pub(super) fn scale_set_name<'a>(pool: &'a str, entry: Option<&'a PoolEntry>) -> &'a str {
    entry.and_then(|entry| entry.scale_set.as_deref()).unwrap_or(pool)
}

/// Returns the enterprise, the organisation and the repository of a scope; empty if it has none.
pub(super) fn scope_of(scope: &RunnerScope) -> (&str, &str, &str) {
    match scope {
        RunnerScope::Repository { owner, name } => ("", owner, name),
        RunnerScope::Organization(name) => ("", name, ""),
        RunnerScope::Enterprise(name) => (name, "", ""),
    }
}

/// The labels of jobs, which come from a forge. Only so many are told apart.
#[derive(Debug, Default)]
pub(super) struct JobLabels {
    places: HashSet<JobPlace>,
    jobs: HashSet<(JobPlace, String)>,
}

impl JobLabels {
    /// Returns the labels of a job's histograms.
    pub(super) fn of_place(&mut self, pool: &str, place: &JobPlace) -> Labels {
        let is_told = is_admitted(&mut self.places, place, REPOSITORIES_MAX);
        let JobPlace { enterprise, owner, repository } = place.clone();
        let (owner, repository) =
            if is_told { (owner, repository) } else { (OTHER.to_owned(), OTHER.to_owned()) };
        vec![
            ("name", pool.to_owned()),
            ("enterprise", enterprise),
            ("organization", owner),
            ("repository", repository),
        ]
    }

    /// Returns the labels of a job's counters.
    pub(super) fn of_job(&mut self, pool: &str, place: &JobPlace, job: &str) -> Labels {
        let mut labels = self.of_place(pool, place);
        let job = shortened(job);
        let is_told = is_admitted(&mut self.jobs, &(place.clone(), job.clone()), JOBS_MAX);
        labels.push(("job_name", if is_told { job } else { OTHER.to_owned() }));
        labels
    }
}

/// Returns true if a value is told apart from others, and remembers it if there is room.
fn is_admitted<T: Clone + Eq + std::hash::Hash>(known: &mut HashSet<T>, value: &T, max: usize) -> bool {
    known.contains(value) || (known.len() < max && known.insert(value.clone()))
}

/// Returns a text of bounded length without control characters.
pub(super) fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(VALUE_LENGTH_MAX).collect()
}

/// Returns the word for a result, as the runner service of GitHub and so Actions Runner Controller writes it.
pub(super) fn result_word(result: JobResult) -> &'static str {
    match result {
        JobResult::Succeeded | JobResult::SucceededWithIssues => "succeeded",
        JobResult::Failed => "failed",
        JobResult::Canceled => "canceled",
        JobResult::Skipped => "skipped",
        JobResult::Abandoned => "abandoned",
    }
}

/// Returns the same word for a conclusion.
pub(super) fn conclusion_word(conclusion: JobConclusion) -> &'static str {
    match conclusion {
        JobConclusion::Success => "succeeded",
        JobConclusion::Failure => "failed",
        JobConclusion::Cancelled => "canceled",
        JobConclusion::Skipped => "skipped",
    }
}

/// Returns the word for the reason of a wait.
pub(super) fn wait_word(wait: Wait) -> &'static str {
    match wait {
        Wait::Starting => "starting",
        Wait::Full { .. } => "pool_full",
        Wait::Budget { scarce: Scarce::Machines, .. } => "budget_machines",
        Wait::Budget { scarce: Scarce::Vcpus, .. } => "budget_vcpus",
        Wait::Budget { scarce: Scarce::MemoryMib, .. } => "budget_memory",
        Wait::Budget { scarce: Scarce::ScratchMib, .. } => "budget_scratch",
        Wait::Budget { scarce: Scarce::PoolScratchMib, .. } => "pool_scratch",
        Wait::Measuring => "measuring",
        Wait::Turn => "turn",
        Wait::Pausing => "pausing",
    }
}

/// Returns the word for a cause, as written facts have it.
pub(super) fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Unreachable => "unreachable",
        Cause::RateLimit { .. } => "rate_limit",
        Cause::Refused => "refused",
        Cause::Image => "image",
        Cause::NoSpace => "no_space",
        Cause::NoMemory => "no_memory",
        Cause::NoProcesses => "no_processes",
        Cause::NoDescriptors => "no_descriptors",
        Cause::Machine => "machine",
        Cause::App => "app",
        Cause::AppTooOld => "app_too_old",
        Cause::Other => OTHER,
    }
}

/// Returns the word for the end of a runner, as written facts have it.
pub(super) fn end_word(how: OverHow) -> &'static str {
    match how {
        OverHow::JobDone => "job_done",
        OverHow::NoJob => "no_job",
        OverHow::MachineLost => "machine_lost",
        OverHow::Unregistered => "unregistered",
        OverHow::JobTooLong => "job_too_long",
        OverHow::Stopped => "stopped",
        OverHow::LifetimeOver => "lifetime_over",
        OverHow::Idle => "idle",
        OverHow::Broken => "broken",
        OverHow::NotUp => "not_up",
        OverHow::ProcessDied => "process_died",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_repositories_and_jobs_are_told_apart() {
        let mut labels = JobLabels::default();
        let mut places = HashSet::new();
        let mut jobs = HashSet::new();
        for round in 0..2 {
            for at in 0..1000 {
                let job = SeenJob { repository: Some(format!("o/r{at}")), ..SeenJob::default() };
                let place = place_of(Some(&job), None);
                places.insert(labels.of_place("a", &place));
                jobs.insert(labels.of_job("a", &place, &format!("j{at}")));
            }
            assert_eq!(places.len(), REPOSITORIES_MAX + 1, "round {round}");
            assert!(jobs.len() <= JOBS_MAX + 1, "round {round}: {}", jobs.len());
        }
    }

    #[test]
    fn the_place_of_a_job_is_its_own_repository_or_that_of_the_pool() {
        let scope = RunnerScope::Repository { owner: "o".to_owned(), name: "r".to_owned() };
        let pool = PoolEntry {
            name: "a".to_owned(),
            scale_set: None,
            scope,
            min_idle: 0,
            max: 1,
            vcpus: 1,
            memory_mib: 1,
        };
        let place = |owner: &str, repository: &str| JobPlace {
            enterprise: String::new(),
            owner: owner.to_owned(),
            repository: repository.to_owned(),
        };
        let job = SeenJob { repository: Some("p/q".to_owned()), ..SeenJob::default() };
        assert_eq!(place_of(Some(&job), Some(&pool)), place("p", "q"));
        assert_eq!(place_of(None, Some(&pool)), place("o", "r"));
        assert_eq!(place_of(Some(&SeenJob::default()), None), place("", ""));
    }

    #[test]
    fn a_value_from_elsewhere_has_a_length_and_no_control_characters() {
        assert_eq!(shortened("a\u{1b}[31m\nb"), "a[31mb");
        assert_eq!(shortened(&"é".repeat(1000)).chars().count(), VALUE_LENGTH_MAX);
    }
}

//! Tests of the fold: order, repetition, scopes, bounds.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const RUNNER: &str = "p-1-aaaaaaa";

fn fold_of(scope: RunnerScope) -> WebhookFold {
    WebhookFold::new(
        scope,
        PoolLabels::of_pool(["self-hosted", "Linux", "build"].map(str::to_owned).to_vec()),
    )
}

fn fold() -> WebhookFold {
    fold_of(RunnerScope::Repository { owner: "acme".into(), name: "app".into() })
}

/// Returns a delivery about a job of the pool. `id` is that of the delivery.
fn delivery(id: &str, job: u64, action: JobAction) -> JobDelivery {
    let has_runner = matches!(action, JobAction::InProgress | JobAction::Completed);
    JobDelivery {
        id: id.to_owned(),
        action,
        owner: "Acme".to_owned(),
        repository: "App".to_owned(),
        enterprise: None,
        job,
        name: "a".to_owned(),
        labels: vec!["self-hosted".to_owned(), "BUILD".to_owned()],
        conclusion: (action == JobAction::Completed).then(|| "success".to_owned()),
        runner: has_runner.then(|| RUNNER.to_owned()),
        workflow: Some("ci".to_owned()),
        queued_ms: Some(5000),
    }
}

fn queued(job: u64) -> DemandEvent {
    DemandEvent::Queued(demand(&delivery("", job, JobAction::Queued)))
}

fn took(job: u64) -> DemandEvent {
    DemandEvent::Taken { job, runner: RUNNER.to_owned() }
}

fn ended(job: u64, conclusion: JobConclusion) -> DemandEvent {
    let (name, runner) = ("a".to_owned(), RUNNER.to_owned());
    DemandEvent::Ended(JobEnd { job, name, runner, conclusion, annotations: Vec::new() })
}

#[test]
fn a_job_that_asks_for_a_size_and_for_more_is_a_mistake_if_the_pool_serves_its_repository() {
    let size = PoolLabels::of_size(vec!["dayfly-4cpu-8gb".to_owned()]);
    let scope = |name: &str| RunnerScope::Repository { owner: "acme".into(), name: name.into() };
    let labels = ["self-hosted", "dayfly-4cpu-8gb"].map(str::to_owned).to_vec();
    let wrong = |action| JobDelivery { labels: labels.clone(), ..delivery("1", 7, action) };
    let fold = WebhookFold::new(scope("app"), size.clone());
    assert!(fold.mistake(&wrong(JobAction::Queued)).is_some_and(|text| text.contains("the job 7 asks for")));
    assert_eq!(fold.mistake(&wrong(JobAction::Completed)), None);
    assert_eq!(WebhookFold::new(scope("other"), size).mistake(&wrong(JobAction::Queued)), None);
}

#[test]
fn a_job_is_queued_taken_and_over_and_each_is_told_once() {
    use JobAction::{Completed, InProgress, Queued, Waiting};
    let (mut fold, now) = (fold(), Instant::now());
    assert_eq!(fold.changes(&delivery("1", 1, Waiting), now), [], "it waits for an approval");
    assert_eq!(fold.changes(&delivery("2", 1, Queued), now), [queued(1)]);
    assert_eq!(fold.changes(&delivery("2", 1, Queued), now), [], "the same delivery");
    assert_eq!(fold.changes(&delivery("3", 1, Queued), now), [], "another delivery of the same change");
    assert_eq!(fold.changes(&delivery("4", 1, InProgress), now), [took(1)]);
    assert_eq!(fold.changes(&delivery("5", 1, Completed), now), [ended(1, JobConclusion::Success)]);
    assert_eq!(fold.changes(&delivery("6", 1, Completed), now), []);
}

#[test]
fn deliveries_in_another_order_never_bring_a_job_back() {
    use JobAction::{Completed, InProgress, Queued};
    let (mut fold, now) = (fold(), Instant::now());
    assert_eq!(fold.changes(&delivery("1", 1, Completed), now), [took(1), ended(1, JobConclusion::Success)]);
    assert_eq!(fold.changes(&delivery("2", 1, InProgress), now), []);
    assert_eq!(fold.changes(&delivery("3", 1, Queued), now), []);
    assert_eq!(fold.changes(&delivery("4", 2, InProgress), now), [took(2)]);
    assert_eq!(fold.changes(&delivery("5", 2, Queued), now), []);
}

#[test]
fn the_end_is_told_in_the_forges_words_and_a_job_without_a_runner_settles() {
    let end = |word: Option<&str>, runner: Option<&str>| {
        let (conclusion, runner) = (word.map(str::to_owned), runner.map(str::to_owned));
        let delivery = JobDelivery { conclusion, runner, ..delivery("1", 1, JobAction::Completed) };
        fold().changes(&delivery, Instant::now()).pop().expect("an event")
    };
    for (word, expected) in [
        ("success", JobConclusion::Success),
        ("failure", JobConclusion::Failure),
        ("timed_out", JobConclusion::Failure),
        ("cancelled", JobConclusion::Cancelled),
        ("skipped", JobConclusion::Skipped),
    ] {
        assert_eq!(end(Some(word), Some(RUNNER)), ended(1, expected), "{word}");
        assert_eq!(end(Some(word), None), DemandEvent::Settled { job: 1 }, "{word}");
    }
    for word in [None, Some("neutral"), Some("action_required")] {
        assert_eq!(end(word, Some(RUNNER)), DemandEvent::Settled { job: 1 });
    }
    let mut beside_a_scale_set = fold();
    beside_a_scale_set.tells_ends = false;
    let events = beside_a_scale_set.changes(&delivery("1", 1, JobAction::Completed), Instant::now());
    assert_eq!(events, [took(1), DemandEvent::Settled { job: 1 }]);
}

#[test]
fn only_the_jobs_of_the_scope_that_the_labels_fit_are_demand() {
    let changes = |fold: &mut WebhookFold, change: &dyn Fn(&mut JobDelivery)| {
        let mut delivery = delivery("1", 1, JobAction::Queued);
        change(&mut delivery);
        fold.changes(&delivery, Instant::now()).len()
    };
    let of_org = || fold_of(RunnerScope::Organization("ACME".into()));
    let of_enterprise = || fold_of(RunnerScope::Enterprise("big-corp".into()));
    let (other, elsewhere) = ("other".to_owned(), Some("Big-Corp".to_owned()));
    assert_eq!(changes(&mut fold(), &|it| it.repository.clone_from(&other)), 0);
    assert_eq!(changes(&mut fold(), &|it| it.owner.clone_from(&other)), 0);
    assert_eq!(changes(&mut of_org(), &|it| it.repository.clone_from(&other)), 1);
    assert_eq!(changes(&mut of_org(), &|it| it.owner.clone_from(&other)), 0);
    assert_eq!(changes(&mut of_enterprise(), &|it| it.enterprise.clone_from(&elsewhere)), 1);
    assert_eq!(changes(&mut of_enterprise(), &|_| {}), 0, "the event does not say its enterprise");
    for labels in [vec!["gpu".to_owned()], vec!["build".to_owned(), "gpu".to_owned()], vec![]] {
        assert_eq!(changes(&mut fold(), &|it| it.labels.clone_from(&labels)), 0, "{labels:?}");
    }
    let mut of_group = delivery("1", 1, JobAction::InProgress);
    of_group.labels.clear();
    assert_eq!(fold().changes(&of_group, Instant::now()), [took(1)], "a runner of the pool may have it");
}

#[test]
fn a_job_that_waits_for_a_day_is_forgotten_once() {
    let (mut fold, began) = (fold(), Instant::now());
    fold.changes(&delivery("1", 1, JobAction::Queued), began);
    fold.changes(&delivery("2", 2, JobAction::Queued), began);
    fold.changes(&delivery("3", 2, JobAction::InProgress), began);
    assert_eq!(fold.forget(began + QUEUED_MAX - Duration::from_secs(1)), []);
    assert_eq!(fold.forget(began + QUEUED_MAX), [DemandEvent::Settled { job: 1 }]);
    assert_eq!(fold.forget(began + QUEUED_MAX), []);
    assert_eq!(fold.changes(&delivery("4", 1, JobAction::Queued), began), [], "it does not come back");
}

#[test]
fn memory_is_bounded_and_a_job_that_is_forgotten_no_longer_waits() {
    let (mut fold, now) = (fold(), Instant::now());
    let mut waiting = HashSet::new();
    for job in 0..2 * JOBS_MAX as u64 {
        for event in fold.changes(&delivery(&job.to_string(), job, JobAction::Queued), now) {
            match event {
                DemandEvent::Queued(demand) => assert!(waiting.insert(demand.job)),
                DemandEvent::Settled { job } => assert!(waiting.remove(&job)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((waiting.len(), fold.jobs.len(), fold.job_order.len()), (JOBS_MAX, JOBS_MAX, JOBS_MAX));
    assert_eq!((fold.deliveries.len(), fold.delivery_order.len()), (DELIVERIES_MAX, DELIVERIES_MAX));
}

proptest! {
    /// Whatever the order and the repetitions are, a job is queued at most once, and is never queued or taken after its end.
    #[test]
    fn a_job_only_moves_forward(deliveries in proptest::collection::vec((0..6_u64, 0..4_usize, 0..40_u32), 0..80)) {
        use JobAction::{Completed, InProgress, Queued, Waiting};
        let (mut fold, now) = (fold(), Instant::now());
        let mut stages: HashMap<u64, u8> = HashMap::new();
        for (job, action, id) in deliveries {
            let action = [Waiting, Queued, InProgress, Completed][action];
            for event in fold.changes(&delivery(&id.to_string(), job, action), now) {
                let (of, stage) = match event {
                    DemandEvent::Queued(demand) => (demand.job, 1),
                    DemandEvent::Taken { job, .. } => (job, 2),
                    DemandEvent::Ended(end) => (end.job, 3),
                    other => panic!("{other:?}"),
                };
                prop_assert_eq!(of, job);
                let before = stages.insert(job, stage).unwrap_or(0);
                prop_assert!(before < stage, "{} after {}", stage, before);
            }
        }
    }
}

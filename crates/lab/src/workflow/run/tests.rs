//! Tests of runs as lists of actions, and the property that each run ends.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::expression::Value;
use crate::workflow::parse;

pub(in crate::workflow) fn github() -> GithubContext {
    GithubContext {
        repository: "owner/name".to_owned(),
        repository_id: 1,
        repository_owner_id: 2,
        run_id: 77,
        run_number: 3,
        run_attempt: 1,
        actor: "someone".to_owned(),
        actor_id: 5,
        event_name: "push".to_owned(),
        event: json!({ "forced": false }),
        git_ref: "refs/heads/main".to_owned(),
        sha: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        workflow_path: ".github/workflows/ci.yml".to_owned(),
        workflow: "CI".to_owned(),
        server_url: "http://lab:8080".to_owned(),
    }
}

/// A run that records its actions as lines.
struct Story {
    run: Run,
    now: Timestamp,
    told: Vec<String>,
}

impl Story {
    fn begin(jobs: &str) -> Self {
        let text = format!("on: push\njobs:\n{jobs}");
        let workflow = parse("ci.yml", &text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let vars = IndexMap::from([("LIST".to_owned(), "[\"x\", \"y\"]".to_owned())]);
        let request = RunRequest { github: github(), inputs: Value::Null, vars };
        let now = Timestamp::UNIX_EPOCH;
        let (run, actions) = Run::start(Arc::new(workflow), request, now);
        let mut story = Self { run, now, told: Vec::new() };
        story.tell(&actions);
        story
    }

    fn tell(&mut self, actions: &[Action]) {
        for action in actions {
            let name = |job: &JobIndex| self.run.job(*job).unwrap().name.clone();
            self.told.push(match action {
                Action::QueueJob { job } => format!("queue {}", name(job)),
                Action::WithdrawJob { job } => format!("withdraw {}", name(job)),
                Action::CancelJob { job, reason, .. } => format!("cancel {} ({reason:?})", name(job)),
                Action::JobCompleted { job, conclusion } => format!("{} is {conclusion}", name(job)),
                Action::Notice { text } => format!("notice {text}"),
                Action::RunCompleted { conclusion } => format!("run is {conclusion}"),
            });
        }
    }

    fn event(&mut self, event: RunEvent) -> &mut Self {
        let actions = self.run.handle(event, self.now);
        self.tell(&actions);
        self
    }

    fn index(&self, name: &str) -> JobIndex {
        self.run.jobs().iter().find(|job| job.name == name).unwrap_or_else(|| panic!("no job {name}")).index
    }

    fn start(&mut self, name: &str) -> &mut Self {
        let job = self.index(name);
        self.event(RunEvent::JobStarted { job })
    }

    fn finish(&mut self, name: &str, conclusion: Conclusion) -> &mut Self {
        self.finish_with(name, conclusion, &[])
    }

    fn finish_with(&mut self, name: &str, conclusion: Conclusion, outputs: &[(&str, &str)]) -> &mut Self {
        let job = self.index(name);
        let outputs = outputs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.event(RunEvent::JobFinished { job, conclusion, outputs })
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now += SignedDuration::try_from(time).unwrap();
        self.event(RunEvent::TimePassed)
    }

    #[track_caller]
    fn expect(&mut self, told: &[&str]) -> &mut Self {
        assert_eq!(std::mem::take(&mut self.told), told);
        self
    }
}

use Conclusion::{Cancelled, Failure, Success};

#[test]
fn a_matrix_from_an_expression_is_noticed_like_one_in_the_file() {
    let mut story = Story::begin(
        "  a:\n    runs-on: x\n    strategy:\n      matrix: >-\n        ${{ fromJSON('{\"n\": [1], \"Include\": [{\"n\": 2}]}') }}\n    steps: [{run: x}]\n",
    );
    story.expect(&[
        "notice ci.yml:7:9: jobs.a.strategy.matrix: \"Include\" is a vector of the matrix, because its filters are written in lower case; did you mean \"include\"?",
        "queue a (1, 2)",
    ]);
}

#[test]
fn a_name_lists_no_included_values() {
    let mut story = Story::begin(
        "  names:\n    runs-on: x\n    strategy:\n      matrix:\n        a: [x]\n        b: [1.10, true]\n        c: [{d: [p, q], e: ''}]\n        include:\n          - {a: x, added: zzz}\n          - {added: first, a: other}\n    steps: [{run: x}]\n",
    );
    story.expect(&[
        "queue names (x, 1.1, p, q)",
        "queue names (x, true, p, q)",
        "queue names (other, first)",
    ]);
    assert_eq!(story.run.job(JobIndex(0)).unwrap().matrix.to_json()["added"], "zzz");
}

#[test]
fn case_decides_matrices_and_conditions() {
    let mut story = Story::begin(
        "  a:\n    if: ${{ case(github.event_name == 'other', false, github.event_name == 'push', true, false) }}\n    strategy: {matrix: {v: [\"${{ case(false, 'a', true, 'b', 'c') }}\"]}}\n    runs-on: x\n    steps: [{run: x}]\n  b: {if: \"case(true, false, true)\", runs-on: x, steps: [{run: x}]}\n",
    );
    story.expect(&["b is skipped", "queue a (b)"]);
}

const CHAIN: &str = "  a: {runs-on: x, steps: [{run: x}]}\n  b: {needs: a, runs-on: x, steps: [{run: x}]}\n  c: {needs: b, runs-on: x, steps: [{run: x}]}\n";

#[test]
fn jobs_follow_what_they_need() {
    let mut story = Story::begin(CHAIN);
    story.expect(&["queue a"]);
    story.start("a").finish("a", Success).expect(&["a is success", "queue b"]);
    story.start("b").finish("b", Success).expect(&["b is success", "queue c"]);
    story.start("c").finish("c", Success).expect(&["c is success", "run is success"]);
}

#[test]
fn a_failure_skips_what_needs_it_and_fails_the_run() {
    let mut story = Story::begin(CHAIN);
    story.start("a").finish("a", Failure).expect(&[
        "queue a",
        "a is failure",
        "b is skipped",
        "c is skipped",
        "run is failure",
    ]);
}

#[test]
fn conditions_see_results_outputs_and_status() {
    let mut story = Story::begin(
        "  a: {runs-on: x, outputs: {o: v}, steps: [{run: x}]}\n  \
         onfail: {needs: a, if: failure(), runs-on: x, steps: [{run: x}]}\n  \
         output: {needs: a, if: \"always() && needs.a.outputs.o == 'yes' && needs.a.result == 'failure'\", runs-on: x, steps: [{run: x}]}\n  \
         behind: {needs: output, runs-on: x, steps: [{run: x}]}\n  \
         never: {if: github.ref == 'refs/heads/other', runs-on: x, steps: [{run: x}]}\n",
    );
    story.expect(&["never is skipped", "queue a"]);
    story.start("a").finish_with("a", Failure, &[("o", "yes")]);
    story.expect(&["a is failure", "queue onfail", "queue output"]);
    story.finish("onfail", Success);
    // `success()` considers all ancestors, so the job after the one with `always()` is skipped too.
    story.finish("output", Success).expect(&[
        "onfail is success",
        "output is success",
        "behind is skipped",
        "run is failure",
    ]);
}

#[test]
fn a_failed_matrix_job_stops_the_others() {
    let mut story = Story::begin(
        "  m: {runs-on: x, strategy: {matrix: {n: [1, 2, 3, 4]}, max-parallel: 3}, steps: [{run: x}]}\n",
    );
    story.expect(&["queue m (1)", "queue m (2)", "queue m (3)"]);
    story.start("m (1)").start("m (2)").finish("m (1)", Failure);
    story.expect(&[
        "m (1) is failure",
        "cancel m (2) (FailFast)",
        "withdraw m (3)",
        "m (3) is cancelled",
        "m (4) is cancelled",
    ]);
    story.finish("m (2)", Cancelled).expect(&["m (2) is cancelled", "run is failure"]);
}

#[test]
fn without_fail_fast_the_matrix_goes_on_one_by_one() {
    let mut story = Story::begin(
        "  m: {runs-on: x, strategy: {fail-fast: false, max-parallel: 1, matrix: {n: '${{ fromJSON(vars.LIST) }}'}}, steps: [{run: x}]}\n  \
         n: {needs: m, if: '!cancelled()', runs-on: x, steps: [{run: x}]}\n",
    );
    story.start("m (x)").finish_with("m (x)", Failure, &[("o", "first"), ("p", "kept")]);
    story.finish_with("m (y)", Success, &[("o", "second"), ("p", "")]);
    story.expect(&["queue m (x)", "m (x) is failure", "queue m (y)", "m (y) is success", "queue n"]);
    let needs = &story.run.job(story.index("n")).unwrap().needs;
    assert_eq!(
        needs.to_json(),
        json!({ "m": { "result": "failure", "outputs": { "o": "second", "p": "kept" } } })
    );
}

#[test]
fn a_tolerated_failure_counts_as_success_for_others() {
    let mut story = Story::begin(
        "  a: {runs-on: x, continue-on-error: true, steps: [{run: x}]}\n  b: {needs: a, runs-on: x, steps: [{run: x}]}\n",
    );
    story.start("a").finish("a", Failure).expect(&["queue a", "a is failure", "queue b"]);
    story.finish("b", Success).expect(&["b is success", "run is success"]);
}

#[test]
fn a_cancelled_run_ends_its_jobs_but_not_those_that_always_run() {
    let mut story = Story::begin(
        "  a: {runs-on: x, steps: [{run: x}]}\n  b: {runs-on: x, steps: [{run: x}]}\n  \
         c: {if: always(), runs-on: x, steps: [{run: x}]}\n  d: {needs: a, runs-on: x, steps: [{run: x}]}\n  \
         e: {needs: a, if: cancelled(), runs-on: x, steps: [{run: x}]}\n",
    );
    story.start("a").event(RunEvent::CancelRequested);
    story.expect(&["queue a", "queue b", "queue c", "cancel a (Requested)", "withdraw b", "b is cancelled"]);
    story.event(RunEvent::CancelRequested).expect(&[]);
    story.finish("a", Failure).expect(&["a is cancelled", "d is skipped", "queue e"]);
    story.finish("c", Success).finish("e", Success).expect(&[
        "c is success",
        "e is success",
        "run is cancelled",
    ]);
}

#[test]
fn a_job_beyond_its_timeout_is_cancelled_and_ended_without_its_runner_if_need_be() {
    let mut story = Story::begin("  a: {runs-on: x, timeout-minutes: 0.5, steps: [{run: x}]}\n");
    story.pass(Duration::from_secs(3600)).expect(&["queue a"]);
    story.start("a").pass(Duration::from_secs(29)).expect(&[]);
    assert_eq!(story.run.next_deadline(), Some(story.now + SignedDuration::from_secs(1)));
    story.pass(Duration::from_secs(1)).expect(&["cancel a (TimedOut)"]);
    story.pass(CANCEL_GRACE).expect(&["a is cancelled", "run is cancelled"]);
    let remark = story.run.jobs()[0].remark.clone();
    assert_eq!(remark.as_deref(), Some("the job took longer than its timeout of 0.5 minutes"));
    story.finish("a", Success).expect(&[]);
}

#[test]
fn a_lost_runner_fails_its_job() {
    let mut story = Story::begin(CHAIN);
    let job = story.start("a").index("a");
    story.event(RunEvent::RunnerLost { job, reason: "the VM is gone".to_owned() });
    story.expect(&["queue a", "a is failure", "b is skipped", "c is skipped", "run is failure"]);
    assert_eq!(story.run.jobs()[0].remark.as_deref(), Some("the VM is gone"));
}

#[test]
fn what_cannot_be_evaluated_fails_its_job_with_a_remark() {
    let mut story = Story::begin(
        "  a: {runs-on: x, strategy: {matrix: '${{ fromJSON(vars.NONE) }}'}, steps: [{run: x}]}\n  \
         b: {runs-on: '${{ vars.NONE }}', steps: [{run: x}]}\n  c: {runs-on: x, timeout-minutes: '${{ github.ref }}', steps: [{run: x}]}\n",
    );
    story.expect(&["a is failure", "b is failure", "c is failure", "run is failure"]);
    let remarks: Vec<_> = story.run.jobs().iter().map(|job| job.remark.clone().unwrap()).collect();
    insta::assert_snapshot!(remarks.join("\n"), @r#"
    ci.yml:3:38: jobs.a.strategy.matrix: fromJSON: not JSON: EOF while parsing a value at line 1 column 0, at position 1 of "fromJSON(vars.NONE)"
    ci.yml:4:16: jobs.b.runs-on: must be a label or a list of labels, but evaluates to nothing
    ci.yml:5:36: jobs.c.timeout-minutes: must be a number above 0, but evaluates to "refs/heads/main"
    "#);
}

#[test]
fn names_and_labels_are_evaluated_for_each_combination() {
    let story = Story::begin(
        "  a: {name: 'On ${{ matrix.os }}', runs-on: [self-hosted, '${{ matrix.os }}'], strategy: {matrix: {os: [l, m]}}, steps: [{run: x}]}\n  \
         b: {name: Plain, runs-on: {group: big, labels: '${{ fromJSON(vars.LIST) }}'}, strategy: {matrix: {o: [{a: 1, b: true}], include: [{o: {a: 1, b: true}, x: z}]}}, steps: [{run: x}]}\n  \
         c: {runs-on: '${{ fromJSON(vars.LIST) }}', steps: [{run: x}]}\n",
    );
    let seen: Vec<_> = story
        .run
        .jobs()
        .iter()
        .map(|job| (job.name.as_str(), job.runs_on.group.as_deref(), job.runs_on.labels.join("+")))
        .collect();
    assert_eq!(
        seen,
        [
            ("On l", None, "self-hosted+l".to_owned()),
            ("On m", None, "self-hosted+m".to_owned()),
            ("Plain (1, true)", Some("big"), "x+y".to_owned()),
            ("c", None, "x+y".to_owned()),
        ]
    );
    assert_eq!(
        story.run.jobs()[1].strategy.to_json(),
        json!({"fail-fast": true, "job-index": 1, "job-total": 2, "max-parallel": 2})
    );
}

/// Generates jobs with any needs (only backwards, so that they form no cycle), conditions and matrices.
fn any_jobs() -> impl Strategy<Value = String> {
    let condition = prop_oneof![
        Just(""),
        Just("always()"),
        Just("failure()"),
        Just("cancelled()"),
        Just("success()"),
        Just("false"),
        Just("needs.x.y == 1")
    ];
    let strategy = prop_oneof![
        Just(""),
        Just("strategy: {matrix: {n: [1, 2, 3]}}, "),
        Just("strategy: {fail-fast: false, max-parallel: 2, matrix: {n: [1, 2, 3]}}, "),
        Just("strategy: {matrix: '${{ fromJSON(vars.NONE) }}'}, "),
    ];
    let job = (prop::collection::vec(any::<prop::sample::Index>(), 0..3), condition, strategy, any::<bool>());
    prop::collection::vec(job, 1..7).prop_map(|jobs| {
        let lines = jobs.iter().enumerate().map(|(number, (needs, condition, strategy, tolerated))| {
            let needs: Vec<_> = if number == 0 { Vec::new() } else { needs.iter().map(|need| format!("j{}", need.index(number))).collect() };
            let condition = if condition.is_empty() { String::new() } else { format!("if: \"{condition}\", ") };
            format!("  j{number}: {{needs: [{}], {condition}{strategy}continue-on-error: {tolerated}, runs-on: x, steps: [{{run: x}}]}}\n", needs.join(", "))
        });
        lines.collect()
    })
}

proptest! {
    #[test]
    fn every_run_ends_whatever_happens_in_whatever_order(
        jobs in any_jobs(),
        events in prop::collection::vec((0_u8..12, any::<prop::sample::Index>()), 0..60),
    ) {
        let mut story = Story::begin(&jobs);
        for (kind, index) in events {
            let job = JobIndex(index.index(story.run.jobs().len() + 1));
            let event = match kind {
                0..=3 => RunEvent::JobStarted { job },
                4..=5 => RunEvent::JobFinished { job, conclusion: Success, outputs: IndexMap::new() },
                6 => RunEvent::JobFinished { job, conclusion: Failure, outputs: IndexMap::new() },
                7 => RunEvent::JobFinished { job, conclusion: Cancelled, outputs: IndexMap::new() },
                8 => RunEvent::RunnerLost { job, reason: "gone".to_owned() },
                9 => RunEvent::CancelRequested,
                _ => { story.pass(Duration::from_secs(7200)); continue }
            };
            story.event(event);
        }
        // From here on a runner completes every queued job; each round ends at least one job.
        for _ in 0..1000 {
            if story.run.conclusion().is_some() { break }
            let open = story.run.jobs().iter().find(|job| matches!(job.state, JobState::Queued { .. } | JobState::Running { .. } | JobState::Cancelling { .. }));
            let open = open.map(|job| job.name.clone());
            prop_assert!(open.is_some(), "nothing to do, but the run is not over");
            story.finish(&open.unwrap_or_default(), Success);
        }
        prop_assert!(story.run.conclusion().is_some());
        prop_assert!(story.run.jobs().iter().all(|job| job.conclusion().is_some()));
        prop_assert_eq!(story.told.iter().filter(|line| line.starts_with("run is")).count(), 1);
        prop_assert!(story.told.last().is_some_and(|line| line.starts_with("run is")));
        let told = story.told.len();
        story.event(RunEvent::CancelRequested).pass(Duration::from_secs(1_000_000));
        prop_assert_eq!(story.told.len(), told, "a run that is over stays as it is");
    }

    #[test]
    fn runners_that_never_answer_are_waited_for_until_their_deadlines_only(jobs in any_jobs()) {
        let mut story = Story::begin(&jobs);
        for _ in 0..1000 {
            let queued: Vec<_> = story.run.jobs().iter().filter(|job| matches!(job.state, JobState::Queued { .. })).map(|job| job.index).collect();
            for job in queued { story.event(RunEvent::JobStarted { job }); }
            let Some(deadline) = story.run.next_deadline() else { break };
            story.now = deadline;
            story.event(RunEvent::TimePassed);
        }
        prop_assert!(story.run.conclusion().is_some());
    }
}

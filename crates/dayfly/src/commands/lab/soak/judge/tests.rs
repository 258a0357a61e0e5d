use dayfly_lab::fault::Fault;
use dayfly_lab::workflow::Conclusion;
use proptest::prelude::*;

use super::super::story::{Acquired, Outcome};
use super::*;

fn ended(conclusion: Conclusion) -> Option<Outcome> {
    Some(Outcome { conclusion, remark: None })
}

/// Returns a job that succeeded and ran once.
fn good(number: u32) -> JobStory {
    let runner = format!("soak-set-{number}");
    JobStory {
        number,
        id: Some(u64::from(number) + 100),
        queued_ms: Some(1000),
        acquired: vec![Acquired { runner, at_ms: 1000 + 10 * i64::from(number) }],
        begun: 1,
        ended: 1,
        outcome: ended(Conclusion::Success),
        faults: Vec::new(),
    }
}

/// Returns the evidence of a soak in which all was well.
fn well(jobs: u32) -> Evidence {
    Evidence {
        jobs,
        stories: (1..=jobs).map(good).collect(),
        executions: Some((1..=jobs).map(|number| (number, 1)).collect()),
        told: (1..=jobs).map(|number| (format!("soak-set-{number}"), "success".to_owned())).collect(),
        ..Evidence::default()
    }
}

/// Returns the verdict about three jobs, after a change to the evidence.
fn after(change: impl FnOnce(&mut Evidence)) -> Verdict {
    let mut evidence = well(3);
    change(&mut evidence);
    judge(&evidence)
}

/// Asserts that a change makes the verdict bad, that one counter has counted one job, and that the problem is
/// described.
#[track_caller]
fn assert_bad(counter: impl Fn(&Verdict) -> u32, text: &str, change: impl FnOnce(&mut Evidence)) {
    let verdict = after(change);
    assert_eq!(counter(&verdict), 1, "{verdict:#?}");
    assert!(!verdict.is_well(), "{verdict:#?}");
    assert!(verdict.problems.iter().any(|problem| problem.contains(text)), "{:#?}", verdict.problems);
}

#[test]
fn the_last_line_has_the_counts_and_percentiles() {
    let verdict = judge(&well(100));
    assert!(verdict.is_well());
    insta::assert_snapshot!(serde_json::to_string(&verdict).expect("JSON"));
    let none = judge(&Evidence::default());
    insta::assert_snapshot!(serde_json::to_string(&none.pickup_ms).expect("JSON"), @r#"{"p50":null,"p95":null,"p99":null}"#);
}

#[test]
fn a_job_that_has_not_ended_is_lost() {
    assert_bad(
        |verdict| verdict.lost,
        "job 2 (id 102): lost: no runner has got it",
        |evidence| {
            evidence.stories[1] = JobStory { number: 2, id: Some(102), ..JobStory::default() };
            evidence.told.remove(1);
        },
    );
    assert_bad(
        |verdict| verdict.lost,
        "lost: it has not ended on soak-set-2",
        |evidence| {
            evidence.stories[1].outcome = None;
            evidence.told.remove(1);
        },
    );
}

#[test]
fn a_job_that_was_never_dispatched_is_lost() {
    assert_bad(|verdict| verdict.lost, "1 job was not dispatched", |evidence| evidence.jobs = 4);
}

#[test]
fn a_success_without_a_trace_of_the_job_is_a_loss() {
    let text = "its first line 1 time and its last line 0 times";
    assert_bad(|verdict| verdict.lost, text, |evidence| evidence.stories[1].ended = 0);
    let text = "it ran 0 times on the host";
    assert_bad(|verdict| verdict.lost, text, |evidence| evidence.executions = Some([(1, 1), (3, 1)].into()));
}

#[test]
fn a_job_that_ended_without_a_runner_is_lost_unless_the_lab_has_cancelled_it() {
    let cancelled = |faults| JobStory {
        acquired: Vec::new(),
        begun: 0,
        ended: 0,
        outcome: ended(Conclusion::Cancelled),
        faults,
        ..good(2)
    };
    let change = |faults| {
        move |evidence: &mut Evidence| {
            evidence.stories[1] = cancelled(faults);
            evidence.executions = Some([(1, 1), (3, 1)].into());
            evidence.told.remove(1);
        }
    };
    let text = "it ended with cancelled, and no runner has got it";
    assert_bad(|verdict| verdict.lost, text, change(Vec::new()));
    let excused = after(change(vec![Fault::CancelBeforePickUp]));
    assert!(excused.is_well() && excused.failed_by_fault == 1, "{excused:#?}");
}

#[test]
fn a_job_that_ran_twice_is_doubled_whichever_view_shows_it() {
    assert_bad(|verdict| verdict.doubled, "it began 2 times", |evidence| evidence.stories[1].begun = 2);
    let twice = Some([(1, 1), (2, 2), (3, 1)].into());
    assert_bad(|verdict| verdict.doubled, "it began 2 times", |evidence| evidence.executions = twice);
    assert_bad(
        |verdict| verdict.doubled,
        "on other, soak-set-2",
        |evidence| {
            let again = Acquired { runner: "other".to_owned(), at_ms: 2000 };
            evidence.stories[1].acquired.push(again);
        },
    );
}

#[test]
fn a_stolen_job_is_excused_only_if_it_did_not_run_here_too() {
    let steal = |begun| {
        move |evidence: &mut Evidence| {
            let story = &mut evidence.stories[1];
            story.faults = vec![Fault::JobTheft];
            story.acquired[0].runner = "stranger-102".to_owned();
            (story.begun, story.ended) = (begun, 0);
            evidence.executions = Some([(1, 1), (2, begun), (3, 1)].into());
            evidence.told.remove(1);
        }
    };
    let excused = after(steal(0));
    assert!(excused.is_well() && excused.failed_by_fault == 1, "{excused:#?}");
    assert_bad(|verdict| verdict.lost, "job 2", steal(1));
}

#[test]
fn a_failure_is_excused_only_by_a_kill_of_its_own_machine() {
    let fail = |killed: &'static [&'static str]| {
        move |evidence: &mut Evidence| {
            evidence.stories[1].outcome = ended(Conclusion::Failure);
            evidence.stories[1].ended = 0;
            evidence.told[1].1 = "failure".to_owned();
            evidence.killed = killed.iter().map(|name| (*name).to_owned()).collect();
        }
    };
    let text = "killed busy: it ended with failure on soak-set-2";
    assert_bad(|verdict| verdict.killed_busy, text, fail(&[]));
    assert_bad(|verdict| verdict.killed_busy, text, fail(&["soak-set-1"]));
    let excused = after(fail(&["soak-set-2"]));
    assert!(excused.is_well() && excused.failed_by_fault == 1, "{excused:#?}");
}

#[test]
fn each_kind_of_thing_that_is_left_is_bad() {
    type Names = fn(&mut Leftovers) -> &mut Vec<String>;
    let kinds: [(&str, Names); 4] = [
        ("left registration: x", |left| &mut left.registrations),
        ("left vm: x", |left| &mut left.vms),
        ("left file: x", |left| &mut left.files),
        ("left process: x", |left| &mut left.processes),
    ];
    for (text, names) in kinds {
        let verdict = after(|evidence| names(&mut evidence.left).push("x".to_owned()));
        assert!(!verdict.is_well(), "{text}");
        assert_eq!(verdict.problems, [text]);
    }
}

#[test]
fn dayfly_has_to_agree_with_the_lab() {
    let text = "the job of soak-set-2 ended with failure; at the lab it had a job that ended with success";
    assert_bad(|verdict| verdict.disagreed, text, |evidence| evidence.told[1].1 = "failure".to_owned());
    let text = "the job of ghost ended with success; at the lab it had no job";
    assert_bad(
        |verdict| verdict.disagreed,
        text,
        |evidence| {
            evidence.told.push(("ghost".to_owned(), "success".to_owned()));
        },
    );
}

#[test]
fn a_process_of_dayfly_that_ended_by_itself_is_bad() {
    assert_bad(
        |verdict| verdict.crashed,
        "exit status: 101",
        |evidence| {
            evidence.crashes.push("the orchestrator has ended by itself (exit status: 101)".to_owned());
        },
    );
}

proptest! {
    #[test]
    fn each_job_has_one_fate(
        jobs in proptest::collection::vec((0_usize..5, 0_u32..3, 0_u32..2, any::<bool>(), any::<bool>()), 0..30),
    ) {
        let conclusions = [Conclusion::Success, Conclusion::Failure, Conclusion::Cancelled, Conclusion::Skipped];
        let mut evidence = well(u32::try_from(jobs.len()).expect("few"));
        for (story, (conclusion, begun, finished, is_acquired, is_killed)) in evidence.stories.iter_mut().zip(jobs) {
            story.outcome = conclusions.get(conclusion).and_then(|conclusion| ended(*conclusion));
            (story.begun, story.ended) = (begun, finished);
            if is_killed {
                evidence.killed.insert(story.acquired[0].runner.clone());
            }
            if !is_acquired {
                story.acquired.clear();
            }
        }
        let verdict = judge(&evidence);
        let all = [verdict.done, verdict.failed_by_fault, verdict.lost, verdict.doubled, verdict.killed_busy];
        prop_assert_eq!(all.iter().sum::<u32>(), verdict.jobs);
        prop_assert_eq!(verdict.is_well(), verdict.problems.is_empty());
    }
}

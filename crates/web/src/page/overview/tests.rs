use dayfly_fleet::cause::Cause;
use dayfly_fleet::fact::{Fact, FactRecord, RunnerRef, SeenJob, StartKind};
use dayfly_fleet::orchestrator::Wait;
use dayfly_forge::RunnerScope;

use super::*;
use crate::publish::PoolEntry;

const HOSTILE: &str = "<img src=x onerror=alert(1)>\u{202e}\u{1b}[31m&\"'";

fn site() -> Site {
    let pool = PoolEntry {
        name: "linux".to_owned(),
        scale_set: None,
        scope: RunnerScope::Organization("acme".to_owned()),
        min_idle: 0,
        max: 4,
        vcpus: 2,
        memory_mib: 1024,
    };
    Site { pools: vec![pool], ..Site::default() }
}

fn status(facts: Vec<(Option<&str>, Fact)>) -> Status {
    let mut status = Status { began_ms: 1, ..Status::default() };
    for (runner, fact) in facts {
        let runner = runner.map(|id| RunnerRef { id: id.parse().expect("an id"), name: format!("p-{id}") });
        let loop_index = if runner.is_some() { 1 } else { 0 };
        let pool = Some("linux".to_owned());
        status.take(&FactRecord { at: Moment::of_ms(2), pool, loop_index, runner, fact });
    }
    status
}

#[test]
fn a_process_without_runners_and_jobs_has_a_page_that_says_so() {
    let text = part(&status(Vec::new()), &site()).into_string();
    assert!(text.contains("No job is known to wait.") && text.contains("No runner is here."), "{text}");
    assert!(part(&Status::default(), &Site::default()).into_string().contains("There is no pool yet."));
}

#[test]
fn the_reason_of_a_wait_stands_beside_its_pool() {
    let status = status(vec![
        (None, Fact::JobsWaiting { count: 2 }),
        (None, Fact::PoolWaits { why: Some(Wait::Full { max: 4 }) }),
    ]);
    let text = part(&status, &site()).into_string();
    assert!(text.contains("<strong>2</strong> jobs wait"), "{text}");
    let reason = text.split("class=\"reason\"").nth(1).expect("a reason");
    assert!(reason.split("</td>").next().expect("a cell").contains('4'), "{reason}");
}

#[test]
fn hostile_names_never_become_markup_and_cannot_turn_the_text_around() {
    let job = SeenJob {
        id: 6,
        name: Some(HOSTILE.to_owned()),
        repository: Some(HOSTILE.to_owned()),
        workflow: Some(HOSTILE.to_owned()),
        seen_ms: Some(1),
        ..SeenJob::default()
    };
    let message = HOSTILE.to_owned();
    let status = status(vec![
        (None, Fact::JobSeen { job: Box::new(job.clone()) }),
        (None, Fact::ForgeLost { source: HOSTILE.to_owned(), cause: Cause::Other, message }),
        (Some("1-aaaaaaa"), Fact::VmmStarted { pid: 1, from: StartKind::Boot, template: None }),
        (Some("1-aaaaaaa"), Fact::JobStarted { job: HOSTILE.to_owned() }),
    ]);
    let text = part(&status, &site()).into_string();
    assert!(text.contains("&lt;img src=x"), "{text}");
    assert!(!text.contains("<img") && !text.contains('\u{202e}') && !text.contains('\u{1b}'), "{text}");
    assert!(text.chars().all(|c| !c.is_control() || c == '\n'), "events hold one line");
}

#[test]
fn ten_thousand_jobs_and_runners_are_counted_and_only_the_first_are_listed() {
    let mut status = status(Vec::new());
    for index in 1..=900 {
        let one = LoopStatus { phase: Phase::Idle, pool: Some("linux".to_owned()), ..LoopStatus::default() };
        status.loops.insert(index, one);
    }
    let text = part(&status, &site()).into_string();
    assert!(text.contains("<strong>900</strong> runners are idle") && text.contains("and 700 more"));
    assert!(text.len() < 200_000, "{}", text.len());
}

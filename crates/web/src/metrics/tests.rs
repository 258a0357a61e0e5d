use dayfly_fleet::cause::Cause;
use dayfly_fleet::fact::{Fact, FactRecord, Moment, OverHow, RunnerRef, SeenJob, StartKind};
use dayfly_fleet::job_end::JobConclusion;
use dayfly_fleet::orchestrator::{Budget, Wait};
use dayfly_fleet::scratch::ScratchSummary;
use dayfly_forge::{Credential, RunnerScope};
use dayfly_guest::runner_app::JobResult;

use crate::publish::{ForgeAccount, PoolEntry, Published, Publisher, Site, channel};

use std::path::Path;

use super::*;

fn site() -> Site {
    let scope = RunnerScope::Repository { owner: "acme".to_owned(), name: "app".to_owned() };
    let pool = |name: &str, scale_set: Option<&str>| PoolEntry {
        name: name.to_owned(),
        scale_set: scale_set.map(str::to_owned),
        scope: scope.clone(),
        min_idle: 1,
        max: 8,
        vcpus: 2,
        memory_mib: 1024,
    };
    let credential = Credential::token("ghp_x");
    Site {
        pools: vec![pool("linux", Some("acme-linux")), pool("idle", None)],
        budget: Budget { machines: Some(8), vcpus: None, memory_mib: Some(16384), scratch_mib: None },
        forges: vec![ForgeAccount { name: "main (acme)".to_owned(), credential }],
    }
}

/// A process that publishes.
struct Process {
    publisher: Publisher,
    published: Published,
    status: Status,
    now_ms: u64,
}

impl Process {
    fn begin() -> Self {
        Self::tracing(Some(TraceCounts::default()))
    }

    fn tracing(traces: Option<TraceCounts>) -> Self {
        let (publisher, _site, published) = channel(site(), Path::new("/nonexistent"), traces);
        Self { publisher, published, status: Status { began_ms: 1000, ..Status::default() }, now_ms: 1000 }
    }

    /// Tells a fact of a runner half a second after the one before.
    fn tell(&mut self, runner: Option<&str>, fact: Fact) {
        self.now_ms += 500;
        let runner = runner.map(|id| RunnerRef { id: id.parse().expect("an id"), name: format!("p-{id}") });
        let loop_index = if runner.is_some() { 1 } else { 0 };
        let pool = Some("linux".to_owned());
        let record = FactRecord { at: Moment::of_ms(self.now_ms), pool, loop_index, runner, fact };
        self.publisher.take(&record);
        self.status.take(&record);
        self.publisher.publish(&self.status);
    }

    fn text(&self) -> String {
        self.published.metrics.text().expect("a text")
    }

    /// Returns the lines that begin with a name, without comments.
    fn lines(&self, name: &str) -> String {
        let text = self.text();
        text.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>().join("\n")
    }
}

fn job(name: &str) -> Box<SeenJob> {
    let name = Some(name.to_owned());
    Box::new(SeenJob {
        id: 6,
        name,
        repository: Some("acme/app".to_owned()),
        seen_ms: Some(1000),
        ..SeenJob::default()
    })
}

/// Tells the life of a runner until its job runs.
fn up_to_the_job(process: &mut Process, id: &str, name: &str) {
    for fact in [
        Fact::Registering,
        Fact::Registered { registration: 7 },
        Fact::VmmStarted { pid: 4, from: StartKind::Fork, template: Some("t".to_owned()) },
        Fact::AgentHello,
        Fact::RunnerUp,
        Fact::Listening,
        Fact::JobTaken { job: job(name) },
        Fact::JobStarted { job: name.to_owned() },
    ] {
        process.tell(Some(id), fact);
    }
}

/// Returns a process with a job that waits, one that runs, and one of each trouble.
fn busy() -> Process {
    let mut process = Process::begin();
    process.tell(None, Fact::JobsWaiting { count: 2 });
    process.tell(None, Fact::PoolWaits { why: Some(Wait::Full { max: 8 }) });
    process.tell(None, Fact::JobSeen { job: job("test") });
    let (source, message) = ("poll".to_owned(), "x".to_owned());
    process.tell(None, Fact::ForgeLost { source, cause: Cause::Unreachable, message });
    process.tell(None, Fact::TemplateBuilt { template: "t".to_owned(), took_ms: 31_000, bytes: 1 });
    let phase = dayfly_fleet::state::Phase::Busy;
    let reason = || "x".to_owned();
    for fact in [
        Fact::Cold { reason: reason() },
        Fact::Retrying { why: reason(), count: 1, pause_ms: 1000 },
        Fact::TemplateFailed { template: "t".to_owned(), reason: reason() },
        Fact::VmLimited { enforced: Vec::new(), missing: vec![reason()] },
        Fact::OutOfMemory { process: reason(), used_mib: 1, memory_mib: 1 },
        Fact::DiskFailed { reason: reason() },
        Fact::LinesDropped { count: 3 },
        Fact::Warning { message: reason() },
        Fact::VmTakenOver { pid: 3, phase, registration: Some(8), job: None },
        Fact::Over { how: OverHow::NotUp, why: None, kind: Some(Cause::Image) },
        Fact::Ended,
    ] {
        process.tell(Some("1-bbbbbbb"), fact);
    }
    let scratch = Some(ScratchSummary { used_mib: 5, limit_mib: Some(9), is_whole: true });
    process.tell(None, Fact::ScratchInUse { scratch });
    up_to_the_job(&mut process, "1-ccccccc", "test");
    process.tell(Some("1-ccccccc"), Fact::JobFinished { result: JobResult::Succeeded });
    process.tell(Some("1-ccccccc"), Fact::Ended);
    up_to_the_job(&mut process, "1-aaaaaaa", "build");
    process
}

#[test]
fn every_family_is_written_for_a_process_with_a_job_that_waits_and_one_that_runs() {
    let text = busy().text();
    // Series have no order, and a histogram has many buckets.
    let shown = text.lines().filter(|line| !line.contains("_bucket{"));
    let mut lines: Vec<(usize, &str)> = Vec::new();
    for line in shown {
        let family = lines.last().map_or(0, |(family, _)| *family) + usize::from(line.starts_with('#'));
        lines.push((family, line));
    }
    lines.sort_unstable();
    insta::assert_snapshot!(lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_job_is_counted_once_although_its_runner_app_and_the_forge_report_its_end() {
    let concluded = || Fact::JobConcluded {
        job: "build".to_owned(),
        conclusion: JobConclusion::Failure,
        annotations: Vec::new(),
        annotations_left_out: 0,
    };
    let finished = || Fact::JobFinished { result: JobResult::Failed };
    let over = || Fact::Over { how: OverHow::JobDone, why: None, kind: None };
    for (order, result) in [
        (vec![finished(), concluded(), over(), Fact::Ended], "failed"),
        (vec![concluded(), finished(), over(), Fact::Ended], "failed"),
        (vec![finished(), over(), Fact::Ended, concluded()], "failed"),
        (vec![over(), Fact::Ended, concluded()], "abandoned"),
    ] {
        let mut process = Process::begin();
        up_to_the_job(&mut process, "1-aaaaaaa", "build");
        let gone = Fact::VmGone { exit: "x".to_owned() };
        std::iter::once(gone).chain(order).for_each(|fact| process.tell(Some("1-aaaaaaa"), fact));
        let expected = format!(
            "gha_completed_jobs_total{{name=\"acme-linux\",enterprise=\"\",organization=\"acme\",repository=\"app\",\
             job_name=\"build\",job_result=\"{result}\"}} 1"
        );
        assert_eq!(process.lines("gha_completed_jobs_total"), expected);
        assert_eq!(
            process.lines("gha_running_jobs").lines().filter(|line| line.ends_with(" 1.0")).count(),
            0
        );
    }
}

#[test]
fn a_runner_that_never_came_up_counts_with_its_cause_and_without_a_job() {
    let mut process = Process::begin();
    process.tell(Some("1-aaaaaaa"), Fact::Registering);
    let cause = Some(Cause::RateLimit { until_ms: 9 });
    process.tell(Some("1-aaaaaaa"), Fact::Over { how: OverHow::NotUp, why: None, kind: cause });
    assert_eq!(
        process.lines("dayfly_runner_failures_total"),
        "dayfly_runner_failures_total{pool=\"linux\",cause=\"rate_limit\"} 1"
    );
    assert_eq!(process.lines("gha_completed_jobs_total"), "");
}

#[test]
fn a_runner_that_was_taken_over_counts_the_end_of_its_job() {
    let mut process = Process::begin();
    let phase = dayfly_fleet::state::Phase::Busy;
    let job = Some("build".to_owned());
    process.tell(Some("1-aaaaaaa"), Fact::VmTakenOver { pid: 3, phase, registration: Some(7), job });
    process.tell(Some("1-aaaaaaa"), Fact::JobFinished { result: JobResult::Succeeded });
    assert!(process.lines("gha_completed_jobs_total").ends_with("job_result=\"succeeded\"} 1"));
    assert_eq!(process.lines("gha_job_execution"), "", "its start is not known here");
}

#[test]
fn hostile_names_stay_inside_their_label() {
    let mut process = Process::begin();
    let hostile = "a\"} 1\nfake_metric 7\u{1b}[2J\u{202e}\\";
    up_to_the_job(&mut process, "1-aaaaaaa", hostile);
    let text = process.text();
    assert!(text.lines().all(|line| !line.starts_with("fake_metric")), "{text}");
    assert!(text.contains(r#"job_name="a\"} 1fake_metric 7[2J"#), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_memory_of_runners_is_empty_when_all_have_ended() {
    let mut process = Process::begin();
    for at in 0..200 {
        let id = format!("1-{at:07}");
        up_to_the_job(&mut process, &id, "build");
        process.tell(Some(&id), Fact::JobFinished { result: JobResult::Succeeded });
        process.tell(Some(&id), Fact::Ended);
        // A source may tell of the job's end when the runner is gone.
        process.tell(
            Some(&id),
            Fact::JobConcluded {
                job: "build".to_owned(),
                conclusion: JobConclusion::Success,
                annotations: Vec::new(),
                annotations_left_out: 0,
            },
        );
    }
    assert_eq!(process.publisher.remembered(), 0);
    assert!(process.lines("gha_completed_jobs_total").ends_with(" 200"));
}

#[test]
fn traces_are_counted_only_if_they_are_sent() {
    let lines = |traces| Process::tracing(traces).lines("dayfly_traces");
    assert_eq!(lines(None), "");
    assert_eq!(lines(Some(TraceCounts::default())), "dayfly_traces_sent_total 0\ndayfly_traces_lost_total 0");
}

#[test]
fn the_page_lists_every_family() {
    const PAGE: &str = include_str!("../../../../docs/metrics.md");
    let text = busy().text();
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.len() > 40, "{families:?}");
    for family in families {
        let (name, kind) = family.split_once(' ').expect("a type");
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert!(PAGE.contains(&format!("`{name}{suffix}`")), "{name}{suffix}");
    }
}

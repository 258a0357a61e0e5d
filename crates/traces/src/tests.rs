//! Tests of the way from facts to a collector.

mod https;

use std::sync::Arc;
use std::time::Duration;

use dayfly_fleet::fact::{Fact, FactRecord, Moment, OverHow, RunnerRef, SeenJob, StartKind};
use dayfly_fleet::history::{History, RunRecord};
use dayfly_fleet::job_end::JobConclusion;
use dayfly_guest::runner_app::JobResult;
use dayfly_host::retry::{Retry, TRACES};
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::exporter::{Exporter, ExporterOptions, channel};
use crate::headers::Headers;
use crate::open_runs::{OpenRuns, Told};
use crate::spans::{request_of, spans_of};
use crate::test_collector::{Answer, TestCollector, attribute};
use crate::writer::TraceWriter;

const PATIENCE: Duration = Duration::from_secs(20);

fn at(ms: u64, runner: &str, fact: Fact) -> FactRecord {
    let id: dayfly_fleet::RunnerId = runner.parse().expect("an id");
    let runner = Some(RunnerRef { name: id.name("p"), id });
    FactRecord { at: Moment::of_ms(ms), pool: Some("linux".to_owned()), loop_index: 1, runner, fact }
}

fn taken() -> Fact {
    let job = SeenJob {
        id: 42,
        name: Some("build".to_owned()),
        repository: Some("acme/app".to_owned()),
        workflow: Some("CI".to_owned()),
        seen_ms: Some(500),
        ..SeenJob::default()
    };
    Fact::JobTaken { job: Box::new(job) }
}

/// Returns the facts of a run with a job, without its end.
fn life(runner: &str) -> Vec<FactRecord> {
    [
        (1000, Fact::Registering),
        (1100, Fact::Registered { registration: 7 }),
        (1150, Fact::VmmStarted { pid: 3, from: StartKind::Fork, template: Some("t".to_owned()) }),
        (1170, Fact::AgentHello),
        (1300, Fact::RunnerUp),
        (1500, Fact::Listening),
        (1600, taken()),
        (1700, Fact::JobStarted { job: "build".to_owned() }),
        (5700, Fact::JobFinished { result: JobResult::Succeeded }),
        (5710, Fact::VmUsed { cpus: 2, memory_mib: 1024, cpu_ms: Some(900), memory_peak_mib: Some(300) }),
        (5800, Fact::VmGone { exit: "killed".to_owned() }),
        (5900, Fact::Over { how: OverHow::JobDone, why: None, kind: None }),
    ]
    .map(|(ms, fact)| at(ms, runner, fact))
    .to_vec()
}

fn concluded(ms: u64, runner: &str, conclusion: JobConclusion) -> FactRecord {
    let fact = Fact::JobConcluded {
        job: "build".to_owned(),
        conclusion,
        annotations: Vec::new(),
        annotations_left_out: 0,
    };
    at(ms, runner, fact)
}

fn record_of(facts: &[FactRecord]) -> RunRecord {
    let mut runs = OpenRuns::default();
    let mut told = facts.iter().filter_map(|fact| runs.take(fact));
    let Some(Told::Ended(record)) = told.next() else { panic!("it has not ended") };
    *record
}

/// Returns spans as text: the time from the first one and the length, the name, the status, and the attributes.
fn shown(spans: &[Span]) -> String {
    let first = spans.iter().map(|span| span.start_time_unix_nano).min().unwrap_or_default();
    let ms = |ns: u64| ns / 1_000_000;
    let lines = spans.iter().flat_map(|span| {
        let (from, to) = (span.start_time_unix_nano, span.end_time_unix_nano);
        let status = span.status.as_ref().map_or("", |status| status.message.as_str());
        let head =
            format!("{} +{} {}  {status}", ms(from - first), ms(to - from), span.name).trim_end().to_owned();
        let keys = span.attributes.iter().map(|one| one.key.as_str());
        let values = keys.map(|key| format!("    {key}={}", attribute(span, key).unwrap_or_default()));
        std::iter::once(head).chain(values.collect::<Vec<_>>())
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_job_is_one_trace_from_the_time_it_was_queued_until_all_of_it_is_gone() {
    let mut facts = life("1-aaaaaaa");
    facts.push(at(5900, "1-aaaaaaa", Fact::Ended));
    let spans = spans_of(&record_of(&facts), "host-1");
    insta::assert_snapshot!(shown(&spans));
    let root = &spans[0];
    assert!(spans.iter().all(|span| span.trace_id == root.trace_id && span.trace_id.len() == 16));
    assert!(spans[1..].iter().all(|span| span.parent_span_id == root.span_id && span.span_id.len() == 8));
    let mut ids: Vec<_> = spans.iter().map(|span| &span.span_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), spans.len());
}

#[test]
fn a_run_that_failed_names_the_party_to_blame_and_one_without_a_job_has_no_result() {
    let mut all = Vec::new();
    let lost =
        Fact::Over { how: OverHow::MachineLost, why: Some("killed by signal 9".to_owned()), kind: None };
    for (last, end) in [(8, lost), (6, Fact::Over { how: OverHow::Idle, why: None, kind: None })] {
        let mut facts = life("1-aaaaaaa");
        facts.truncate(last);
        facts.extend([
            at(9000, "1-aaaaaaa", Fact::VmGone { exit: "x".to_owned() }),
            at(9100, "1-aaaaaaa", end),
        ]);
        facts.push(at(9100, "1-aaaaaaa", Fact::Ended));
        all.push(shown(&spans_of(&record_of(&facts), "host-1")[..1]));
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn the_traces_of_two_hosts_and_of_two_runs_differ_and_one_run_has_always_the_same() {
    let mut facts = life("1-aaaaaaa");
    facts.push(at(5900, "1-aaaaaaa", Fact::Ended));
    let run = record_of(&facts);
    let other = RunRecord { name: "p-2-bbbbbbb".to_owned(), ..run.clone() };
    let id = |run: &RunRecord, host: &str| spans_of(run, host)[0].trace_id.clone();
    assert_eq!(id(&run, "a"), id(&run, "a"));
    assert_ne!(id(&run, "a"), id(&run, "b"));
    assert_ne!(id(&run, "a"), id(&other, "a"));
}

#[test]
fn facts_that_come_after_the_end_of_a_run_begin_no_other() {
    let mut runs = OpenRuns::default();
    let mut facts = life("1-aaaaaaa");
    facts.push(at(5900, "1-aaaaaaa", Fact::Ended));
    let told: Vec<Told> = facts.iter().filter_map(|fact| runs.take(fact)).collect();
    assert!(matches!(told[..], [Told::Ended(_)]));
    let late = [taken(), Fact::Warning { message: "x".to_owned() }, Fact::Ended];
    assert!(late.into_iter().all(|fact| runs.take(&at(6000, "1-aaaaaaa", fact)).is_none()));
    let report = concluded(6000, "1-aaaaaaa", JobConclusion::Failure);
    assert_eq!(runs.take(&report), Some(Told::Concluded(Box::new(report))));
}

#[test]
fn a_run_that_is_handed_over_is_told_by_the_process_that_takes_it_over() {
    let mut runs = OpenRuns::default();
    let mut facts = life("1-aaaaaaa");
    facts.truncate(8);
    facts.push(at(2000, "1-aaaaaaa", Fact::VmHandedOver));
    facts.push(at(2000, "1-aaaaaaa", Fact::Ended));
    assert!(facts.iter().all(|fact| runs.take(fact).is_none()));
    let phase = dayfly_fleet::state::Phase::Busy;
    let over = Fact::VmTakenOver { pid: 3, phase, registration: None, job: None };
    assert_eq!(runs.take(&at(3000, "1-aaaaaaa", over)), None);
    let told = runs.take(&at(4000, "1-aaaaaaa", Fact::Ended));
    assert_eq!(told, Some(Told::EndedTakenOver("1-aaaaaaa".parse().expect("an id"))));
}

proptest! {
    #[test]
    fn hostile_names_and_clocks_that_jump_give_spans_of_bounded_size(
        job in "\\PC{0,40}|\u{1b}\\[31m[\u{0}-\u{1f}\u{202e}]{0,600}|x{300,900}",
        times in proptest::collection::vec(0_u64..10_000, 13),
    ) {
        let mut facts = life("1-aaaaaaa");
        facts.push(at(0, "1-aaaaaaa", Fact::Ended));
        for (fact, ms) in facts.iter_mut().zip(times) {
            fact.at = Moment::of_ms(ms);
            if let Fact::JobStarted { job: name } = &mut fact.fact {
                name.clone_from(&job);
            }
        }
        let run = record_of(&facts);
        for span in spans_of(&run, "host-1") {
            prop_assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
            prop_assert!(span.name.chars().count() <= 300 && !span.name.contains(char::is_control));
        }
        prop_assert!(prost::Message::encoded_len(&request_of(&[run], "host-1")) < 16 * 1024);
    }
}

/// An exporter for a collector, and the folder of its history.
fn exporter_for(url: &str) -> (TraceWriter, Exporter, TempDir) {
    opened(url).expect("a client")
}

fn opened(url: &str) -> Result<(TraceWriter, Exporter, TempDir), dayfly_forge::ForgeError> {
    let folder = tempfile::tempdir().expect("a folder");
    let (writer, repositories, exporter) = channel(ExporterOptions {
        endpoint: url.parse().expect("an address"),
        headers: Headers::parse(&"X-Team: 7".into()).expect("headers"),
        host: "host-1".to_owned(),
        history: History::of(folder.path()),
    })?;
    repositories.send_replace(Arc::new([("linux".to_owned(), "acme/of-pool".to_owned())].into()));
    Ok((writer, exporter, folder))
}

fn end(writer: &mut TraceWriter, runner: &str) {
    life(runner).iter().chain([&at(5900, runner, Fact::Ended)]).for_each(|fact| writer.take(fact));
}

#[tokio::test]
async fn the_collector_gets_each_trace_with_the_end_that_the_forge_reports_later() {
    let collector = TestCollector::start([]).expect("a collector");
    let (mut writer, exporter, _folder) = exporter_for(&collector.url);
    end(&mut writer, "1-aaaaaaa");
    writer.take(&concluded(6500, "1-aaaaaaa", JobConclusion::Failure));
    let mut without_a_source = life("2-bbbbbbb");
    without_a_source.retain(|fact| !matches!(fact.fact, Fact::JobTaken { .. }));
    without_a_source.push(at(5900, "2-bbbbbbb", Fact::Ended));
    without_a_source.iter().for_each(|fact| writer.take(fact));
    drop(writer);
    exporter.run().await;
    let received = collector.received();
    assert_eq!(received[0].line, "POST /v1/traces HTTP/1.1");
    assert!(received[0].headers.contains(&"content-type: application/x-protobuf".to_owned()), "{received:?}");
    assert!(received[0].headers.contains(&"x-team: 7".to_owned()), "{received:?}");
    let traces = collector.wait_for_traces(2, PATIENCE).expect("two traces");
    let of = |key: &str| traces.iter().map(|trace| attribute(&trace[0], key)).collect::<Vec<_>>();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(of("cicd.pipeline.task.run.result"), [some("failure"), some("success")]);
    assert_eq!(of("vcs.repository.name"), [some("app"), some("of-pool")]);
}

#[tokio::test]
async fn a_run_that_was_taken_over_has_the_times_of_the_process_before() {
    let collector = TestCollector::start([]).expect("a collector");
    let (mut writer, exporter, folder) = exporter_for(&collector.url);
    History::of(folder.path()).keep(&life("1-aaaaaaa")).expect("kept");
    let phase = dayfly_fleet::state::Phase::Busy;
    let over = Fact::VmTakenOver { pid: 3, phase, registration: None, job: None };
    writer.take(&at(3000, "1-aaaaaaa", over));
    writer.take(&at(5900, "1-aaaaaaa", Fact::Ended));
    drop(writer);
    exporter.run().await;
    let trace = collector.wait_for_traces(1, PATIENCE).expect("a trace").remove(0);
    assert!(trace.iter().any(|span| span.name == "machine starts"), "{}", shown(&trace));
}

#[tokio::test]
async fn a_run_that_was_taken_over_and_that_the_history_lacks_is_a_lost_trace() {
    let collector = TestCollector::start([]).expect("a collector");
    let (mut writer, exporter, _folder) = exporter_for(&collector.url);
    let phase = dayfly_fleet::state::Phase::Busy;
    let over = Fact::VmTakenOver { pid: 3, phase, registration: None, job: None };
    writer.take(&at(3000, "1-aaaaaaa", over));
    writer.take(&at(5900, "1-aaaaaaa", Fact::Ended));
    drop(writer);
    let counts = exporter.counts();
    exporter.run().await;
    assert_eq!((counts.sent(), counts.lost(), collector.received().len()), (0, 1, 0));
}

#[tokio::test]
async fn a_collector_that_is_overloaded_gets_the_traces_again_and_one_that_refuses_does_not() {
    for (answers, attempts) in [
        (vec![Answer::Status(503), Answer::Status(429)], 3),
        (vec![Answer::Status(400)], 1),
        (vec![Answer::Status(503); 9], 4),
    ] {
        let collector = TestCollector::start(answers).expect("a collector");
        let (mut writer, mut exporter, _folder) = exporter_for(&collector.url);
        let ms = Duration::from_millis;
        exporter.rule = Retry { first: ms(1), limit: ms(1), ..TRACES };
        end(&mut writer, "1-aaaaaaa");
        drop(writer);
        let counts = exporter.counts();
        exporter.run().await;
        assert_eq!(collector.received().len(), attempts);
        assert_eq!((counts.sent(), counts.lost()), if attempts == 3 { (1, 0) } else { (0, 1) });
    }
}

#[tokio::test]
async fn a_collector_that_does_not_answer_costs_traces_and_no_time_of_the_writer() {
    let collector = TestCollector::start([Answer::Silence; 9]).expect("a collector");
    let (mut writer, exporter, _folder) = exporter_for(&collector.url);
    let counts = exporter.counts();
    let exporter = tokio::spawn(exporter.run());
    let began = std::time::Instant::now();
    // More than the queue and a request have room for. The writer is no future: it cannot wait.
    for number in 0..2000 {
        end(&mut writer, &format!("1-{number:07}"));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(counts.lost() >= 2000 - 512 - 64 - 1, "{counts:?}");
    exporter.abort();
}

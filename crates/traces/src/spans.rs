//! The spans of runs. Pure.

use dayfly_fleet::history::{Fault, Outcome, RunPart, RunRecord, parts_of};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use sha2::{Digest as _, Sha256};

/// Longest text of an attribute, characters. Guests and forges choose names.
const TEXT_LENGTH_MAX: usize = 256;
const NS_PER_MS: u64 = 1_000_000;
/// The trace is recorded, and no span has a parent in another process (`SpanFlags` of the protocol).
const FLAGS: u32 = 0x101;

/// Returns the request with the traces of these runs of a host.
pub(crate) fn request_of(runs: &[RunRecord], host: &str) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            text("service.name", "dayfly"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("host.name", host),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope { name: "dayfly".to_owned(), ..InstrumentationScope::default() };
    let spans = runs.iter().flat_map(|run| spans_of(run, host)).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource = Some(resource);
    let of_host = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![of_host] }
}

/// Returns the trace of a run: a span for all of it, and one for each part below it. A run without any time has none.
pub(crate) fn spans_of(run: &RunRecord, host: &str) -> Vec<Span> {
    let parts = parts_of(&run.times, None);
    let first = parts.iter().map(|part| part.from_ms).chain(run.times.first()).min();
    let last = parts.iter().map(|part| part.to_ms).chain(run.times.last()).max();
    let (Some(from_ms), Some(to_ms)) = (first, last) else { return Vec::new() };
    let trace = Ids::of(run, host);
    let name = run.job.as_deref().map_or("RUN".to_owned(), |job| format!("RUN {}", bounded(job)));
    let whole = RunPart { name: "", who: "", from_ms, to_ms };
    let root = Span {
        name,
        status: Some(status_of(run)),
        attributes: attributes_of(run),
        ..span(&trace, 0, &whole)
    };
    let below = (1..).zip(&parts).map(|(index, part)| Span {
        name: part.name.to_owned(),
        parent_span_id: trace.span(0),
        attributes: vec![text("dayfly.part.of", part.who)],
        ..span(&trace, index, part)
    });
    std::iter::once(root).chain(below).collect()
}

fn span(trace: &Ids, index: u32, part: &RunPart) -> Span {
    Span {
        trace_id: trace.trace(),
        span_id: trace.span(index),
        flags: FLAGS,
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: part.from_ms.saturating_mul(NS_PER_MS),
        end_time_unix_nano: part.to_ms.saturating_mul(NS_PER_MS),
        ..Span::default()
    }
}

/// The ids of a trace. They follow from the run, so that a trace that is sent twice is one trace.
struct Ids {
    digest: [u8; 32],
}

impl Ids {
    fn of(run: &RunRecord, host: &str) -> Self {
        let first = run.times.first().unwrap_or_default();
        Self { digest: Sha256::digest(format!("{host}\0{}\0{first}", run.name)).into() }
    }

    fn trace(&self) -> Vec<u8> {
        self.digest[..16].to_vec()
    }

    fn span(&self, index: u32) -> Vec<u8> {
        let digest: [u8; 32] = Sha256::digest([&self.digest[..], &index.to_be_bytes()].concat()).into();
        digest[..8].to_vec()
    }
}

fn status_of(run: &RunRecord) -> Status {
    match run.fault() {
        Some(fault) => Status { code: StatusCode::Error.into(), message: fault.to_string() },
        None => Status::default(),
    }
}

/// Returns the attributes of a whole run. Those that are not known are left out.
fn attributes_of(run: &RunRecord) -> Vec<KeyValue> {
    let (owner, repository) = run.repository.as_deref().and_then(|name| name.split_once('/')).unzip();
    let texts = [
        ("cicd.worker.id", Some(run.runner.as_str())),
        ("cicd.worker.name", Some(run.name.as_str())),
        ("cicd.pipeline.name", run.workflow.as_deref()),
        ("cicd.pipeline.task.name", run.job.as_deref()),
        ("cicd.pipeline.task.run.id", run.job_id.map(|id| id.to_string()).as_deref()),
        ("cicd.pipeline.task.run.result", result_of(run)),
        ("error.type", run.fault().map(Fault::as_str)),
        ("vcs.owner.name", owner),
        ("vcs.repository.name", repository),
        ("dayfly.pool", run.pool.as_deref()),
        ("dayfly.outcome", Some(run.outcome().as_str())),
        ("dayfly.why", run.why.as_deref()),
        ("dayfly.machine.start", run.start.map(|start| start.as_str())),
    ]
    .map(|(key, value)| value.map(|value| text(key, value)));
    let used = run.used;
    let numbers = [
        ("dayfly.machine.cpus", used.map(|used| used.cpus.into())),
        ("dayfly.machine.memory_mib", used.map(|used| used.memory_mib.into())),
        ("dayfly.machine.cpu_ms", used.and_then(|used| used.cpu_ms)),
        ("dayfly.machine.memory_peak_mib", used.and_then(|used| used.memory_peak_mib)),
        ("dayfly.taken_over", Some(run.taken_over.into()).filter(|count| *count > 0)),
    ]
    .map(|(key, value)| value.map(|value| number(key, value)));
    texts.into_iter().chain(numbers).flatten().collect()
}

/// Returns the result of the job in the words of the semantic conventions; none if there was no job.
fn result_of(run: &RunRecord) -> Option<&'static str> {
    match (run.outcome(), run.fault()) {
        (Outcome::Success, _) => Some("success"),
        (Outcome::Cancelled, _) => Some("cancellation"),
        (Outcome::Skipped, _) => Some("skip"),
        (Outcome::Failure | Outcome::Lost, Some(Fault::TimeLimit)) => Some("timeout"),
        (Outcome::Failure, Some(Fault::Steps) | None) => Some("failure"),
        (Outcome::Failure | Outcome::Lost, _) => Some("error"),
        (Outcome::NoJob | Outcome::NotUp | Outcome::Running, _) => None,
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    of_value(key, Value::StringValue(bounded(value)))
}

fn number(key: &str, value: u64) -> KeyValue {
    of_value(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn of_value(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Returns a text of bounded length without control characters, because some viewers print it at a terminal.
fn bounded(text: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(TEXT_LENGTH_MAX).map(shown).collect()
}

//! One request to a collector.

use std::time::Duration;

use dayfly_forge::{ForgeError, Url, delivery_client, is_of_certificate};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};

use crate::endpoint::Endpoint;
use crate::headers::Headers;

/// Longest answer that is read, bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// Longest pause that a collector may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A collector, and how to reach it.
#[derive(Debug)]
pub(crate) struct Collector {
    http: reqwest::Client,
    url: Url,
    headers: HeaderMap,
}

/// The reason why a collector has not taken spans.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It may take them later, after the pause that it asks for.
    ForNow { why: String, pause: Option<Duration> },
    /// It never will.
    ForGood { why: String },
}

impl Collector {
    pub(crate) fn new(endpoint: &Endpoint, headers: &Headers) -> Result<Self, ForgeError> {
        let url = endpoint.traces();
        let mut headers = headers.map();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok(Self { http: delivery_client(&url)?, url, headers })
    }

    /// Sends a request. Returns the number of spans that the collector has rejected.
    pub(crate) async fn post(&self, body: Vec<u8>) -> Result<u64, Refusal> {
        let request = self.http.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let mut answer = request.send().await.map_err(failure)?;
        if !answer.status().is_success() {
            return Err(refusal(answer.status(), answer.headers()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failure)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_MAX {
                return Ok(0);
            }
        }
        Ok(rejected(&bytes))
    }
}

/// Decides about a request without an answer. A certificate that is not trusted will not be so in a minute either.
fn failure(error: reqwest::Error) -> Refusal {
    let error = error.without_url();
    if is_of_certificate(&error) {
        let why = format!(
            "its certificate is not trusted ({}); if its authority is your own, name a file with its certificate in SSL_CERT_FILE",
            causes(&error).last().unwrap_or_default()
        );
        return Refusal::ForGood { why };
    }
    Refusal::ForNow { why: causes(&error).collect::<Vec<_>>().join(": "), pause: None }
}

/// Decides about an answer that is no success (OTLP specification, "Retryable Response Codes"). Pure.
fn refusal(status: StatusCode, headers: &HeaderMap) -> Refusal {
    let why = format!("it answers {status}");
    if ![429, 502, 503, 504].contains(&status.as_u16()) {
        return Refusal::ForGood { why };
    }
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Refusal::ForNow { why, pause: seconds.map(|seconds| Duration::from_secs(seconds).min(PAUSE_MAX)) }
}

/// Returns the number of rejected spans by an answer. One that is no message counts as none, because the spans were taken.
fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or_default())
}

/// Returns the texts of an error and its causes.
fn causes(error: &dyn std::error::Error) -> impl Iterator<Item = String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn a_collector_that_is_overloaded_says_how_long_to_wait_and_a_bad_request_is_not_sent_again() {
        let answered = |status: u16, after: Option<&'static str>| {
            let headers = after.map(|after| (RETRY_AFTER, HeaderValue::from_static(after)));
            refusal(StatusCode::from_u16(status).expect("a status"), &headers.into_iter().collect())
        };
        for (after, pause) in [
            (None, None),
            (Some("7"), Some(Duration::from_secs(7))),
            (Some("99999999"), Some(PAUSE_MAX)),
            (Some("Wed, 21 Oct 2015 07:28:00 GMT"), None),
        ] {
            let why = "it answers 429 Too Many Requests".to_owned();
            assert_eq!(answered(429, after), Refusal::ForNow { why, pause });
        }
        for status in [400, 401, 404, 413, 500, 302] {
            assert!(matches!(answered(status, None), Refusal::ForGood { .. }), "{status}");
        }
    }

    #[test]
    fn rejected_spans_are_counted_and_an_answer_that_is_no_message_rejects_none() {
        let message = |rejected_spans| {
            let partial_success =
                Some(ExportTracePartialSuccess { rejected_spans, error_message: "x".to_owned() });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        };
        assert_eq!(
            [rejected(&message(3)), rejected(&message(-3)), rejected(b""), rejected(b"{}")],
            [3, 0, 0, 0]
        );
    }
}

//! A message of a scale set's queue: statistics, and news about jobs as JSON in a string.
//!
//! Everything in it that dayfly does not understand is skipped and named, because a message that is never deleted comes
//! again for ever. Only the id is indispensable.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::demand::ScaleSetStatistics;
use super::wire::{if_readable, or_default};

/// Type of the only messages that the protocol knows.
const JOB_MESSAGES: &str = "RunnerScaleSetJobMessages";
/// Most reports of unread parts that are kept of a message.
pub(crate) const UNREAD_MAX: usize = 5;
/// Most news that are read from a message. A real one has at most 50.
pub(crate) const EVENTS_MAX: usize = 1000;
/// Longest name of an unknown type that a report repeats, in characters.
const TYPE_LEN_MAX: usize = 60;

/// A message of a scale set's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleSetMessage {
    /// Its id, with which it is deleted. The ids of a queue grow.
    pub id: u64,
    /// The counts, if the message has them.
    pub statistics: Option<ScaleSetStatistics>,
    /// The news about jobs.
    pub events: Vec<ScaleSetJobEvent>,
    /// Reports of parts that were not understood; only the first few.
    pub unread: Vec<String>,
}

/// News about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScaleSetJobEvent {
    /// The job is offered and must be acquired.
    Available(ScaleSetJob),
    /// The job belongs to the scale set and waits for a runner.
    Assigned(ScaleSetJob),
    /// A runner has taken the job.
    Started(ScaleSetJob, RunnerOfJob),
    /// The job has ended.
    Completed {
        /// The job.
        job: ScaleSetJob,
        /// `succeeded`, `failed`, `canceled`, `skipped`, `abandoned`, ... A job that no runner took in time is `canceled`
        /// here, and queued again by the forge.
        result: String,
        /// Its runner; `None` if no runner had it.
        runner: Option<RunnerOfJob>,
    },
}

/// A job of a scale set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleSetJob {
    /// The id of the request for a runner. It tells whether two events are about the same request.
    pub runner_request_id: i64,
    /// The id of the job, a UUID.
    #[serde(default, deserialize_with = "or_default")]
    pub job_id: String,
    /// The name of its repository.
    #[serde(default, deserialize_with = "or_default")]
    pub repository_name: String,
    /// The owner of its repository.
    #[serde(default, deserialize_with = "or_default")]
    pub owner_name: String,
    /// The file and ref of its workflow.
    #[serde(default, deserialize_with = "or_default")]
    pub job_workflow_ref: String,
    /// Its name as the forge shows it.
    #[serde(default, deserialize_with = "or_default")]
    pub job_display_name: String,
    /// The id of its run.
    #[serde(default, deserialize_with = "or_default")]
    pub workflow_run_id: i64,
    /// The event that started the run.
    #[serde(default, deserialize_with = "or_default")]
    pub event_name: String,
    /// The labels that it asks for.
    #[serde(default, deserialize_with = "or_default")]
    pub request_labels: Vec<String>,
    /// The time at which it was queued; `None` if the forge has not set it.
    #[serde(default, deserialize_with = "set_time")]
    pub queue_time: Option<Timestamp>,
}

/// The runner of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerOfJob {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
}

impl ScaleSetJobEvent {
    /// Returns the job.
    pub fn job(&self) -> &ScaleSetJob {
        match self {
            Self::Available(job)
            | Self::Assigned(job)
            | Self::Started(job, _)
            | Self::Completed { job, .. } => job,
        }
    }

    /// Reads one element of a message's body.
    fn read(value: Value) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Element {
            message_type: String,
            #[serde(flatten)]
            job: ScaleSetJob,
            #[serde(default, deserialize_with = "or_default")]
            result: String,
            #[serde(default, deserialize_with = "or_default")]
            runner_id: u64,
            #[serde(default, deserialize_with = "or_default")]
            runner_name: String,
        }
        let kind = value.get("messageType").and_then(Value::as_str).unwrap_or_default();
        if !matches!(kind, "JobAvailable" | "JobAssigned" | "JobStarted" | "JobCompleted") {
            return Err(format!("news of the unknown type {}", quoted(kind)));
        }
        let element: Element = serde_json::from_value(value).map_err(|error| format!("news: {error}"))?;
        let job = element.job;
        let runner = RunnerOfJob { id: element.runner_id, name: element.runner_name };
        Ok(match element.message_type.as_str() {
            "JobAvailable" => Self::Available(job),
            "JobAssigned" => Self::Assigned(job),
            "JobStarted" => Self::Started(job, runner),
            _ => {
                let runner = Some(runner).filter(|runner| !runner.name.is_empty());
                Self::Completed { job, result: element.result, runner }
            }
        })
    }
}

impl ScaleSetMessage {
    /// Reads an answer of the queue.
    ///
    /// # Errors
    /// The reason if the answer is no JSON object with an id.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            message_id: u64,
            #[serde(default)]
            message_type: Value,
            #[serde(default)]
            body: Value,
            #[serde(default)]
            statistics: Option<Value>,
        }
        let raw: Raw = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let has_statistics = raw.statistics.is_some();
        let statistics = if_readable(raw.statistics);
        let mut message = Self { id: raw.message_id, statistics, events: Vec::new(), unread: Vec::new() };
        if message.statistics.is_none() {
            let why = if has_statistics { "statistics that are not understood" } else { "no statistics" };
            message.skip(why.to_owned());
        }
        match raw.message_type.as_str() {
            Some(JOB_MESSAGES) => message.read_events(&raw.body),
            kind => {
                message.skip(format!("a message of the unknown type {}", quoted(kind.unwrap_or_default())))
            }
        }
        Ok(message)
    }

    fn read_events(&mut self, body: &Value) {
        let text = match body {
            Value::Null => return,
            Value::String(text) if text.trim().is_empty() => return,
            Value::String(text) => text,
            _ => return self.skip("a body that is no string".to_owned()),
        };
        let elements: Vec<Value> = match serde_json::from_str(text) {
            Ok(elements) => elements,
            Err(error) => return self.skip(format!("a body that is no list in JSON: {error}")),
        };
        if elements.len() > EVENTS_MAX {
            self.skip(format!("{} news, of which {EVENTS_MAX} were read", elements.len()));
        }
        for element in elements.into_iter().take(EVENTS_MAX) {
            match ScaleSetJobEvent::read(element) {
                Ok(event) => self.events.push(event),
                Err(why) => self.skip(why),
            }
        }
    }

    fn skip(&mut self, why: String) {
        if self.unread.len() < UNREAD_MAX {
            self.unread.push(why);
        }
    }
}

/// Returns a foreign word for a report.
fn quoted(word: &str) -> String {
    format!("{:?}", word.chars().take(TYPE_LEN_MAX).collect::<String>())
}

/// Reads a time. The forge writes a time that is not set as that of the year 1.
fn set_time<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    let time = text.and_then(|text| text.parse::<Timestamp>().ok());
    Ok(time.filter(|time| time.as_second() > 0))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> ScaleSetMessage {
        let message = json!({
            "messageId": 41, "messageType": JOB_MESSAGES, "body": body,
            "statistics": {"totalAssignedJobs": 3},
        });
        ScaleSetMessage::read(message.to_string().as_bytes()).unwrap()
    }

    fn news(elements: &Value) -> ScaleSetMessage {
        read(json!(elements.to_string()))
    }

    #[test]
    fn every_kind_of_news_is_read() {
        let message = news(&json!([
            {"messageType": "JobAvailable", "runnerRequestId": 1, "acquireJobUrl": "https://h/"},
            {"messageType": "JobAssigned", "runnerRequestId": 9_007_199_254_740_993_i64, "requestLabels": ["vm"],
             "queueTime": "2026-01-02T03:04:05Z", "finishTime": "0001-01-01T00:00:00Z", "jobDisplayName": "build"},
            {"messageType": "JobStarted", "runnerRequestId": 3, "runnerId": 123, "runnerName": "vm-1"},
            {"messageType": "JobCompleted", "runnerRequestId": 4, "result": "canceled", "runnerId": 0, "runnerName": "",
             "queueTime": "0001-01-01T00:00:00Z"},
            {"messageType": "JobCompleted", "runnerRequestId": 5, "result": "succeeded", "runnerId": 7, "runnerName": "vm-2"},
        ]));
        assert_eq!((message.id, message.unread.len()), (41, 0));
        assert_eq!(message.statistics.unwrap().total_assigned_jobs, 3);
        let [
            ScaleSetJobEvent::Available(_),
            ScaleSetJobEvent::Assigned(assigned),
            ScaleSetJobEvent::Started(_, runner),
            canceled,
            completed,
        ] = &message.events[..]
        else {
            panic!("{message:?}")
        };
        assert_eq!(assigned.runner_request_id, 9_007_199_254_740_993, "exact beyond 2^53");
        assert_eq!(assigned.queue_time.unwrap().to_string(), "2026-01-02T03:04:05Z");
        assert_eq!(*runner, RunnerOfJob { id: 123, name: "vm-1".into() });
        assert!(
            matches!(canceled, ScaleSetJobEvent::Completed { runner: None, result, job } if result == "canceled" && job.queue_time.is_none())
        );
        assert!(
            matches!(completed, ScaleSetJobEvent::Completed { runner: Some(runner), .. } if runner.name == "vm-2")
        );
    }

    #[test]
    fn a_message_may_hold_statistics_alone() {
        for body in [json!(""), json!(" "), json!(null), json!("[]")] {
            let message = read(body);
            assert!(message.events.is_empty() && message.unread.is_empty(), "{message:?}");
        }
    }

    #[test]
    fn unknown_and_broken_news_are_skipped_and_the_rest_is_read() {
        let message = news(&json!([
            {"messageType": "JobPostponed", "runnerRequestId": 1},
            {"messageType": "JobAssigned"},
            "JobAssigned",
            {"messageType": "JobAssigned", "runnerRequestId": 2, "jobId": null, "requestLabels": null, "new": [1]},
        ]));
        assert_eq!(message.events.len(), 1);
        insta::assert_snapshot!(message.unread.join("\n"), @r#"
        news of the unknown type "JobPostponed"
        news: missing field `runnerRequestId`
        news of the unknown type ""
        "#);
    }

    #[test]
    fn a_broken_body_leaves_the_statistics() {
        for (body, why) in [
            (json!("[{\"messageType\":"), "a body that is no list in JSON"),
            (json!("{}"), "a body that is no list in JSON"),
            (json!([{"messageType": "JobAssigned"}]), "a body that is no string"),
        ] {
            let message = read(body);
            assert!(message.unread[0].starts_with(why), "{message:?}");
            assert_eq!(message.statistics.unwrap().total_assigned_jobs, 3);
        }
    }

    #[test]
    fn a_message_needs_its_id_and_nothing_else() {
        let message = ScaleSetMessage::read(br#"{"messageId":1}"#).unwrap();
        insta::assert_snapshot!(message.unread.join("\n"), @r#"
        no statistics
        a message of the unknown type ""
        "#);
        let message =
            ScaleSetMessage::read(br#"{"messageId":1,"messageType":"Other","statistics":[]}"#).unwrap();
        insta::assert_snapshot!(message.unread.join("\n"), @r#"
        statistics that are not understood
        a message of the unknown type "Other"
        "#);
        for body in ["", "{", "[]", r#"{"messageId":-1}"#, r#"{"messageId":"x"}"#] {
            assert!(ScaleSetMessage::read(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn reports_of_skipped_parts_and_news_have_a_bound() {
        let many: Vec<Value> =
            (0..2000).map(|id| json!({"messageType": "X", "runnerRequestId": id})).collect();
        let message = news(&json!(many));
        assert_eq!(
            (message.unread.len(), message.unread[0].as_str()),
            (UNREAD_MAX, "2000 news, of which 1000 were read")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200), inner in ".{0,200}") {
            let _ = ScaleSetMessage::read(&body);
            let message = read(json!(inner));
            prop_assert!(message.unread.len() <= UNREAD_MAX);
        }
    }
}

//! The control socket of an orchestrator: `control.sock` in the folder of its instance, mode 0600.
//!
//! ```text
//!   dayfly reload  ──> {"request":"reload"} ──> control.sock ──> Ask ──> the orchestrator
//!   dayfly pause a ──> {"request":"steer","order":"pause","pools":["a"]} ──┐
//!                  <── {"outcome":"steered","changed":["a"], ...} <─────── Answer
//! ```
//!
//! A connection carries one request and one answer, each a line of JSON of bounded length and time. Another command is another
//! variant of [`Request`].

mod client;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use client::{ask, is_there};
pub(crate) use server::{Ask, serve};

/// Name of the socket in an instance's folder.
const SOCKET: &str = "control.sock";
/// Longest request, bytes.
const REQUEST_MAX: u64 = 64 * 1024;
/// Longest answer, bytes. It may quote the lines of fifty problems.
const ANSWER_MAX: u64 = 1024 * 1024;
/// Longest time for the bytes of a request or of an answer.
pub(crate) const TRANSFER_LIMIT: Duration = Duration::from_secs(10);
/// Longest reload. It may have to fetch images, as the start of an orchestrator does.
pub(crate) const RELOAD_LIMIT: Duration = Duration::from_secs(3600);
/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = RELOAD_LIMIT.saturating_add(Duration::from_secs(60));

/// A request to an orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Read the configuration file again. An orchestrator that runs from another file than `config`, or from none, does nothing.
    Reload {
        /// The file, as an absolute path; none: whichever it runs from, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<PathBuf>,
    },
    /// Carry out the order of an administrator. It counts until the orchestrator ends.
    Steer {
        /// As for [`Request::Reload`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<PathBuf>,
        /// The order.
        #[serde(flatten)]
        order: PoolOrder,
    },
}

impl Request {
    /// Returns the file of the orchestrator that the request is for; none: any.
    pub(crate) fn config(&self) -> Option<&Path> {
        match self {
            Self::Reload { config } | Self::Steer { config, .. } => config.as_deref(),
        }
    }
}

/// An order of an administrator for pools. A pool that is as it is ordered to be is no error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum PoolOrder {
    /// Start no runner, and end those that have no job. Jobs are counted.
    Pause {
        /// The pools; none: all that run.
        pools: Vec<String>,
    },
    /// End a pause, or start pools again that were drained.
    Resume {
        /// The pools; none: all that are paused or drained.
        pools: Vec<String>,
    },
    /// End the pools, each with its last job.
    Drain {
        /// The pools; none: all, and then the orchestrator ends.
        pools: Vec<String>,
    },
    /// Change the numbers of a pool until the next reload.
    Scale {
        /// The pool.
        pool: String,
        /// Most runners; none: as before.
        max: Option<u32>,
        /// Idle runners that are kept ready; none: as before.
        min_idle: Option<u32>,
    },
}

/// The answer of an orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The file was taken over.
    Reloaded {
        /// The file.
        file: PathBuf,
        /// The fate of each pool.
        #[serde(flatten)]
        pools: PoolChanges,
        /// Problems of the file that are no errors.
        #[serde(default)]
        problems: Vec<FileProblem>,
    },
    /// An order was carried out.
    Steered {
        /// The file that the orchestrator runs from; none: it was started without one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<PathBuf>,
        /// The fate of each pool.
        #[serde(flatten)]
        steered: Steered,
    },
    /// The file or the order was refused, and nothing has changed.
    Refused {
        /// The file; none: the orchestrator was started without one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<PathBuf>,
        /// The reason.
        why: String,
        /// The remedy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// The problems of the file.
        #[serde(default)]
        problems: Vec<FileProblem>,
    },
    /// The orchestrator runs from another file than the request names.
    OtherFile {
        /// Its file; none: it was started without one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<PathBuf>,
    },
    /// The orchestrator was started without a file, so that there is none to read again.
    NoFile,
    /// The request was not carried out.
    Failed {
        /// The reason.
        why: String,
    },
}

/// The names of a file's pools, by what a reload has done with them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct PoolChanges {
    /// New pools.
    pub(crate) added: Vec<String>,
    /// Pools that drain, each with a new one of the same name beside it.
    pub(crate) replaced: Vec<String>,
    /// Pools whose numbers have changed.
    pub(crate) adjusted: Vec<String>,
    /// Pools that drain because they are no longer in the file.
    pub(crate) removed: Vec<String>,
    /// Pools that were not touched.
    pub(crate) unchanged: Vec<String>,
    /// Those of the pools above that an administrator has paused, and that stay so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) still_paused: Vec<String>,
    /// Pools that an administrator has drained, and that the file still has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) still_drained: Vec<String>,
    /// Pools that have not started yet, because their forge does not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) still_waiting: Vec<String>,
}

/// The consequence of an order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Steered {
    /// The names of the pools that it has changed.
    pub(crate) changed: Vec<String>,
    /// The names of those that were so already.
    pub(crate) already: Vec<String>,
    /// True if the orchestrator ends with the last runner.
    pub(crate) ends: bool,
    /// Notes for the administrator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

/// A problem of a file, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileProblem {
    /// True if the file is refused for it.
    pub(crate) is_error: bool,
    /// Its place and its description.
    pub(crate) text: String,
    /// The remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn refused() -> Answer {
        let problem = FileProblem { is_error: true, text: "x:1:1: no".to_owned(), hint: None };
        Answer::Refused { file: Some("/x".into()), why: "no".to_owned(), hint: None, problems: vec![problem] }
    }

    /// Serves a socket, and answers each request with its debugging text.
    async fn with_server<T>(test: impl AsyncFnOnce(&std::path::Path) -> T) -> T {
        let folder = tempfile::tempdir().expect("folder");
        let (mut asks, served) = serve(folder.path()).expect("a socket");
        let answering = async {
            while let Some(Ask { request, answer, written }) = asks.recv().await {
                let reply = match request {
                    Request::Reload { config } => {
                        config.map_or_else(refused, |file| Answer::OtherFile { file: Some(file) })
                    }
                    Request::Steer { order, .. } => Answer::Failed { why: format!("{order:?}") },
                };
                answer.send(reply).expect("the asker waits");
                assert!(written.await.is_err(), "it says nothing, and ends");
            }
            std::future::pending().await
        };
        tokio::select! {
            result = test(folder.path()) => result,
            never = served => match never {},
            () = answering => unreachable!("it answers for ever"),
        }
    }

    #[tokio::test]
    async fn a_request_gets_its_answer_and_only_the_owner_can_ask() {
        use std::os::unix::fs::PermissionsExt as _;
        with_server(async |folder| {
            assert!(is_there(folder));
            let mode = std::fs::metadata(folder.join(SOCKET)).expect("a socket").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let ask = async |config| ask(folder, &Request::Reload { config }).await.expect("an answer");
            assert_eq!(ask(None).await, refused());
            assert_eq!(ask(Some("/y".into())).await, Answer::OtherFile { file: Some("/y".into()) });
        })
        .await;
    }

    #[tokio::test]
    async fn a_request_that_is_not_understood_or_too_long_is_answered_with_the_reason() {
        with_server(async |folder| {
            let sent = async |bytes: &[u8]| {
                let mut stream =
                    tokio::net::UnixStream::connect(folder.join(SOCKET)).await.expect("connected");
                let _ = stream.write_all(bytes).await;
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer).await;
                answer
            };
            let answer = sent(b"{\"request\":\"fly\"}\n").await;
            assert!(
                answer.starts_with("{\"outcome\":\"failed\",\"why\":\"unknown variant `fly`"),
                "{answer}"
            );
            let long = vec![b' '; usize::try_from(REQUEST_MAX).expect("small")];
            let answer = sent(&long).await;
            assert!(answer.starts_with("{\"outcome\":\"failed\",\"why\":\"EOF"), "{answer}");
        })
        .await;
    }

    #[tokio::test]
    async fn the_lines_of_orders_are_frozen_and_what_is_written_is_read_back() {
        let names = || vec!["a".to_owned()];
        let scale = PoolOrder::Scale { pool: "a".to_owned(), max: Some(4), min_idle: None };
        let config = || Some("/x".into());
        for (request, line) in [
            (Request::Reload { config: None }, r#"{"request":"reload"}"#),
            (
                Request::Steer { config: None, order: PoolOrder::Pause { pools: names() } },
                r#"{"request":"steer","order":"pause","pools":["a"]}"#,
            ),
            (
                Request::Steer { config: config(), order: PoolOrder::Drain { pools: Vec::new() } },
                r#"{"request":"steer","config":"/x","order":"drain","pools":[]}"#,
            ),
            (
                Request::Steer { config: None, order: scale },
                r#"{"request":"steer","order":"scale","pool":"a","max":4,"min_idle":null}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).expect("json"), line);
            assert_eq!(serde_json::from_str::<Request>(line).expect("a request"), request);
        }
        let steered = Steered { changed: names(), ..Steered::default() };
        let without_file = Answer::Steered { file: None, steered: steered.clone() };
        for (answer, line) in [
            (
                Answer::Steered { file: Some("/x".into()), steered },
                r#"{"outcome":"steered","file":"/x","changed":["a"],"already":[],"ends":false}"#,
            ),
            (without_file, r#"{"outcome":"steered","changed":["a"],"already":[],"ends":false}"#),
            (Answer::NoFile, r#"{"outcome":"no_file"}"#),
        ] {
            assert_eq!(serde_json::to_string(&answer).expect("json"), line);
            assert_eq!(serde_json::from_str::<Answer>(line).expect("an answer"), answer);
        }
    }

    #[tokio::test]
    async fn a_folder_without_a_process_gives_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(!is_there(folder.path()));
        let request = Request::Reload { config: None };
        assert!(ask(folder.path(), &request).await.is_err());
        drop(serve(folder.path()).expect("a socket"));
        assert!(ask(folder.path(), &request).await.is_err());
    }
}

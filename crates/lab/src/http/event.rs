//! `GET /lab/v1/events`: the stream of events, one JSON object per line.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use super::auth::Admin;
use super::reply::Rest;
use crate::{Lab, LabEvents};

#[derive(Deserialize)]
pub(super) struct EventQuery {
    /// Start with the stored events after this number. If it is missing, the stream starts with new events.
    since: Option<u64>,
    /// Only the events of this run.
    run: Option<u64>,
}

/// Streams events until the caller closes the connection. A caller that reads too slowly gets
/// `{"event":"lagged","missed":n}`.
pub(super) async fn stream(
    _: Admin,
    State(lab): State<Lab>,
    Query(query): Query<EventQuery>,
) -> Result<Response, Rest> {
    let events = match query.since {
        Some(since) => lab.inner.hub.ask(move |state| state.bus.subscribe_since(since)).await?,
        None => lab.subscribe(),
    };
    let lines = stream::unfold((events, query.run), |(mut events, run)| async move {
        let line = next_line(&mut events, run).await?;
        Some((Ok::<_, std::convert::Infallible>(line), (events, run)))
    });
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response())
}

async fn next_line(events: &mut LabEvents, run: Option<u64>) -> Option<String> {
    loop {
        match events.next().await? {
            Ok(event) if run.is_some_and(|run| run != event.run) => {}
            Ok(event) => return serde_json::to_string(&*event).ok().map(|line| line + "\n"),
            Err(lagged) => return Some(format!("{}\n", json!({"event": "lagged", "missed": lagged.missed}))),
        }
    }
}

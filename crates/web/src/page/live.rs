//! Server-sent events: the overview at each change, and the new lines of a run's log.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use dayfly_fleet::status::Status;
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::run_log::{Lines, read_from};
use super::{Desk, Trouble, overview, run};
use crate::publish::{Published, Site};

/// Interval between two looks for new lines of a log.
const LOOK: Duration = Duration::from_millis(200);
/// Interval between two signs of life, by which a connection whose peer is gone is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// The overview as it was shown last. All open pages share it, so that each status is rendered once.
#[derive(Debug, Default)]
pub(super) struct Frames(Mutex<Option<Frame>>);

/// An overview, and the data that it shows.
#[derive(Debug)]
struct Frame {
    status: Arc<Status>,
    site: Arc<Site>,
    text: Arc<str>,
}

impl Frames {
    /// Returns the overview of the published status.
    pub(super) fn overview(&self, published: &Published) -> Arc<str> {
        let status = Arc::clone(&published.status.borrow());
        let site = Arc::clone(&published.site.borrow());
        // Others wait for the milliseconds of one rendering, and then have its result.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current =
            |frame: &&Frame| Arc::ptr_eq(&frame.status, &status) && Arc::ptr_eq(&frame.site, &site);
        if let Some(frame) = last.as_ref().filter(is_current) {
            return Arc::clone(&frame.text);
        }
        let text: Arc<str> = overview::part(&status, &site).into_string().into();
        *last = Some(Frame { status, site, text: Arc::clone(&text) });
        text
    }
}

/// Sends the overview, and again after each change, until the client goes.
pub(super) async fn overview(State(desk): State<Desk>) -> Response {
    let Some(permit) = permit(&desk) else { return Trouble::Busy.into_response() };
    let mut status = desk.published.status.clone();
    status.mark_changed();
    let frames = unfold((desk, status, permit), |(desk, mut status, permit)| async move {
        status.changed().await.ok()?;
        status.borrow_and_update();
        let frame = desk.frames.overview(&desk.published);
        Some((Ok::<_, Infallible>(Event::default().data(&*frame)), (desk, status, permit)))
    });
    Sse::new(frames).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)).into_response()
}

fn permit(desk: &Desk) -> Option<OwnedSemaphorePermit> {
    Arc::clone(&desk.streams).try_acquire_owned().ok()
}

/// The place in a log from which lines are sent.
#[derive(Debug, Deserialize)]
pub(super) struct Start {
    from: u64,
}

/// Sends the lines that a run's log gets, until the run or the client ends.
pub(super) async fn log(
    State(desk): State<Desk>,
    Path(runner): Path<String>,
    Query(Start { from }): Query<Start>,
    headers: HeaderMap,
) -> Response {
    let runner = match run::id(&runner) {
        Ok(runner) => runner,
        Err(trouble) => return trouble.into_response(),
    };
    let Some(permit) = permit(&desk) else { return Trouble::Busy.into_response() };
    // A browser that connects again asks for the same address, and names the last event that it has.
    let from = last_event(&headers).unwrap_or(from);
    let lines = unfold(Some((desk, runner, from, permit)), |state| async move {
        let (desk, runner, mut from, permit) = state?;
        loop {
            let id = runner.clone();
            let read = desk.read(move |published| read_from(&published.state, &id, from)).await;
            let Lines { rows, next, is_over } = read.ok()?;
            from = next;
            if rows.is_empty() && !is_over {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let event = Event::default().id(next.to_string()).data(run::rows(&rows).into_string());
            let rest = (!is_over).then_some((desk, runner, from, permit));
            let event = if rest.is_none() { event.event("over") } else { event };
            return Some((Ok::<_, Infallible>(event), rest));
        }
    });
    Sse::new(lines).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)).into_response()
}

/// Returns the id of the last event that a client has got, which is a place in the log.
fn last_event(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

//! The page: HTML from the server, one style sheet and one small script, which shows changes as they come.
//!
//! ```text
//!   snapshot ──> overview ──┬──> /            whole, once
//!                           └──> /live        the same part again at each change (server-sent events)
//!   history  ──> /runs, /history              SQLite, few readers at a time
//!   logs     ──> /runs/ID, /runs/ID/live
//!   stores   ──> /images
//! ```
//!
//! Each part is a pure function of data to [`maud::Markup`], which escapes every text. Texts of guests and forges also go
//! through [`text::foreign`], so that they can change neither a terminal nor the direction of the text around them.

mod colours;
mod history;
mod images;
mod layout;
mod live;
mod overview;
mod run;
mod run_log;
mod runs;
mod text;
mod timeline;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::Markup;
use tokio::sync::Semaphore;

use crate::publish::Published;
use layout::{Place, page};
use live::Frames;
pub use text::visible;

/// Most reads of files and of the history at a time. Others wait for them.
const READS_MAX: usize = 4;
/// Most pages that are kept up to date at a time, so that connections are left for other requests.
const STREAMS_MAX: usize = 256;

/// The state that the handlers share.
#[derive(Debug, Clone)]
struct Desk {
    published: Published,
    reads: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    frames: Arc<Frames>,
}

/// A problem that the reader of a page gets to know.
#[derive(Debug)]
enum Trouble {
    /// The request is wrong: a filter, or a name.
    Request(String),
    /// There is no such thing.
    Missing(String),
    /// A file or the history cannot be read.
    Unreadable(String),
    /// Too many pages are open.
    Busy,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Self::Request(message) => (StatusCode::BAD_REQUEST, message),
            Self::Missing(message) => (StatusCode::NOT_FOUND, message),
            Self::Unreadable(message) => (StatusCode::INTERNAL_SERVER_ERROR, message),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open.".to_owned()),
        };
        let main = maud::html! {
            h1 { "Not possible" }
            p { (text::foreign(&message)) }
        };
        (status, page("Not possible", Place::Other, &main)).into_response()
    }
}

type Answer = Result<Markup, Trouble>;

/// Returns the addresses of the page.
pub(crate) fn router(published: Published) -> Router {
    let desk = Desk {
        published,
        reads: Arc::new(Semaphore::new(READS_MAX)),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        frames: Arc::default(),
    };
    let asset = |kind: &'static str, text: &'static str| {
        get(
            move || async move { ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")], text) },
        )
    };
    Router::new()
        .route("/", get(overview::show))
        .route("/live", get(live::overview))
        .route("/runs", get(runs::show))
        .route("/runs/{runner}", get(run::show))
        .route("/runs/{runner}/live", get(live::log))
        .route("/history", get(history::show))
        .route("/images", get(images::show))
        .route("/style.css", asset("text/css; charset=utf-8", include_str!("assets/style.css")))
        .route("/page.js", asset("text/javascript; charset=utf-8", include_str!("assets/page.js")))
        .fallback(|| async { Trouble::Missing("There is no such page.".to_owned()) })
        .with_state(desk)
}

impl Desk {
    /// Reads files off the tasks that serve, with few others at a time.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Published) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| Trouble::Busy)?;
        let published = self.published.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&published)
        });
        reading.await.unwrap_or_else(|_| Err(Trouble::Unreadable("The files could not be read.".to_owned())))
    }
}

fn unreadable(error: impl std::fmt::Display) -> Trouble {
    Trouble::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests;

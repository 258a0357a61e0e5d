//! The live feed: a websocket on which a job sends its log lines while it writes them.

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde::Deserialize;

use super::auth::JobAtResults;
use crate::Lab;

/// Longest message, in bytes. One message holds the lines of about one second.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
const LINES_MAX: usize = 100_000;

/// `TimelineRecordFeedLines`. github-act-runner 0.13.0 writes the names with capitals.
#[derive(Deserialize)]
struct FeedLines {
    #[serde(alias = "Value")]
    value: Vec<String>,
    #[serde(alias = "StepID", alias = "stepId")]
    step_id: String,
    /// The number of the first line within its step, from 1.
    #[serde(default, alias = "StartLine", alias = "startLine")]
    start_line: Option<u64>,
}

/// `GET /runner/feed`, upgraded to a websocket. The connection may break and be opened again; lines that it missed come
/// with the uploaded log.
pub(super) async fn feed(
    JobAtResults(job): JobAtResults,
    State(lab): State<Lab>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| read(lab, job, socket))
}

async fn read(lab: Lab, job: u64, mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let Ok(text) = (match message {
            Message::Text(text) => Ok(text.to_string()),
            Message::Binary(bytes) => String::from_utf8(bytes.to_vec()),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        }) else {
            continue;
        };
        let Ok(lines) = serde_json::from_str::<FeedLines>(&text) else { continue };
        if lines.value.len() > LINES_MAX || lines.step_id.len() > 64 {
            continue;
        }
        // If the lab is too busy, the lines come later with the uploaded log.
        let _ = lab
            .inner
            .hub
            .ask(move |state| state.feed(job, &lines.step_id, lines.start_line, lines.value))
            .await;
    }
}

//! The contents API, limited to workflow files.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Admin;
use super::reply::{Rest, read};
use crate::Lab;
use crate::refusal::Refusal;
use crate::state::RepositoryName;

#[derive(Deserialize)]
struct Put {
    content: String,
}

/// Puts a workflow file into a repository. Unlike GitHub, the lab requires no `sha` when a file is replaced, and it has
/// only one branch.
pub(super) async fn put(
    _: Admin,
    State(lab): State<Lab>,
    Path((owner, repo, path)): Path<(String, String, String)>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Rest> {
    let name = RepositoryName::new(&owner, &repo)?;
    let put: Put = read(&body)?;
    let content: String = put.content.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let content = BASE64.decode(content).map_err(|_| Refusal::invalid(["content is not valid Base64"]))?;
    let text = String::from_utf8(content).map_err(|_| Refusal::invalid(["content is not UTF-8 text"]))?;
    let size = text.len();
    let file = path.clone();
    let (sha, new) = lab.inner.hub.ask(move |state| state.put_workflow(&name, &file, text)).await??;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let file = path.rsplit('/').next().unwrap_or(&path);
    let content = json!({"name": file, "path": path, "sha": sha, "size": size, "type": "file"});
    Ok((status, Json(json!({"content": content, "commit": {"sha": sha}}))))
}

/// Returns a workflow file.
pub(super) async fn get(
    _: Admin,
    State(lab): State<Lab>,
    Path((owner, repo, path)): Path<(String, String, String)>,
) -> Result<Json<Value>, Rest> {
    let name = RepositoryName::new(&owner, &repo)?;
    let Some(file) = path.strip_prefix(".github/workflows/").map(str::to_owned) else {
        return Err(Rest(Refusal::not_found()));
    };
    let read = move |state: &mut crate::state::LabState| {
        state
            .workflow_file(&name, &file)
            .map(|(file, entry)| (file.to_owned(), entry.text.clone(), entry.sha.clone()))
    };
    let (file, text, sha) = lab.inner.hub.ask(read).await??;
    Ok(Json(json!({
        "type": "file", "encoding": "base64", "name": file, "path": path, "sha": sha, "size": text.len(),
        "content": BASE64.encode(text),
    })))
}

//! The asking end of a control socket.

use std::io;
use std::path::Path;

use dayfly_host::socket::SocketFolder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{ANSWER_LIMIT, ANSWER_MAX, Answer, Request, SOCKET, TRANSFER_LIMIT};

/// Returns true if the instance with this folder has a control socket.
pub(crate) fn is_there(folder: &Path) -> bool {
    folder.join(SOCKET).exists()
}

/// Sends a request to the orchestrator of the instance with this folder, and returns its answer.
///
/// # Errors
/// The orchestrator has ended, or does not answer in time.
pub(crate) async fn ask(folder: &Path, request: &Request) -> io::Result<Answer> {
    let stream = timeout(TRANSFER_LIMIT, send(folder, request)).await??;
    let mut text = Vec::new();
    let mut bounded = stream.take(ANSWER_MAX);
    timeout(ANSWER_LIMIT + TRANSFER_LIMIT, bounded.read_to_end(&mut text)).await??;
    if text.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended without an answer"));
    }
    Ok(serde_json::from_slice(&text)?)
}

async fn send(folder: &Path, request: &Request) -> io::Result<UnixStream> {
    let mut stream = SocketFolder::open(folder)?.connect(SOCKET).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(stream)
}

//! Listens for the questions of a guest, within bounds: a guest that asks without end waits, and takes no memory.

use std::io;
use std::net::{TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::forwarder::Forwarder;

/// Most questions by UDP that are answered at once. A further one is dropped, and its client asks again.
const QUESTIONS_MAX: usize = 128;
/// Most connections at once; further ones wait in the socket's backlog. A reply by TCP has 64 KiB at most.
const STREAMS_MAX: usize = 16;
/// Longest message of a guest, bytes: a question is a name of 255 bytes, and what EDNS adds.
const MESSAGE_MAX: usize = 1024;
/// Longest wait for the next question of a connection, and for taking an answer.
const STREAM_LIMIT: Duration = Duration::from_secs(10);
/// Pause after an error of a socket.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until an error of the sockets' setup.
pub(super) async fn serve(
    forwarder: Forwarder,
    questions: StdUdpSocket,
    streams: StdTcpListener,
) -> io::Result<()> {
    questions.set_nonblocking(true)?;
    streams.set_nonblocking(true)?;
    let forwarder = Arc::new(forwarder);
    let questions = Arc::new(UdpSocket::from_std(questions)?);
    let streams = TcpListener::from_std(streams)?;
    tokio::join!(serve_questions(Arc::clone(&forwarder), questions), serve_streams(forwarder, streams));
    Ok(())
}

async fn serve_questions(forwarder: Arc<Forwarder>, socket: Arc<UdpSocket>) {
    let permits = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut answering = JoinSet::new();
    let mut bytes = [0; MESSAGE_MAX];
    loop {
        while answering.try_join_next().is_some() {}
        let Ok((length, from)) = socket.recv_from(&mut bytes).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let (forwarder, socket, message) =
            (Arc::clone(&forwarder), Arc::clone(&socket), bytes[..length].to_vec());
        answering.spawn(async move {
            if let Some(answer) = forwarder.answer(&message, true).await {
                let _ = socket.send_to(&answer, from).await;
            }
            drop(permit);
        });
    }
}

async fn serve_streams(forwarder: Arc<Forwarder>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(STREAMS_MAX));
    let mut answering = JoinSet::new();
    loop {
        while answering.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let forwarder = Arc::clone(&forwarder);
        answering.spawn(async move {
            // An error is the end of the connection, and nothing else.
            let _ = serve_stream(&forwarder, stream).await;
            drop(permit);
        });
    }
}

/// Answers the questions of a connection, one after another.
async fn serve_stream(forwarder: &Forwarder, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let reading = async {
            let length = usize::from(stream.read_u16().await?);
            if length > MESSAGE_MAX {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let mut message = vec![0; length];
            stream.read_exact(&mut message).await?;
            Ok(message)
        };
        let message = tokio::time::timeout(STREAM_LIMIT, reading).await??;
        let Some(answer) = forwarder.answer(&message, false).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let writing = async {
            stream.write_u16(length).await?;
            stream.write_all(&answer).await
        };
        tokio::time::timeout(STREAM_LIMIT, writing).await??;
    }
}

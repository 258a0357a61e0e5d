//! A connection whose peer has to read: a write that makes no progress for too long fails.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream with a limit for each write.
pub(crate) struct PatientStream<S> {
    stream: S,
    limit: Duration,
    /// The end of the patience; none while nothing waits to be written.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> PatientStream<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, deadline: None }
    }

    /// Fails a write that has waited for too long.
    fn bound<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bound(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bound(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bound(context, closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_reading_is_given_up_after_the_limit() {
        let (peer, stream) = tokio::io::duplex(16);
        let mut stream = PatientStream::new(stream, Duration::from_secs(10));
        let began = tokio::time::Instant::now();
        let error = stream.write_all(&[0; 64]).await.expect_err("given up");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 10);
        drop(peer);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_but_in_time_gets_everything() {
        let (mut peer, stream) = tokio::io::duplex(16);
        let mut stream = PatientStream::new(stream, Duration::from_secs(10));
        let write = async { stream.write_all(&[7; 64]).await };
        let read = async {
            let mut bytes = [0; 64];
            for part in bytes.chunks_mut(16) {
                sleep(Duration::from_secs(9)).await;
                peer.read_exact(part).await.expect("read");
            }
            bytes
        };
        let (written, bytes) = tokio::join!(write, read);
        written.expect("written");
        assert_eq!(bytes, [7; 64]);
    }
}

//! The host's end of the agent protocol: frames over the agent's socket.

use std::io;

use dayfly_guest::protocol::frame::{Decoder, Encoder};
use dayfly_guest::protocol::{GuestMessage, HostMessage};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use crate::throttle::Throttle;

/// A connection to a guest's agent.
#[derive(Debug)]
pub(crate) struct Link {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    decoder: Decoder,
    encoder: Encoder,
    /// Bytes that are still to be written. They are buffered because a guest that does not read must not block its owner.
    outbox: Vec<u8>,
    throttle: Throttle,
}

/// Cost of a message beside its bytes, in bytes of the [`Throttle`]: it is parsed and passed on, however short it is.
const MESSAGE_COST: usize = 512;

/// Most bytes that wait for a guest to read them. A few whole environment files fit.
const OUTBOX_MAX: usize = 1024 * 1024;

/// Most bytes that one read takes.
const READ_MAX: usize = 64 * 1024;

impl Link {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader,
            writer,
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            outbox: Vec::new(),
            throttle: Throttle::new(Instant::now()),
        }
    }

    /// Puts a message into the outbox; [`Link::next`] writes it.
    pub(crate) fn send(&mut self, message: &HostMessage) -> io::Result<()> {
        let frame = self.encoder.encode(message).map_err(io::Error::other)?;
        if self.outbox.len() + frame.len() > OUTBOX_MAX {
            return Err(io::Error::other("the guest does not read its messages"));
        }
        self.outbox.extend_from_slice(&frame);
        Ok(())
    }

    /// Notes that a message with so many bytes of content does not count for the [`Throttle`], because a person on this host has
    /// asked for it.
    pub(crate) fn was_asked_for(&mut self, bytes: usize) {
        // In base64.
        self.throttle.gave_back(MESSAGE_COST + bytes.div_ceil(3) * 4);
    }

    /// Writes the outbox, and returns the next message. Reads no faster than the [`Throttle`] allows. Skips and logs bytes that are no valid frame. Safe to be cancelled.
    /// Fails if the connection has ended.
    pub(crate) async fn next(&mut self) -> io::Result<GuestMessage> {
        loop {
            while let Some(next) = self.decoder.next::<GuestMessage>() {
                self.throttle.took(MESSAGE_COST, Instant::now());
                match next {
                    Ok(message) => return Ok(message),
                    Err(error) => tracing::debug!("from the agent: {error}"),
                }
            }
            let (throttle, reader) = (&self.throttle, &self.reader);
            let readable = async move {
                throttle.ready().await;
                reader.readable().await
            };
            tokio::select! {
                readable = readable => {
                    readable?;
                    self.read()?;
                }
                written = self.writer.write(&self.outbox), if !self.outbox.is_empty() => {
                    let count = written?;
                    self.outbox.drain(..count);
                    if self.outbox.is_empty() {
                        // An idle link holds no memory for what it has sent.
                        self.outbox = Vec::new();
                    }
                }
            }
        }
    }

    /// Reads what has arrived. The buffer is on the stack, because a thousand idle links would else hold one each.
    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_MAX];
        match self.reader.try_read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.throttle.took(count, Instant::now());
                self.decoder.push(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn garbage_between_frames_costs_nothing() {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        let mut link = Link::new(ours);
        link.send(&HostMessage::Forget).expect("send");
        let mut encoder = Encoder::new();
        theirs.write_all(b"\x1b[0m boot noise").await.expect("write");
        theirs
            .write_all(&encoder.encode(&GuestMessage::Prepared { failure: None }).expect("encode"))
            .await
            .expect("write");
        assert_eq!(link.next().await.expect("next"), GuestMessage::Prepared { failure: None });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), link.next()).await.is_err());
        let mut buffer = vec![0; 256];
        let count = theirs.read(&mut buffer).await.expect("read");
        let mut decoder = Decoder::new();
        decoder.push(&buffer[..count]);
        let message = decoder.next::<HostMessage>().expect("whole").expect("valid");
        assert_eq!(message, HostMessage::Forget);
        drop(theirs);
        assert!(link.next().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_short_messages_waits_in_the_guest() {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        let flood = tokio::spawn(async move {
            let mut encoder = Encoder::new();
            for _ in 0..40_000 {
                let frame = encoder.encode(&GuestMessage::Prepared { failure: None }).expect("encode");
                theirs.write_all(&frame).await.expect("write");
            }
        });
        let (begin, mut link) = (Instant::now(), Link::new(ours));
        for _ in 0..40_000 {
            link.next().await.expect("a message");
        }
        flood.await.expect("written");
        assert!(begin.elapsed().as_secs() >= 12, "{:?} for 20 MiB", begin.elapsed());
    }

    #[tokio::test]
    async fn a_guest_that_does_not_read_fills_no_memory() {
        let (ours, _theirs) = UnixStream::pair().expect("pair");
        let mut link = Link::new(ours);
        let file = HostMessage::PutFile { name: "x".to_owned(), content: "y".repeat(100_000) };
        let sent = (0..100).take_while(|_| link.send(&file).is_ok()).count();
        assert!((5..12).contains(&sent), "{sent}");
    }
}

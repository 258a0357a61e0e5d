//! Frames on a session's socket, in both directions.

use std::io;

use dayfly_guest::protocol::frame::{Decoder, Encoder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// One end of a session's connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    decoder: Decoder,
    encoder: Encoder,
    buffer: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, decoder: Decoder::new(), encoder: Encoder::new(), buffer: vec![0; 16 * 1024] }
    }

    /// Returns the next message. Safe to be cancelled.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        loop {
            if let Some(message) = self.decoder.next::<T>() {
                return message.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
            }
            let count = self.stream.read(&mut self.buffer).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.decoder.push(&self.buffer[..count]);
        }
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let frame = self.encoder.encode(message).map_err(io::Error::other)?;
        self.stream.write_all(&frame).await
    }
}

//! Frames on the agent's port.
//!
//! ```text
//!   0        4        8               16       20
//!   | marker | length | sequence      | crc32  | payload (JSON), `length` bytes
//! ```
//!
//! All numbers are little-endian. The checksum covers length, sequence and payload. The marker lets a reader find
//! the next frame after a connection that ended in the middle of one: it stands nowhere else in a frame, so a
//! second one shows at once that the first frame's rest will never come, however long that claimed to be.
//!
//! Both halves are plain state machines over bytes: no I/O, no clock. A new [`Encoder`] starts at sequence 1, so
//! each side makes a new one for each connection; a [`Decoder`] may live on, since a sequence number of 1 is
//! taken as a new start and not as a gap.
//!
//! ```
//! use dayfly_guest::protocol::frame::{Decoder, Encoder};
//! let mut decoder = Decoder::new();
//! decoder.push(&Encoder::new().encode(&"hello")?);
//! assert_eq!(decoder.next::<String>().transpose()?.as_deref(), Some("hello"));
//! # Ok::<(), dayfly_guest::protocol::frame::FrameError>(())
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest payload in bytes; a longer one is an error of the sender and is skipped by the reader.
pub const PAYLOAD_MAX: usize = 256 * 1024;

/// First bytes of each frame. The first and last one are no UTF-8, so that no payload can hold them.
pub const MARKER: [u8; 4] = [0xf5, b'D', b'f', 0xfe];

/// Bytes before the payload.
pub const HEADER_LEN: usize = 20;

/// Why a message could not be sent, or what a reader met in its bytes.
///
/// After any error [`Decoder::next`] can be called again: it goes on at the next marker.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The message is too long for one frame (sender), or a header says so (reader).
    #[error("a message of {length} bytes is longer than a frame may be ({PAYLOAD_MAX} bytes)")]
    TooLong {
        /// Length of the payload in bytes.
        length: usize,
    },
    /// The message cannot be written as JSON.
    #[error("a message cannot be written as JSON: {0}")]
    Serialize(#[source] serde_json::Error),
    /// A whole frame came whose payload is not a message.
    #[error("frame {sequence} holds no message that is known here: {source}")]
    Deserialize {
        /// Its sequence number.
        sequence: u64,
        /// What the JSON reader said.
        #[source]
        source: serde_json::Error,
    },
    /// Bytes that belong to no frame were skipped: garbage, or the first half of a frame whose rest never came.
    #[error("{bytes} bytes that belong to no frame were skipped")]
    Skipped {
        /// How many.
        bytes: u64,
    },
    /// A frame's checksum is wrong; reading goes on right after its marker.
    #[error("the checksum of frame {sequence} is {found:08x}, not {expected:08x}")]
    BadChecksum {
        /// Sequence number in the header, which may be wrong itself.
        sequence: u64,
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// Frames are missing, or came twice; the frame that showed it comes with the next call.
    #[error("frame {found} came where {expected} was due")]
    Gap {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        found: u64,
    },
}

impl FrameError {
    /// Whether the stream lost something (garbage, checksum, gap, length), as opposed to one message that this
    /// side does not understand or could not write.
    #[must_use]
    pub fn is_stream_damage(&self) -> bool {
        !matches!(self, Self::Serialize(_) | Self::Deserialize { .. })
    }
}

/// Turns messages into frames, and counts them.
#[derive(Debug)]
pub struct Encoder {
    next_sequence: u64,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// For a new connection: the first frame gets sequence number 1.
    #[must_use]
    pub fn new() -> Self {
        Self { next_sequence: 1 }
    }

    /// One whole frame, ready to be written. Nothing is counted on an error.
    ///
    /// # Errors
    /// [`FrameError::Serialize`], or [`FrameError::TooLong`] above [`PAYLOAD_MAX`].
    pub fn encode(&mut self, message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
        let mut frame = vec![0; HEADER_LEN];
        serde_json::to_writer(&mut frame, message).map_err(FrameError::Serialize)?;
        fill_header(&mut frame, self.next_sequence)?;
        // Once in four thousand million frames. JSON may end in a space, and the checksum becomes another.
        while find_marker(&frame[MARKER.len()..]).is_some() {
            frame.push(b' ');
            fill_header(&mut frame, self.next_sequence)?;
        }
        self.next_sequence += 1;
        Ok(frame)
    }
}

fn fill_header(frame: &mut [u8], sequence: u64) -> Result<(), FrameError> {
    let length = frame.len() - HEADER_LEN;
    let in_bounds = u32::try_from(length).ok().filter(|_| length <= PAYLOAD_MAX);
    let length = in_bounds.ok_or(FrameError::TooLong { length })?;
    frame[..4].copy_from_slice(&MARKER);
    frame[4..8].copy_from_slice(&length.to_le_bytes());
    frame[8..16].copy_from_slice(&sequence.to_le_bytes());
    let checksum = checksum(&frame[4..16], &frame[HEADER_LEN..]);
    frame[16..20].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn checksum(length_and_sequence: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length_and_sequence);
    hasher.update(payload);
    hasher.finalize()
}

/// Finds frames in a stream of bytes that may come in any pieces and hold anything.
///
/// Call [`Decoder::next`] until it returns `None` after each [`Decoder::push`]: then at most one incomplete frame
/// (20 bytes and [`PAYLOAD_MAX`]) is kept, whatever the sender sends.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that are done with; removed on the next push.
    consumed: usize,
    /// Bytes skipped since the last frame or report.
    skipped: u64,
    /// Number of the next frame; `None` before the first one.
    expected: Option<u64>,
}

/// A header that has come in whole.
struct Header {
    length: usize,
    sequence: u64,
    checksum: u32,
}

impl Header {
    fn read(bytes: &[u8; HEADER_LEN]) -> Self {
        let [.., l0, l1, l2, l3, s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3] = *bytes;
        Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]) as usize,
            sequence: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            checksum: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }
}

impl Decoder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Forgets a half-read frame and the count: for a new connection, where the rest of it can no longer come.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Bytes kept that have not been made into a message yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.consumed
    }

    /// The next message or the next thing that is wrong; `None` when more bytes are needed.
    #[expect(
        clippy::should_implement_trait,
        reason = "each call chooses the type, and `None` is not the end"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Option<Result<T, FrameError>> {
        self.seek_marker();
        let rest = &self.buffer[self.consumed..];
        let header = match rest.first_chunk::<HEADER_LEN>() {
            Some(header) if self.skipped == 0 => Header::read(header),
            // A report of skipped bytes waits until something whole stands behind them, or nothing at all, so
            // that garbage coming byte by byte is not reported byte by byte.
            Some(_) => return Some(Err(self.take_skipped())),
            None if rest.is_empty() && self.skipped > 0 => return Some(Err(self.take_skipped())),
            None => return None,
        };
        if header.length > PAYLOAD_MAX {
            self.skip(MARKER.len());
            return Some(Err(FrameError::TooLong { length: header.length }));
        }
        let Some(frame) = rest.get(..HEADER_LEN + header.length) else {
            let cut_off_at = MARKER.len() + find_marker(&rest[MARKER.len()..])?;
            self.skip(cut_off_at);
            return Some(Err(self.take_skipped()));
        };
        let found = checksum(&frame[4..16], &frame[HEADER_LEN..]);
        if found != header.checksum {
            self.skip(MARKER.len());
            let Header { sequence, checksum: expected, .. } = header;
            return Some(Err(FrameError::BadChecksum { sequence, expected, found }));
        }
        let sequence = header.sequence;
        let expected = self.expected.replace(sequence).unwrap_or(1);
        // Number 1 is a new connection's first frame. The gap is reported once: the next call takes the frame.
        if sequence != expected && sequence != 1 {
            return Some(Err(FrameError::Gap { expected, found: sequence }));
        }
        let message = serde_json::from_slice(&frame[HEADER_LEN..])
            .map_err(|source| FrameError::Deserialize { sequence, source });
        self.consumed += HEADER_LEN + header.length;
        self.expected = Some(sequence.wrapping_add(1));
        Some(message)
    }

    /// Drops bytes until the buffer starts with a marker, or with what may become one.
    fn seek_marker(&mut self) {
        let rest = &self.buffer[self.consumed..];
        let start = find_marker(rest).unwrap_or_else(|| rest.len() - partial_marker_at_end(rest));
        self.skip(start);
    }

    fn skip(&mut self, count: usize) {
        self.consumed += count;
        self.skipped += count as u64;
    }

    fn take_skipped(&mut self) -> FrameError {
        FrameError::Skipped { bytes: std::mem::take(&mut self.skipped) }
    }
}

fn find_marker(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MARKER.len()).position(|window| window == MARKER)
}

/// How many bytes at the end of `bytes` are the beginning of a marker.
fn partial_marker_at_end(bytes: &[u8]) -> usize {
    (1..MARKER.len()).rev().find(|&length| bytes.ends_with(&MARKER[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests;

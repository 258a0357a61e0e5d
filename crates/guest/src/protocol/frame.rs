//! Frames on the agent's port.
//!
//! ```text
//!   0        4        8               16       20
//!   | marker | length | sequence      | crc32  | payload (JSON), `length` bytes
//! ```
//!
//! All numbers are little-endian. The checksum covers length, sequence and payload. If a connection ends in the middle of a
//! frame, the marker lets a reader find the next frame. It occurs nowhere else in a frame, so a second marker shows at once
//! that the rest of the first frame will never come, whatever length its header claims.
//!
//! Encoder and decoder are plain state machines over bytes, without I/O or a clock. A new [`Encoder`] starts at sequence 1,
//! so each side creates a new one for each connection. A [`Decoder`] may be used for several connections, because it takes
//! a sequence number of 1 as a new start and not as a gap.
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

/// Longest payload in bytes. The encoder refuses a longer one, and the decoder skips it.
pub const PAYLOAD_MAX: usize = 256 * 1024;

/// First bytes of each frame. The first and the last byte are no UTF-8, so that no payload can contain them.
pub const MARKER: [u8; 4] = [0xf5, b'D', b'f', 0xfe];

/// Length of the header before the payload, bytes.
pub const HEADER_LEN: usize = 20;

/// An error with a message to be sent, or in the bytes that a reader got.
///
/// After any error [`Decoder::next`] can be called again. It continues at the next marker.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The message is too long for one frame (sender), or a header claims such a length (reader).
    #[error("a message of {length} bytes is longer than a frame may be ({PAYLOAD_MAX} bytes)")]
    TooLong {
        /// Length of the payload in bytes.
        length: usize,
    },
    /// The message cannot be written as JSON.
    #[error("a message cannot be written as JSON: {0}")]
    Serialize(#[source] serde_json::Error),
    /// A complete frame came whose payload is not a message.
    #[error("frame {sequence} holds no known message: {}", source.to_string().replace(char::is_control, " "))]
    Deserialize {
        /// Sequence number of the frame.
        sequence: u64,
        /// The error of the JSON parser.
        #[source]
        source: serde_json::Error,
    },
    /// Bytes that belong to no frame were skipped: garbage, or the first half of a frame whose rest never came.
    #[error("{bytes} bytes that belong to no frame were skipped")]
    Skipped {
        /// Number of bytes.
        bytes: u64,
    },
    /// A frame's checksum is wrong. Reading continues right after the frame's marker.
    #[error("the checksum of frame {sequence} is {found:08x}, not {expected:08x}")]
    BadChecksum {
        /// Sequence number in the header, which may be wrong itself.
        sequence: u64,
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// Frames are missing, or came twice. The next call returns the frame that showed this.
    #[error("frame {found} came, but frame {expected} was expected")]
    Gap {
        /// The number that was expected.
        expected: u64,
        /// The number that came.
        found: u64,
    },
}

impl FrameError {
    /// Returns true if the stream has lost something (garbage, checksum, gap, length), and false if this side cannot
    /// understand or write one message.
    #[must_use]
    pub fn is_stream_damage(&self) -> bool {
        !matches!(self, Self::Serialize(_) | Self::Deserialize { .. })
    }
}

/// Encodes messages as frames, and counts them.
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
    /// Creates the encoder of a new connection. The first frame gets sequence number 1.
    #[must_use]
    pub fn new() -> Self {
        Self { next_sequence: 1 }
    }

    /// Returns a message as one whole frame, ready to be written. A message that fails is not counted.
    ///
    /// # Errors
    /// [`FrameError::Serialize`], or [`FrameError::TooLong`] above [`PAYLOAD_MAX`].
    pub fn encode(&mut self, message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
        let mut frame = vec![0; HEADER_LEN];
        serde_json::to_writer(&mut frame, message).map_err(FrameError::Serialize)?;
        fill_header(&mut frame, self.next_sequence)?;
        // One in four thousand million frames contains a second marker. JSON may end in a space, which changes the checksum.
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

pub(super) fn checksum(length_and_sequence: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length_and_sequence);
    hasher.update(payload);
    hasher.finalize()
}

/// Finds frames in a stream of bytes, which may come in any pieces and contain anything.
///
/// After each [`Decoder::push`], call [`Decoder::next`] until it returns `None`. Then at most one incomplete frame (20
/// bytes and [`PAYLOAD_MAX`]) is stored, whatever the sender sends.
///
/// The work is linear in the bytes that came, whatever these are: each byte is searched for markers a few times at most, and
/// it is in one frame that is hashed, because no frame with a second marker in it is hashed.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Number of bytes at the start of `buffer` that are processed already. The next push removes them.
    consumed: usize,
    /// Bytes skipped since the last frame or report.
    skipped: u64,
    /// Number of bytes after the first marker that have no second one, so that they are not searched again when more bytes
    /// of the same frame come.
    searched: usize,
    /// See [`Decoder::examined`].
    examined: u64,
    /// Sequence number that the next frame should have; `None` before the first frame.
    expected: Option<u64>,
}

/// A complete header.
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
    /// Creates an empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes that were read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.forget_consumed();
        self.buffer.extend_from_slice(bytes);
    }

    /// Removes and overwrites the bytes that are processed, because a message may hold a secret.
    fn forget_consumed(&mut self) {
        let left = self.buffer.len() - self.consumed;
        self.buffer.copy_within(self.consumed.., 0);
        self.buffer[left..].fill(0);
        self.buffer.truncate(left);
        self.consumed = 0;
    }

    /// Returns the number of stored bytes that are not decoded yet.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.consumed
    }

    /// Returns the number of bytes that were searched for markers or hashed so far: at most a few for each byte that came.
    #[must_use]
    pub fn examined(&self) -> u64 {
        self.examined
    }

    /// Returns the next message or the next error; `None` if more bytes are needed.
    #[expect(
        clippy::should_implement_trait,
        reason = "each call chooses the type, and `None` is not the end"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Option<Result<T, FrameError>> {
        self.seek_marker();
        let rest = &self.buffer[self.consumed..];
        let header = match rest.first_chunk::<HEADER_LEN>() {
            Some(header) if self.skipped == 0 => Header::read(header),
            // Skipped bytes are reported when a complete header follows them, or nothing at all. The report waits while
            // a part of a header follows, because that may turn out to be garbage too.
            Some(_) => return Some(Err(self.take_skipped())),
            None if rest.is_empty() && self.skipped > 0 => return Some(Err(self.take_skipped())),
            None if rest.is_empty() => {
                self.forget_consumed();
                return None;
            }
            None => return None,
        };
        if header.length > PAYLOAD_MAX {
            self.skip(MARKER.len());
            return Some(Err(FrameError::TooLong { length: header.length }));
        }
        if let Some(cut_off_at) = self.second_marker(HEADER_LEN + header.length) {
            self.skip(cut_off_at);
            return Some(Err(self.take_skipped()));
        }
        let frame = self.buffer[self.consumed..].get(..HEADER_LEN + header.length)?;
        self.examined += frame.len() as u64;
        let found = checksum(&frame[4..16], &frame[HEADER_LEN..]);
        if found != header.checksum {
            self.skip(MARKER.len());
            let Header { sequence, checksum: expected, .. } = header;
            return Some(Err(FrameError::BadChecksum { sequence, expected, found }));
        }
        let sequence = header.sequence;
        let expected = self.expected.replace(sequence).unwrap_or(1);
        // Number 1 is a new connection's first frame. A gap is reported once, because the next call expects this number.
        if sequence != expected && sequence != 1 {
            return Some(Err(FrameError::Gap { expected, found: sequence }));
        }
        let message = serde_json::from_slice(&frame[HEADER_LEN..])
            .map_err(|source| FrameError::Deserialize { sequence, source });
        self.consumed += HEADER_LEN + header.length;
        self.searched = 0;
        self.expected = Some(sequence.wrapping_add(1));
        Some(message)
    }

    /// Skips bytes until the buffer starts with a marker, or with the beginning of one.
    fn seek_marker(&mut self) {
        let rest = &self.buffer[self.consumed..];
        let start = find_marker(rest).unwrap_or_else(|| rest.len() - partial_marker_at_end(rest));
        self.examined += start as u64;
        self.skip(start);
    }

    /// Returns the place of a second marker in the first `length` bytes, as far as these are here.
    fn second_marker(&mut self, length: usize) -> Option<usize> {
        let rest = &self.buffer[self.consumed..];
        let from = MARKER.len() + self.searched;
        let frame = &rest[..length.min(rest.len())];
        let unsearched = frame.get(from..).unwrap_or_default();
        let found = find_marker(unsearched);
        self.examined += found.unwrap_or(unsearched.len()) as u64;
        // The last bytes may be the beginning of a marker, so they are searched again.
        self.searched += (unsearched.len() + 1).saturating_sub(MARKER.len());
        found.map(|at| from + at)
    }

    fn skip(&mut self, count: usize) {
        if count > 0 {
            self.searched = 0;
        }
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

/// Returns how many bytes at the end of `bytes` are the beginning of a marker.
fn partial_marker_at_end(bytes: &[u8]) -> usize {
    (1..MARKER.len()).rev().find(|&length| bytes.ends_with(&MARKER[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests;

//! Frames on the agent's port.
//!
//! ```text
//!   0        4        8               16       20
//!   | marker | length | sequence      | crc32  | payload (JSON), `length` bytes
//! ```
//!
//! All numbers are little-endian. The checksum covers length, sequence and payload. The marker lets a reader find
//! the next frame after a connection that ended in the middle of one.

/// Longest payload in bytes; a longer one is an error of the sender and is skipped by the reader.
pub const PAYLOAD_MAX: usize = 256 * 1024;

//! Properties that hold for any bytes of a hostile guest.

use dayfly_property::{Property, assert_shown};
use serde::de::IgnoredAny;

use super::frame::{Decoder, Encoder, FrameError, HEADER_LEN, MARKER, PAYLOAD_MAX, checksum};
use super::{GuestMessage, Milestone, Source, VERSION};

/// All properties.
pub const ALL: [Property; 1] = [FRAMES];

/// A stream gives the same messages in whatever pieces it comes, for bounded work and memory.
pub const FRAMES: Property = Property { name: "frames", seeds, check };

/// The first byte of an input is the length of the pieces. This bit of it says that checksums are corrected, because a fuzzer
/// does not find one.
const MENDS: u8 = 0x80;

/// Most times that the decoder may look at a byte, and at the last bytes of each piece.
const LOOKS_MAX: u64 = 5;

fn seeds() -> Vec<Vec<u8>> {
    let hello = GuestMessage::Hello { version: VERSION, epoch: 7, build: "1".to_owned(), started: true };
    let messages = [
        hello,
        GuestMessage::Milestone { milestone: Milestone::DockerReady, uptime_ms: 900 },
        GuestMessage::File { name: "a.tkn".to_owned(), content: "\u{1b}[1m".to_owned() },
        GuestMessage::Line { number: 1, source: Source::Entrypoint, text: "a line".to_owned() },
        GuestMessage::OutOfMemory { process: "cc1".to_owned(), used_mib: 9, memory_mib: 10 },
        GuestMessage::EntrypointExited { code: None, signal: Some(9) },
    ];
    let mut encoder = Encoder::new();
    // JSON errors quote an unknown word as it is.
    let unknown = Encoder::new().encode(&serde_json::json!({ "\u{7f}": 1 })).expect("short");
    let frames: Vec<Vec<u8>> =
        messages.iter().map(|message| encoder.encode(message).expect("short")).collect();
    let stream = frames.concat();
    let torn = [&stream[..50], &stream[..]].concat();
    let long = [&MARKER[..], &[0xff; 30], &stream].concat();
    let garbage = [b"\r\nlogin: ".as_slice(), &stream, &MARKER[..2]].concat();
    [stream.clone(), torn, long, garbage, frames[3].clone(), unknown]
        .iter()
        .flat_map(|stream| [[&[MENDS | 6], &stream[..]].concat(), [&[100], &stream[..]].concat()])
        .collect()
}

/// Corrects the checksums of all headers whose frame is complete.
fn mend(stream: &mut [u8]) {
    for at in 0..stream.len().saturating_sub(HEADER_LEN - 1) {
        let frame = &mut stream[at..];
        if !frame.starts_with(&MARKER) {
            continue;
        }
        let length = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
        if let Some(payload) = frame.get(HEADER_LEN..HEADER_LEN.saturating_add(length)) {
            let sum = checksum(&frame[4..16], payload).to_le_bytes();
            frame[16..HEADER_LEN].copy_from_slice(&sum);
        }
    }
}

/// Decodes a stream in pieces. Returns the messages, and the errors that do not depend on the pieces.
fn decode(stream: &[u8], piece: usize) -> (Vec<GuestMessage>, Vec<String>) {
    let (mut decoder, mut messages, mut errors) = (Decoder::new(), Vec::new(), Vec::new());
    for bytes in stream.chunks(piece) {
        decoder.push(bytes);
        while let Some(next) = decoder.next() {
            match next {
                Ok(message) => messages.push(message),
                // The bytes between two frames may be reported at once, or one after another.
                Err(error @ FrameError::Skipped { .. }) => assert_shown(error),
                Err(error) => errors.push(error.to_string()),
            }
        }
        assert!(decoder.buffered() <= HEADER_LEN + PAYLOAD_MAX, "{} bytes are kept", decoder.buffered());
    }
    let pieces = stream.len().div_ceil(piece.max(1)) as u64;
    let bound = LOOKS_MAX * (stream.len() as u64 + pieces);
    assert!(decoder.examined() <= bound, "{} looks at {} bytes", decoder.examined(), stream.len());
    (messages, errors)
}

fn check(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else { return };
    let mut stream = stream.to_vec();
    if first & MENDS != 0 {
        mend(&mut stream);
    }
    let whole = decode(&stream, stream.len().max(1));
    assert_eq!(decode(&stream, usize::from(first & !MENDS) + 1), whole);
    whole.1.iter().for_each(assert_shown);
    whole.0.iter().for_each(check_message);
}

/// Checks that a message is the same if it is sent on.
fn check_message(message: &GuestMessage) {
    let Ok(frame) = Encoder::new().encode(message) else { return };
    let mut decoder = Decoder::new();
    decoder.push(&frame);
    assert_eq!(decoder.next::<GuestMessage>().expect("a frame").expect("a message"), *message);
    assert!(decoder.next::<IgnoredAny>().is_none());
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_should_hold_holds_for_all_seeds_and_for_what_is_almost_one() {
        dayfly_property::hold(&super::ALL);
    }
}

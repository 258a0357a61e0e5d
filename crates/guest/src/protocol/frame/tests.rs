use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Pushes the pieces, and collects all messages and errors.
fn decode_pieces(decoder: &mut Decoder, pieces: &[Vec<u8>]) -> (Vec<String>, Vec<FrameError>) {
    let (mut messages, mut errors) = (Vec::new(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        while let Some(result) = decoder.next::<String>() {
            match result {
                Ok(message) => messages.push(message),
                Err(error) => errors.push(error),
            }
        }
    }
    (messages, errors)
}

fn stream_of(texts: &[String]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    texts.iter().flat_map(|text| encoder.encode(text).expect("short")).collect()
}

/// Cuts the stream at each of the given places (taken modulo its length).
fn cut(stream: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let mut places: Vec<_> = places.iter().map(|place| place % (stream.len() + 1)).collect();
    places.sort_unstable();
    places.push(stream.len());
    let mut start = 0;
    places.into_iter().map(|end| stream[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

proptest! {
    #[test]
    fn any_split_of_the_stream_gives_the_same_messages(
        texts in vec(".{0,40}", 1..8), places in vec(any::<usize>(), 0..20),
    ) {
        let (messages, errors) = decode_pieces(&mut Decoder::new(), &cut(&stream_of(&texts), &places));
        prop_assert_eq!(messages, texts);
        prop_assert!(errors.is_empty());
    }

    #[test]
    fn garbage_between_frames_loses_no_frame_and_every_byte_of_it_is_reported(
        texts in vec(".{0,20}", 1..6), garbage in vec(vec(any::<u8>(), 1..30), 6), places in vec(any::<usize>(), 0..12),
    ) {
        // A marker in the garbage would start a damaged frame, which is tested below.
        prop_assume!(garbage.iter().all(|bytes| !bytes.contains(&MARKER[0])));
        let mut encoder = Encoder::new();
        let stream: Vec<u8> = texts
            .iter()
            .zip(&garbage)
            .flat_map(|(text, garbage)| [garbage.clone(), encoder.encode(text).expect("short")].concat())
            .collect();
        let (messages, errors) = decode_pieces(&mut Decoder::new(), &cut(&stream, &places));
        let skipped: u64 = errors
            .iter()
            .map(|error| match error { FrameError::Skipped { bytes } => *bytes, other => panic!("{other}") })
            .sum();
        prop_assert_eq!(skipped, garbage[..texts.len()].iter().map(|bytes| bytes.len() as u64).sum::<u64>());
        prop_assert_eq!(messages, texts);
    }

    #[test]
    fn a_frame_cut_off_by_a_lost_connection_costs_only_itself(
        before in vec(".{0,20}", 0..3), lost in ".{0,40}", after in vec(".{0,60}", 1..5), kept in any::<usize>(),
        places in vec(any::<usize>(), 0..12),
    ) {
        let mut first = Encoder::new();
        let mut stream: Vec<u8> =
            before.iter().flat_map(|text| first.encode(text).expect("short")).collect();
        let half = first.encode(&lost).expect("short");
        stream.extend_from_slice(&half[..kept % half.len()]);
        stream.extend(stream_of(&after));
        let (messages, errors) = decode_pieces(&mut Decoder::new(), &cut(&stream, &places));
        let mut wanted = before;
        wanted.extend(after);
        prop_assert_eq!(messages, wanted);
        prop_assert!(errors.iter().all(FrameError::is_stream_damage));
    }

    #[test]
    fn a_flipped_bit_never_changes_a_message_unseen(
        texts in vec("[a-z]{1,20}", 3), bit in any::<usize>(),
    ) {
        let mut stream = stream_of(&texts);
        let bit = bit % (stream.len() * 8);
        stream[bit / 8] ^= 1 << (bit % 8);
        // Enough bytes follow to fill a frame whose length became too large.
        stream.extend_from_slice(&vec![0; HEADER_LEN + PAYLOAD_MAX]);
        let (messages, errors) = decode_pieces(&mut Decoder::new(), &[stream]);
        prop_assert!(messages.iter().all(|message| texts.contains(message)));
        prop_assert_eq!(messages.len(), 2);
        prop_assert!(!errors.is_empty());
    }

    #[test]
    fn whatever_comes_the_buffer_stays_bounded(pieces in vec(vec(any::<u8>(), 0..5000), 0..20)) {
        let mut decoder = Decoder::new();
        for piece in pieces {
            decoder.push(&[&MARKER[..], &piece].concat());
            while decoder.next::<serde_json::Value>().is_some() {}
            prop_assert!(decoder.buffered() <= HEADER_LEN + PAYLOAD_MAX);
        }
    }
}

#[test]
fn a_long_frame_that_was_cut_off_does_not_hold_the_next_one_back() {
    let mut decoder = Decoder::new();
    decoder.push(&Encoder::new().encode(&"x".repeat(PAYLOAD_MAX - 2)).expect("just fits")[..30]);
    assert!(decoder.next::<String>().is_none());
    let (messages, errors) = decode_pieces(&mut decoder, &[stream_of(&["hello".to_owned()])]);
    assert_eq!(messages, ["hello"]);
    assert!(matches!(errors[..], [FrameError::Skipped { bytes: 30 }]), "{errors:?}");
}

#[test]
fn a_message_that_is_too_long_is_refused_and_does_not_count() {
    let mut encoder = Encoder::new();
    let error = encoder.encode(&"x".repeat(PAYLOAD_MAX)).expect_err("two quotes too long");
    assert!(matches!(error, FrameError::TooLong { length } if length == PAYLOAD_MAX + 2));
    let mut decoder = Decoder::new();
    decoder.push(&encoder.encode(&"x".repeat(PAYLOAD_MAX - 2)).expect("just fits"));
    assert_eq!(decoder.next::<String>().expect("whole").expect("no gap").len(), PAYLOAD_MAX - 2);
}

#[test]
fn a_header_that_claims_too_much_is_skipped_at_once() {
    let mut stream = [&MARKER[..], &u32::MAX.to_le_bytes(), &[0; 12]].concat();
    stream.extend(stream_of(&["after".to_owned()]));
    let (messages, errors) = decode_pieces(&mut Decoder::new(), &[stream]);
    assert_eq!(messages, ["after"]);
    assert!(
        matches!(errors[..], [FrameError::TooLong { .. }, FrameError::Skipped { bytes: 20 }]),
        "{errors:?}"
    );
}

#[test]
fn a_missing_frame_is_reported_once_and_the_next_one_still_comes() {
    let mut encoder = Encoder::new();
    let frames: Vec<_> =
        ["a", "b", "c", "d"].iter().map(|text| encoder.encode(text).expect("short")).collect();
    let pieces = [frames[0].clone(), frames[2].clone(), frames[3].clone()];
    let (messages, errors) = decode_pieces(&mut Decoder::new(), &pieces);
    assert_eq!(messages, ["a", "c", "d"]);
    assert!(matches!(errors[..], [FrameError::Gap { expected: 2, found: 3 }]), "{errors:?}");
}

#[test]
fn a_new_connection_starts_again_at_one_without_a_gap() {
    let mut decoder = Decoder::new();
    let texts = ["a".to_owned(), "b".to_owned()];
    let (messages, errors) = decode_pieces(&mut decoder, &[stream_of(&texts), stream_of(&texts)]);
    assert_eq!(messages, ["a", "b", "a", "b"]);
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn a_whole_frame_of_another_type_is_an_error_of_that_message_alone() {
    let mut encoder = Encoder::new();
    let pieces = [encoder.encode(&7).expect("short"), encoder.encode(&"text").expect("short")];
    let (messages, errors) = decode_pieces(&mut Decoder::new(), &pieces);
    assert_eq!(messages, ["text"]);
    assert!(matches!(errors[..], [FrameError::Deserialize { sequence: 1, .. }]), "{errors:?}");
}

/// Decodes a stream in pieces of `step` bytes. Returns the bytes that were examined for each byte of the stream.
fn work(stream: &[u8], step: usize) -> f64 {
    let mut decoder = Decoder::new();
    let pieces: Vec<Vec<u8>> = stream.chunks(step).map(<[u8]>::to_vec).collect();
    decode_pieces(&mut decoder, &pieces);
    #[expect(clippy::cast_precision_loss, reason = "a megabyte is exact")]
    let per_byte = decoder.examined() as f64 / stream.len() as f64;
    per_byte
}

#[test]
fn the_work_is_linear_in_the_bytes_whatever_a_hostile_guest_sends() {
    const LENGTH: usize = 1024 * 1024;
    let claim = |length: usize| {
        let length = u32::try_from(length).expect("short").to_le_bytes();
        [&MARKER[..], &length, &[7; 12]].concat()
    };
    let repeated = |unit: Vec<u8>| unit.iter().copied().cycle().take(LENGTH).collect::<Vec<u8>>();
    let streams = [
        // Each header claims all that follows, and each checksum is wrong.
        repeated(claim(PAYLOAD_MAX)),
        repeated(claim(LENGTH / 8)),
        repeated(claim(40)),
        repeated([claim(30), vec![b'x'; 200]].concat()),
        repeated(claim(PAYLOAD_MAX + 1)),
        repeated(MARKER.to_vec()),
        repeated(MARKER[..3].to_vec()),
        // One long frame that comes in small pieces.
        [claim(PAYLOAD_MAX), vec![b'x'; PAYLOAD_MAX]].concat(),
        stream_of(&vec!["x".repeat(100); 5000]),
    ];
    for (number, stream) in streams.iter().enumerate() {
        for step in [1, 100, 64 * 1024, LENGTH] {
            let per_byte = work(stream, step);
            assert!(per_byte < 6.0, "stream {number} in pieces of {step}: {per_byte} bytes for each byte");
        }
    }
}

//! Any bytes are read without a panic, and every problem has a place in the file.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::schema::Known;
use super::{WHOLE, around, parse};

/// Pieces of files, of which wrong ones are made.
static WORDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut words: Vec<String> = [
        "=",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "\"\"\"",
        ".",
        ",",
        "\n",
        "#",
        "\\",
        "\\u",
        "inf",
        "nan",
        "-1",
        "0",
        "1e9",
        "9223372036854775808",
        "true",
        "08:00:00",
        "1979-05-27",
        "\u{1b}",
        "ü",
        "\r",
        "[[",
        "]]",
        "ghp_x",
    ]
    .map(str::to_owned)
    .into();
    for table in
        ["", "forges.x", "pools.x", "pools.x.timeouts", "pools.x.start", "host", "webhook", "web", "traces"]
    {
        let known = table
            .split('.')
            .filter(|key| !key.is_empty())
            .try_fold(Known::file(), |known, key| known.key(key));
        let keys: Vec<&str> = known.expect("a table").keys().collect();
        words.push(table.to_owned());
        words.extend(keys.iter().map(|key| format!("{key} = ")));
        words.extend(
            known
                .into_iter()
                .flat_map(|known| keys.iter().filter_map(move |key| known.key(key)))
                .flat_map(Known::words)
                .map(|word| format!("\"{word}\"")),
        );
    }
    words
});

/// Reads bytes, and checks what must hold for any of them.
fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let reading = parse("f.toml", bytes, &around());
    let lines = bytes.split(|byte| *byte == b'\n').count();
    for finding in &reading.findings {
        prop_assert!((1..=lines).contains(&finding.line), "{finding}");
        prop_assert!((1..=bytes.len() + 1).contains(&finding.column), "{finding}");
        prop_assert!(!finding.message.is_empty());
        let has_escape = finding.to_string().contains(char::from(27));
        prop_assert!(!has_escape);
    }
    prop_assert_eq!(reading.config.is_some(), reading.errors() == 0);
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes)?;
    }

    #[test]
    fn any_pieces_are_read(pieces in proptest::collection::vec(0..WORDS.len(), 0..40)) {
        let text: String = pieces.into_iter().map(|piece| WORDS[piece].as_str()).collect();
        check(text.as_bytes())?;
    }

    #[test]
    fn a_good_file_with_some_bytes_changed_is_read(
        changes in proptest::collection::vec((0..WHOLE.len(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        for (at, byte, change) in changes {
            let at = at.min(bytes.len() - 1);
            match change {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        check(&bytes)?;
    }

    #[test]
    fn a_good_file_with_a_piece_in_it_or_a_part_cut_out_is_read(
        at in 0..WHOLE.len(), length in 0..80_usize, piece in 0..WORDS.len(),
    ) {
        let end = (at + length).min(WHOLE.len());
        let mut bytes = WHOLE.as_bytes().to_vec();
        bytes.splice(at..end, WORDS[piece].bytes());
        check(&bytes)?;
    }
}

#[test]
fn deep_and_wide_files_are_read() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(10_000)),
        format!("[{}a]", "a.".repeat(10_000)),
        "[pools.x]\nx=1\n".repeat(1000),
        (0..20_000).map(|number| format!("k{number} = 1\n")).collect(),
        (0..2_000).map(|number| format!("[pools.p{number}]\nmax = 0\n")).collect(),
    ] {
        let reading = parse("f.toml", text.as_bytes(), &around());
        assert!(reading.config.is_none());
        assert!((1..=50).contains(&reading.findings.len()));
    }
}

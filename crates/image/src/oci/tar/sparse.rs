//! Parses the maps of sparse files, which list the parts of a file that are in the archive.

use super::header::number;
use super::{BLOCK, SEGMENTS_MAX};

/// A part that is not a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The parts of a file, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) segments: Vec<Segment>,
    /// Length of the file with its holes, bytes.
    pub(super) size: u64,
}

impl Map {
    /// Creates a map. Checks that its parts neither overlap nor go beyond the end of the file.
    pub(super) fn new(numbers: &[u64], size: u64) -> Result<Self, String> {
        let mut segments = Vec::with_capacity(numbers.len() / 2);
        let mut end = 0_u64;
        for pair in numbers.chunks(2) {
            let &[offset, length] = pair else { return Err("a sparse map ends in the middle".to_owned()) };
            let next = offset.checked_add(length).filter(|&next| offset >= end && next <= size);
            end = next.ok_or("a sparse map leads outside its file, or backwards")?;
            if length > 0 {
                segments.push(Segment { offset, length });
            }
        }
        Ok(Self { segments, size })
    }

    /// Returns the length of all parts in the archive, bytes.
    pub(super) fn stored(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }
}

/// Parses the pairs of one block of the old GNU format. The header has four pairs. If a flag is set, blocks of 21 pairs
/// follow.
pub(super) fn pairs_of_block(
    block: &[u8],
    from: usize,
    count: usize,
    into: &mut Vec<u64>,
) -> Result<(), String> {
    for pair in block[from..from + count * 24].chunks(24) {
        // An empty field ends the list.
        if pair[0] == 0 {
            return Ok(());
        }
        for field in pair.chunks(12) {
            let value = number(field).and_then(|value| u64::try_from(value).ok());
            into.push(value.ok_or("a sparse map has an entry that is not a number")?);
        }
        if into.len() > 2 * SEGMENTS_MAX {
            return Err(format!("a sparse file has more than {SEGMENTS_MAX} segments"));
        }
    }
    Ok(())
}

/// Fields of a GNU header: offset and count of its pairs, the flag for further blocks, and the length of the file.
pub(super) const OLD_PAIRS: (usize, usize) = (386, 4);
pub(super) const OLD_EXTENDED: usize = 482;
pub(super) const OLD_SIZE: std::ops::Range<usize> = 483..495;
/// The same fields in the following blocks.
pub(super) const NEXT_PAIRS: (usize, usize) = (0, 21);
pub(super) const NEXT_EXTENDED: usize = 504;

const _: () = assert!(NEXT_PAIRS.1 * 24 == NEXT_EXTENDED && NEXT_EXTENDED < BLOCK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_leads_outside_or_backwards_is_refused() {
        let map = Map::new(&[0, 5, 10, 0, 10, 5], 20).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((map.segments.len(), map.stored()), (2, 10));
        for bad in [&[0_u64, 5, 4, 1][..], &[16, 5], &[u64::MAX, 2], &[0]] {
            assert!(Map::new(bad, 20).is_err(), "{bad:?}");
        }
    }
}

//! Finds tags that are similar to a missing one.

/// Most tags that are suggested.
const TOLD: usize = 5;

/// Returns the tags that are most similar to the missing one.
pub(super) fn nearby(wanted: &str, mut tags: Vec<String>) -> Vec<String> {
    tags.sort_by_cached_key(|tag| (distance(wanted, tag), tag.clone()));
    tags.truncate(TOLD);
    tags
}

/// Returns how many bytes must be added, removed or changed to get from one text to the other. Only the first 128 bytes of
/// each count.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<u8>, Vec<u8>) =
        (one.bytes().take(128).collect(), other.bytes().take(128).collect());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_most_alike_comes_first() {
        assert_eq!((distance("kitten", "sitting"), distance("", "ab"), distance("a", "a")), (3, 2, 0));
        let tags = ["latest", "24.04", "22.04", "bookworm", "24.10", "x", "y"].map(str::to_owned).to_vec();
        assert_eq!(nearby("24.4", tags)[..2], ["24.04", "22.04"]);
    }
}

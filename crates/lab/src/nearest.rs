//! Finds the word that was probably meant.

/// Returns the nearest candidate if it is at most two changes away, or one if it has up to three letters.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const WORD_MAX: usize = 64;
    if word.len() > WORD_MAX {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    let distances = candidates.into_iter().map(|candidate| (distance(&word, &plain(candidate)), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    let allowed = if candidate.len() <= 3 { 1 } else { 2 };
    (distance <= allowed).then_some(candidate)
}

/// Returns the Levenshtein distance, with a swap of neighbours as one change.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_and_a_far_one_is_not() {
        let keys = ["steps", "runs-on", "needs", "if", "timeout-minutes"];
        assert_eq!(nearest("stepz", keys), Some("steps"));
        assert_eq!(nearest("setps", keys), Some("steps"));
        assert_eq!(nearest("runs_on", keys), Some("runs-on"));
        assert_eq!(nearest("Needs", keys), Some("needs"));
        assert_eq!(nearest("fi", keys), Some("if"));
        assert_eq!(nearest("timeout-minute", keys), Some("timeout-minutes"));
        assert_eq!(nearest("banana", keys), None);
        assert_eq!(nearest(&"x".repeat(10_000), keys), None);
    }
}

//! Numbers with their nouns, in texts that people read.

use std::fmt::Display;

/// Returns a number with its words: those for one, or those for any other number.
pub fn quantity<N: Display + PartialEq + From<u8>>(number: N, one: &str, many: &str) -> String {
    let words = if number == N::from(1) { one } else { many };
    format!("{number} {words}")
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn only_one_has_the_words_for_one() {
        let shown = [0_u32, 1, 2, 11].map(|number| quantity(number, "job waits", "jobs wait"));
        assert_eq!(shown, ["0 jobs wait", "1 job waits", "2 jobs wait", "11 jobs wait"]);
        assert_eq!(quantity(1_usize, "runner", "runners"), "1 runner");
    }
}

//! Properties that hold for any bytes: those of a foreign image, of a guest, of a forge, of a workflow.
//!
//! `cargo test` checks them for their seeds and for random changes of these. `make fuzz` checks them for inputs from libFuzzer.
//! A check panics if its property does not hold. It is no failure if an input is refused, but it is one if the error text
//! cannot be shown on a terminal.

/// A property that holds for any bytes.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    /// Its subject, which is the name of its fuzz target.
    pub name: &'static str,
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Panics if the property does not hold for these bytes.
    pub check: fn(&[u8]),
}

/// Checks that a text can be shown on a terminal: it has no control characters.
///
/// # Panics
/// Panics if it has one.
pub fn assert_shown(text: impl ToString) {
    let text = text.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[cfg(feature = "test")]
pub use changed::hold;

#[cfg(feature = "test")]
mod changed {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use proptest::test_runner::TestRunner;

    use super::Property;

    /// Number of changed seeds that are tried.
    const CASES: u32 = 256;

    /// Checks that properties hold for all of their seeds, and for what is almost one of them.
    ///
    /// # Panics
    /// Panics if one does not hold, or has fewer than two seeds.
    pub fn hold(properties: &[Property]) {
        for property in properties {
            let seeds = (property.seeds)();
            assert!(seeds.len() > 1, "{} needs more seeds", property.name);
            seeds.iter().for_each(|seed| (property.check)(seed));
        }
        let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 1..6);
        let case = (any::<Index>(), any::<Index>(), changes, prop::option::of(any::<Index>()));
        let mut runner = TestRunner::new(ProptestConfig::with_cases(CASES));
        let held = runner.run(&case, |(property, seed, changes, end)| {
            let property = property.get(properties);
            let seeds = (property.seeds)();
            (property.check)(&changed(seed.get(&seeds).clone(), &changes, end));
            Ok(())
        });
        held.unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// Changes a seed as a fuzzer does: replaces some bytes, or cuts the end.
    fn changed(mut seed: Vec<u8>, changes: &[(Index, u8)], end: Option<Index>) -> Vec<u8> {
        if seed.is_empty() {
            return seed;
        }
        for (at, byte) in changes {
            *at.get_mut(&mut seed) = *byte;
        }
        let length = end.map_or(seed.len(), |end| end.index(seed.len()));
        seed.truncate(length);
        seed
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn seeds() -> Vec<Vec<u8>> {
            vec![b"first".to_vec(), b"second".to_vec()]
        }

        #[test]
        #[should_panic(expected = "only seeds pass")]
        fn a_change_of_a_seed_is_found() {
            let check = |data: &[u8]| assert!(seeds().iter().any(|seed| seed == data), "only seeds pass");
            hold(&[Property { name: "seeds", seeds, check }]);
        }

        #[test]
        #[should_panic(expected = "\\u{1b}")]
        fn a_text_that_steers_a_terminal_is_found() {
            crate::assert_shown("\u{1b}[1m");
        }
    }
}

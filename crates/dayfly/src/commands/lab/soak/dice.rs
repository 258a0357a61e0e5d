//! Draws that follow from a seed. Pure.
//!
//! The generator is written out here (SplitMix64, Steele et al. 2014), because a seed in a report must mean the same
//! plan in every later version of dayfly. A generator of a crate may change with the crate.

/// The draws for one purpose.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// Creates the draws of a seed for a purpose. Draws of one purpose do not depend on the number of draws of another.
    pub(super) fn new(seed: u64, purpose: u64) -> Self {
        let mut dice = Self(seed ^ purpose.rotate_left(32));
        dice.next();
        dice
    }

    /// Returns the next draw of 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 up to, but not with, `bound`. The bias is below one in a billion, because bounds are
    /// small.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Returns a number of this range, both ends included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Returns one of the items, or none if there are none.
    pub(super) fn one_of<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let place = usize::try_from(self.below(items.len() as u64)).unwrap_or_default();
        items.get(place).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_draws_for_ever() {
        let mut dice = Dice::new(42, 1);
        let draws: Vec<u64> = (0..4).map(|_| dice.below(1000)).collect();
        insta::assert_snapshot!(format!("{draws:?}"));
    }

    #[test]
    fn draws_stay_in_their_bounds_and_reach_both_ends() {
        let mut dice = Dice::new(7, 1);
        let draws: Vec<u64> = (0..1000).map(|_| dice.between(3, 5)).collect();
        assert!(draws.iter().all(|draw| (3..=5).contains(draw)));
        assert!([3, 4, 5].iter().all(|end| draws.contains(end)));
        assert_eq!(dice.one_of::<u8>(&[]), None);
    }
}

//! Finds many patterns in one pass over a text (the algorithm of Aho and Corasick).
//!
//! The time depends on the text's length only, not on the patterns, which a job may choose.

use std::collections::{HashMap, VecDeque};

const ROOT: u32 = 0;

/// Compiled patterns.
pub(super) struct Automaton {
    /// The next state, by state and byte. A state is the longest beginning of a pattern that the text read so far ends with.
    edges: HashMap<(u32, u8), u32>,
    states: Vec<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// The state of the next shorter beginning of a pattern that the text also ends with.
    shorter: u32,
    /// The length of the longest pattern that ends here; 0 if none does.
    matched: u32,
}

impl Automaton {
    /// Compiles patterns. Empty ones are left out.
    pub(super) fn new(patterns: &[String]) -> Self {
        let mut automaton = Self { edges: HashMap::new(), states: vec![State::default()] };
        patterns.iter().for_each(|pattern| automaton.add(pattern.as_bytes()));
        automaton.connect();
        automaton
    }

    fn add(&mut self, pattern: &[u8]) {
        let mut state = ROOT;
        for byte in pattern {
            let next = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
            state = *self.edges.entry((state, *byte)).or_insert(next);
            if state == next {
                self.states.push(State::default());
            }
        }
        self.states[state as usize].matched = u32::try_from(pattern.len()).unwrap_or(u32::MAX);
    }

    /// Sets the shorter state of every state, from the root on.
    fn connect(&mut self) {
        let mut children: Vec<Vec<(u8, u32)>> = vec![Vec::new(); self.states.len()];
        for ((state, byte), next) in &self.edges {
            children[*state as usize].push((*byte, *next));
        }
        let mut waiting = VecDeque::from([ROOT]);
        while let Some(state) = waiting.pop_front() {
            for (byte, child) in &children[state as usize] {
                let shorter =
                    if state == ROOT { ROOT } else { self.next(self.states[state as usize].shorter, *byte) };
                let matched = self.states[shorter as usize].matched;
                let child_state = &mut self.states[*child as usize];
                child_state.shorter = shorter;
                child_state.matched = child_state.matched.max(matched);
                waiting.push_back(*child);
            }
        }
    }

    fn next(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            match self.edges.get(&(state, byte)) {
                Some(next) => return *next,
                None if state == ROOT => return ROOT,
                None => state = self.states[state as usize].shorter,
            }
        }
    }

    /// Returns the place of the longest pattern that ends at each byte: start and end.
    pub(super) fn find<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, usize)> + 'a {
        let mut state = ROOT;
        text.iter().enumerate().filter_map(move |(at, byte)| {
            state = self.next(state, *byte);
            let length = self.states[state as usize].matched as usize;
            (length > 0).then(|| (at + 1 - length, at + 1))
        })
    }
}

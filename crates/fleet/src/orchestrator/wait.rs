//! The reason why jobs of a pool wait although the pool goes on. Pure.

use serde::{Deserialize, Serialize};

use super::budget::Scarce;

/// The reason why jobs of a pool wait, as its orchestrator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Runners start for the jobs, or are up and have not got them yet.
    Starting,
    /// The pool has as many runners as it may have.
    Full {
        /// The number.
        max: u32,
    },
    /// No further machine fits into the budget of the host, or into the pool's own.
    Budget {
        /// The part that there is too little of.
        scarce: Scarce,
        /// The limit: machines, virtual CPUs, or MiB of memory or scratch space.
        limit: u64,
    },
    /// The scratch space in use on this host is being measured for the first time.
    Measuring,
    /// Another pool has its turn.
    Turn,
    /// Runners have failed, and the next one starts after a pause.
    Pausing,
}

/// The decision of an orchestrator about a pool.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Decided {
    /// Jobs that wait.
    pub(super) jobs: u32,
    /// Runners that the pool has.
    pub(super) alive: u32,
    /// Most runners that it may have; none if there is no limit.
    pub(super) max: Option<u32>,
    /// Most runners that it and its sizes may have together.
    pub(super) family_max: Option<u32>,
    /// Machines that it asks for.
    pub(super) wanted: u32,
    /// Those of them that it gets.
    pub(super) granted: u32,
    /// The limit that holds the others of them up; none if no limit does.
    pub(super) held_by: Option<Wait>,
    /// True if it pauses after runners that failed.
    pub(super) is_pausing: bool,
}

/// Returns the reason why the jobs of a pool wait; none if none waits.
pub(super) fn wait_of(decided: Decided) -> Option<Wait> {
    let Decided { jobs, alive, max, family_max, wanted, granted, held_by, is_pausing } = decided;
    if jobs == 0 {
        return None;
    }
    let is_held = granted < wanted;
    let most = max.filter(|max| alive + granted >= *max);
    Some(match (held_by, family_max) {
        _ if is_pausing => Wait::Pausing,
        (Some(limit), _) if is_held => limit,
        (None, Some(max)) if is_held => Wait::Full { max },
        _ if is_held => Wait::Turn,
        _ => most.filter(|_| granted == 0).map_or(Wait::Starting, |max| Wait::Full { max }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_has_the_reason_that_holds_it_up() {
        let base = Decided { jobs: 3, alive: 2, max: Some(4), wanted: 2, granted: 2, ..Decided::default() };
        let full = Decided { alive: 4, wanted: 0, granted: 0, ..base };
        let held = Decided { granted: 0, ..base };
        let memory = Some(Wait::Budget { scarce: Scarce::MemoryMib, limit: 8192 });
        for (decided, expected) in [
            (Decided { jobs: 0, ..base }, None),
            (base, Some(Wait::Starting)),
            (full, Some(Wait::Full { max: 4 })),
            (Decided { max: None, ..full }, Some(Wait::Starting)),
            (Decided { is_pausing: true, wanted: 0, granted: 0, ..base }, Some(Wait::Pausing)),
            (Decided { held_by: memory, ..held }, memory),
            (Decided { held_by: memory, ..base }, Some(Wait::Starting)),
            (Decided { family_max: Some(5), ..held }, Some(Wait::Full { max: 5 })),
            (held, Some(Wait::Turn)),
        ] {
            assert_eq!(wait_of(decided), expected, "{decided:?}");
        }
    }
}

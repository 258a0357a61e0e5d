//! The pools as the published status has them: the loops by pool and phase. Pure.

use std::collections::BTreeMap;

use dayfly_fleet::state::Phase;
use dayfly_fleet::status::{LoopStatus, PoolState, PoolStatus, Status};

use crate::publish::{PoolEntry, Site};

/// All phases, in their order.
pub const PHASES: [Phase; 8] = [
    Phase::Preparing,
    Phase::Booting,
    Phase::Starting,
    Phase::Idle,
    Phase::Busy,
    Phase::Ending,
    Phase::Pausing,
    Phase::Ended,
];

/// A pool at one time.
#[derive(Debug, Default, Clone)]
pub struct PoolNow<'a> {
    /// Its name; empty for a pool of a command line.
    pub name: &'a str,
    /// The pool as the site has it; none if it drains, or if only the status is known.
    pub entry: Option<&'a PoolEntry>,
    /// Its published state; none if it runs and no job waits.
    pub status: Option<&'a PoolStatus>,
    /// The number of its loops in each of [`PHASES`].
    pub phases: [u32; PHASES.len()],
    /// Runners that are registered.
    pub registered: u32,
    /// Runners with a job.
    pub busy: u32,
    /// Machines that run.
    pub machines: u32,
}

/// Returns the pools of the site, and those that still drain.
pub fn pools_now<'a>(status: &'a Status, site: &'a Site) -> Vec<PoolNow<'a>> {
    let mut pools: BTreeMap<&str, PoolNow<'a>> = BTreeMap::new();
    fn get<'m, 'a>(pools: &'m mut BTreeMap<&'a str, PoolNow<'a>>, name: &'a str) -> &'m mut PoolNow<'a> {
        pools.entry(name).or_insert_with(|| PoolNow { name, ..PoolNow::default() })
    }
    for entry in &site.pools {
        get(&mut pools, &entry.name).entry = Some(entry);
    }
    for found in status.pools.values() {
        let pool = get(&mut pools, found.name.as_deref().unwrap_or_default());
        // Of two pools with one name, one drains; the other one has the jobs.
        if pool.status.is_none_or(|known| known.state == PoolState::Draining) {
            pool.status = Some(found);
        }
    }
    for found in status.loops.values() {
        get(&mut pools, found.pool.as_deref().unwrap_or_default()).add(found);
    }
    pools.into_values().collect()
}

impl PoolNow<'_> {
    fn add(&mut self, found: &LoopStatus) {
        let at = PHASES.iter().position(|phase| *phase == found.phase);
        self.phases[at.unwrap_or_default()] += 1;
        self.registered += u32::from(found.registration.is_some());
        self.busy += u32::from(found.phase == Phase::Busy && found.job.is_some());
        self.machines += u32::from(found.vmm.is_some());
    }

    /// Returns the number of loops in a phase.
    pub fn in_phase(&self, phase: Phase) -> u32 {
        PHASES.iter().zip(self.phases).find(|(one, _)| **one == phase).map_or(0, |(_, count)| count)
    }

    /// Returns the number of jobs that wait.
    pub fn waiting(&self) -> u32 {
        self.status.map_or(0, |status| status.waiting)
    }
}

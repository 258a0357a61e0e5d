//! The pools as the published status has them: the loops by pool and phase. Pure.

use std::collections::BTreeMap;

use dayfly_fleet::state::Phase;
use dayfly_fleet::status::{LoopStatus, PoolState, PoolStatus, Status};

use crate::publish::{PoolEntry, Site};

/// All phases, in their order.
pub(crate) const PHASES: [Phase; 8] = [
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
pub(crate) struct PoolNow<'a> {
    pub(crate) name: &'a str,
    pub(crate) entry: Option<&'a PoolEntry>,
    pub(crate) status: Option<&'a PoolStatus>,
    pub(crate) phases: [u32; PHASES.len()],
    pub(crate) registered: u32,
    pub(crate) busy: u32,
    pub(crate) machines: u32,
}

/// Returns the pools of the site, and those that still drain.
pub(crate) fn pools_now<'a>(status: &'a Status, site: &'a Site) -> Vec<PoolNow<'a>> {
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
    pub(crate) fn in_phase(&self, phase: Phase) -> u32 {
        PHASES.iter().zip(self.phases).find(|(one, _)| **one == phase).map_or(0, |(_, count)| count)
    }

    /// Returns the number of jobs that wait.
    pub(crate) fn waiting(&self) -> u32 {
        self.status.map_or(0, |status| status.waiting)
    }
}

//! The pools and machines of this host as one value, from the published status of each process and the use of each
//! machine. Pure.

use std::collections::BTreeMap;

use dayfly_fleet::state::Phase;
use dayfly_fleet::status::{LoopStatus, PoolState};
use dayfly_fleet::why::{self, Process, Reason};
use dayfly_web::{PoolNow, Site, pools_now};

use super::usage::Usage;

/// Everything that the screen shows of this host.
#[derive(Debug, Clone, Default)]
pub(super) struct Board {
    /// Time of the look, milliseconds since 1970-01-01 UTC.
    pub(super) at_ms: u64,
    /// Number of processes that run loops.
    pub(super) processes: usize,
    pub(super) pools: Vec<PoolRow>,
    pub(super) machines: Vec<MachineRow>,
}

/// A pool in an order: the names of its instance and of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolKey {
    pub(super) instance: String,
    /// The name that an order gives; that of a pool of a command line is its prefix.
    pub(super) pool: String,
}

/// A pool.
#[derive(Debug, Clone)]
pub(super) struct PoolRow {
    pub(super) key: PoolKey,
    pub(super) state: PoolState,
    pub(super) waiting: u32,
    pub(super) busy: u32,
    pub(super) idle: u32,
    pub(super) starting: u32,
    pub(super) machines: u32,
    /// The sentences about its wait or its trouble, the most important one first.
    pub(super) reasons: Vec<Reason>,
}

/// A loop of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MachineKey {
    pub(super) instance: String,
    pub(super) index: u32,
}

/// A loop that has not ended, with its runner and its machine.
#[derive(Debug, Clone)]
pub(super) struct MachineRow {
    pub(super) key: MachineKey,
    pub(super) pool: PoolKey,
    /// Id of the runner; none before the first one.
    pub(super) runner: Option<String>,
    pub(super) phase: Phase,
    /// Start of the phase, milliseconds since 1970-01-01 UTC.
    pub(super) since_ms: u64,
    pub(super) job: Option<String>,
    pub(super) repository: Option<String>,
    pub(super) workflow: Option<String>,
    /// The reason of a pause.
    pub(super) trouble: Option<String>,
    pub(super) usage: Usage,
}

/// Returns the board of some processes, with the use of the machines by the ids of their runners.
pub(super) fn board(processes: &[Process], usages: &BTreeMap<String, Usage>, now_ms: u64) -> Board {
    let pools = processes.iter().flat_map(|process| pools_of(process, now_ms)).collect();
    let machines = processes.iter().flat_map(|process| machines_of(process, usages)).collect();
    Board { at_ms: now_ms, processes: processes.len(), pools, machines }
}

fn pools_of(process: &Process, now_ms: u64) -> Vec<PoolRow> {
    let site = Site::default();
    let mut pools = pools_now(&process.status, &site);
    // A pool that rests is in no status.
    for serves in &process.serves {
        let name = serves.pool.as_deref().unwrap_or_default();
        if pools.iter().all(|pool| pool.name != name) {
            pools.push(PoolNow { name, ..PoolNow::default() });
        }
    }
    pools.sort_by_key(|pool| pool.name);
    pools.iter().map(|pool| pool_row(process, pool, now_ms)).collect()
}

fn pool_row(process: &Process, pool: &PoolNow<'_>, now_ms: u64) -> PoolRow {
    let name = Some(pool.name).filter(|name| !name.is_empty());
    let is_usual = |state: PoolState| state == PoolState::Running;
    let has_reason = pool
        .status
        .is_some_and(|status| status.wait.is_some() || !status.forge.is_empty() || !is_usual(status.state));
    let reasons = if has_reason { why::explain_pool(process, name, now_ms) } else { Vec::new() };
    PoolRow {
        key: key_of(process, name),
        state: pool.status.map(|status| status.state).unwrap_or_default(),
        waiting: pool.waiting(),
        busy: pool.busy,
        idle: pool.in_phase(Phase::Idle),
        starting: [Phase::Preparing, Phase::Booting, Phase::Starting]
            .map(|phase| pool.in_phase(phase))
            .iter()
            .sum(),
        machines: pool.machines,
        reasons,
    }
}

fn machines_of(process: &Process, usages: &BTreeMap<String, Usage>) -> Vec<MachineRow> {
    let loops = process.status.loops.iter().filter(|(_, one)| one.phase != Phase::Ended);
    loops.map(|(&index, one)| machine_row(process, (index, one), usages)).collect()
}

fn machine_row(
    process: &Process,
    (index, one): (u32, &LoopStatus),
    usages: &BTreeMap<String, Usage>,
) -> MachineRow {
    let taken = one.taken.as_ref();
    // The machine of a runner that has ended is gone.
    let usage = one.runner.as_ref().filter(|_| one.vmm.is_some()).and_then(|runner| usages.get(runner));
    MachineRow {
        key: MachineKey { instance: process.instance.clone(), index },
        pool: key_of(process, one.pool.as_deref()),
        runner: one.runner.clone(),
        phase: one.phase,
        since_ms: one.since_ms,
        job: one.job.clone().or_else(|| taken.and_then(|job| job.name.clone())),
        repository: taken.and_then(|job| job.repository.clone()),
        workflow: taken.and_then(|job| job.workflow.clone()),
        trouble: one.trouble.clone().filter(|_| one.phase == Phase::Pausing),
        usage: usage.copied().unwrap_or_default(),
    }
}

fn key_of(process: &Process, pool: Option<&str>) -> PoolKey {
    let prefix =
        || process.serves.iter().find(|serves| serves.pool.is_none()).map(|serves| serves.prefix.as_str());
    let pool = pool.or_else(prefix).unwrap_or_default().to_owned();
    PoolKey { instance: process.instance.clone(), pool }
}

#[cfg(test)]
pub(super) mod tests;

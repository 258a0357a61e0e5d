//! The checks of the host's budget: a pool must be able to have all of its machines, if it is alone.

use super::{Findings, HostSize};
use crate::config::reader::join;
use crate::config::resolved::{HostBudget, PoolConfig};
use crate::config::size_label::SizeLabel;

/// A part of the budget that is too small for a pool.
struct Exceeded {
    /// The key of `[host]` that sets it.
    key: &'static str,
    /// The numbers: those of the pool, and the limit.
    numbers: String,
}

/// Checks each pool against the budget. Without the size of the host, only the number of machines is checked.
pub(super) fn check(
    pools: &[PoolConfig],
    budget: &HostBudget,
    size: Option<HostSize>,
    findings: &mut Findings<'_>,
) {
    for pool in pools {
        let table = join("pools", &pool.name);
        if let Some(limit) = budget.max_machines.filter(|&limit| pool.max > limit) {
            let numbers = format!("max_machines = {limit} allows {limit}");
            report(&table, pool, &Exceeded { key: "max_machines", numbers }, findings);
        }
        for exceeded in size.iter().flat_map(|&size| exceeded(pool, budget, size)) {
            report(&table, pool, &exceeded, findings);
        }
    }
}

fn report(table: &str, pool: &PoolConfig, exceeded: &Exceeded, findings: &mut Findings<'_>) {
    let message = format!("{} machines of this pool can never run at once: {}", pool.max, exceeded.numbers);
    let hint = format!("lower max or the size of the machines, or raise host.{}", exceeded.key);
    findings.error(&format!("{table}.max"), message, Some(hint));
}

fn exceeded(pool: &PoolConfig, budget: &HostBudget, size: HostSize) -> Vec<Exceeded> {
    let machine = &pool.spec.machine;
    // One machine of a larger size may take the place of several of the pool's own.
    let most = |own: u32, of_size: fn(&SizeLabel) -> u32| {
        let largest = pool.sizes.iter().map(of_size).max().unwrap_or(0);
        (u64::from(own) * u64::from(pool.max)).max(u64::from(largest))
    };
    let (cpus, memory_mib) =
        (most(machine.cpus, |size| size.cpus), most(machine.memory_mib, |size| size.memory_mib));
    let mut all = Vec::new();
    if let (Some(factor), Some(limit)) = (budget.vcpu_overcommit, budget.vcpus(size))
        && cpus > limit
    {
        let numbers = format!(
            "they have {cpus} virtual CPUs, and {} processors with vcpu_overcommit = {factor} allow {limit}",
            size.cpus
        );
        all.push(Exceeded { key: "vcpu_overcommit", numbers });
    }
    let (factor, limit) = (budget.memory_factor(), budget.memory_mib(size));
    if memory_mib > limit {
        let numbers = format!(
            "they have {memory_mib} MiB of memory, and {} MiB with memory_overcommit = {factor} allow {limit}",
            size.memory_mib
        );
        all.push(Exceeded { key: "memory_overcommit", numbers });
    }
    all
}

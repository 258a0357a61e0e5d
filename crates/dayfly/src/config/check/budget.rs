//! The checks of the host's budget: a pool must be able to have all of its machines, if it is alone.

use dayfly_host::quantity::quantity;

use super::{Findings, HostSize};
use crate::config::reader::join;
use crate::config::resolved::{HostBudget, PoolConfig};

/// A part of the budget that is too small for a pool.
struct Exceeded {
    /// The key of `[host]` that sets it.
    key: &'static str,
    /// The numbers: those of the pool, and the limit.
    numbers: String,
}

/// Machines that must be able to run at once, if no others do.
#[derive(Clone, Copy)]
struct Machines {
    count: u32,
    cpus: u64,
    memory_mib: u64,
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
        let machine = &pool.spec.machine;
        let own =
            Machines { count: pool.max, cpus: machine.cpus.into(), memory_mib: machine.memory_mib.into() };
        if let Some(limit) = budget.max_machines.filter(|&limit| pool.max > limit) {
            let numbers = format!("max_machines = {limit} allows {limit}");
            report(&table, pool, &Exceeded { key: "max_machines", numbers }, findings);
        }
        if let (Some(limit), Some(own)) = (budget.scratch_mib, pool.spec.scratch_mib)
            && own > limit
        {
            let message = format!("this has no effect, because host.scratch allows all pools {limit} MiB");
            findings.warning(&format!("{table}.scratch"), message, None);
        }
        let Some(size) = size else { continue };
        for exceeded in own.exceed(budget, size) {
            report(&table, pool, &exceeded, findings);
        }
        for (index, label) in pool.sizes.iter().enumerate() {
            // One of them may take the place of several of the pool's own, so the others may have to wait for it.
            let one = Machines { count: 1, cpus: label.cpus.into(), memory_mib: label.memory_mib.into() };
            for Exceeded { key, numbers } in one.exceed(budget, size) {
                let message = format!("a machine of the size {label} can never run: {numbers}");
                let hint = format!("leave the size out, or raise host.{key}");
                findings.error(&format!("{table}.sizes[{index}]"), message, Some(hint));
            }
        }
    }
}

fn report(table: &str, pool: &PoolConfig, exceeded: &Exceeded, findings: &mut Findings<'_>) {
    let can = quantity(
        pool.max,
        "machine of this pool can never run",
        "machines of this pool can never run at once",
    );
    let message = format!("{can}: {}", exceeded.numbers);
    let hint = format!("lower max or the size of the machines, or raise host.{}", exceeded.key);
    findings.error(&format!("{table}.max"), message, Some(hint));
}

impl Machines {
    /// Returns the parts of the budget that are too small for them.
    fn exceed(self, budget: &HostBudget, size: HostSize) -> Vec<Exceeded> {
        let count = u64::from(self.count);
        let (cpus, memory_mib) = (self.cpus * count, self.memory_mib * count);
        let they = if count == 1 { "it has" } else { "they have" };
        let mut all = Vec::new();
        if let (Some(factor), Some(limit)) = (budget.vcpu_overcommit, budget.vcpus(size))
            && cpus > limit
        {
            let numbers = format!(
                "{they} {cpus} virtual CPUs, and {} processors with vcpu_overcommit = {factor} allow {limit}",
                size.cpus
            );
            all.push(Exceeded { key: "vcpu_overcommit", numbers });
        }
        let (factor, limit) = (budget.memory_factor(), budget.memory_mib(size));
        if memory_mib > limit {
            let numbers = format!(
                "{they} {memory_mib} MiB of memory, and {} MiB with memory_overcommit = {factor} allow {limit}",
                size.memory_mib
            );
            all.push(Exceeded { key: "memory_overcommit", numbers });
        }
        all
    }
}

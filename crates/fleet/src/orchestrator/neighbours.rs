//! The machines that other processes run on this host: they leave less of the budget.
//!
//! Nothing tells when such a machine starts or ends, so the orchestrator looks when it wants to start one, and again while it
//! waits for room. Two processes that look at the same moment can both take the same room; the memory is checked once more
//! when a machine starts (`vm::pace`).

use std::time::Duration;

use dayfly_vm::{MachineSizes, machines_of_others};
use tokio::time::Instant;

use super::budget::{Budget, Claim};

/// Time between two looks.
const PACE: Duration = Duration::from_secs(1);

/// The machines of other processes, as they were seen last.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    sizes: MachineSizes,
    seen: Option<Instant>,
}

impl Neighbours {
    /// Returns what they leave of the budget, if a claim asks for a machine.
    pub(super) async fn leave(&mut self, budget: Budget, claims: &[Claim], now: Instant) -> Budget {
        let is_limited = budget.vcpus.is_some() || budget.memory_mib.is_some();
        if !is_limited || claims.iter().all(|claim| claim.wanted == 0) {
            return budget;
        }
        if self.seen.is_none_or(|seen| seen + PACE <= now) {
            self.seen = Some(now);
            // This reads a file of each process, which can block. If it fails, the sizes stay as they were.
            if let Ok(Ok(sizes)) = tokio::task::spawn_blocking(machines_of_others).await {
                self.sizes = sizes;
            }
        }
        budget.beside(self.sizes)
    }

    /// Returns the time of the next look for machines that have ended, if there are any.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.seen.filter(|_| self.sizes != MachineSizes::default()).map(|seen| seen + PACE)
    }
}

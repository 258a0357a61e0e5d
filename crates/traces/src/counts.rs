//! How many traces were sent and lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of traces since the start of the process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct TraceCounts {
    sent: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl TraceCounts {
    /// Returns the number of traces that the collector has taken.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns the number of traces that were dropped, refused, or could not be made.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(crate) fn send(&self, count: usize) {
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn lose(&self, count: usize) {
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }
}

//! The statistics of a scale set, by which its listener scales.

use serde::Serialize;

use super::ScaleSet;
use crate::state::runner::millis;
use crate::state::{Hold, LabState};

/// The numbers that every session and every message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Statistics {
    /// Jobs that the scale set could acquire.
    pub(crate) total_available_jobs: usize,
    /// Jobs that are acquired and not assigned yet. The lab assigns a job in the same moment; GitHub's logs show 0 too.
    pub(crate) total_acquired_jobs: usize,
    /// Jobs of the scale set that wait for a runner or run.
    pub(crate) total_assigned_jobs: usize,
    /// Jobs that run.
    pub(crate) total_running_jobs: usize,
    /// Runners with a registration, also those that never connected.
    pub(crate) total_registered_runners: usize,
    /// Runners that have a job.
    pub(crate) total_busy_runners: usize,
    /// Runners that are online and have no job.
    pub(crate) total_idle_runners: usize,
}

impl LabState {
    /// Counts the jobs and runners of a scale set.
    pub(crate) fn statistics(&self, set: &ScaleSet) -> Statistics {
        let (now_ms, presence_ms) = (self.now_ms(), millis(self.limits.presence));
        let runs = |job: &&u64| {
            let hold = self.jobs.get(job).map(|job| job.record.hold);
            matches!(hold, Some(Hold::Acquired { .. }))
        };
        let mut statistics = Statistics {
            total_available_jobs: set.queue.available().len(),
            total_acquired_jobs: 0,
            total_assigned_jobs: set.queue.assigned().len(),
            total_running_jobs: set.queue.assigned().iter().filter(runs).count(),
            total_registered_runners: 0,
            total_busy_runners: 0,
            total_idle_runners: 0,
        };
        let id = Some(set.record.id);
        for runner in self.runners.values().filter(|runner| runner.registration.scale_set == id) {
            statistics.total_registered_runners += 1;
            if runner.job.is_some() {
                statistics.total_busy_runners += 1;
            } else if runner.online(now_ms, presence_ms) {
                statistics.total_idle_runners += 1;
            }
        }
        statistics
    }
}

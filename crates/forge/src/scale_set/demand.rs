//! The demand of a scale set: the statistics, which count, and the messages, which only tell.

use serde::{Deserialize, Deserializer};

use super::message::ScaleSetJobEvent;

/// The counts of a scale set's jobs and runners. They are always whole, so they alone decide how many runners are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleSetStatistics {
    /// Jobs that are offered to the scale set and not acquired.
    #[serde(default, deserialize_with = "count")]
    pub total_available_jobs: u32,
    /// Jobs that were acquired.
    #[serde(default, deserialize_with = "count")]
    pub total_acquired_jobs: u32,
    /// Jobs that belong to the scale set: those that wait for a runner and those that run.
    #[serde(deserialize_with = "count")]
    pub total_assigned_jobs: u32,
    /// Jobs that run.
    #[serde(default, deserialize_with = "count")]
    pub total_running_jobs: u32,
    /// Runners of the scale set.
    #[serde(default, deserialize_with = "count")]
    pub total_registered_runners: u32,
    /// Runners that have a job.
    #[serde(default, deserialize_with = "count")]
    pub total_busy_runners: u32,
    /// Runners that wait for a job.
    #[serde(default, deserialize_with = "count")]
    pub total_idle_runners: u32,
}

impl ScaleSetStatistics {
    /// Returns how many runners there should be: one for each assigned job and `min_idle` more, at most `max`.
    pub fn runners_wanted(&self, min_idle: u32, max: u32) -> u32 {
        self.total_assigned_jobs.saturating_add(min_idle).min(max)
    }
}

/// Reads a count. A server that has lost count sends a negative number, which means none.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = i64::deserialize(deserializer)?;
    Ok(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

/// The state of a scale set's demand after a poll, with or without news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleSetDemand {
    /// The counts. Scale on them: [`ScaleSetStatistics::runners_wanted`].
    pub statistics: ScaleSetStatistics,
    /// News about single jobs, for names and logs. Do not count them: a message has at most 50, some come twice after a
    /// crash, and some are lost. Handle each by [`ScaleSetJob::runner_request_id`](super::ScaleSetJob::runner_request_id).
    pub events: Vec<ScaleSetJobEvent>,
    /// Parts of the message that dayfly did not understand, and therefore skipped. Only the first few if there are many.
    pub unread: Vec<String>,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn statistics(value: Value) -> serde_json::Result<ScaleSetStatistics> {
        serde_json::from_value(value)
    }

    #[test]
    fn runners_follow_the_assigned_jobs_up_to_a_limit() {
        let wanted = |assigned: u64, min_idle, max| {
            statistics(json!({"totalAssignedJobs": assigned})).unwrap().runners_wanted(min_idle, max)
        };
        assert_eq!((wanted(0, 0, 8), wanted(3, 2, 8), wanted(7, 2, 8)), (0, 5, 8));
        assert_eq!(wanted(u64::from(u32::MAX), 1, u32::MAX), u32::MAX);
    }

    #[test]
    fn statistics_need_the_assigned_jobs_and_take_any_number() {
        assert!(statistics(json!({"totalRunningJobs": 1})).is_err(), "a zero would stop all runners");
        let odd =
            statistics(json!({"totalAssignedJobs": -1, "totalIdleRunners": 1_u64 << 40, "new": {}})).unwrap();
        assert_eq!((odd.total_assigned_jobs, odd.total_idle_runners), (0, u32::MAX));
    }
}

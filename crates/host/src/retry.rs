//! How often, and after which pauses, something that failed is tried again. Every such rule of dayfly is a constant here.

use std::time::Duration;

/// A rule for repeating something that failed: pauses that grow up to a limit, and perhaps a last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Pause after the first failure in a row.
    pub first: Duration,
    /// Factor between one pause and the next.
    pub factor: u32,
    /// Longest pause.
    pub limit: Duration,
    /// Most attempts in a row, including the first. Without a number, the attempts never end.
    pub attempts: Option<u32>,
}

/// A call of a forge that may succeed later. A demanded wait (`retry-after`) comes in place of the pause.
pub const FORGE_CALL: Retry = growing(Duration::from_millis(250), Duration::from_secs(1), 4);
/// A forge that does not answer at the start of an orchestrator. It is waited for, because its jobs come back with it.
pub const FORGE_AT_START: Retry = RUNNER;
/// The first use of a registration token, which not all servers of the forge may know yet. The official client of scale sets
/// (github.com/actions/scaleset 0.4.0) tries as often.
pub const NEW_TOKEN: Retry = growing(Duration::from_secs(1), Duration::from_secs(8), 5);
/// A scale set that cannot be served, because its forge fails or refuses. Its pool never gives up.
pub const SCALE_SET: Retry = RUNNER;
/// A scale set that another session holds. If the holder was killed, the forge ends its session after some minutes.
pub const TAKEN_SCALE_SET: Retry =
    Retry { first: Duration::from_secs(30), factor: 1, limit: Duration::from_secs(30), attempts: None };
/// A poll of a scale set that the forge answers at once although there is nothing new, instead of holding it for a minute.
pub const SHORT_POLL: Retry =
    Retry { first: Duration::from_secs(1), factor: 2, limit: Duration::from_secs(10), attempts: None };
/// A request to a registry. Waits that the registry demands do not count as failures.
pub const REGISTRY_REQUEST: Retry = growing(Duration::from_millis(500), Duration::from_secs(2), 4);
/// A download that was cut. A new byte ends the row of failures.
pub const DOWNLOAD: Retry = growing(Duration::from_millis(500), Duration::from_millis(500), 6);
/// A runner that failed before its app was up, or a loop that died. The loop of a host never gives up.
pub const RUNNER: Retry =
    Retry { first: Duration::from_secs(1), factor: 2, limit: Duration::from_secs(60), attempts: None };
/// A runner whose name the forge calls taken. The next one has another name, which is random: if several in a row are taken, it
/// is not about names.
pub const RUNNER_NAME: Retry = growing(Duration::from_secs(1), Duration::from_secs(8), 5);
/// The runner of one job. Its demand gives up after these attempts, because the job itself may be the cause.
pub const RUNNER_OF_JOB: Retry = Retry { attempts: Some(3), ..RUNNER };
/// The removal of what a runner has left because the forge did not answer. It is tried as long as the process runs, because
/// the forge comes back; the next start of a process tries again too.
pub const CLEANUP: Retry =
    Retry { first: Duration::from_secs(15), factor: 2, limit: Duration::from_secs(300), attempts: None };
/// A spare of one template. The pause comes before the first attempt too, because the machine that takes a spare starts
/// first.
pub const SPARE: Retry = growing(Duration::from_secs(2), Duration::from_secs(2), 3);
/// A fork of one template, which the next machine tries without a pause. After the last failure in a row the template is
/// discarded and built again.
pub const FORK: Retry = growing(Duration::ZERO, Duration::ZERO, 2);
/// The building of a template. Machines of its kind boot meanwhile.
pub const TEMPLATE: Retry =
    Retry { first: Duration::from_secs(600), factor: 1, limit: Duration::from_secs(600), attempts: None };
/// Work in the background, e.g. for a spare or a template, for which this host lacks memory, processes, open
/// files or space. It does not count as a failure of the thing that was to be made, and is tried as long as it is wanted.
pub const SCARCE: Retry =
    Retry { first: Duration::from_secs(30), factor: 2, limit: Duration::from_secs(300), attempts: None };
/// Traces that their collector did not take. Others wait in a bounded queue meanwhile.
pub const TRACES: Retry = growing(Duration::from_secs(1), Duration::from_secs(8), 4);
/// A port on which this process has listened before. A child that another thread is about to start holds the old listener until
/// it has become its program, which takes some milliseconds.
pub const OWN_PORT: Retry = growing(Duration::from_millis(5), Duration::from_millis(100), 10);

/// The building of an image or of a part of it that has become too old. The old one serves meanwhile, so that there is no
/// hurry; a mirror that is down for a day costs few attempts.
pub const IMAGE_REFRESH: Retry = Retry {
    first: Duration::from_secs(600),
    factor: 2,
    limit: Duration::from_secs(6 * 3600),
    attempts: None,
};

const fn growing(first: Duration, limit: Duration, attempts: u32) -> Retry {
    Retry { first, factor: 2, limit, attempts: Some(attempts) }
}

impl Retry {
    /// Returns the pause before the next attempt after this many failures in a row, or `None` if no attempt is left.
    pub fn pause_after(&self, failures: u32) -> Option<Duration> {
        if self.attempts.is_some_and(|attempts| failures >= attempts) {
            return None;
        }
        let growth = self.factor.saturating_pow(failures.saturating_sub(1));
        Some(self.first.saturating_mul(growth).min(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(retry: Retry, failures: &[u32]) -> Vec<Option<u128>> {
        failures.iter().map(|failures| retry.pause_after(*failures).map(|pause| pause.as_millis())).collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let expected = [1, 2, 4, 32, 60, 60, 60].map(|seconds| Some(seconds * 1000));
        assert_eq!(pauses(RUNNER, &[1, 2, 3, 6, 7, 1000, u32::MAX]), expected);
    }

    #[test]
    fn the_last_attempt_has_no_pause_after_it() {
        assert_eq!(pauses(FORGE_CALL, &[1, 2, 3, 4, 5]), [Some(250), Some(500), Some(1000), None, None]);
        assert_eq!(pauses(RUNNER_OF_JOB, &[2, 3]), [Some(2000), None]);
        assert_eq!(pauses(FORK, &[1, 2]), [Some(0), None]);
    }
}

//! The jobs of scale sets that have one maximum together: those of a pool and of its sizes.
//!
//! Each scale set tells the forge how many jobs it may have. If each told the whole maximum, the forge would assign more jobs
//! than this host runs at once; they would wait here although another host has room, and the forge queues a job again that no
//! runner takes in time. So each tells what the others leave. It is one at least, so that the next machine can go to a size that
//! has none: with that, the jobs that the forge assigns exceed the maximum by one for each further size at most, unless it
//! assigns jobs to several in the same moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The numbers of jobs that the forge has assigned to the scale sets of a pool. Its clones share them.
#[derive(Debug, Clone, Default)]
pub struct ScaleSetFamily {
    jobs: watch::Sender<BTreeMap<String, Noted>>,
}

/// A scale set of a family. Its jobs no longer count once it is dropped, unless another member has taken the scale set over: a
/// pool that is replaced by a reload ends after its successor has begun.
#[derive(Debug)]
pub(super) struct FamilyMember {
    name: String,
    jobs: watch::Sender<BTreeMap<String, Noted>>,
    changes: watch::Receiver<BTreeMap<String, Noted>>,
    token: Arc<()>,
}

/// The number of jobs of a scale set.
#[derive(Debug)]
struct Noted {
    jobs: u32,
    /// The token of the member that has noted it.
    by: Arc<()>,
}

impl ScaleSetFamily {
    /// Returns the scale set of this name. It has no jobs yet.
    pub(super) fn member(&self, name: &str) -> FamilyMember {
        let (jobs, changes) = (self.jobs.clone(), self.jobs.subscribe());
        FamilyMember { name: name.to_owned(), jobs, changes, token: Arc::default() }
    }
}

impl FamilyMember {
    /// Notes the number of jobs that are assigned to the scale set, with those that run.
    pub(super) fn note(&self, jobs: u32) {
        let noted = Noted { jobs, by: self.token.clone() };
        self.jobs.send_if_modified(|all| {
            all.insert(self.name.clone(), noted).is_none_or(|before| before.jobs != jobs)
        });
    }

    /// Returns the most jobs that the scale set may have now, if the family has this maximum.
    pub(super) fn capacity(&self, max: u32) -> u32 {
        let all = self.changes.borrow();
        let others = all.iter().filter(|(name, _)| **name != self.name).map(|(_, noted)| noted.jobs);
        capacity(max, others)
    }

    /// Waits until [`Self::capacity`] is not this one any more. Cancel-safe.
    pub(super) async fn capacity_changes_from(&mut self, capacity: u32, max: u32) {
        while self.capacity(max) == capacity {
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for FamilyMember {
    fn drop(&mut self) {
        self.jobs.send_if_modified(|all| {
            let is_own = all.get(&self.name).is_some_and(|noted| Arc::ptr_eq(&noted.by, &self.token));
            is_own && all.remove(&self.name).is_some()
        });
    }
}

/// Returns the most jobs of a scale set. `others` are those of the other ones of its family.
fn capacity(max: u32, others: impl Iterator<Item = u32>) -> u32 {
    max.saturating_sub(others.fold(0, u32::saturating_add)).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_scale_set_may_have_the_jobs_that_the_others_leave_and_one_at_least() {
        let family = ScaleSetFamily::default();
        let (mut small, large) = (family.member("small"), family.member("large"));
        assert_eq!([small.capacity(4), large.capacity(4)], [4, 4]);
        large.note(3);
        assert_eq!([small.capacity(4), large.capacity(4)], [1, 4]);
        large.note(9);
        assert_eq!(small.capacity(4), 1, "the next machine may be its own");
        let waiting = small.capacity_changes_from(1, 4);
        assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
        let (waited, ()) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(60), small.capacity_changes_from(1, 4)),
            async { large.note(1) }
        );
        waited.expect("a job of the other has ended");
        let successor = family.member("large");
        successor.note(2);
        drop(large);
        assert_eq!(small.capacity(4), 2, "its pool was replaced, and the scale set stays");
        drop(successor);
        assert_eq!(small.capacity(4), 4, "a size that is gone has no jobs");
    }

    proptest! {
        /// A forge that fills each scale set up to its capacity, in any order and again and again.
        #[test]
        fn a_forge_assigns_one_job_for_each_further_size_beyond_the_maximum_at_most(
            max in 1u32..20,
            turns in proptest::collection::vec((0usize..5, 0u32..30), 1..60),
        ) {
            let mut jobs = [0; 5];
            let capacity_of = |jobs: &[u32; 5], at: usize| {
                capacity(max, jobs.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, jobs)| *jobs))
            };
            for (at, wanted) in turns {
                // It takes no job away; a smaller number is that of jobs that have ended.
                jobs[at] = wanted.min(capacity_of(&jobs, at).max(jobs[at]));
                prop_assert!(jobs.iter().sum::<u32>() <= max + 4, "{jobs:?}");
                prop_assert!((0..5).all(|at| capacity_of(&jobs, at) >= 1));
            }
        }
    }
}

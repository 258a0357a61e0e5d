//! The runners of a pool by their names, so that the forge's report about a job finds its runner, also after the runner's
//! end.

use std::collections::{HashMap, VecDeque};

use crate::fact::RunnerRef;
use crate::job_end::JobEnd;
use crate::stream::FactSink;

/// Most runners that are remembered after their end. A report that comes when 256 more runners have ended is ignored.
const GONE_MAX: usize = 256;

/// The current runner of each loop, and the last ones that are gone.
#[derive(Debug, Default)]
pub(super) struct Roster {
    current: HashMap<u32, RunnerRef>,
    gone: VecDeque<(u32, RunnerRef)>,
}

impl Roster {
    /// Notes a loop's runner. The loop's runner before it is gone.
    pub(super) fn begun(&mut self, index: u32, runner: RunnerRef) {
        self.ended(index);
        self.current.insert(index, runner);
    }

    /// Notes that the runner of a loop is gone.
    pub(super) fn ended(&mut self, index: u32) {
        let Some(runner) = self.current.remove(&index) else { return };
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back((index, runner));
    }

    /// Tells the end of a job as a fact of the runner that had it. Does nothing if the runner is not one of this pool,
    /// because other hosts may serve the same forge.
    pub(super) async fn tell(&self, end: &JobEnd, facts: &FactSink) {
        if let Some((index, runner)) = self.find(&end.runner) {
            facts.of(index, &runner.id, &runner.name).tell(end.fact()).await;
        }
    }

    /// Returns a runner by its name, with the number of its loop; none if it is not one of this process.
    pub(super) fn find(&self, name: &str) -> Option<(u32, &RunnerRef)> {
        let gone = self.gone.iter().map(|(index, runner)| (index, runner));
        let found = self.current.iter().chain(gone).find(|(_, runner)| runner.name == name);
        found.map(|(index, runner)| (*index, runner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunnerId;
    use crate::fact::FactRecord;
    use crate::job_end::tests::failed_on;

    fn runner(index: u32) -> RunnerRef {
        let id = RunnerId::random(index);
        RunnerRef { name: id.name("p"), id }
    }

    async fn told(roster: &Roster, name: &str) -> Option<FactRecord> {
        let (sink, mut facts) = crate::stream::channel();
        roster.tell(&failed_on(name, 1), &sink).await;
        facts.try_recv().ok()
    }

    #[tokio::test]
    async fn a_report_finds_its_runner_while_it_lives_and_after_its_end() {
        let mut roster = Roster::default();
        let (first, second, other) = (runner(3), runner(3), runner(4));
        roster.begun(3, first.clone());
        let record = told(&roster, &first.name).await.expect("a fact");
        assert_eq!((record.loop_index, record.runner.as_ref()), (3, Some(&first)));
        assert_eq!(record.fact, failed_on(&first.name, 1).fact());
        roster.begun(3, second.clone());
        roster.begun(4, other.clone());
        roster.ended(3);
        for runner in [&first, &second, &other] {
            assert_eq!(told(&roster, &runner.name).await.expect("a fact").runner.as_ref(), Some(runner));
        }
        assert_eq!(told(&roster, "p-3-aaaaaaa").await, None, "a runner of another host");
    }

    #[tokio::test]
    async fn runners_that_are_gone_are_remembered_up_to_a_bound() {
        let mut roster = Roster::default();
        let (lives, first) = (runner(1), runner(2));
        roster.begun(1, lives.clone());
        roster.begun(2, first.clone());
        for _ in 0..=GONE_MAX {
            roster.begun(2, runner(2));
        }
        assert_eq!(roster.gone.len(), GONE_MAX);
        assert_eq!(told(&roster, &first.name).await, None);
        assert!(told(&roster, &lives.name).await.is_some(), "a runner that lives is not forgotten");
    }
}

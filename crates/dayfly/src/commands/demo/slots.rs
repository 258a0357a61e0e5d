//! Which machines the demo starts, and which it lets go. Pure: it only decides.
//!
//! One runner is made for each queued job, with that job's labels. The forge may hand a job to another runner whose
//! labels fit as well; then the two change places.

use std::collections::VecDeque;

use indexmap::IndexMap;

/// How often a runner is made for one job before the demo gives up on it.
const ATTEMPTS_MAX: u32 = 3;

/// What a job asks its runner to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The job's id.
    pub(crate) job: u64,
    /// Labels.
    pub(crate) labels: Vec<String>,
    /// Id of the runner group.
    pub(crate) group: u64,
}

impl Wanted {
    /// The labels of a runner for it. A job may ask for a group alone, but every runner has a label.
    pub(crate) fn runner_labels(&self) -> Vec<String> {
        if self.labels.is_empty() { vec!["self-hosted".to_owned()] } else { self.labels.clone() }
    }
}

#[derive(Debug)]
struct Slot {
    wanted: Wanted,
    runner: Option<String>,
    busy: bool,
    stopping: bool,
}

/// All slots, and the jobs that wait for one.
#[derive(Debug)]
pub(crate) struct Slots {
    parallel: usize,
    waiting: VecDeque<Wanted>,
    attempts: IndexMap<u64, u32>,
    slots: IndexMap<u32, Slot>,
    next_index: u32,
}

/// A job that no runner could be made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{ATTEMPTS_MAX} machines were started for a job, and none of them took it")]
pub(crate) struct GaveUp;

impl Slots {
    /// At most `parallel` machines at once.
    pub(crate) fn new(parallel: usize) -> Self {
        Self {
            parallel,
            waiting: VecDeque::new(),
            attempts: IndexMap::new(),
            slots: IndexMap::new(),
            next_index: 0,
        }
    }

    /// A job waits for a runner.
    pub(crate) fn queued(&mut self, wanted: Wanted) {
        let known = self.waiting.iter().any(|other| other.job == wanted.job)
            || self.slots.values().any(|slot| !slot.busy && !slot.stopping && slot.wanted.job == wanted.job);
        if !known {
            self.waiting.push_back(wanted);
        }
    }

    /// The next machine to start, as index of its loop and what it is for; none where all places are taken.
    pub(crate) fn start_next(&mut self) -> Option<(u32, Wanted)> {
        if self.slots.len() >= self.parallel {
            return None;
        }
        let wanted = self.waiting.pop_front()?;
        let index = self.next_index;
        self.next_index += 1;
        *self.attempts.entry(wanted.job).or_default() += 1;
        self.slots.insert(index, Slot { wanted: wanted.clone(), runner: None, busy: false, stopping: false });
        Some((index, wanted))
    }

    /// The runner of a slot has got its name.
    pub(crate) fn named(&mut self, index: u32, runner: &str) {
        if let Some(slot) = self.slots.get_mut(&index) {
            slot.runner = Some(runner.to_owned());
        }
    }

    /// A runner got a job.
    pub(crate) fn assigned(&mut self, job: u64, runner: &str) {
        self.waiting.retain(|wanted| wanted.job != job);
        let Some((&taker, slot)) =
            self.slots.iter_mut().find(|(_, slot)| slot.runner.as_deref() == Some(runner))
        else {
            return;
        };
        slot.busy = true;
        if slot.wanted.job == job {
            return;
        }
        // It was made for another job, which now needs the runner that was made for this one, or a new one.
        let robbed = slot.wanted.clone();
        let other = self
            .slots
            .iter_mut()
            .find(|(index, slot)| **index != taker && !slot.busy && slot.wanted.job == job);
        match other {
            Some((_, other)) if fits(&other.wanted, &robbed) => other.wanted.job = robbed.job,
            _ => self.waiting.push_front(robbed),
        }
    }

    /// A job needs no runner any more: done, cancelled, skipped.
    pub(crate) fn settled(&mut self, job: u64) {
        self.waiting.retain(|wanted| wanted.job != job);
        self.attempts.shift_remove(&job);
    }

    /// Slots whose runner waits for a job that it will not get; each is named once.
    pub(crate) fn surplus(&mut self) -> Vec<u32> {
        let wanted = |job: u64, attempts: &IndexMap<u64, u32>| attempts.contains_key(&job);
        let attempts = &self.attempts;
        let waiting = &self.waiting;
        let mut surplus = Vec::new();
        for (index, slot) in &mut self.slots {
            let twice = waiting.iter().any(|other| other.job == slot.wanted.job);
            if !slot.busy && !slot.stopping && (twice || !wanted(slot.wanted.job, attempts)) {
                slot.stopping = true;
                surplus.push(*index);
            }
        }
        surplus
    }

    /// A slot's loop has ended. Its job, if nobody has taken it, waits again.
    ///
    /// # Errors
    /// [`GaveUp`] where that was the last attempt.
    pub(crate) fn ended(&mut self, index: u32) -> Result<(), GaveUp> {
        let Some(slot) = self.slots.shift_remove(&index) else { return Ok(()) };
        let Some(&attempts) = self.attempts.get(&slot.wanted.job) else { return Ok(()) };
        if slot.busy || slot.stopping {
            return Ok(());
        }
        if attempts >= ATTEMPTS_MAX {
            return Err(GaveUp);
        }
        self.queued(slot.wanted);
        Ok(())
    }

    /// Whether no machine runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Nothing more is to be started.
    pub(crate) fn close(&mut self) {
        self.waiting.clear();
        self.attempts.clear();
    }
}

fn fits(have: &Wanted, need: &Wanted) -> bool {
    have.group == need.group
        && need.labels.iter().all(|label| have.labels.iter().any(|other| other.eq_ignore_ascii_case(label)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(job: u64, labels: &[&str]) -> Wanted {
        Wanted { job, labels: labels.iter().map(|&label| label.to_owned()).collect(), group: 1 }
    }

    #[test]
    fn a_runner_for_a_job_that_asks_for_a_group_alone_has_a_label() {
        assert_eq!(wanted(1, &[]).runner_labels(), ["self-hosted"]);
        assert_eq!(wanted(1, &["a", "b"]).runner_labels(), ["a", "b"]);
    }

    #[test]
    fn no_more_machines_than_allowed_are_started() {
        let mut slots = Slots::new(2);
        for job in 1..=3 {
            slots.queued(wanted(job, &["a"]));
        }
        assert_eq!(slots.start_next().map(|(index, wanted)| (index, wanted.job)), Some((0, 1)));
        assert_eq!(slots.start_next().map(|(index, wanted)| (index, wanted.job)), Some((1, 2)));
        assert_eq!(slots.start_next(), None);
        slots.named(0, "r0");
        slots.assigned(1, "r0");
        slots.settled(1);
        assert_eq!(slots.ended(0), Ok(()));
        assert_eq!(slots.start_next().map(|(index, wanted)| (index, wanted.job)), Some((2, 3)));
    }

    #[test]
    fn a_job_taken_by_anothers_runner_leaves_that_other_job_with_the_first_ones() {
        let mut slots = Slots::new(2);
        slots.queued(wanted(1, &["a"]));
        slots.queued(wanted(2, &["A"]));
        slots.start_next();
        slots.start_next();
        slots.named(0, "r0");
        slots.named(1, "r1");
        slots.assigned(2, "r0");
        assert_eq!(slots.surplus(), Vec::<u32>::new());
        slots.assigned(1, "r1");
        slots.settled(1);
        slots.settled(2);
        assert_eq!((slots.ended(0), slots.ended(1)), (Ok(()), Ok(())));
        assert!(slots.is_empty());
        assert_eq!(slots.start_next(), None);
    }

    #[test]
    fn a_robbed_job_gets_a_new_machine_where_the_idle_one_does_not_fit() {
        let mut slots = Slots::new(2);
        slots.queued(wanted(1, &["a", "b"]));
        slots.queued(wanted(2, &["a"]));
        slots.start_next();
        slots.start_next();
        slots.named(0, "r0");
        slots.named(1, "r1");
        slots.assigned(2, "r0");
        slots.settled(2);
        assert_eq!(slots.surplus(), vec![1], "the one made for job 2 has no use for job 1");
        assert_eq!(slots.surplus(), Vec::<u32>::new());
        assert_eq!(slots.ended(1), Ok(()));
        assert_eq!(slots.start_next().map(|(_, wanted)| wanted.job), Some(1));
    }

    #[test]
    fn a_runner_whose_job_was_cancelled_is_let_go() {
        let mut slots = Slots::new(1);
        slots.queued(wanted(1, &["a"]));
        slots.start_next();
        slots.settled(1);
        assert_eq!(slots.surplus(), vec![0]);
        assert_eq!(slots.ended(0), Ok(()));
        assert!(slots.is_empty());
    }

    #[test]
    fn a_job_that_no_machine_takes_is_given_up_after_some_attempts() {
        let mut slots = Slots::new(1);
        slots.queued(wanted(1, &["a"]));
        for index in 0..2 {
            assert!(slots.start_next().is_some());
            assert_eq!(slots.ended(index), Ok(()));
        }
        assert!(slots.start_next().is_some());
        assert_eq!(slots.ended(2), Err(GaveUp));
    }
}

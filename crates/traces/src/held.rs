//! Ended runs that are not sent yet. Pure: the time is passed in.

use std::time::Duration;

use dayfly_fleet::fact::FactRecord;
use dayfly_fleet::history::RunRecord;
use tokio::time::Instant;

use crate::open_runs::take_into;

/// Time for which an ended run waits for the forge's report about its job.
const LINGER: Duration = Duration::from_secs(10);
/// Most runs that wait for it. The oldest ones go without it.
const LINGERING_MAX: usize = 256;
/// Most runs in one request. Each has some 5 KiB.
pub(crate) const BATCH_MAX: usize = 64;

/// Ended runs, in the order in which they ended.
#[derive(Debug, Default)]
pub(crate) struct Held {
    runs: Vec<(Instant, RunRecord)>,
}

impl Held {
    /// Takes an ended run.
    pub(crate) fn hold(&mut self, run: RunRecord, now: Instant) {
        // A source has named its job, so that it may tell the end of it too.
        let waits = run.times.taken.is_some() && run.conclusion.is_none();
        self.runs.push((if waits { now + LINGER } else { now }, run));
        let beyond = self.runs.len().saturating_sub(LINGERING_MAX);
        self.runs[..beyond].iter_mut().for_each(|(due, _)| *due = now);
    }

    /// Adds the forge's report about a job to its run, which is then complete.
    pub(crate) fn conclude(&mut self, report: &FactRecord, now: Instant) {
        let Some(runner) = &report.runner else { return };
        if let Some((due, run)) = self.runs.iter_mut().find(|(_, run)| run.runner == runner.id.as_str()) {
            take_into(run, report);
            *due = now;
        }
    }

    /// Returns the time at which the next run is to be sent; none if there is none.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.runs.iter().map(|(due, _)| *due).min()
    }

    /// Takes out runs that are to be sent by now, as many as fit into one request.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<RunRecord> {
        let mut left = BATCH_MAX;
        let is_taken = |(due, _): &mut (Instant, RunRecord)| {
            let is_taken = *due <= now && left > 0;
            left -= usize::from(is_taken);
            is_taken
        };
        self.runs.extract_if(.., is_taken).map(|(_, run)| run).collect()
    }

    /// Makes all runs ready to be sent.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.runs.iter_mut().for_each(|(due, _)| *due = (*due).min(now));
    }

    /// Returns the number of runs.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(at: usize, taken: Option<u64>) -> RunRecord {
        let mut run = RunRecord { runner: format!("1-{at:07}"), ..RunRecord::default() };
        run.times.taken = taken;
        run
    }

    #[test]
    fn a_run_waits_for_the_report_of_its_job_only_if_a_source_has_named_the_job() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.hold(run(0, None), now);
        held.hold(run(1, Some(5)), now);
        assert_eq!(held.take_due(now).len(), 1);
        assert_eq!(held.due(), Some(now + LINGER));
        assert!(held.take_due(now).is_empty());
        assert_eq!(held.take_due(now + LINGER).len(), 1);
        assert_eq!(held.due(), None);
    }

    #[test]
    fn a_bounded_number_of_runs_wait_and_a_request_has_a_bounded_number_too() {
        let (mut held, now) = (Held::default(), Instant::now());
        (0..LINGERING_MAX + 3).for_each(|at| held.hold(run(at, Some(5)), now));
        let oldest: Vec<String> = held.take_due(now).into_iter().map(|run| run.runner).collect();
        assert_eq!(oldest, ["1-0000000", "1-0000001", "1-0000002"]);
        held.hurry(now);
        assert_eq!((held.take_due(now).len(), held.len()), (BATCH_MAX, LINGERING_MAX - BATCH_MAX));
    }
}

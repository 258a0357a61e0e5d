//! Summaries of jobs: Markdown that steps write to `GITHUB_STEP_SUMMARY` and that the runner app uploads at a step's end.
//!
//! They are stored beside the job's log. Subscribers get them when the job ends, because GitHub shows them only then.

use super::line::cut;
use super::step::StepRecord;
use super::{Hold, LabState};
use crate::event::LabEventKind;
use crate::log_file::StoredSummary;

/// Longest summary of a step, in bytes, as at GitHub.
pub(crate) const SUMMARY_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of a step's summary in an event. It is the bound of a log line; the whole text is at `/lab/v1`.
const TOLD_BYTES_MAX: usize = 64 * 1024;

/// The summary of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepSummary {
    /// The step's number, from 1. `None` if the runner has not reported the step.
    pub(crate) number: Option<u32>,
    /// The step's name. Empty if the runner has not reported the step.
    pub(crate) step: String,
    /// The text, in Markdown.
    pub(crate) text: String,
}

impl LabState {
    /// Masks and stores the summary of a step. A summary that is uploaded again replaces the first one.
    pub(super) fn upload_summary(&mut self, job: u64, step: &str, text: &[u8]) {
        self.prepare_mask(job);
        let Some(entry) = self
            .jobs
            .get(&job)
            .filter(|entry| matches!(entry.record.hold, Hold::Acquired { .. }) && !entry.is_unmaskable)
        else {
            return;
        };
        let Some(mask) = &entry.mask else { return };
        // Masking may lengthen a text.
        let text = cut(mask.apply(&String::from_utf8_lossy(text)), SUMMARY_BYTES_MAX);
        if let Err(error) = self.logs.write_summary(job, step, &text) {
            tracing::error!(%error, job, "the summary of a step cannot be written");
        }
    }

    /// Publishes the summaries of a job that ends.
    pub(super) fn tell_summaries(&mut self, job: u64) {
        let stored = self.logs.read_summaries(job);
        let Some(entry) = self.jobs.get(&job).filter(|_| !stored.is_empty()) else { return };
        let run = entry.record.run;
        for StepSummary { number, step, text } in step_summaries(&entry.record.steps, stored) {
            let bytes = text.len() as u64;
            let text = cut(text, TOLD_BYTES_MAX);
            self.publish(run, LabEventKind::JobSummary { job, number, step, text, bytes });
        }
    }
}

/// Returns the summaries of a job with the numbers and names of their steps, in the order of the steps.
pub(crate) fn step_summaries(steps: &[StepRecord], stored: Vec<StoredSummary>) -> Vec<StepSummary> {
    let of_step = |StoredSummary { step: guid, text }| {
        let place = steps.iter().position(|step| step.guid.eq_ignore_ascii_case(&guid));
        StepSummary {
            number: place.and_then(|place| u32::try_from(place + 1).ok()),
            step: place.map(|place| steps[place].name.clone()).unwrap_or_default(),
            text,
        }
    };
    let mut summaries: Vec<StepSummary> = stored.into_iter().map(of_step).collect();
    summaries.sort_by_key(|summary| summary.number.unwrap_or(u32::MAX));
    summaries
}

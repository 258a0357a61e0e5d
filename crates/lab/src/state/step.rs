//! Steps of jobs, as their runners report them.

use serde::{Deserialize, Serialize};

use super::line::cut;
use super::run::timestamp;
use super::{Hold, LabState};
use crate::event::LabEventKind;
use crate::workflow::Conclusion;

const STEPS_MAX: usize = 2000;
const NAME_LEN_MAX: usize = 1000;
/// Longest time: one with nanoseconds and an offset has 35 bytes.
const TIME_LEN_MAX: usize = 40;
/// Longest GUID, bytes. Runner apps write them with 36.
pub(crate) const GUID_LEN_MAX: usize = 64;

/// A step, as its runner reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    pub(crate) guid: String,
    pub(crate) name: String,
    pub(crate) started_at: Option<String>,
    pub(crate) completed_at: Option<String>,
    pub(crate) conclusion: Option<String>,
}

/// Returns the first line of a step's name. A step without a name is named after the first line of its script, but an
/// expression in that line may bring more lines: the official runner keeps the first
/// (`ActionRunner.GenerateDisplayName`), github-act-runner 0.13.0 keeps all of them.
fn first_line(name: &str) -> String {
    name.trim_start().split(['\r', '\n']).next().unwrap_or_default().trim_end().to_owned()
}

/// Returns true if a text is a time of ordinary length. A time may have a comment of any length in brackets (RFC 9557).
fn is_time(text: &str) -> bool {
    text.len() <= TIME_LEN_MAX && text.parse::<jiff::Timestamp>().is_ok()
}

/// A runner's report of a step.
pub(crate) type StepUpdate = StepRecord;

/// The GUID of the lab's own record of a runner app's last step, if the app reports none, and its name, which is the official
/// app's.
pub(super) const COMPLETION: &str = "complete-job";
const COMPLETION_NAME: &str = "Complete job";

impl LabState {
    /// Adds the runner app's own last step, which the app does not report, unless it is there.
    pub(super) fn start_completion(&mut self, job: u64, time: &str) {
        let now = || timestamp(self.now_ms()).to_string();
        let started_at = if time.is_empty() { now() } else { time.to_owned() };
        let Some(entry) = self.jobs.get(&job) else { return };
        if entry.record.steps.iter().any(|step| step.guid == COMPLETION) {
            return;
        }
        self.update_steps(
            job,
            vec![StepUpdate {
                guid: COMPLETION.to_owned(),
                name: COMPLETION_NAME.to_owned(),
                started_at: Some(started_at),
                completed_at: None,
                conclusion: None,
            }],
        );
    }

    /// Completes the step of [`Self::start_completion`] when the job ends. It fails only if the job was lost.
    pub(super) fn end_completion(&mut self, job: u64, conclusion: Conclusion) {
        let now = timestamp(self.now_ms()).to_string();
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        let run = entry.record.run;
        let Some(place) = entry.record.steps.iter().position(|step| step.guid == COMPLETION) else { return };
        let step = &mut entry.record.steps[place];
        let conclusion = if conclusion == Conclusion::Cancelled { conclusion } else { Conclusion::Success };
        step.completed_at = Some(now);
        step.conclusion = Some(conclusion.as_str().to_owned());
        let number = u32::try_from(place + 1).unwrap_or(u32::MAX);
        let (name, conclusion) = (step.name.clone(), conclusion.as_str().to_owned());
        self.publish(run, LabEventKind::StepCompleted { job, number, name, conclusion });
    }

    /// Stores a runner's report of its steps, and publishes the changes.
    pub(crate) fn update_steps(&mut self, job: u64, updates: Vec<StepUpdate>) {
        // A name may come from an expression, and the runner masks only the lines of the log.
        self.prepare_mask(job);
        let Some(entry) = self.jobs.get_mut(&job).filter(|entry| entry.record.hold != Hold::Over) else {
            return;
        };
        let Some(mask) = &entry.mask else { return };
        let (run, mut news) = (entry.record.run, Vec::new());
        for mut update in updates.into_iter().filter(|update| update.guid.len() <= GUID_LEN_MAX) {
            update.name = cut(first_line(&mask.apply(&update.name)), NAME_LEN_MAX);
            // A time is the runner's text, too.
            update.started_at = update.started_at.filter(|time| is_time(time));
            update.completed_at = update.completed_at.filter(|time| is_time(time));
            let steps = &mut entry.record.steps;
            let place = steps.iter().position(|step| step.guid == update.guid).unwrap_or(steps.len());
            if place >= STEPS_MAX {
                continue;
            }
            let number = u32::try_from(place + 1).unwrap_or(u32::MAX);
            let old = steps.get(place).cloned();
            let was = |of: fn(&StepRecord) -> bool| old.as_ref().is_some_and(of);
            // A skipped step never started, even if its runner reports a start.
            let skipped = update.conclusion.as_deref() == Some("skipped");
            if update.started_at.is_some() && !was(|step| step.started_at.is_some()) && !skipped {
                news.push(LabEventKind::StepStarted { job, number, name: update.name.clone() });
            }
            if let Some(conclusion) = &update.conclusion
                && !was(|step| step.conclusion.is_some())
            {
                let (name, conclusion) = (update.name.clone(), conclusion.clone());
                news.push(LabEventKind::StepCompleted { job, number, name, conclusion });
            }
            if place == steps.len() {
                steps.push(update);
            } else if !was(|step| step.conclusion.is_some()) {
                steps[place] = update;
            }
        }
        let changed = !news.is_empty();
        news.into_iter().for_each(|kind| self.publish(run, kind));
        if changed {
            self.record_job(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{first_line, is_time};

    #[test]
    fn a_time_has_a_bounded_length() {
        for time in
            ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.1234567Z", "2024-01-01T00:00:00.123456789+00:00"]
        {
            assert!(is_time(time), "{time}");
        }
        for comment in ["u-ca=gregory".to_owned(), format!("x-{}=a", "abcdefgh-".repeat(100_000))] {
            let time = format!("2024-01-01T00:00:00.123456789+00:00[{comment}]");
            assert!(!is_time(&time), "{} bytes", time.len());
        }
        assert!(!is_time("today"));
    }

    #[test]
    fn the_name_of_a_step_is_one_line() {
        assert_eq!(first_line("Run echo 'a\nb'"), "Run echo 'a");
        assert_eq!(first_line("\n  x\r\ny"), "x");
        assert_eq!(first_line("a\rb"), "a");
        assert_eq!(first_line(""), "");
    }
}

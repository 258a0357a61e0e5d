//! The jobs of a soak as the lab reports them: a fold over its events. Pure.

use std::collections::{BTreeMap, HashMap};

use dayfly_lab::fault::Fault;
use dayfly_lab::workflow::Conclusion;
use dayfly_lab::{LabEvent, LabEventKind};

/// The first line that a job's step prints, before the job's number.
pub(super) const BEGIN: &str = "soak-begin-";
/// The last line that a job's step prints, before the job's number.
pub(super) const END: &str = "soak-end-";

/// A job as the lab reports it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct JobStory {
    /// Its number in the plan.
    pub(super) number: u32,
    /// Its id at the lab. `None` until it is queued.
    pub(super) id: Option<u64>,
    /// The time at which it was first queued.
    pub(super) queued_ms: Option<i64>,
    /// The runners that got the job, each time that one did.
    pub(super) acquired: Vec<Acquired>,
    /// How often its step has begun, by its log.
    pub(super) begun: u32,
    /// How often its step has ended, by its log.
    pub(super) ended: u32,
    /// Its outcome. `None` while it has none.
    pub(super) outcome: Option<Outcome>,
    /// The faults of jobs that were played with it.
    pub(super) faults: Vec<Fault>,
}

/// A runner got a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Acquired {
    pub(super) runner: String,
    pub(super) at_ms: i64,
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) conclusion: Conclusion,
    /// The lab's reason, if the runner app did not tell the end itself.
    pub(super) remark: Option<String>,
}

/// All jobs as the lab reports them. Each has a run of its own.
#[derive(Debug, Default)]
pub(super) struct Stories {
    by_run: BTreeMap<u64, JobStory>,
    run_of_job: HashMap<u64, u64>,
    /// Number of faults that have happened, by fault.
    pub(super) fired: BTreeMap<Fault, u64>,
}

impl Stories {
    /// Adds a job that was dispatched. Events of its run may have come before.
    pub(super) fn dispatched(&mut self, run: u64, number: u32) {
        self.by_run.entry(run).or_default().number = number;
    }

    /// Takes in an event of the lab.
    pub(super) fn take(&mut self, event: &LabEvent) {
        if let LabEventKind::FaultInjected { fault, request, .. } = &event.kind {
            self.take_fault(*fault, request);
            return;
        }
        if event.run == 0 {
            return;
        }
        let story = self.by_run.entry(event.run).or_default();
        match &event.kind {
            LabEventKind::JobQueued { job, .. } => {
                story.id = Some(*job);
                story.queued_ms.get_or_insert(event.at_ms);
                self.run_of_job.insert(*job, event.run);
            }
            LabEventKind::JobAcquired { runner_name, .. } => {
                story.acquired.push(Acquired { runner: runner_name.clone(), at_ms: event.at_ms });
            }
            LabEventKind::LogLine { line, .. } => {
                story.begun += u32::from(is_line(line, BEGIN, story.number));
                story.ended += u32::from(is_line(line, END, story.number));
            }
            LabEventKind::JobCompleted { conclusion, remark, .. } => {
                story.outcome = Some(Outcome { conclusion: *conclusion, remark: remark.clone() });
            }
            LabEventKind::JobSkipped { .. } => {
                story.outcome = Some(Outcome { conclusion: Conclusion::Skipped, remark: None });
            }
            _ => {}
        }
    }

    /// A fault of a job names the job as `job ID`. The job was queued just before.
    fn take_fault(&mut self, fault: Fault, request: &str) {
        *self.fired.entry(fault).or_default() += 1;
        let job = request.strip_prefix("job ").and_then(|id| id.parse().ok());
        let run = job.and_then(|job: u64| self.run_of_job.get(&job));
        if let Some(story) = run.and_then(|run| self.by_run.get_mut(run)) {
            story.faults.push(fault);
        }
    }

    /// Returns the jobs.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &JobStory> {
        self.by_run.values()
    }

    /// Returns the number of jobs that have an outcome.
    pub(super) fn over(&self) -> usize {
        self.jobs().filter(|job| job.outcome.is_some()).count()
    }

    /// Returns the number of jobs that a runner has.
    pub(super) fn running(&self) -> usize {
        self.jobs().filter(|job| job.outcome.is_none() && !job.acquired.is_empty()).count()
    }
}

/// Returns true if a line of a log is the mark of this job, and not the script that prints the mark.
fn is_line(line: &str, mark: &str, number: u32) -> bool {
    line.trim().strip_prefix(mark).is_some_and(|rest| rest == number.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use dayfly_lab::fault::Operation;

    use super::*;

    fn event(run: u64, at_ms: i64, kind: LabEventKind) -> LabEvent {
        LabEvent { seq: 0, at_ms, repository: "dayfly/soak".to_owned(), run, kind }
    }

    fn queued(job: u64) -> LabEventKind {
        LabEventKind::JobQueued {
            job,
            key: "soak".to_owned(),
            name: "soak".to_owned(),
            labels: Vec::new(),
            group: None,
            group_id: 1,
        }
    }

    fn line(line: &str) -> LabEventKind {
        let (time, step) = (String::new(), String::new());
        LabEventKind::LogLine { job: 70, number: Some(1), step, time, line: line.to_owned() }
    }

    #[test]
    fn a_job_is_told_from_its_events() {
        let mut stories = Stories::default();
        stories.dispatched(7, 3);
        let acquired = LabEventKind::JobAcquired { job: 70, runner: 1, runner_name: "r".to_owned() };
        let completed = LabEventKind::JobCompleted {
            job: 70,
            name: "soak".to_owned(),
            conclusion: Conclusion::Success,
            remark: None,
        };
        let kinds = [
            queued(70),
            acquired,
            line("echo \"soak-begin-$NUMBER\""),
            line("soak-begin-3"),
            line("soak-begin-33"),
            line("soak-end-3"),
            completed,
        ];
        for (kind, at_ms) in kinds.into_iter().zip(100..) {
            stories.take(&event(7, at_ms, kind));
        }
        let expected = JobStory {
            number: 3,
            id: Some(70),
            queued_ms: Some(100),
            acquired: vec![Acquired { runner: "r".to_owned(), at_ms: 101 }],
            begun: 1,
            ended: 1,
            outcome: Some(Outcome { conclusion: Conclusion::Success, remark: None }),
            faults: Vec::new(),
        };
        assert_eq!(stories.jobs().collect::<Vec<_>>(), [&expected]);
        assert_eq!((stories.over(), stories.running()), (1, 0));
    }

    #[test]
    fn a_fault_of_a_job_is_the_jobs_and_every_fault_is_counted() {
        let mut stories = Stories::default();
        stories.dispatched(7, 3);
        stories.take(&event(7, 1, queued(70)));
        let fault = |fault, operation, request: &str| LabEventKind::FaultInjected {
            fault,
            operation,
            request: request.to_owned(),
            rule: 1,
            count: 1,
        };
        stories.take(&event(0, 2, fault(Fault::JobTheft, Operation::Job, "job 70")));
        stories.take(&event(0, 3, fault(Fault::ServerError, Operation::Message, "GET /runner/70")));
        assert_eq!(stories.jobs().map(|job| job.faults.clone()).collect::<Vec<_>>(), [[Fault::JobTheft]]);
        assert_eq!(stories.fired, BTreeMap::from([(Fault::JobTheft, 1), (Fault::ServerError, 1)]));
    }
}

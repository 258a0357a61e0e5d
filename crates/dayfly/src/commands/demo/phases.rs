//! Folds the events of jobs and runners into the demo's report: the times of all phases, and the runner of each job. Pure.

use std::collections::HashMap;

use dayfly_fleet::demand::DemandEvent;
use dayfly_fleet::fact::{Fact, FactRecord, StartKind};
use dayfly_fleet::job_end::{Annotation, AnnotationLevel, JobConclusion, JobEnd};
use dayfly_guest::protocol::Milestone;
use dayfly_lab::workflow::Conclusion;
use dayfly_lab::{LabEvent, LabEventKind};
use indexmap::IndexMap;
use serde::Serialize;

use super::notes::annotation_of;

/// The phases of a job, in their usual order, milliseconds since the job was queued. A time is negative if the runner was
/// there before the job, and none if the phase was not reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Phases {
    pub(crate) vmm_started: Option<i64>,
    pub(crate) agent_hello: Option<i64>,
    pub(crate) docker_ready: Option<i64>,
    pub(crate) registered: Option<i64>,
    pub(crate) runner_up: Option<i64>,
    pub(crate) job_acquired: Option<i64>,
    pub(crate) first_log_line: Option<i64>,
    pub(crate) job_done: Option<i64>,
    pub(crate) vm_gone: Option<i64>,
}

impl Phases {
    /// Returns the name and the time of each phase, in order.
    pub(crate) fn named(&self) -> [(&'static str, Option<i64>); 9] {
        [
            ("vmm_started", self.vmm_started),
            ("agent_hello", self.agent_hello),
            ("docker_ready", self.docker_ready),
            ("registered", self.registered),
            ("runner_up", self.runner_up),
            ("job_acquired", self.job_acquired),
            ("first_log_line", self.first_log_line),
            ("job_done", self.job_done),
            ("vm_gone", self.vm_gone),
        ]
    }
}

/// One job of the run in the final report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct JobReport {
    /// Name of the job, for people.
    pub(crate) job: String,
    /// Name of the runner that took it.
    pub(crate) runner: Option<String>,
    /// The way in which that runner's machine was started.
    pub(crate) start: Option<&'static str>,
    /// Conclusion of the job.
    pub(crate) conclusion: Option<String>,
    /// Times of its phases.
    pub(crate) phases: Phases,
}

/// A job so far; times in milliseconds since 1970.
#[derive(Debug, Clone, Default)]
pub(crate) struct Job {
    pub(crate) name: String,
    queued: i64,
    acquired: Option<i64>,
    first_log_line: Option<i64>,
    done: Option<i64>,
    runner: Option<String>,
    conclusion: Option<String>,
    /// Its annotations; the lab bounds their number.
    annotations: Vec<Annotation>,
}

/// A runner so far; times in milliseconds since 1970.
#[derive(Debug, Clone, Default)]
struct Runner {
    start: Option<&'static str>,
    vmm_started: Option<i64>,
    agent_hello: Option<i64>,
    docker_ready: Option<i64>,
    registered: Option<i64>,
    runner_up: Option<i64>,
    vm_gone: Option<i64>,
}

/// Returns how a machine was started, in the report's words.
fn start_word(from: StartKind) -> &'static str {
    match from {
        StartKind::Boot => "cold",
        StartKind::Fork | StartKind::Spare => from.as_str(),
    }
}

/// The jobs and runners so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    jobs: IndexMap<u64, Job>,
    runners: HashMap<String, Runner>,
}

impl Progress {
    /// Takes in an event of the lab.
    pub(crate) fn lab(&mut self, event: &LabEvent) {
        let at = event.at_ms;
        match &event.kind {
            LabEventKind::JobQueued { job, name, .. } => {
                // A job that is queued again after a runner has released it has waited since it was first queued.
                self.jobs.entry(*job).or_insert_with(|| Job {
                    name: name.clone(),
                    queued: at,
                    ..Job::default()
                });
            }
            LabEventKind::JobAcquired { job, runner_name, .. } => {
                self.with_job(*job, |job| {
                    job.acquired = Some(at);
                    job.runner = Some(runner_name.clone());
                });
            }
            LabEventKind::LogLine { job, .. } => {
                self.with_job(*job, |job| job.first_log_line = job.first_log_line.or(Some(at)));
            }
            LabEventKind::Annotation { .. } => {
                if let Some((job, annotation)) = annotation_of(&event.kind) {
                    self.with_job(job, |job| job.annotations.push(annotation));
                }
            }
            LabEventKind::JobCompleted { job, name, conclusion, .. } => {
                let entry = self.jobs.entry(*job).or_insert_with(|| Job {
                    name: name.clone(),
                    queued: at,
                    ..Job::default()
                });
                entry.done = Some(at);
                entry.conclusion = Some(conclusion.to_string());
            }
            LabEventKind::JobSkipped { job, name } => {
                let entry = self.jobs.entry(*job).or_insert_with(|| Job {
                    name: name.clone(),
                    queued: at,
                    ..Job::default()
                });
                entry.conclusion = Some("skipped".to_owned());
            }
            _ => {}
        }
    }

    /// Takes in a fact of this host.
    pub(crate) fn fleet(&mut self, record: &FactRecord) {
        let at = i64::try_from(record.at.ms()).ok();
        let runner = self.runners.entry(record.name().to_owned()).or_default();
        match &record.fact {
            Fact::VmmStarted { from, .. } => {
                (runner.vmm_started, runner.start) = (at, Some(start_word(*from)));
            }
            Fact::AgentHello => runner.agent_hello = at,
            Fact::Milestone { milestone: Milestone::DockerReady, .. } => runner.docker_ready = at,
            Fact::Registered { .. } => runner.registered = at,
            Fact::RunnerUp => runner.runner_up = at,
            Fact::VmGone { .. } => runner.vm_gone = at,
            _ => {}
        }
    }

    /// Returns the end of a job for the pool. `remark` is an error that occurred outside of the runner.
    pub(crate) fn ended(&self, job: u64, conclusion: Conclusion, remark: Option<&str>) -> DemandEvent {
        let known = self.jobs.get(&job).and_then(|entry| Some((entry, entry.runner.clone()?)));
        let Some((entry, runner)) = known else { return DemandEvent::Settled { job } };
        let remark = remark.map(|remark| Annotation {
            level: AnnotationLevel::Failure,
            message: remark.to_owned(),
            title: None,
            path: None,
            line: None,
        });
        let conclusion = match conclusion {
            Conclusion::Success => JobConclusion::Success,
            Conclusion::Failure => JobConclusion::Failure,
            Conclusion::Cancelled => JobConclusion::Cancelled,
            Conclusion::Skipped => JobConclusion::Skipped,
        };
        let annotations = remark.into_iter().chain(entry.annotations.iter().cloned()).collect();
        DemandEvent::Ended(JobEnd { job, name: entry.name.clone(), runner, conclusion, annotations })
    }

    /// Returns the name of a job; its number if the name is not known.
    pub(crate) fn job_name(&self, job: u64) -> String {
        self.jobs.get(&job).map_or_else(|| format!("job {job}"), |job| job.name.clone())
    }

    /// Returns the name of the job that a runner took.
    pub(crate) fn job_of(&self, runner: &str) -> Option<&str> {
        self.jobs.values().find(|job| job.runner.as_deref() == Some(runner)).map(|job| job.name.as_str())
    }

    /// Returns the report of all jobs, in the order in which they were queued.
    pub(crate) fn report(&self) -> Vec<JobReport> {
        self.jobs.values().map(|job| self.report_of(job)).collect()
    }

    fn report_of(&self, job: &Job) -> JobReport {
        let since = |at: Option<i64>| at.map(|at| at - job.queued);
        let runner = job.runner.as_ref().and_then(|name| self.runners.get(name)).cloned().unwrap_or_default();
        JobReport {
            job: job.name.clone(),
            runner: job.runner.clone(),
            start: runner.start,
            conclusion: job.conclusion.clone(),
            phases: Phases {
                vmm_started: since(runner.vmm_started),
                agent_hello: since(runner.agent_hello),
                docker_ready: since(runner.docker_ready),
                registered: since(runner.registered),
                runner_up: since(runner.runner_up),
                job_acquired: since(job.acquired),
                first_log_line: since(job.first_log_line),
                job_done: since(job.done),
                vm_gone: since(runner.vm_gone),
            },
        }
    }

    fn with_job(&mut self, job: u64, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(&job) {
            change(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use dayfly_fleet::RunnerId;
    use dayfly_fleet::fact::{Moment, RunnerRef};

    use super::*;

    fn lab(at_ms: i64, kind: LabEventKind) -> LabEvent {
        LabEvent { seq: 1, at_ms, repository: "o/r".into(), run: 1, kind }
    }

    fn fleet(at_ms: u64, fact: Fact) -> FactRecord {
        let runner: RunnerId = "0-aaaaaaa".parse().expect("an id");
        let runner = RunnerRef { name: runner.name("demo"), id: runner };
        FactRecord { at: Moment::of_ms(at_ms), pool: None, loop_index: 0, runner: Some(runner), fact }
    }

    fn queued(job: u64) -> LabEventKind {
        LabEventKind::JobQueued {
            job,
            key: "k".into(),
            name: "build".into(),
            labels: vec![],
            group: None,
            group_id: 1,
        }
    }

    #[test]
    fn phases_count_from_the_moment_when_the_job_was_queued() {
        let mut progress = Progress::default();
        // This runner's machine started before the job was queued.
        progress.fleet(&fleet(900, Fact::VmmStarted { pid: 1, from: StartKind::Boot, template: None }));
        progress.lab(&lab(1000, queued(7)));
        let acquired = LabEventKind::JobAcquired { job: 7, runner: 1, runner_name: "demo-0-aaaaaaa".into() };
        progress.lab(&lab(1200, acquired));
        let done = LabEventKind::JobCompleted {
            job: 7,
            name: "build".into(),
            conclusion: Conclusion::Success,
            remark: None,
        };
        progress.lab(&lab(1500, done));
        progress.fleet(&fleet(1600, Fact::VmGone { exit: "x".into() }));
        let report = progress.report().remove(0);
        assert_eq!(report.phases.vmm_started, Some(-100));
        assert_eq!(report.phases.job_acquired, Some(200));
        assert_eq!(report.phases.first_log_line, None);
        assert_eq!(report.phases.vm_gone, Some(600));
        assert_eq!((report.start, report.conclusion.as_deref()), (Some("cold"), Some("success")));
    }

    #[test]
    fn the_end_of_a_job_names_its_runner_and_has_its_annotations() {
        let mut progress = Progress::default();
        progress.lab(&lab(1000, queued(7)));
        assert_eq!(progress.ended(7, Conclusion::Cancelled, None), DemandEvent::Settled { job: 7 });
        progress.lab(&lab(1200, LabEventKind::JobAcquired { job: 7, runner: 1, runner_name: "r".into() }));
        progress.lab(&lab(
            1300,
            LabEventKind::Annotation {
                job: 7,
                level: "warning".into(),
                message: "careful".into(),
                title: None,
                path: Some("a.c".into()),
                line: Some(3),
                step: None,
            },
        ));
        let DemandEvent::Ended(end) = progress.ended(7, Conclusion::Failure, Some("lost")) else {
            panic!("it had a runner")
        };
        assert_eq!((end.name.as_str(), end.runner.as_str()), ("build", "r"));
        assert_eq!(end.conclusion, JobConclusion::Failure);
        let told: Vec<_> =
            end.annotations.iter().map(|it| (it.level, it.message.as_str(), it.line)).collect();
        assert_eq!(
            told,
            [(AnnotationLevel::Failure, "lost", None), (AnnotationLevel::Warning, "careful", Some(3))]
        );
    }

    #[test]
    fn a_job_that_is_queued_again_has_waited_since_the_first_time() {
        let mut progress = Progress::default();
        progress.lab(&lab(1000, queued(7)));
        progress.lab(&lab(5000, queued(7)));
        progress.lab(&lab(6000, LabEventKind::JobAcquired { job: 7, runner: 1, runner_name: "r".into() }));
        assert_eq!(progress.report()[0].phases.job_acquired, Some(5000));
    }
}

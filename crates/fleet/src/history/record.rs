//! The record of a run: the fold of its entries. Pure.

use dayfly_forge::RunnerScope;
use dayfly_guest::runner_app::JobResult;
use serde::{Deserialize, Serialize};

use super::Entry;
use crate::fact::{Fact, FactRecord, MemoryOwner, Moment, OverHow, StartKind};
use crate::job_end::JobConclusion;

/// The story of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunRecord {
    /// Id of the runner.
    pub runner: String,
    /// Name of its VM and registration.
    pub name: String,
    /// Name of its pool; none for a pool of a command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Number of its loop.
    #[serde(rename = "loop")]
    pub loop_index: u32,
    /// Base URL of the forge's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forge: Option<String>,
    /// Scope of the registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Its id at the forge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<u64>,
    /// Repository of its job; none if the scope holds several, and no source has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Name of its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Id of the job at the forge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<u64>,
    /// Workflow of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Number of jobs that its runner app has ended.
    #[serde(default)]
    pub jobs: u32,
    /// Result of the job, as the runner app reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<JobResult>,
    /// Conclusion of the job, as the forge reports it. It counts if both are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conclusion: Option<JobConclusion>,
    /// The source of the machine; none if no VMM was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartKind>,
    /// Number of processes of dayfly that took it over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub taken_over: u32,
    /// The way in which it ended; none as long as it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<OverHow>,
    /// The reason in words, if there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The process that the machine's kernel has killed because its memory was used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<String>,
    /// The memory whose end made the kernel of this host kill the VMM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_out_of_memory: Option<MemoryOwner>,
    /// The reason why this host could not write to the machine's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_failed: Option<String>,
    /// The way in which the VMM ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_exit: Option<String>,
    /// The size of the machine, and what it has used; none if it had none, or an earlier version ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<MachineUsed>,
    /// Its times.
    pub times: Times,
}

/// The size of a machine, and what it has used of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineUsed {
    /// Its virtual CPUs.
    pub cpus: u32,
    /// Its memory, MiB.
    pub memory_mib: u32,
    /// Processor time, milliseconds, if it was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Most memory of this host at once, MiB, if it was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_mib: Option<u64>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The times of a run, milliseconds since 1970-01-01 UTC. A time that is not known is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// The forge queued the job, by the forge's clock.
    #[serde(rename = "queued_ms", skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// This host was told that the job waits.
    #[serde(rename = "seen_ms", skip_serializing_if = "Option::is_none")]
    pub seen: Option<u64>,
    /// A slot began with the runner.
    #[serde(rename = "slot_ms", skip_serializing_if = "Option::is_none")]
    pub slot: Option<u64>,
    /// The forge had registered it.
    #[serde(rename = "registered_ms", skip_serializing_if = "Option::is_none")]
    pub registered: Option<u64>,
    /// Its VMM ran: it was forked, or booted.
    #[serde(rename = "started_ms", skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// The agent said hello.
    #[serde(rename = "hello_ms", skip_serializing_if = "Option::is_none")]
    pub hello: Option<u64>,
    /// The runner app was about to start.
    #[serde(rename = "up_ms", skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// The last process of dayfly took the run over.
    #[serde(rename = "taken_over_ms", skip_serializing_if = "Option::is_none")]
    pub taken_over: Option<u64>,
    /// The runner app waited for a job.
    #[serde(rename = "listening_ms", skip_serializing_if = "Option::is_none")]
    pub listening: Option<u64>,
    /// A source of jobs said that the runner has the job.
    #[serde(rename = "taken_ms", skip_serializing_if = "Option::is_none")]
    pub taken: Option<u64>,
    /// The runner app had its job.
    #[serde(rename = "acquired_ms", skip_serializing_if = "Option::is_none")]
    pub acquired: Option<u64>,
    /// The job was done, as the runner app reports it.
    #[serde(rename = "done_ms", skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// The forge reported the end of the job.
    #[serde(rename = "concluded_ms", skip_serializing_if = "Option::is_none")]
    pub concluded: Option<u64>,
    /// The VM was gone.
    #[serde(rename = "gone_ms", skip_serializing_if = "Option::is_none")]
    pub gone: Option<u64>,
    /// The run was over.
    #[serde(rename = "over_ms", skip_serializing_if = "Option::is_none")]
    pub over: Option<u64>,
}

impl Times {
    /// Returns the first time that the runner had.
    pub fn first(&self) -> Option<u64> {
        self.of_runner().into_iter().flatten().min()
    }

    /// Returns the last time that is known.
    pub fn last(&self) -> Option<u64> {
        self.of_runner().into_iter().flatten().max()
    }

    /// Returns the times of the runner. The job is older.
    fn of_runner(&self) -> [Option<u64>; 13] {
        let Self { queued: _, seen: _, slot, registered, started, hello, up, .. } = *self;
        let Self { taken_over, listening, taken, acquired, done, concluded, gone, over, .. } = *self;
        [
            slot, registered, started, hello, up, taken_over, listening, taken, acquired, done, concluded,
            gone, over,
        ]
    }

    /// Returns the length of the last job, milliseconds.
    pub fn job_ms(&self) -> Option<u64> {
        Some(self.done?.saturating_sub(self.acquired?))
    }
}

impl RunRecord {
    /// Returns the record of a run without any fact.
    pub fn new(entry: &Entry) -> Self {
        Self {
            runner: entry.runner.id.to_string(),
            name: entry.runner.name.clone(),
            pool: entry.pool.clone(),
            loop_index: entry.loop_index,
            ..Self::default()
        }
    }

    /// Returns the record of these facts of one run; none if there is no fact.
    pub fn of(entries: &[Entry]) -> Option<Self> {
        let mut record = Self::new(entries.first()?);
        entries.iter().for_each(|entry| record.take(entry));
        Some(record)
    }

    /// Returns the record of a run from its log, or from any other list of its facts; none if no fact names a runner.
    pub fn of_log(records: &[FactRecord]) -> Option<Self> {
        // The lines of a guest are no part of it, and an entry has a bound.
        let is_fact = |record: &&FactRecord| !matches!(record.fact, Fact::Line { .. });
        let facts: Vec<FactRecord> = records.iter().filter(is_fact).cloned().collect();
        Self::of(&[Entry::of(&facts)?])
    }

    /// Takes in an entry of the run. Taking in the same entry again changes nothing.
    pub fn take(&mut self, entry: &Entry) {
        entry.facts.iter().for_each(|(at, fact)| self.take_fact(*at, fact));
    }

    fn take_fact(&mut self, at: Moment, fact: &Fact) {
        let (at, times) = (at.ms(), &mut self.times);
        let first = |time: &mut Option<u64>| *time = Some(time.map_or(at, |known| known.min(at)));
        match fact {
            Fact::Begun { forge, scope, .. } => {
                first(&mut times.slot);
                self.forge = Some(forge.clone());
                self.scope = Some(scope.to_string());
                if let RunnerScope::Repository { .. } = scope {
                    self.repository.get_or_insert_with(|| scope.to_string());
                }
            }
            Fact::Resuming { .. } if times.taken_over < Some(at) => {
                times.taken_over = Some(at);
                self.taken_over += 1;
            }
            Fact::Registered { registration } => {
                first(&mut times.registered);
                self.registration = Some(*registration);
            }
            Fact::VmmStarted { from, .. } => {
                // A start that failed may be followed by another one.
                times.started = times.started.max(Some(at));
                self.start = Some(*from);
            }
            Fact::AgentHello => first(&mut times.hello),
            Fact::RunnerUp => first(&mut times.up),
            Fact::Listening => first(&mut times.listening),
            Fact::JobStarted { job } => self.take_start(at, job),
            Fact::JobTaken { job } if times.taken < Some(at) => {
                times.taken = Some(at);
                (times.queued, times.seen) = (job.queued_ms, job.seen_ms);
                self.job_id = Some(job.id);
                self.workflow.clone_from(&job.workflow);
                if job.repository.is_some() {
                    self.repository.clone_from(&job.repository);
                }
                if let Some(name) = &job.name {
                    self.job.get_or_insert_with(|| name.clone());
                }
            }
            Fact::JobFinished { result } => self.take_finish(at, *result),
            Fact::JobConcluded { job, conclusion, .. } if times.concluded < Some(at) => {
                times.concluded = Some(at);
                self.take_conclusion(job, *conclusion);
            }
            Fact::OutOfMemory { process, .. } => self.out_of_memory = Some(process.clone()),
            Fact::VmmOutOfMemory { whose, .. } => self.vmm_out_of_memory = Some(*whose),
            Fact::DiskFailed { reason } => self.disk_failed = Some(reason.clone()),
            Fact::VmUsed { cpus, memory_mib, cpu_ms, memory_peak_mib } => {
                let (cpus, memory_mib) = (*cpus, *memory_mib);
                self.used = Some(MachineUsed {
                    cpus,
                    memory_mib,
                    cpu_ms: *cpu_ms,
                    memory_peak_mib: *memory_peak_mib,
                });
            }
            Fact::VmGone { exit } => {
                times.gone = times.gone.max(Some(at));
                self.vm_exit = Some(exit.clone());
            }
            Fact::Over { how, why, kind: _ } => {
                first(&mut times.over);
                if times.over == Some(at) {
                    (self.how, self.why) = (Some(*how), why.clone());
                }
            }
            _ => {}
        }
    }

    /// A runner in token mode may have one job after another; the record is about the last one.
    fn take_start(&mut self, at: u64, job: &str) {
        if self.times.acquired.is_some_and(|known| known >= at) {
            return;
        }
        if self.times.acquired.is_some() {
            self.result = None;
            self.conclusion = self.conclusion.filter(|_| self.times.concluded > Some(at));
        }
        self.times.acquired = Some(at);
        self.job = Some(job.to_owned());
    }

    fn take_finish(&mut self, at: u64, result: JobResult) {
        if self.times.done.is_some_and(|known| known >= at) {
            return;
        }
        self.times.done = Some(at);
        self.result = Some(result);
        self.jobs += 1;
    }

    fn take_conclusion(&mut self, job: &str, conclusion: JobConclusion) {
        // The forge's report of an earlier job may come after the start of the next one.
        if self.times.acquired.is_some() && self.job.as_deref().is_some_and(|own| own != job) && self.jobs > 1
        {
            return;
        }
        self.conclusion = Some(conclusion);
        self.job.get_or_insert_with(|| job.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fact::RegistrationEnd;
    use crate::fact::tests::{one_of_each, record};
    use crate::history::{Fault, Outcome};

    /// Returns an entry with these facts, one each second.
    pub(in crate::history) fn entry(facts: &[Fact]) -> Entry {
        let records: Vec<FactRecord> = (1..)
            .zip(facts)
            .map(|(at, fact)| FactRecord { at: Moment::of_ms(at * 1000), ..record(fact.clone()) })
            .collect();
        Entry::of(&records).expect("a fact")
    }

    fn life() -> Vec<Fact> {
        let scope = RunnerScope::Repository { owner: "o".to_owned(), name: "r".to_owned() };
        vec![
            crate::journal::begun("/e".into(), "http://f/".to_owned(), scope),
            Fact::Registering,
            Fact::Registered { registration: 7 },
            Fact::StartingVm,
            Fact::VmmStarted { pid: 3, from: StartKind::Fork, template: Some("t".to_owned()) },
            Fact::AgentHello,
            Fact::RunnerUp,
            Fact::Listening,
            Fact::JobStarted { job: "build".to_owned() },
            Fact::JobFinished { result: JobResult::Succeeded },
            Fact::DestroyingVm,
            Fact::VmUsed { cpus: 2, memory_mib: 1024, cpu_ms: Some(900), memory_peak_mib: Some(700) },
            Fact::VmGone { exit: "it powered off".to_owned() },
            Fact::DeletingRegistration,
            Fact::RegistrationEnded { how: RegistrationEnd::Gone },
            Fact::Over { how: OverHow::JobDone, why: None, kind: None },
        ]
    }

    #[test]
    fn a_record_has_the_times_of_each_step_and_the_end() {
        let record = RunRecord::of(&[entry(&life())]).expect("a record");
        insta::assert_snapshot!(serde_json::to_string_pretty(&record).expect("json"));
        let read: RunRecord =
            serde_json::from_str(&serde_json::to_string(&record).expect("json")).expect("read");
        assert_eq!(read, record);
        assert_eq!((record.times.first(), record.times.job_ms()), (Some(1000), Some(1000)));
        assert_eq!((record.outcome(), record.fault()), (Outcome::Success, None));
    }

    #[test]
    fn a_runner_with_one_job_after_another_has_the_last_one_and_their_number() {
        let mut facts = life();
        facts.splice(
            10..10,
            [Fact::JobStarted { job: "test".to_owned() }, Fact::JobFinished { result: JobResult::Failed }],
        );
        let record = RunRecord::of(&[entry(&facts)]).expect("a record");
        assert_eq!((record.job.as_deref(), record.jobs), (Some("test"), 2));
        assert_eq!((record.outcome(), record.fault()), (Outcome::Failure, Some(Fault::Steps)));
    }

    #[test]
    fn the_forges_word_counts_whenever_it_comes() {
        let concluded = Fact::JobConcluded {
            job: "build".to_owned(),
            conclusion: JobConclusion::Failure,
            annotations: Vec::new(),
            annotations_left_out: 0,
        };
        for entries in [
            [entry(&life()), entry(std::slice::from_ref(&concluded))],
            [entry(std::slice::from_ref(&concluded)), entry(&life())],
        ] {
            let record = RunRecord::of(&entries).expect("a record");
            assert_eq!((record.outcome(), record.result), (Outcome::Failure, Some(JobResult::Succeeded)));
        }
    }

    #[test]
    fn a_run_that_goes_on_has_no_end() {
        let record = RunRecord::of(&[entry(&life()[..9])]).expect("a record");
        assert_eq!((record.outcome(), record.how, record.fault()), (Outcome::Running, None, None));
    }

    #[test]
    fn the_source_of_jobs_tells_when_the_job_was_queued_and_where_it_belongs() {
        let job = crate::fact::SeenJob {
            id: 6,
            name: Some("build".to_owned()),
            repository: Some("o/other".to_owned()),
            workflow: Some("ci".to_owned()),
            queued_ms: Some(1),
            seen_ms: Some(2),
            ..crate::fact::SeenJob::default()
        };
        let taken = entry(&[Fact::JobTaken { job: Box::new(job) }]);
        for entries in [[entry(&life()), taken.clone()], [taken, entry(&life())]] {
            let record = RunRecord::of(&entries).expect("a record");
            assert_eq!((record.times.queued, record.times.seen, record.job_id), (Some(1), Some(2), Some(6)));
            assert_eq!(record.repository.as_deref(), Some("o/other"), "of the job, not of the scope");
            assert_eq!(record.workflow.as_deref(), Some("ci"));
        }
    }

    proptest! {
        /// A crash between an entry and the removal of its run repeats the entry.
        #[test]
        fn entries_that_are_repeated_change_nothing(
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let all = one_of_each();
            let facts: Vec<Fact> = picks.iter().map(|pick| pick.get(&all).clone()).collect();
            let whole = entry(&facts);
            let once = RunRecord::of(std::slice::from_ref(&whole)).expect("a record");
            let twice = RunRecord::of(&[whole.clone(), whole.clone()]).expect("a record");
            prop_assert_eq!(&twice, &once);
            // A first part, as a process that died would have kept it, adds nothing to the whole either.
            let first = Entry { facts: whole.facts[..cut.index(facts.len())].to_vec(), ..whole.clone() };
            let after = RunRecord::of(&[first, whole]).expect("a record");
            prop_assert_eq!(after, once);
        }

        #[test]
        fn any_facts_give_a_record_that_reads_back_as_itself(
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..60),
        ) {
            let all = one_of_each();
            let facts: Vec<Fact> = picks.iter().map(|pick| pick.get(&all).clone()).collect();
            let record = RunRecord::of(&[entry(&facts)]).expect("a record");
            let text = serde_json::to_string(&record).expect("json");
            prop_assert_eq!(serde_json::from_str::<RunRecord>(&text).expect("read"), record.clone());
            // Only the end of a run has an outcome, and a fault only what went wrong.
            prop_assert_eq!(record.outcome() == Outcome::Running, record.how.is_none());
            let is_bad = matches!(record.outcome(), Outcome::Failure | Outcome::Lost | Outcome::NotUp);
            prop_assert_eq!(record.fault().is_some(), is_bad);
        }
    }
}

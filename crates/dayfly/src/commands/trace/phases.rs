//! Folds a runner's facts into the phases of its life. Pure.

use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_guest::protocol::Milestone;
use serde::Serialize;

/// The party whose work a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Party {
    /// This host.
    Host,
    /// The machine.
    Machine,
    /// The forge.
    Forge,
    /// The job itself.
    Job,
}

impl Party {
    pub(super) const ALL: [Self; 4] = [Self::Host, Self::Machine, Self::Forge, Self::Job];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Machine => "machine",
            Self::Forge => "forge",
            Self::Job => "job",
        }
    }
}

/// A part of a runner's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Phase {
    pub(super) name: String,
    pub(super) who: Party,
    /// Microseconds since the first event.
    pub(super) from_us: u64,
    pub(super) to_us: u64,
}

/// A runner's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Trace {
    pub(super) name: String,
    /// Its start, microseconds since 1970-01-01 UTC.
    pub(super) began_us: u64,
    /// The source of the machine: a boot, a fork or a spare.
    pub(super) start: String,
    /// True if the log is complete.
    pub(super) ended: bool,
    pub(super) phases: Vec<Phase>,
}

/// Returns the phase that ends with a fact. It begins with the last fact before that ends a phase.
fn ending_at(fact: &Fact) -> Option<(&'static str, Party)> {
    Some(match fact {
        Fact::Pulled => ("image", Party::Host),
        Fact::TemplateBuilding { .. } | Fact::TemplateWaiting { .. } | Fact::Registering => {
            ("template", Party::Host)
        }
        Fact::TemplateBuilt { .. } | Fact::TemplateFailed { .. } => ("template built", Party::Host),
        Fact::Registered { .. } => ("registration", Party::Forge),
        Fact::VmmStarted { .. } => ("network, jail, VMM", Party::Host),
        Fact::VmRestarted { .. } => ("a start that failed", Party::Machine),
        Fact::VmTakenOver { .. } => ("until another process took it over", Party::Host),
        Fact::AgentHello => ("machine until its agent's hello", Party::Machine),
        Fact::Milestone { milestone: Milestone::DockerReady, .. } => ("Docker", Party::Machine),
        Fact::Milestone { milestone: Milestone::Identified, .. } => ("identity", Party::Machine),
        Fact::RunnerUp => ("entrypoint", Party::Machine),
        Fact::Listening => ("runner app", Party::Machine),
        Fact::JobStarted { .. } => ("waiting for a job", Party::Forge),
        Fact::JobFinished { .. } => ("job", Party::Job),
        Fact::EntrypointExited { .. } => ("runner app's end", Party::Machine),
        Fact::VmGone { .. } => ("machine's end", Party::Host),
        Fact::RegistrationEnded { .. } => ("registration's end", Party::Forge),
        Fact::Ended => ("files", Party::Host),
        _ => return None,
    })
}

impl Trace {
    /// Returns the trace of a log. Skips lines that are no facts, because a log may be cut, or still be written.
    pub(super) fn of_log(log: &str) -> Self {
        Self::of(log.lines().filter_map(|line| serde_json::from_str::<FactRecord>(line).ok()))
    }

    /// Returns the trace of these facts of a runner.
    pub(super) fn of(records: impl IntoIterator<Item = FactRecord>) -> Self {
        let mut trace = Self {
            name: String::new(),
            began_us: 0,
            start: "not started".to_owned(),
            ended: false,
            phases: Vec::new(),
        };
        let mut last = None;
        for record in records {
            let at = record.at.us();
            if last.is_none() {
                (trace.began_us, last) = (at, Some(at));
                trace.name = record.name().to_owned();
            }
            match &record.fact {
                Fact::VmmStarted { from, .. } => trace.start = from.as_str().to_owned(),
                // The history has no `ended`, because it comes after the run's files are gone.
                Fact::Ended | Fact::Over { .. } => trace.ended = true,
                _ => {}
            }
            let (Some((name, who)), Some(from)) = (ending_at(&record.fact), last) else { continue };
            // The clock may have been set back while the runner lived.
            let to = at.max(from);
            trace.add(name, who, from, to);
            last = Some(to);
        }
        trace
    }

    fn add(&mut self, name: &str, who: Party, from: u64, to: u64) {
        let (from_us, to_us) = (from - self.began_us, to - self.began_us);
        // A fork reports the milestones of its template again, at the same time.
        if to_us > from_us || matches!(name, "job" | "registration") {
            self.phases.push(Phase { name: name.to_owned(), who, from_us, to_us });
        }
    }

    /// Returns the length of the whole life, microseconds.
    pub(super) fn length_us(&self) -> u64 {
        self.phases.last().map_or(0, |phase| phase.to_us)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A log as a runner leaves it.
    pub(crate) const LOG: &str = r#"{"at_ms":1000,"at_us":1000000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"pulled"}
{"at_ms":1000,"at_us":1000900,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"registering"}
{"at_ms":1008,"at_us":1008400,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"registered","registration":9}
{"at_ms":1022,"at_us":1022400,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"vmm_started","pid":7,"from":"fork","template":"f00d"}
{"at_ms":1081,"at_us":1081000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"agent_hello"}
{"at_ms":1081,"at_us":1081000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"milestone","milestone":"docker_ready","uptime_ms":11435}
{"at_ms":1094,"at_us":1094250,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"milestone","milestone":"identified","uptime_ms":11541}
{"at_ms":1200,"at_us":1200000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"runner_up"}
{"at_ms":1500,"at_us":1500000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"line","source":"entrypoint","text":"x"}
{"at_ms":1650,"at_us":1650000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"listening"}
{"at_ms":1700,"at_us":1700000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"job_started","job":"build"}
{"at_ms":5300,"at_us":5300000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"job_finished","result":"Succeeded"}
{"at_ms":5800,"at_us":5800000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"entrypoint_exited","code":0,"signal":null}
{"at_ms":5831,"at_us":5831000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"vm_gone","exit":"the VMM was killed"}
{"at_ms":5840,"at_us":5840000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"registration_ended","how":"gone"}
{"at_ms":5841,"at_us":5841000,"loop":0,"runner":"0-aaaaaaa","name":"GH-0-aaaaaaa","event":"ended"}
"#;

    #[test]
    fn the_phases_of_a_life_follow_each_other_without_a_gap() {
        let trace = Trace::of_log(LOG);
        assert_eq!((trace.name.as_str(), trace.start.as_str(), trace.ended), ("GH-0-aaaaaaa", "fork", true));
        let mut end = 0;
        for phase in &trace.phases {
            assert_eq!(phase.from_us, end, "{phase:?}");
            end = phase.to_us;
        }
        assert_eq!((end, trace.length_us()), (4_841_000, 4_841_000));
        let job = trace.phases.iter().find(|phase| phase.name == "job").expect("a job");
        assert_eq!(job.to_us - job.from_us, 3_600_000);
    }

    #[test]
    fn a_log_that_is_cut_or_still_written_is_read_as_far_as_it_goes() {
        let cut = &LOG[..LOG.len() / 2];
        let trace = Trace::of_log(cut);
        assert!(!trace.ended && !trace.phases.is_empty());
        assert_eq!(Trace::of_log("").length_us(), 0);
        assert_eq!(Trace::of_log("nonsense\n{}\n[]\n").phases, []);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_negative_phase() {
        let log = LOG.replace("\"at_us\":5300000", "\"at_us\":900000");
        let trace = Trace::of_log(&log);
        assert!(trace.phases.iter().all(|phase| phase.from_us <= phase.to_us));
    }
}

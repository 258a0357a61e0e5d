//! From a runner's events to the phases of its life. Pure.

use serde::Serialize;
use serde_json::Value;

/// Who worked, or was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Who {
    /// This host.
    Host,
    /// The machine.
    Machine,
    /// The forge.
    Forge,
    /// The job itself.
    Job,
}

impl Who {
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
    pub(super) who: Who,
    /// Microseconds since the first event.
    pub(super) from_us: u64,
    pub(super) to_us: u64,
}

/// A runner's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Trace {
    pub(super) name: String,
    /// When it began, microseconds since 1970-01-01 UTC.
    pub(super) began_us: u64,
    /// What the machine was started from.
    pub(super) start: String,
    /// Whether its end was seen.
    pub(super) ended: bool,
    pub(super) phases: Vec<Phase>,
}

/// What an event ends: the phase from the event before it (of those that are named here) to it.
fn ending_at(event: &Value) -> Option<(&'static str, Who)> {
    let milestone = event["milestone"].as_str().unwrap_or_default();
    Some(match event["event"].as_str()? {
        "pulled" => ("image", Who::Host),
        "template_building" | "template_waiting" | "registering" => ("template", Who::Host),
        "template_built" | "template_failed" => ("template built", Who::Host),
        "registered" => ("registration", Who::Forge),
        "vmm_started" => ("network, jail, VMM", Who::Host),
        "vm_restarted" => ("a start that failed", Who::Machine),
        "agent_hello" => ("machine until its agent's hello", Who::Machine),
        "milestone" if milestone == "docker_ready" => ("Docker", Who::Machine),
        "milestone" if milestone == "identified" => ("identity", Who::Machine),
        "runner_up" => ("entrypoint", Who::Machine),
        "listening" => ("runner app", Who::Machine),
        "job_started" => ("waiting for a job", Who::Forge),
        "job_finished" => ("job", Who::Job),
        "entrypoint_exited" => ("runner app's end", Who::Machine),
        "vm_gone" => ("machine's end", Who::Host),
        "registration_ended" => ("registration's end", Who::Forge),
        "ended" => ("files", Who::Host),
        _ => return None,
    })
}

impl Trace {
    /// Of the lines of a log. What is no event is passed over: a log may be cut, or still be written.
    pub(super) fn of(log: &str) -> Self {
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let timed = events.filter_map(|event| Some((at_us(&event)?, event)));
        let mut trace = Self {
            name: String::new(),
            began_us: 0,
            start: "not started".to_owned(),
            ended: false,
            phases: Vec::new(),
        };
        let mut last = None;
        for (at, event) in timed {
            if last.is_none() {
                (trace.began_us, last) = (at, Some(at));
                trace.name = event["name"].as_str().unwrap_or_default().to_owned();
            }
            if let Some(from) = event["from"].as_str() {
                trace.start = from.to_owned();
            }
            trace.ended |= event["event"] == "ended";
            let (Some((name, who)), Some(from)) = (ending_at(&event), last) else { continue };
            // A clock that was set back while the runner lived.
            let to = at.max(from);
            trace.add(name, who, from, to);
            last = Some(to);
        }
        trace
    }

    fn add(&mut self, name: &str, who: Who, from: u64, to: u64) {
        let (from_us, to_us) = (from - self.began_us, to - self.began_us);
        // What a fork has from its template is told again in no time.
        if to_us > from_us || matches!(name, "job" | "registration") {
            self.phases.push(Phase { name: name.to_owned(), who, from_us, to_us });
        }
    }

    /// How long it all took, microseconds.
    pub(super) fn length_us(&self) -> u64 {
        self.phases.last().map_or(0, |phase| phase.to_us)
    }
}

/// Logs of older versions have milliseconds only.
fn at_us(event: &Value) -> Option<u64> {
    event["at_us"].as_u64().or_else(|| event["at_ms"].as_u64().map(|ms| ms * 1000))
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
        let trace = Trace::of(LOG);
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
        let trace = Trace::of(cut);
        assert!(!trace.ended && !trace.phases.is_empty());
        assert_eq!(Trace::of("").length_us(), 0);
        assert_eq!(Trace::of("nonsense\n{}\n[]\n").phases, []);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_negative_phase() {
        let log = LOG.replace("\"at_us\":5300000", "\"at_us\":900000");
        let trace = Trace::of(&log);
        assert!(trace.phases.iter().all(|phase| phase.from_us <= phase.to_us));
    }
}

//! The parts of a run's life, from its times. Pure.

use super::Times;

/// A part of a run's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPart {
    /// Its name for people.
    pub name: &'static str,
    /// The party whose work it is: host, machine, forge or job.
    pub who: &'static str,
    /// Its start, milliseconds since 1970-01-01 UTC.
    pub from_ms: u64,
    /// Its end, not before its start.
    pub to_ms: u64,
}

/// Returns the parts of a run's life in their order. A part whose end is not known lasts until now if the run goes on, and is
/// left out otherwise.
pub fn parts_of(times: &Times, now_ms: Option<u64>) -> Vec<RunPart> {
    let mut parts = Vec::new();
    let queued = times.seen.or(times.queued);
    let got = times.acquired.or(times.taken);
    if let (Some(from_ms), Some(to_ms)) = (queued, got.or(now_ms)) {
        parts.push(RunPart { name: "job waits", who: "forge", from_ms, to_ms });
    }
    // A job that was lost lasts until its machine is gone, or until the forge gives it up.
    let lost = times.acquired.and(times.concluded.into_iter().chain(times.gone).min());
    let steps = [
        (times.slot, "", ""),
        (times.registered, "registration", "forge"),
        (times.started, "machine is made", "host"),
        (times.hello, "machine starts", "machine"),
        (times.up, "identity, settings", "machine"),
        (times.listening, "runner app starts", "machine"),
        (times.acquired, "runner waits for its job", "forge"),
        (times.done.or(lost), "job", "job"),
        (times.gone, "machine ends", "host"),
        (times.over, "clean-up", "host"),
    ];
    let mut before = None;
    let mut last = None;
    for (index, (at, name, who)) in steps.into_iter().enumerate() {
        let Some(at) = at else { continue };
        if let Some(from_ms) = before.filter(|_| index > 0) {
            parts.push(RunPart { name, who, from_ms, to_ms: at.max(from_ms) });
        }
        before = Some(at.max(before.unwrap_or_default()));
        last = Some(index);
    }
    // The step that goes on is the one after the last that has ended.
    let next = last.and_then(|last| steps.get(last + 1));
    if let (Some(from_ms), Some(to_ms), Some((_, name, who))) = (before, now_ms, next) {
        parts.push(RunPart { name, who, from_ms, to_ms: to_ms.max(from_ms) });
    }
    for part in &mut parts {
        part.to_ms = part.to_ms.max(part.from_ms);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(times: &Times, now_ms: Option<u64>) -> String {
        let parts = parts_of(times, now_ms);
        let lines =
            parts.iter().map(|part| format!("{} ({}) {}..{}", part.name, part.who, part.from_ms, part.to_ms));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_life_of_a_run_is_one_part_after_the_other_beside_the_wait_of_its_job() {
        let times = Times {
            seen: Some(90),
            slot: Some(100),
            registered: Some(200),
            started: Some(250),
            hello: Some(600),
            up: Some(700),
            listening: Some(900),
            acquired: Some(1000),
            done: Some(5000),
            gone: Some(5200),
            over: Some(5300),
            ..Times::default()
        };
        insta::assert_snapshot!(shown(&times, None), @r"
        job waits (forge) 90..1000
        registration (forge) 100..200
        machine is made (host) 200..250
        machine starts (machine) 250..600
        identity, settings (machine) 600..700
        runner app starts (machine) 700..900
        runner waits for its job (forge) 900..1000
        job (job) 1000..5000
        machine ends (host) 5000..5200
        clean-up (host) 5200..5300
        ");
    }

    #[test]
    fn the_part_that_goes_on_lasts_until_now_and_clocks_that_jump_give_no_negative_time() {
        let times = Times { slot: Some(100), registered: Some(200), started: Some(150), ..Times::default() };
        insta::assert_snapshot!(shown(&times, Some(180)), @r"
        registration (forge) 100..200
        machine is made (host) 200..200
        machine starts (machine) 200..200
        ");
        assert_eq!(shown(&Times::default(), Some(5)), "");
    }

    #[test]
    fn a_job_that_was_lost_lasts_until_its_machine_is_gone() {
        let times = Times { acquired: Some(100), gone: Some(900), over: Some(950), ..Times::default() };
        insta::assert_snapshot!(shown(&times, None), @r"
        job (job) 100..900
        machine ends (host) 900..900
        clean-up (host) 900..950
        ");
    }
}

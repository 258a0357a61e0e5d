//! A trace in the format that `chrome://tracing` and Perfetto read: complete events ("X"), times in microseconds.

use serde_json::{Value, json};

use super::phases::{Party, Trace};

/// Returns the events of one process, with a thread for each party.
pub(super) fn json(trace: &Trace) -> Value {
    let number = |who: Party| Party::ALL.iter().position(|&other| other == who).unwrap_or_default() + 1;
    let process =
        json!({ "ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": { "name": trace.name } });
    let threads = Party::ALL.map(|who| {
        json!({ "ph": "M", "pid": 1, "tid": number(who), "name": "thread_name", "args": { "name": who.word() } })
    });
    let phases = trace.phases.iter().map(|phase| {
        json!({
            "ph": "X", "pid": 1, "tid": number(phase.who), "name": phase.name, "cat": phase.who.word(),
            "ts": trace.began_us + phase.from_us, "dur": phase.to_us - phase.from_us,
            "args": { "start": trace.start },
        })
    });
    Value::Array(std::iter::once(process).chain(threads).chain(phases).collect())
}

#[cfg(test)]
mod tests {
    use super::super::phases::tests::LOG;
    use super::*;

    #[test]
    fn each_phase_is_an_event_on_the_thread_of_who_worked() {
        let json = json(&Trace::of_log(LOG));
        let events = json.as_array().expect("an array");
        let job = events.iter().find(|event| event["name"] == "job").expect("a job");
        assert_eq!(
            (&job["ph"], &job["ts"], &job["dur"]),
            (&"X".into(), &1_700_000.into(), &3_600_000.into())
        );
        let thread = events.iter().find(|event| event["ph"] == "M" && event["tid"] == job["tid"]);
        assert_eq!(thread.expect("its thread")["args"]["name"], "job");
    }
}

//! `dayfly net`: shows what a machine has reached in its network and what it was denied, or suggests a list for its pool.

mod suggest;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_host::quantity::quantity;
use dayfly_vm::{Decision, Destination, NetworkUse, Protocol, Reason};
use serde::Serialize;

use super::logs::{self, RunLog};
use crate::cli::{NetArgs, NetCommand};
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, Column};
use crate::settings::Places;
use crate::units::plain;

/// A mark of the lines of a log that are read. A guest can print it too, so that a line with it is parsed.
const MARK: &[u8] = b"\"network_used\"";

/// A destination, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    run: &'a str,
    policy: &'a str,
    #[serde(flatten)]
    destination: &'a Destination,
}

/// Runs the command.
pub(crate) fn run(places: &Places, args: &NetArgs) -> Result<Outcome> {
    if let Some(NetCommand::Suggest(args)) = &args.command {
        return suggest::run(places, args);
    }
    let run = args.run.as_deref().unwrap_or_default();
    let Some(used) = use_of(places, run)? else {
        return Err(Failure::cannot(format!("there is no record of the network of {run}")).hint(
            "a record is written when a machine of the driver qemu ends, if it has a network of its own (dayfly doctor)",
        ));
    };
    if args.json {
        let row = |destination| Row { run, policy: &used.policy, destination };
        used.destinations.iter().for_each(|destination| printer::json(&row(destination)));
    } else if used.destinations.is_empty() {
        printer::note("the machine has asked for no name and has reached nothing");
    } else {
        table(&used, printer::columns()).into_iter().for_each(printer::line);
    }
    notes(&used).into_iter().for_each(printer::note);
    Ok(Outcome::Success)
}

/// Returns the record of a run's network; none if its log has none.
fn use_of(places: &Places, run: &str) -> Result<Option<NetworkUse>> {
    match logs::find(places, run)? {
        RunLog::File(path) => last_in(&path)
            .map_err(|error| Failure::cannot(format!("cannot read the log {}: {error}", path.display()))),
        RunLog::Facts(records) => Ok(records.into_iter().filter_map(used).next_back()),
    }
}

fn used(record: FactRecord) -> Option<NetworkUse> {
    match record.fact {
        Fact::NetworkUsed { network } => Some(*network),
        _ => None,
    }
}

/// Returns the last record in a log; none if it has none.
fn last_in(log: &Path) -> std::io::Result<Option<NetworkUse>> {
    let (mut reader, mut line, mut last) = (BufReader::new(File::open(log)?), Vec::new(), None);
    while reader.read_until(b'\n', &mut line)? > 0 {
        if line.windows(MARK.len()).any(|part| part == MARK)
            && let Some(found) = serde_json::from_slice(&line).ok().and_then(used)
        {
            last = Some(found);
        }
        line.clear();
    }
    Ok(last)
}

const COLUMNS: [Column; 7] = [
    Column::whole("DECISION"),
    Column::cut("DESTINATION"),
    Column::whole("ADDRESS"),
    Column::whole("TIMES"),
    Column::whole("SENT"),
    Column::whole("RECEIVED"),
    Column::cut("WHY"),
];

/// Returns the lines of the table, cut to so many columns; none: not cut.
fn table(used: &NetworkUse, columns: Option<usize>) -> Vec<String> {
    let rows: Vec<[String; 7]> = used.destinations.iter().map(cells).collect();
    printer::fitted(&COLUMNS, &rows, columns)
}

fn cells(row: &Destination) -> [String; 7] {
    let names = plain(&row.names.join(" "));
    let port = row.port.map_or_else(String::new, |port| format!(":{port}"));
    let protocol = if row.protocol == Some(Protocol::Udp) { "/udp" } else { "" };
    let address = row.address.map_or_else(|| "-".to_owned(), |address| format!("{address}{port}{protocol}"));
    [
        row.decision.as_str().to_owned(),
        if names.is_empty() { "-".to_owned() } else { names },
        address,
        row.times.to_string(),
        bytes(row.sent),
        bytes(row.received),
        row.reason.map_or("", Reason::as_str).to_owned(),
    ]
}

/// Returns a number of bytes with at most four digits and its unit.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if count < 1000 {
        return count.to_string();
    }
    let (mut whole, mut unit) = (count / 1024, 0);
    while whole >= 1000 && unit + 1 < UNITS.len() {
        (whole, unit) = (whole / 1024, unit + 1);
    }
    format!("{whole}{}", UNITS[unit])
}

/// Returns sentences about what the record does not show.
fn notes(used: &NetworkUse) -> Vec<String> {
    let mut notes = Vec::new();
    if used.left_out > 0 {
        let more = quantity(
            used.left_out,
            "more destination or question is not listed",
            "more destinations or questions are not listed",
        );
        notes.push(more);
    }
    if used.gate_killed {
        notes.push("the gate of the machine was killed: it resolved no names from then on".to_owned());
    }
    if used.destinations.iter().any(|row| row.decision == Decision::Audited) {
        notes.push(
            "audited: let through, and denied with network = \"allow\" and the same list; dayfly net suggest POOL writes a list"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a destination: names, address, port and decision, with some bytes.
    pub(super) fn row(
        names: &[&str],
        to: Option<([u8; 4], u16)>,
        decision: Decision,
        reason: Option<Reason>,
    ) -> Destination {
        Destination {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            address: to.map(|(address, _)| address.into()),
            protocol: to.map(|_| Protocol::Tcp),
            port: to.map(|(_, port)| port),
            decision,
            reason,
            times: 3,
            sent: to.map_or(0, |_| 5_000),
            received: to.map_or(0, |_| 12_000_000),
        }
    }

    fn used() -> NetworkUse {
        let hostile = "www.\u{1b}[2J-a-very-long-name-that-a-job-has-asked-for.to-fill-the-screen.example";
        let mut datagrams =
            row(&[], Some(([203, 0, 113, 9], 443)), Decision::Audited, Some(Reason::Unlisted));
        datagrams.protocol = Some(Protocol::Udp);
        NetworkUse {
            policy: "audit".to_owned(),
            destinations: vec![
                row(&[hostile], None, Decision::Denied, Some(Reason::Shut)),
                row(&[], Some(([10, 0, 0, 1], 22)), Decision::Denied, Some(Reason::Shut)),
                datagrams,
                row(&["a.example", "b.example"], Some(([192, 0, 2, 7], 443)), Decision::Allowed, None),
            ],
            left_out: 2,
            gate_killed: true,
        }
    }

    #[test]
    fn the_table_has_what_was_reached_and_denied_in_80_columns_and_in_200() {
        let used = used();
        let shown = |columns| {
            let lines = table(&used, Some(columns));
            let lines: Vec<_> =
                lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{lines:#?}");
            lines.join("\n")
        };
        insta::assert_snapshot!(format!("{}\n\n{}\n\n{}", shown(80), shown(200), notes(&used).join("\n")));
    }

    #[test]
    fn a_line_of_json_has_the_run_its_policy_and_one_destination() {
        let used = used();
        let row = Row { run: "2-k3V9x0q", policy: &used.policy, destination: &used.destinations[3] };
        insta::assert_snapshot!(serde_json::to_string_pretty(&row).expect("JSON"));
    }

    #[test]
    fn the_last_record_of_a_log_counts_and_what_a_guest_prints_does_not() {
        let state = tempfile::tempdir().expect("folder");
        let places = Places::for_tests(state.path());
        let folder = state.path().join(dayfly_fleet::run_log::FOLDER);
        std::fs::create_dir(&folder).expect("folder");
        let line = |fact: serde_json::Value| {
            let mut record = serde_json::json!({
                "at_ms": 1, "loop": 2, "runner": "2-k3V9x0q", "name": "r-2-k3V9x0q",
            });
            record.as_object_mut().expect("an object").extend(fact.as_object().expect("an object").clone());
            format!("{record}\n")
        };
        let told = |used: &NetworkUse| line(serde_json::json!({"event": "network_used", "network": used}));
        let printed = line(serde_json::json!({
            "event": "line", "source": "entrypoint", "text": told(&NetworkUse::default()),
        }));
        let log = folder.join("2-k3V9x0q.jsonl");
        std::fs::write(&log, &printed).expect("log");
        assert_eq!(use_of(&places, "2-k3V9x0q").expect("a log"), None);
        std::fs::write(&log, told(&NetworkUse::default()) + &told(&used()) + &printed).expect("log");
        assert_eq!(use_of(&places, "2-k3V9x0q").expect("a log"), Some(used()));
    }

    #[test]
    fn bytes_are_short() {
        let all = [0, 999, 1000, 5_000, 1_023_999, 12_000_000, 5 << 30, u64::MAX];
        assert_eq!(all.map(bytes), ["0", "999", "0K", "4K", "999K", "11M", "5G", "15E"]);
    }
}

//! A job in a machine whose pool has a list of destinations, and the record of its network.

use dayfly_e2e::Dayfly;
use dayfly_e2e::lab::LabProcess;
use dayfly_host::left_out::root_may;
use serde_json::Value;

use crate::{DNS_SERVER, enter_a_world};

/// A job that tries names and addresses at port 80, with a name in the first bytes.
const JOB: &str = r#"
on: push
jobs:
  look:
    runs-on: listed
    steps:
      - run: |
          ask() { timeout 8 bash -c "exec 3<>/dev/tcp/$1/80; printf 'GET / HTTP/1.1\r\nHost: $2\r\n\r\n' >&3; cat <&3"; }
          try() { echo "tried $1 $(ask "$2" "$3" 2>/dev/null || true)."; }
          try name world.example world.example
          try other-name 203.0.113.80 rebound.example
          try unlisted rebound.example rebound.example
          try network 192.168.7.7 192.168.7.7
          try metadata 169.254.169.254 169.254.169.254
          try host 203.0.113.1 203.0.113.1
"#;

/// Returns the destinations with this name and this address, each with decision and reason; empty text for none.
fn decisions(rows: &[Value], name: &str, address: &str) -> Vec<String> {
    let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_it = |row: &&Value| {
        of(&row["names"][0]) == name && of(&row["address"]) == address && row["run"].is_string()
    };
    let found = rows.iter().filter(is_it);
    found.map(|row| format!("{} {}", of(&row["decision"]), of(&row["reason"])).trim().to_owned()).collect()
}

#[tokio::test]
async fn a_job_with_a_list_reaches_what_is_listed_and_dayfly_net_shows_what_it_tried() {
    if !root_may("give a machine a network with rules on this host") {
        return;
    }
    enter_a_world();
    let lab = LabProcess::start();
    let policy = ["--network", "allow", "--allow", "world.example,192.168.7.0/24:80"];
    let runner = lab.runner(["-r", "1", "-L", "listed", "-d", DNS_SERVER].into_iter().chain(policy));
    let run = lab.dispatch(JOB).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    let (_, log) = lab.logs_of(run).await.pop().expect("a log");
    let tried: Vec<&str> = log.lines().filter_map(|line| line.split(" tried ").nth(1)).collect();
    let expected = ["name world.", "other-name .", "unlisted .", "network world.", "metadata .", "host ."];
    assert_eq!(tried, expected, "{log}");
    let ended = runner.wait();
    ended.assert_status(0).assert_nothing_left();

    let told = ended.events_of("network_used").pop().expect("the record of its network");
    let id = told["runner"].as_str().expect("an id");
    let shown = Dayfly::new(["net", "--json", id]).run();
    shown.assert_status(0);
    let rows: Vec<Value> =
        shown.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (name, address, decision) in [
        ("world.example", "203.0.113.80", "allowed"),
        ("rebound.example", "203.0.113.80", "denied other_name"),
        ("rebound.example", "", "denied unlisted"),
        ("", "192.168.7.7", "allowed"),
        ("", "169.254.169.254", "denied shut"),
        ("", "203.0.113.1", "denied shut"),
    ] {
        assert_eq!(decisions(&rows, name, address), [decision], "{name} {address}: {}", shown.stdout);
    }
    let world = rows.iter().find(|row| row["names"][0] == "world.example").expect("a row");
    assert_eq!((world["times"].as_u64(), world["received"].as_u64()), (Some(1), Some(5)), "{world}");
    assert_eq!(world["policy"], "allow");
    let table = Dayfly::new(["net", id]).run().stdout;
    assert!(
        table.lines().any(|line| line.starts_with("allowed") && line.contains("world.example")),
        "{table}"
    );
    lab.stop();
}

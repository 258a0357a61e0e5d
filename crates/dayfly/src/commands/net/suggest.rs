//! `dayfly net suggest`: a list for a pool that allows what its last runs have reached.

use std::collections::BTreeSet;

use dayfly_fleet::history::History;
use dayfly_host::quantity::quantity;
use dayfly_vm::{AllowEntry, Decision, Destination, NetworkUse, Protocol, Reason};
use serde::Serialize;

use crate::cli::NetSuggestArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;

/// The suggestion, as `--json` shows it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Suggestion {
    pool: String,
    /// Number of runs that it comes from.
    runs: usize,
    /// The list.
    allow: Vec<String>,
    /// The entries for destinations whose addresses are private or this host's. They are not in the list.
    shut: Vec<String>,
    /// Number of destinations that the records do not have.
    left_out: u64,
}

/// Runs the command.
pub(super) fn run(places: &Places, args: &NetSuggestArgs) -> Result<Outcome> {
    let most = usize::try_from(args.runs).unwrap_or(usize::MAX);
    let runs = History::of(&places.state).network_uses(&args.pool, most).map_err(|error| {
        Failure::cannot(format!("cannot read the history below {}: {error}", places.state.display()))
    })?;
    if runs.is_empty() {
        return Err(Failure::cannot(format!("no run of a pool {} has a record of its network", args.pool)).hint(
            "set network = \"audit\" in the pool, and let jobs run; a record needs the driver qemu, and a network of its own for each machine (dayfly doctor)",
        ));
    }
    let suggestion = suggest(&args.pool, &runs);
    if args.json {
        printer::json(&suggestion);
    } else {
        lines(&suggestion).into_iter().for_each(printer::line);
    }
    Ok(Outcome::Success)
}

/// Returns the list for what the runs have reached.
fn suggest(pool: &str, runs: &[NetworkUse]) -> Suggestion {
    let rows = || runs.iter().flat_map(|used| &used.destinations);
    let is_shut = |row: &&Destination| row.reason == Some(Reason::Shut);
    let reached = rows().filter(|row| row.decision != Decision::Denied && !is_shut(row));
    let mut allow: BTreeSet<String> = reached.flat_map(entries).collect();
    if allow.remove(AllowEntry::GITHUB) {
        // The preset comes first, because most lists begin with it.
        let rest = std::mem::take(&mut allow);
        return finish(pool, runs, std::iter::once(AllowEntry::GITHUB.to_owned()).chain(rest).collect());
    }
    finish(pool, runs, allow.into_iter().collect())
}

fn finish(pool: &str, runs: &[NetworkUse], allow: Vec<String>) -> Suggestion {
    let rows = runs.iter().flat_map(|used| &used.destinations);
    let shut = rows.filter(|row| row.reason == Some(Reason::Shut));
    let shut: BTreeSet<String> = shut.flat_map(entries_of_shut).collect();
    Suggestion {
        pool: pool.to_owned(),
        runs: runs.len(),
        allow,
        shut: shut.into_iter().collect(),
        left_out: runs.iter().map(|used| used.left_out).sum(),
    }
}

/// Returns the entries that a destination needs. A name that is no host name is skipped: a job can ask for anything.
fn entries(row: &Destination) -> Vec<String> {
    let github = AllowEntry::github();
    let is_web = row.port.is_none_or(|port| AllowEntry::WEB_PORTS.contains(&port));
    let with_port = |target: &str| match row.port.filter(|_| !is_web) {
        Some(port) => format!("{target}:{port}"),
        None => target.to_owned(),
    };
    let is_named = !row.names.is_empty() && row.protocol != Some(Protocol::Udp);
    if !is_named {
        // Packets without a connection need a network in the list, even if a name has led to the address.
        return row.address.map(|address| with_port(&address.to_string())).into_iter().collect();
    }
    // A name that was asked for alone needs no port, and the one of a connection is listed by it.
    let names = row.names.iter().filter(|name| name.parse::<AllowEntry>().is_ok());
    let entry = |name: &String| match is_web && github.lists(name) {
        true => AllowEntry::GITHUB.to_owned(),
        false => with_port(name),
    };
    names.map(entry).collect()
}

/// Returns the entries that a destination at a shut address needs: its network, and the names that lead there.
fn entries_of_shut(row: &Destination) -> Vec<String> {
    let names = row.names.iter().filter(|name| name.parse::<AllowEntry>().is_ok()).cloned();
    let network = row.address.zip(row.port).map(|(address, port)| format!("{address}:{port}"));
    names.chain(network).collect()
}

/// Returns the lines for a configuration file.
fn lines(suggestion: &Suggestion) -> Vec<String> {
    let Suggestion { pool, runs, allow, shut, left_out } = suggestion;
    let pool = if is_bare(pool) { pool.clone() } else { format!("{pool:?}") };
    let mut lines = vec![
        format!(
            "# What the last {} reached. A job can reach what it likes, so read it.",
            quantity(*runs, "run with a record has", "runs with a record have")
        ),
        format!("[pools.{pool}]"),
        "network = \"allow\"".to_owned(),
        "allow = [".to_owned(),
    ];
    lines.extend(allow.iter().map(|entry| format!("  \"{entry}\",")));
    lines.push("]".to_owned());
    if !shut.is_empty() {
        lines.push(
            "# Not in the list, because the addresses are private or this host's. Add those that jobs need:"
                .to_owned(),
        );
        lines.extend(shut.iter().map(|entry| format!("#   \"{entry}\",")));
    }
    if *left_out > 0 {
        lines.push(format!(
            "# {left_out} destinations or questions were too many for the records, and are missing."
        ));
    }
    lines
}

/// Returns true if a key of TOML needs no quotes.
fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    fn runs() -> Vec<NetworkUse> {
        let to = |last: u8, port: u16| Some(([192, 0, 2, last], port));
        let unlisted = Some(Reason::Unlisted);
        let mut datagrams = row(&["time.example"], to(9, 123), Decision::Audited, unlisted);
        datagrams.protocol = Some(Protocol::Udp);
        let of = |destinations| NetworkUse {
            policy: "audit".to_owned(),
            destinations,
            left_out: 1,
            gate_killed: false,
        };
        vec![
            of(vec![
                row(&["api.github.com"], to(1, 443), Decision::Audited, unlisted),
                row(&["registry.example"], to(2, 443), Decision::Audited, unlisted),
                row(&["registry.example"], to(2, 80), Decision::Audited, unlisted),
                row(&["git.example"], to(3, 22), Decision::Audited, unlisted),
            ]),
            of(vec![
                row(&["\"\u{1b}]x.example"], to(4, 443), Decision::Audited, unlisted),
                row(&[], to(5, 8443), Decision::Allowed, None),
                datagrams,
                row(&[], Some(([10, 0, 0, 1], 5432)), Decision::Denied, Some(Reason::Shut)),
                row(&["db.example"], Some(([10, 0, 0, 2], 80)), Decision::Audited, Some(Reason::Shut)),
                row(&["asked.example"], None, Decision::Audited, unlisted),
                row(&["denied.example"], to(6, 443), Decision::Denied, unlisted),
            ]),
        ]
    }

    #[test]
    fn the_list_has_each_name_and_port_once_and_no_text_of_a_job_in_its_syntax() {
        insta::assert_snapshot!(lines(&suggest("build", &runs())).join("\n"));
    }

    #[test]
    fn a_configuration_file_takes_the_suggestion() {
        let suggestion = suggest("my pool", &runs());
        let text = lines(&suggestion).join("\n");
        let table: toml::Table = text.parse().expect("TOML");
        let allow = table["pools"]["my pool"]["allow"].as_array().expect("a list").clone();
        assert_eq!(allow.len(), suggestion.allow.len());
        for entry in allow {
            entry.as_str().expect("text").parse::<AllowEntry>().expect("an entry");
        }
    }

    #[test]
    fn a_list_is_empty_if_nothing_was_reached() {
        let suggestion = suggest("build", &[NetworkUse::default()]);
        assert_eq!((suggestion.allow.len(), suggestion.runs), (0, 1));
    }
}

//! `dayfly clear`: removes what instances have left whose process has died and whose place no start serves: registrations, machines,
//! files; with `--all` the folders of soaks that were killed, too. It names the machines that are kept after failed jobs, and leaves
//! them alone, because a person may still want to look into them.

use dayfly_fleet::history::History;
use dayfly_fleet::instance::{self, InstanceInfo};
use dayfly_fleet::recovery::{Clearer, Clearing, clear};
use dayfly_fleet::status::Status;
use dayfly_host::quantity::quantity;
use dayfly_vm::kept;
use serde::Serialize;
use serde_json::json;

use super::lab::soak::left;
use super::reload::name_of;
use super::subject::{self, Named};
use super::thaw::KeptSummary;
use crate::cli::ClearArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;

/// The result for one instance.
#[derive(Debug, Serialize)]
struct Row {
    instance: String,
    #[serde(flatten)]
    clearing: Clearing,
}

/// The result for the folder of a soak.
#[derive(Debug, Serialize)]
struct SoakRow {
    soak: String,
    is_gone: bool,
    /// The reason why it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// The machines that are kept.
#[derive(Debug, Serialize)]
struct KeptRow {
    kept_machines: Vec<String>,
    bytes: u64,
    until_s: i64,
}

/// Runs the command. `is_argument` tells whether an option is on the command line.
pub(crate) async fn run(
    places: &Places,
    args: &ClearArgs,
    is_argument: impl Fn(&str) -> bool,
) -> Result<Outcome> {
    let clearers = clearers(places, args, is_argument)?;
    let wanted = choose(instance::all(&places.state).map_err(Failure::cannot)?, args)?;
    let is_wanted = |abandoned: &instance::Abandoned| wanted.iter().any(|one| one.folder == abandoned.folder);
    let abandoned = instance::abandoned(&places.state).map_err(Failure::cannot)?;
    // The locks of the others are free again at once.
    let abandoned: Vec<_> = abandoned.into_iter().filter(is_wanted).collect();
    let (mut rows, history) = (Vec::new(), History::of(&places.state));
    for one in abandoned {
        let instance = one.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let clearing = clear(one, (&clearers, &history), args.force).await.map_err(Failure::cannot)?;
        rows.push(Row { instance, clearing });
    }
    let soaks = if args.all { clear_soaks(places).await? } else { Vec::new() };
    let kept = KeptSummary::of(&kept::list(&places.state).map_err(Failure::cannot)?);
    show(&rows, &soaks, kept, args);
    let is_all = rows.len() == wanted.len()
        && rows.iter().all(|row| row.clearing.is_gone)
        && soaks.iter().all(|row| row.is_gone);
    Ok(if is_all { Outcome::Success } else { Outcome::NotSucceeded })
}

/// Prints the results.
fn show(rows: &[Row], soaks: &[SoakRow], kept: Option<KeptSummary>, args: &ClearArgs) {
    if args.json {
        let kept = kept.map(|KeptSummary { runners, bytes, until_s }| KeptRow {
            kept_machines: runners,
            bytes,
            until_s,
        });
        let all = rows.iter().map(|row| json!(row)).chain(soaks.iter().map(|row| json!(row)));
        printer::json(&all.chain(kept.map(|kept| json!(kept))).collect::<Vec<_>>());
        return;
    }
    rows.iter().for_each(|row| printer::line(text(row)));
    soaks.iter().for_each(|row| printer::line(soak_text(row)));
    if !args.force && rows.iter().any(|row| !row.clearing.kept.is_empty()) {
        printer::hint("--force also removes machines that have a job, and runs whose journal cannot be read");
    }
    if let Some(kept) = kept {
        printer::note(kept.sentence());
        printer::hint(kept.advice());
    }
}

/// Removes the folders of soaks that were killed.
async fn clear_soaks(places: &Places) -> Result<Vec<SoakRow>> {
    let mut rows = Vec::new();
    for left in left::all(&places.state).map_err(Failure::cannot)? {
        let soak = left.name();
        let why = left.remove().await.err();
        rows.push(SoakRow { soak, is_gone: why.is_none(), why });
    }
    Ok(rows)
}

/// Returns the clients that delete registrations; none if no owner is named and there is no configuration file.
fn clearers(places: &Places, args: &ClearArgs, is_argument: impl Fn(&str) -> bool) -> Result<Vec<Clearer>> {
    let subjects = subject::read_if_named(places, &Named::of(&args.deletes), is_argument)?;
    Ok(subject::clearers(&subjects))
}

/// Returns the instances to clear.
///
/// # Errors
/// A name means no instance whose process has died, or several.
fn choose(all: Vec<InstanceInfo>, args: &ClearArgs) -> Result<Vec<InstanceInfo>> {
    let (living, dead): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.alive);
    if args.all {
        return Ok(dead);
    }
    let mut chosen = Vec::new();
    for name in &args.instances {
        let begins = |one: &&InstanceInfo| !name.is_empty() && name_of(one).starts_with(name);
        let meant: Vec<_> = dead.iter().filter(begins).map(name_of).collect();
        match &meant[..] {
            [one] => chosen.push(one.clone()),
            [] => return Err(unknown(name, living.iter().find(begins), &dead)),
            _ => {
                let why = format!("{name:?} may mean {}", meant.join(", "));
                return Err(Failure::usage(why).hint("name one of them"));
            }
        }
    }
    Ok(dead.into_iter().filter(|one| chosen.contains(&name_of(one))).collect())
}

fn unknown(name: &str, living: Option<&InstanceInfo>, dead: &[InstanceInfo]) -> Failure {
    if let Some(living) = living {
        let pid = Status::read(&living.folder).ok().flatten().map(|status| format!(" {}", status.pid));
        let why = format!("the process{} of instance {} lives", pid.unwrap_or_default(), name_of(living));
        return Failure::usage(why)
            .hint("dayfly drain ends an orchestrator with its last job, SIGTERM at once");
    }
    let failure = Failure::usage(format!("no instance whose process has died has the name {name:?}"));
    match dead {
        [] => failure.hint("there is none on this host; --state names the state folder"),
        _ => {
            let names: Vec<_> = dead.iter().map(name_of).collect();
            failure.hint(format!("there are {}", names.join(", ")))
        }
    }
}

/// Returns the result for people.
fn text(row: &Row) -> String {
    let Row { instance, clearing } = row;
    let removed = quantity(clearing.removed.len(), "runner", "runners");
    let mut lines = vec![match clearing.is_gone {
        true => format!("{instance}: removed, with {removed}"),
        false => format!("{instance}: {removed} removed, {} kept", clearing.kept.len()),
    }];
    for kept in &clearing.kept {
        let name = kept.folder.file_name().unwrap_or_default().to_string_lossy();
        lines.push(format!("  {name} stays: {}", kept.why));
    }
    for left in &clearing.registrations {
        let id = left.id.map(|id| format!(" (id {id})")).unwrap_or_default();
        lines.push(format!(
            "  the registration {}{id} of {} may still exist at {}: {}",
            left.name, left.scope, left.forge, left.why
        ));
    }
    lines.join("\n")
}

fn soak_text(SoakRow { soak, why, .. }: &SoakRow) -> String {
    match why {
        None => format!("soak {soak}: removed"),
        Some(why) => format!("soak {soak} stays: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use dayfly_fleet::recovery::{KeptRun, LeftRegistration};

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(words: &[&str]) -> ClearArgs {
        let words = ["dayfly", "clear"].iter().chain(words);
        match Cli::try_parse_from(words).expect("arguments").command {
            Command::Clear(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the names of the instances that are cleared, or the error with its status and its hint. Two have died, one lives.
    fn chosen(words: &[&str]) -> String {
        let one = |name: &str, alive| InstanceInfo {
            folder: format!("/state/instances/{name}").into(),
            serves: Vec::new(),
            alive,
        };
        match choose(vec![one("abc", false), one("abd", false), one("xyz", true)], &args(words)) {
            Ok(meant) => meant.iter().map(name_of).collect::<Vec<_>>().join(" "),
            Err(failure) => {
                format!("{} {failure}; {}", failure.code(), failure.what_to_do().unwrap_or_default())
            }
        }
    }

    #[test]
    fn only_instances_that_are_named_and_whose_process_has_died_are_cleared() {
        let shown: Vec<_> = [&["abc"][..], &["abd", "abc"], &["--all"], &["ab"], &["q"], &["xyz"], &[""]]
            .map(chosen)
            .to_vec();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        abc
        abc abd
        abc abd
        2 "ab" may mean abc, abd; name one of them
        2 no instance whose process has died has the name "q"; there are abc, abd
        2 the process of instance xyz lives; dayfly drain ends an orchestrator with its last job, SIGTERM at once
        2 no instance whose process has died has the name ""; there are abc, abd
        "#);
    }

    #[test]
    fn the_result_says_what_is_gone_what_stays_and_which_registrations_may_be_left() {
        let kept = KeptRun {
            folder: "/state/instances/abc/runs/1-bbbbbbb".into(),
            why: "a job still runs in its machine".to_owned(),
        };
        let left = |id, why: &str| LeftRegistration {
            name: "p-0-aaaaaaa".to_owned(),
            id,
            scope: "o/r".to_owned(),
            forge: "https://api.github.com/".to_owned(),
            why: why.to_owned(),
        };
        let removed = vec!["0-aaaaaaa".to_owned()];
        let gone = Clearing {
            removed: removed.clone(),
            registrations: vec![
                left(Some(7), "no credential for its forge was given"),
                left(None, "no answer"),
            ],
            is_gone: true,
            ..Clearing::default()
        };
        let stays = Clearing { removed: Vec::new(), kept: vec![kept], ..Clearing::default() };
        let row = |clearing| text(&Row { instance: "abc".to_owned(), clearing });
        insta::assert_snapshot!(format!("{}\n{}", row(gone), row(stays)), @r"
        abc: removed, with 1 runner
          the registration p-0-aaaaaaa (id 7) of o/r may still exist at https://api.github.com/: no credential for its forge was given
          the registration p-0-aaaaaaa of o/r may still exist at https://api.github.com/: no answer
        abc: 0 runners removed, 1 kept
          1-bbbbbbb stays: a job still runs in its machine
        ");
    }
}

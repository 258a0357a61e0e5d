//! `dayfly uninstall`: lists each trace of dayfly on this host and at the forge, and removes them.
//!
//! ```text
//!   survey ──> traces ──> lines, JSON          nothing is removed yet
//!                 │
//!                 └──> instances of dead processes (registration first) ─> scale sets ─> files ─> user
//! ```

mod scale_set;
mod survey;
mod trace;

use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_fleet::history::History;
use dayfly_fleet::instance;
use dayfly_fleet::recovery::{Clearer, clear};
use dayfly_host::tool::{self, Invocation};
use dayfly_vm::kept;
use serde::Serialize;

use super::subject::{self, Named, Subject};
use crate::cli::UninstallArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::{self, Places};
use survey::Host;
use trace::{Fate, FileKind, Trace};

/// Longest time that a tool of this host may take.
const TOOL_LIMIT: Duration = Duration::from_secs(30);
/// The table that keeps a host with forwarding from becoming a router (`vm::network::forwarding`).
const GUARD: &str = "ip dayfly-guard";

/// A trace, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    trace: &'a Trace,
    is_removed: bool,
    /// The reason, if it is not removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Runs the command. `is_argument` returns true for an option of the command line.
pub(crate) async fn run(
    places: &Places,
    args: &UninstallArgs,
    is_argument: impl Fn(&str) -> bool,
) -> Result<Outcome> {
    let subjects = subject::read_if_named(places, &Named::of(&args.deletes), is_argument)?;
    let clearers = subject::clearers(&subjects);
    let mut traces = survey::processes(&places.state, &clearers)?;
    traces.extend(scale_set::look_up(&subjects, args.scale_sets).await);
    traces.extend(this_host(places)?.files());
    traces.extend(guard(places).await);
    if args.dry_run {
        show(&traces, args.json, |trace| trace.fate());
        return Ok(Outcome::Success);
    }
    if let Some(failure) = traces.iter().find_map(in_the_way) {
        return Err(failure);
    }
    if !args.json {
        show(&traces, false, |trace| trace.fate());
    }
    if !args.yes && !is_confirmed()? {
        printer::note("nothing was removed");
        return Ok(Outcome::NotSucceeded);
    }
    let failures = remove(places, args, &clearers, &subjects, &traces).await?;
    let ended = |trace: &Trace| match failures.iter().find(|(failed, _)| failed == trace) {
        Some((_, why)) => Fate::Stays(why.clone()),
        None => trace.fate(),
    };
    if args.json {
        show(&traces, true, ended);
    } else {
        failures
            .iter()
            .for_each(|(trace, why)| printer::warning(format_args!("{} stays: {why}", trace.words())));
    }
    Ok(if failures.is_empty() { Outcome::Success } else { Outcome::NotSucceeded })
}

/// Returns the failure because of a trace that has to go first.
fn in_the_way(trace: &Trace) -> Option<Failure> {
    match trace.fate() {
        Fate::Blocks(what_to_do) => {
            Some(Failure::cannot(format!("the {} lives", trace.words())).hint(what_to_do))
        }
        Fate::Removed | Fate::Stays(_) => None,
    }
}

fn this_host(places: &Places) -> Result<Host> {
    Ok(Host {
        root: "/".into(),
        state: places.state.clone(),
        program: std::env::current_exe().map_err(Failure::cannot)?,
        is_root: rustix::process::geteuid().is_root(),
        user_configuration: settings::user_configuration(),
    })
}

fn show(traces: &[Trace], json: bool, fate: impl Fn(&Trace) -> Fate) {
    if json {
        let row = |trace| match fate(trace) {
            Fate::Removed => Row { trace, is_removed: true, why: None },
            Fate::Stays(why) | Fate::Blocks(why) => Row { trace, is_removed: false, why: Some(why) },
        };
        traces.iter().for_each(|trace| printer::json(&row(trace)));
    } else if traces.is_empty() {
        printer::note("nothing of dayfly is on this host");
    } else {
        trace::lines(traces).into_iter().for_each(printer::line);
    }
}

/// Asks whether to remove.
///
/// # Errors
/// There is no terminal to ask on.
fn is_confirmed() -> Result<bool> {
    if !stdin().is_terminal() {
        return Err(
            Failure::usage("no terminal to ask on").hint("give --yes to remove, or --dry-run to list")
        );
    }
    let _ = write!(stderr(), "remove all of this? [y/N] ");
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).map_err(Failure::cannot)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Returns the guard of the packet filter, if it is there and this user may look.
async fn guard(places: &Places) -> Option<Trace> {
    let nft = tool_of(places, "nft", &["list", "tables"])?;
    let tables = tool::run(&nft, TOOL_LIMIT).await.ok()?;
    tables.lines().any(|line| line.trim() == format!("table {GUARD}")).then(|| Trace::Guard {
        table: GUARD.to_owned(),
        command: format!("sysctl net.ipv4.ip_forward=0 && nft delete table {GUARD}"),
    })
}

fn tool_of(places: &Places, name: &str, args: &[&str]) -> Option<Invocation> {
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders: Vec<PathBuf> = places.search_path.iter().cloned().chain(system).collect();
    let program = tool::find(&folders, name)?;
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    Some(Invocation { program, args, env: places.tool_env.clone() })
}

/// Removes the traces. Returns those that are left, each with the reason.
///
/// # Errors
/// A folder of an instance cannot be read or removed.
async fn remove(
    places: &Places,
    args: &UninstallArgs,
    clearers: &[Clearer],
    subjects: &[Subject],
    traces: &[Trace],
) -> Result<Vec<(Trace, String)>> {
    let mut failures = clear_instances(&places.state, args.force, clearers, traces).await?;
    if failures.iter().any(|(trace, _)| matches!(trace, Trace::Left { .. })) {
        // Without its journal, a machine that lives would be unknown.
        let is_later = |trace: &&Trace| {
            matches!(trace, Trace::ScaleSet { .. } | Trace::File { .. } | Trace::User { .. })
        };
        let others = traces.iter().filter(is_later).filter(|trace| trace.fate() == Fate::Removed);
        let why = "a runner stays, which only the state folder knows";
        failures.extend(others.map(|trace| (trace.clone(), why.to_owned())));
        return Ok(failures);
    }
    for trace in traces.iter().filter(|trace| trace.fate() == Fate::Removed) {
        let removed = match trace {
            Trace::ScaleSet { .. } => scale_set::delete(subjects, trace).await,
            Trace::File { path, .. } if *path == places.state.join(kept::FOLDER) => {
                // A process that was killed while it had one thawed has left a machine that lives.
                let removed = kept::remove_all(&places.state).await;
                removed.map_err(|error| error.to_string()).and_then(|()| remove_path(path))
            }
            Trace::File { path, .. } => remove_path(path),
            Trace::User { name } => remove_user(places, name).await,
            _ => Ok(()),
        };
        if let Err(why) = removed {
            failures.push((trace.clone(), why));
        }
    }
    // Only an empty folder goes: another one has files that dayfly does not know.
    let _ = std::fs::remove_dir(&places.state);
    if traces.iter().any(|trace| matches!(trace, Trace::File { what: FileKind::Unit, .. })) {
        printer::hint("systemctl daemon-reload");
    }
    Ok(failures)
}

async fn clear_instances(
    state: &Path,
    force: bool,
    clearers: &[Clearer],
    traces: &[Trace],
) -> Result<Vec<(Trace, String)>> {
    let (mut failures, history) = (Vec::new(), History::of(state));
    for one in instance::abandoned(state).map_err(Failure::cannot)? {
        let instance = one.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let clearing = clear(one, (clearers, &history), force).await.map_err(Failure::cannot)?;
        failures.extend(trace::left_of(traces, &instance, &clearing));
    }
    Ok(failures)
}

fn remove_path(path: &Path) -> std::result::Result<(), String> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

async fn remove_user(places: &Places, name: &str) -> std::result::Result<(), String> {
    let userdel = tool_of(places, "userdel", &[name]).ok_or("there is no program userdel")?;
    tool::run(&userdel, TOOL_LIMIT).await.map(drop).map_err(|error| error.to_string())
}

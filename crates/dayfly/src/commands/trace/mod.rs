//! `dayfly trace`: shows how a runner spent its time, from its log.

mod chart;
mod chrome;
mod phases;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use dayfly_fleet::run_log;

use super::logs::{self, RunLog};
use crate::cli::TraceArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;
use phases::Trace;

pub(crate) fn run(places: &Places, args: &TraceArgs) -> Result<Outcome> {
    let folder = places.state.join(run_log::FOLDER);
    let log = match &args.id {
        Some(id) => logs::find(places, id)?,
        None => RunLog::File(newest(&folder)?),
    };
    let trace =
        match log {
            RunLog::File(path) => Trace::of_log(&fs::read_to_string(&path).map_err(|error| {
                Failure::cannot(format!("cannot read the log {}: {error}", path.display()))
            })?),
            RunLog::Facts(records) => Trace::of(records),
        };
    match &args.chrome {
        Some(to) => write(to, &chrome::json(&trace).to_string())?,
        None if args.json => printer::json(&trace),
        None => printer::line(chart::text(&trace, printer::columns().unwrap_or(chart::COLUMNS)).trim_end()),
    }
    Ok(Outcome::Success)
}

fn newest(folder: &Path) -> Result<PathBuf> {
    let logs = fs::read_dir(folder).into_iter().flatten().flatten();
    let dated = logs.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())));
    let newest = dated.filter(|(_, path)| path.extension().is_some_and(|end| end == "jsonl")).max();
    newest.map(|(_, path)| path).ok_or_else(|| {
        Failure::cannot(format!("there is no log of any runner in {}", folder.display()))
            .hint("`dayfly runner`, `dayfly orchestrator` and `dayfly demo` write them")
    })
}

fn write(to: &Path, text: &str) -> Result<()> {
    let written =
        if to == Path::new("-") { std::io::stdout().write_all(text.as_bytes()) } else { fs::write(to, text) };
    written.map_err(|error| Failure::cannot(format!("cannot write the trace to {}: {error}", to.display())))
}

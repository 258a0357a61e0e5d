//! `dayfly runs`: lists the runs of the history, the newest first.

use dayfly_fleet::fact::Moment;
use dayfly_fleet::history::{Fault, History, Index, Outcome, RunQuestion, RunRecord};
use serde::Serialize;

use crate::cli::RunsArgs;
use crate::exit::{self, Failure, Result};
use crate::printer::{self, Column};
use crate::settings::Places;
use crate::units::{plain, short_span};

/// A run, as `--json` shows it.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    #[serde(flatten)]
    record: &'a RunRecord,
    outcome: Outcome,
    /// The party that is to blame; none if the run ended well.
    fault: Option<Fault>,
}

impl<'a> Row<'a> {
    pub(super) fn of(record: &'a RunRecord) -> Self {
        Self { record, outcome: record.outcome(), fault: record.fault() }
    }
}

pub(crate) fn run(places: &Places, args: &RunsArgs) -> Result<exit::Outcome> {
    let index = open(places)?;
    let now_ms = Moment::now().ms();
    let since_ms = args.since.as_ref().map(|time| now_ms.saturating_sub(ms_of(time.0)));
    let question = RunQuestion {
        pool: args.pool.clone(),
        repository: args.repository.clone(),
        outcome: args.conclusion,
        since_ms,
        before_ms: None,
        limit: args.limit,
    };
    let runs = index.runs(&question).map_err(Failure::cannot)?;
    if args.json {
        runs.iter().for_each(|run| printer::json(&Row::of(run)));
    } else if runs.is_empty() {
        let is_empty = index.count().map_err(Failure::cannot)? == 0;
        let what = if is_empty { "no run has ended here yet" } else { "no run is as asked for" };
        printer::note(format_args!("{what} (state in {})", places.state.display()));
    } else {
        table(&runs, now_ms, printer::columns()).into_iter().for_each(printer::line);
    }
    Ok(exit::Outcome::Success)
}

/// Opens the index of the history. A word about a damaged one goes to standard error.
pub(super) fn open(places: &Places) -> Result<Index> {
    let index = Index::open(&History::of(&places.state)).map_err(Failure::cannot)?;
    index.rebuilt().iter().for_each(printer::warning);
    Ok(index)
}

fn ms_of(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The columns of the table. Those that may be cut have no width of their own.
const COLUMNS: [Column; 8] = [
    Column::whole("RUN"),
    Column::whole("ENDED"),
    Column::cut("POOL"),
    Column::cut("REPOSITORY"),
    Column::cut("JOB"),
    Column::whole("RESULT"),
    Column::whole("TOOK"),
    Column::cut("WHY"),
];

/// Returns the lines of the table, cut to so many columns; none: not cut.
fn table(runs: &[RunRecord], now_ms: u64, columns: Option<usize>) -> Vec<String> {
    let rows: Vec<[String; 8]> = runs.iter().map(|run| cells(run, now_ms)).collect();
    printer::fitted(&COLUMNS, &rows, columns)
}

fn cells(run: &RunRecord, now_ms: u64) -> [String; 8] {
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), plain);
    let ended = run.times.over.or(run.times.last()).unwrap_or_default();
    [
        run.runner.clone(),
        short_span(now_ms.saturating_sub(ended) / 1000),
        text(&run.pool),
        text(&run.repository),
        text(&run.job),
        run.outcome().as_str().to_owned(),
        run.times.job_ms().map_or_else(|| "-".to_owned(), |ms| short_span(ms / 1000)),
        why(run),
    ]
}

/// Returns the reason of a bad end in a few words; empty for a good one.
fn why(run: &RunRecord) -> String {
    let Some(fault) = run.fault() else { return String::new() };
    let detail = match fault {
        Fault::OutOfMemory => run.out_of_memory.as_ref(),
        Fault::DiskFull => run.disk_failed.as_ref(),
        Fault::VmmOutOfMemory | Fault::MachineDied | Fault::Start => run.why.as_ref(),
        _ => None,
    };
    let detail = detail.and_then(|text| text.lines().next()).map(plain);
    match detail {
        Some(detail) => format!("{}: {detail}", fault.as_str()),
        None => fault.as_str().to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a run of a history, as its JSON says.
    pub(in crate::commands) fn record(fields: serde_json::Value) -> RunRecord {
        let mut all = serde_json::json!({
            "runner": "1-k3V9x0q", "name": "GH-runner-1-k3V9x0q", "loop": 1, "pool": "build", "repository": "acme/app",
            "job": "test (ubuntu-24.04, stable)", "jobs": 1, "how": "job_done",
            "times": { "slot_ms": 1000, "acquired_ms": 5000, "done_ms": 250_000, "over_ms": 251_000 },
        });
        all.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        serde_json::from_value(all).expect("a record")
    }

    fn runs() -> Vec<RunRecord> {
        let oom = serde_json::json!({"result": "Failed", "out_of_memory": "cc1plus", "runner": "12-aaaaaaa"});
        let died = serde_json::json!({
            "how": "machine_lost", "why": "the VMM was killed by signal 9\nmore", "repository": null,
            "job": "a very long name of a job\u{1b}[31m that nobody would type by hand, with a matrix (1, 2, 3)",
            "times": { "acquired_ms": 5000, "over_ms": 200_000_000 },
        });
        let not_up = serde_json::json!({
            "how": "not_up", "why": "cannot register runner GH-runner-1-k3V9x0q: 403", "job": null, "jobs": 0,
            "pool": null, "times": { "over_ms": 290_000 },
        });
        [
            serde_json::json!({"result": "Succeeded"}),
            serde_json::json!({"result": "Failed"}),
            oom,
            died,
            not_up,
        ]
        .map(record)
        .to_vec()
    }

    fn shown(columns: Option<usize>) -> String {
        let lines = table(&runs(), 200_300_000, columns);
        let text = anstream::adapter::strip_str(&lines.join("\n")).to_string();
        let widest = text.lines().map(|line| line.chars().count()).max().expect("lines");
        assert!(columns.is_none_or(|columns| widest <= columns), "{widest}");
        text
    }

    #[test]
    fn the_table_fits_into_80_columns_and_into_200() {
        insta::assert_snapshot!([shown(Some(80)), shown(Some(200)), shown(None)].join("\n\n"));
    }

    #[test]
    fn the_json_of_a_run_has_its_outcome_and_its_fault() {
        let run = &runs()[2];
        insta::assert_snapshot!(serde_json::to_string(&Row::of(run)).expect("json"));
    }
}

//! `dayfly jobs`: lists the jobs that wait and run, as the orchestrators of this host know them, and those that ended last.

use dayfly_fleet::fact::{Moment, SeenJob};
use dayfly_fleet::history::{Fault, Outcome, RunQuestion, RunRecord};
use dayfly_fleet::instance::{self, InstanceInfo};
use dayfly_fleet::status::{LoopStatus, PoolStatus, Status};
use serde::Serialize;

use super::{reload, runs};
use crate::cli::JobsArgs;
use crate::exit::{self, Failure, Result};
use crate::printer::{self, Column};
use crate::settings::Places;
use crate::units::{plain, short_span};

/// Runs of the history that are read for each job that is to be listed, because some runs had none.
const RUNS_PER_JOB: u32 = 10;

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Waiting,
    Running,
    Ended,
}

/// A job, or some jobs of which only the number is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    state: State,
    /// The instance of the process that knows it; none for one that has ended.
    instance: Option<String>,
    pool: Option<String>,
    /// Number of jobs; more than one only if nothing else is known of them.
    count: u32,
    job: Option<String>,
    job_id: Option<u64>,
    repository: Option<String>,
    workflow: Option<String>,
    labels: Vec<String>,
    queued_ms: Option<u64>,
    seen_ms: Option<u64>,
    runner: Option<String>,
    /// Start of its state, milliseconds since 1970-01-01 UTC.
    since_ms: Option<u64>,
    outcome: Option<Outcome>,
    fault: Option<Fault>,
}

pub(crate) fn run(places: &Places, args: &JobsArgs) -> Result<exit::Outcome> {
    let living = living(places)?;
    let mut rows: Vec<Row> =
        living.iter().flat_map(|(seen, status)| rows_of(&reload::name_of(seen), status)).collect();
    rows.retain(|row| args.pool.is_none() || row.pool == args.pool);
    rows.sort_by_key(|row| (row.state as u8, row.since_ms));
    if args.ended > 0 {
        let limit = args.ended.saturating_mul(RUNS_PER_JOB);
        let question = RunQuestion { pool: args.pool.clone(), limit, ..RunQuestion::default() };
        let ended = runs::open(places)?.runs(&question).map_err(Failure::cannot)?;
        let had_job = ended.iter().filter_map(ended_row);
        rows.extend(had_job.take(usize::try_from(args.ended).unwrap_or(usize::MAX)));
    }
    if args.json {
        rows.iter().for_each(printer::json);
    } else if rows.is_empty() {
        printer::note(format_args!(
            "no job waits, runs or has ended here (state in {})",
            places.state.display()
        ));
    } else {
        table(&rows, Moment::now().ms(), printer::columns()).into_iter().for_each(printer::line);
    }
    Ok(exit::Outcome::Success)
}

/// Returns the processes of this host that run loops, each with the status that it has published.
pub(super) fn living(places: &Places) -> Result<Vec<(InstanceInfo, Status)>> {
    let all = instance::all(&places.state).map_err(Failure::cannot)?;
    let with_status = |seen: InstanceInfo| {
        let status = Status::read(&seen.folder).ok().flatten().unwrap_or_default();
        (seen, status)
    };
    Ok(all.into_iter().filter(|seen| seen.alive).map(with_status).collect())
}

/// Returns the jobs that a process knows.
fn rows_of(instance: &str, status: &Status) -> Vec<Row> {
    let waiting = status.pools.values().flat_map(|pool| waiting(instance, pool));
    waiting.chain(status.loops.values().filter_map(|one| running(instance, one))).collect()
}

fn waiting(instance: &str, pool: &PoolStatus) -> Vec<Row> {
    let of = |job: &SeenJob| Row {
        pool: pool.name.clone(),
        since_ms: job.queued_ms.or(job.seen_ms),
        ..row(State::Waiting, Some(instance), job)
    };
    let mut rows: Vec<Row> = pool.jobs.values().map(of).collect();
    // A scale set may only count them.
    let unnamed = pool.waiting.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
    if unnamed > 0 {
        let unknown = row(State::Waiting, Some(instance), &SeenJob::default());
        rows.push(Row { pool: pool.name.clone(), count: unnamed, job_id: None, ..unknown });
    }
    rows
}

fn running(instance: &str, one: &LoopStatus) -> Option<Row> {
    let told = one.taken.clone();
    if one.job.is_none() && told.is_none() {
        return None;
    }
    let job_id = told.as_ref().map(|job| job.id);
    let known = row(State::Running, Some(instance), &told.unwrap_or_default());
    Some(Row {
        pool: one.pool.clone(),
        job: known.job.clone().or_else(|| one.job.clone()),
        job_id,
        runner: one.runner.clone(),
        since_ms: Some(one.since_ms),
        ..known
    })
}

/// Returns the job of a run of the history; none if it had none.
fn ended_row(run: &RunRecord) -> Option<Row> {
    if matches!(run.outcome(), Outcome::NoJob | Outcome::NotUp | Outcome::Running) {
        return None;
    }
    Some(Row {
        state: State::Ended,
        instance: None,
        pool: run.pool.clone(),
        count: 1,
        job: run.job.clone(),
        job_id: run.job_id,
        repository: run.repository.clone(),
        workflow: run.workflow.clone(),
        labels: Vec::new(),
        queued_ms: run.times.queued,
        seen_ms: run.times.seen,
        runner: Some(run.runner.clone()),
        since_ms: run.times.done.or(run.times.over),
        outcome: Some(run.outcome()),
        fault: run.fault(),
    })
}

fn row(state: State, instance: Option<&str>, job: &SeenJob) -> Row {
    Row {
        state,
        instance: instance.map(str::to_owned),
        pool: None,
        count: 1,
        job: job.name.clone(),
        job_id: Some(job.id),
        repository: job.repository.clone(),
        workflow: job.workflow.clone(),
        labels: job.labels.clone(),
        queued_ms: job.queued_ms,
        seen_ms: job.seen_ms,
        runner: None,
        since_ms: None,
        outcome: None,
        fault: None,
    }
}

const COLUMNS: [Column; 8] = [
    Column::whole("STATE"),
    Column::whole("FOR"),
    Column::cut("ID"),
    Column::cut("JOB"),
    Column::cut("REPOSITORY"),
    Column::cut("POOL"),
    Column::cut("RUN"),
    Column::cut("LABELS"),
];

/// Returns the lines of the table, cut to so many columns; none: not cut.
fn table(rows: &[Row], now_ms: u64, columns: Option<usize>) -> Vec<String> {
    let rows: Vec<[String; 8]> = rows.iter().map(|row| cells(row, now_ms)).collect();
    printer::fitted(&COLUMNS, &rows, columns)
}

fn cells(row: &Row, now_ms: u64) -> [String; 8] {
    let text = |text: Option<&String>| text.map_or_else(|| "-".to_owned(), |text| plain(text));
    let state = match (row.state, row.outcome) {
        (State::Waiting, _) => "waits",
        (State::Running, _) => "runs",
        (State::Ended, outcome) => outcome.unwrap_or(Outcome::Lost).as_str(),
    };
    let job = match row.count {
        1 => text(row.job.as_ref()),
        count => format!("({count} jobs)"),
    };
    [
        state.to_owned(),
        row.since_ms.map_or_else(|| "-".to_owned(), |ms| short_span(now_ms.saturating_sub(ms) / 1000)),
        row.job_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
        job,
        text(row.repository.as_ref()),
        text(row.pool.as_ref()),
        text(row.runner.as_ref()),
        plain(&row.labels.join(",")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: u64, name: &str) -> SeenJob {
        serde_json::from_value(serde_json::json!({
            "id": id, "name": name, "repository": "acme/app", "workflow": "ci", "labels": ["self-hosted", "build"],
            "queued_ms": 1000, "seen_ms": 2000,
        }))
        .expect("a job")
    }

    fn status() -> Status {
        let mut status = Status::default();
        let name = Some("build".to_owned());
        let jobs = [seen(41, "lint"), seen(42, "test (ubuntu-24.04, stable)")].map(|job| (job.id, job));
        status.pools.insert(
            0,
            PoolStatus { name: name.clone(), waiting: 5, jobs: jobs.into(), ..PoolStatus::default() },
        );
        let busy = LoopStatus {
            pool: name.clone(),
            runner: Some("1-k3V9x0q".to_owned()),
            job: Some("as the app prints it".to_owned()),
            since_ms: 31_000,
            ..LoopStatus::default()
        };
        let told = LoopStatus { taken: Some(seen(40, "deploy")), job: None, ..busy.clone() };
        let idle = LoopStatus { job: None, ..busy.clone() };
        status.loops.extend([(1, busy), (2, told), (3, idle)]);
        status
    }

    #[test]
    fn jobs_are_listed_with_what_is_known_of_them_and_fit_into_80_columns_and_200() {
        let mut rows = rows_of("k3V9", &status());
        let failed = serde_json::json!({"result": "Failed", "job_id": 39});
        rows.extend(ended_row(&runs::tests::record(failed)));
        assert!(ended_row(&runs::tests::record(serde_json::json!({"how": "not_up", "times": {}}))).is_none());
        let shown = |columns| {
            let lines = table(&rows, 301_000, Some(columns));
            let text = anstream::adapter::strip_str(&lines.join("\n")).to_string();
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
            text
        };
        let json: Vec<String> = rows.iter().map(|row| serde_json::to_string(row).expect("json")).collect();
        insta::assert_snapshot!([shown(80), shown(200), json.join("\n")].join("\n\n"));
    }
}

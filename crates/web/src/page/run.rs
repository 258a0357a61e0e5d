//! A run: its facts in short, its timeline, and its log with a search.

use axum::extract::{Path, Query, State};
use dayfly_fleet::RunnerId;
use dayfly_fleet::fact::Moment;
use dayfly_fleet::history::{Fault, History, Index, Outcome, RunRecord, parts_of};
use dayfly_host::quantity::quantity;
use maud::{Markup, html};
use serde::Deserialize;

use super::colours::coloured;
use super::layout::{Place, page};
use super::run_log::{self, ROWS_MAX, Row};
use super::text::{clock, foreign, moment, visible};
use super::timeline::chart;
use super::{Answer, Desk, Trouble, unreadable};

/// Longest text that is searched for, characters.
const WANTED_MAX: usize = 200;

/// The search in the log.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    q: String,
}

/// Returns the id that a path names.
pub(super) fn id(text: &str) -> Result<RunnerId, Trouble> {
    text.parse().map_err(|_| Trouble::Missing(format!("{text:?} is no id of a run.")))
}

pub(super) async fn show(
    State(desk): State<Desk>,
    Path(runner): Path<String>,
    Query(Search { q }): Query<Search>,
) -> Answer {
    let runner = id(&runner)?;
    let wanted: String = q.chars().take(WANTED_MAX).collect();
    desk.read(move |published| {
        let log = run_log::read(&published.state, &runner)?;
        let record = RunRecord::of_log(&log.records);
        let index = Index::open(&History::of(&published.state)).map_err(unreadable)?;
        let kept = index.find(runner.as_str(), 1).map_err(unreadable)?.pop();
        let Some(record) = better(kept, record) else {
            return Err(Trouble::Missing(format!("No run {runner} is known here.")));
        };
        let (rows, count) = run_log::search(&log.records, &wanted);
        let live = log.next.filter(|_| record.how.is_none() && wanted.is_empty());
        let main = html! {
            (facts(&record))
            (chart(&parts_of(&record.times, record.how.is_none().then(|| Moment::now().ms()))))
            (log_part(runner.as_str(), &wanted, &rows, count, live))
        };
        Ok(page(&format!("Run {runner}"), Place::Runs, &main))
    })
    .await
}

/// Returns the record that knows more. The history has only the job of a run that goes on; of an ended one it also has what came
/// after the end, as the forge's report, and it has runs whose log is gone.
fn better(kept: Option<RunRecord>, logged: Option<RunRecord>) -> Option<RunRecord> {
    match kept {
        Some(kept) if kept.how.is_some() => Some(kept),
        kept => logged.or(kept),
    }
}

fn facts(record: &RunRecord) -> Markup {
    let text = |text: &Option<String>| foreign(text.as_deref().unwrap_or("-"));
    let outcome = record.outcome();
    html! {
        h1 { "Run " (record.runner) }
        dl.facts {
            dt { "Result" } dd { (mark(outcome)) @if let Some(fault) = record.fault() { ": " (because(record, fault)) } }
            dt { "Job" } dd { (text(&record.job)) }
            dt { "Repository" } dd { (text(&record.repository)) }
            dt { "Workflow" } dd { (text(&record.workflow)) }
            dt { "Pool" } dd { (text(&record.pool)) }
            dt { "Machine" } dd { (foreign(&record.name)) @if let Some(start) = record.start { " (" (start.as_str()) ")" } }
            dt { "Began" } dd { @if let Some(at) = record.times.first() { (moment(at)) " UTC" } @else { "-" } }
        }
    }
}

/// Returns the word for an outcome, with its colour.
pub(super) fn mark(outcome: Outcome) -> Markup {
    html! { span.mark data-word=(outcome.as_str()) { (outcome.as_str()) } }
}

fn because(record: &RunRecord, fault: Fault) -> Markup {
    html! {
        (fault.to_string())
        @if let Some(why) = &record.why { ": " (foreign(why)) }
    }
}

fn log_part(runner: &str, wanted: &str, rows: &[Row], count: usize, live: Option<u64>) -> Markup {
    html! {
        h2 { "Log" }
        form.filters role="search" {
            label { "Search in the log " input type="search" name="q" value=(wanted) maxlength=(WANTED_MAX); }
            button { "Search" }
            @if !wanted.is_empty() { a href={ "/runs/" (runner) } { "Whole log" } }
        }
        p role="status" {
            @if !wanted.is_empty() { (quantity(count, "line contains", "lines contain")) " " bdi { (visible(wanted)) } ". " }
            @if count > rows.len() { "The last " (ROWS_MAX) " are shown." }
            @if count == 0 && wanted.is_empty() { "There is no log." }
        }
        div.log tabindex="0" role="region" aria-label="Log" {
            ol #log data-live=[live.map(|from| format!("/runs/{runner}/live?from={from}"))] { (self::rows(rows)) }
        }
    }
}

/// Returns the rows of a log.
pub(super) fn rows(rows: &[Row]) -> Markup {
    html! {
        @for row in rows {
            li.fact[!row.is_line] { span.at { (clock(row.at_ms)) " " } bdi { @if row.is_line { (coloured(&row.text)) } @else { (visible(&row.text)) } } }
        }
    }
}

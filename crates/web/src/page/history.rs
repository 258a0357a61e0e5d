//! The history in charts: waits and jobs at p50 and p95, throughput, failures by reason, machine minutes by repository.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use dayfly_fleet::fact::Moment;
use dayfly_fleet::history::{History, Index, Outcome, RunQuestion, RunRecord};
use dayfly_host::quantity::quantity;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Place, page, table};
use super::text::{date, foreign, span};
use super::{Answer, Desk, Trouble, unreadable};

/// Most runs that a chart counts: the newest ones.
const RUNS_MAX: u32 = 50_000;
/// Points of a chart.
const POINTS: usize = 28;
/// Rows of the tables.
const ROWS: usize = 12;
const MS_PER_DAY: u64 = 86_400_000;
const MS_PER_MIN: u64 = 60_000;
/// The spans that can be shown, days.
const SPANS: [u64; 4] = [1, 7, 30, 90];

/// The span of the charts.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct Span {
    days: String,
}

impl Default for Span {
    fn default() -> Self {
        Self { days: "7".to_owned() }
    }
}

pub(super) async fn show(State(desk): State<Desk>, Query(Span { days }): Query<Span>) -> Answer {
    let days = days.parse().ok().filter(|days| SPANS.contains(days));
    let days = days.ok_or_else(|| Trouble::Request("The days must be 1, 7, 30 or 90.".to_owned()))?;
    desk.read(move |published| {
        let index = Index::open(&History::of(&published.state)).map_err(unreadable)?;
        let to_ms = Moment::now().ms();
        let from_ms = to_ms.saturating_sub(days * MS_PER_DAY);
        let question = RunQuestion { since_ms: Some(from_ms), limit: RUNS_MAX, ..RunQuestion::default() };
        let mut runs = index.runs(&question).map_err(unreadable)?;
        // The history has the jobs of runs that go on, too.
        runs.retain(|run| run.how.is_some());
        let main = html! {
            h1 { "History" }
            nav.spans aria-label="Span" {
                @for span in SPANS {
                    a href={ "/history?days=" (span) } aria-current=[(span == days).then_some("page")] {
                        (quantity(span, "day", "days"))
                    }
                }
            }
            (charts(&Summary::of(&runs, from_ms, to_ms), runs.len()))
        };
        Ok(page("History", Place::History, &main))
    })
    .await
}

/// A part of the span.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Point {
    from_ms: u64,
    waits_ms: Vec<u64>,
    jobs_ms: Vec<u64>,
    succeeded: usize,
    failed: usize,
    others: usize,
}

/// The sums of the runs of a span.
#[derive(Debug, Default)]
struct Summary {
    points: Vec<Point>,
    faults: BTreeMap<&'static str, usize>,
    minutes: BTreeMap<String, u64>,
}

impl Summary {
    fn of(runs: &[RunRecord], from_ms: u64, to_ms: u64) -> Self {
        let width = (to_ms.saturating_sub(from_ms) / POINTS as u64).max(1);
        let points = (0..POINTS as u64).map(|at| Point { from_ms: from_ms + at * width, ..Point::default() });
        let mut summary = Self { points: points.collect(), ..Self::default() };
        for run in runs {
            let Some(last) = run.times.last() else { continue };
            let at = usize::try_from(last.saturating_sub(from_ms) / width).unwrap_or(POINTS).min(POINTS - 1);
            summary.points[at].take(run);
            if let Some(fault) = run.fault() {
                *summary.faults.entry(fault.as_str()).or_default() += 1;
            }
            if let (Some(repository), Some(ms)) = (&run.repository, machine_ms(run)) {
                *summary.minutes.entry(repository.clone()).or_default() += ms;
            }
        }
        for point in &mut summary.points {
            point.waits_ms.sort_unstable();
            point.jobs_ms.sort_unstable();
        }
        summary
    }
}

impl Point {
    fn take(&mut self, run: &RunRecord) {
        let times = &run.times;
        if let (Some(got), Some(seen)) = (times.acquired, times.seen.or(times.queued)) {
            self.waits_ms.push(got.saturating_sub(seen));
        }
        self.jobs_ms.extend(times.job_ms());
        match run.outcome() {
            Outcome::Success => self.succeeded += 1,
            Outcome::Failure | Outcome::Lost | Outcome::NotUp => self.failed += 1,
            Outcome::Cancelled | Outcome::Skipped => self.others += 1,
            Outcome::NoJob | Outcome::Running => {}
        }
    }
}

/// Returns the time for which a run had a machine.
fn machine_ms(run: &RunRecord) -> Option<u64> {
    Some(run.times.gone.or(run.times.over)?.saturating_sub(run.times.started?))
}

/// Returns the value below which so many percent of sorted values are.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1).min(last)).copied()
}

fn charts(summary: &Summary, count: usize) -> Markup {
    let points = &summary.points;
    let of = |values: fn(&Point) -> &[u64], percent| {
        points.iter().map(|point| percentile(values(point), percent)).collect::<Vec<_>>()
    };
    let lines = |values: fn(&Point) -> &[u64]| [("p50", of(values, 50)), ("p95", of(values, 95))];
    html! {
        p role="status" {
            (quantity(count, "run has ended", "runs have ended")) " in this time."
            @if count >= RUNS_MAX as usize { " Older ones are not counted." }
        }
        div.columns {
            section { h2 { "Wait for a runner" } (line_chart("Wait for a runner", points, &lines(|point| &point.waits_ms))) }
            section { h2 { "Time of jobs" } (line_chart("Time of jobs", points, &lines(|point| &point.jobs_ms))) }
            section { h2 { "Ended jobs" } (bar_chart(points)) }
            section { h2 { "Failures by reason" } (faults(&summary.faults)) }
            section { h2 { "Machine minutes" } (minutes(&summary.minutes)) }
        }
    }
}

const WIDTH: usize = 560;
const HEIGHT: usize = 160;

/// Returns lines of times, and the same as a table.
fn line_chart(title: &str, points: &[Point], lines: &[(&str, Vec<Option<u64>>)]) -> Markup {
    let most = lines.iter().flat_map(|(_, values)| values.iter().flatten()).max().copied();
    let Some(most) = most.map(|most| most.max(1)) else { return html! { p.none { "Nothing to show." } } };
    let x = |at: usize| at * WIDTH / (POINTS - 1);
    let y =
        |value: u64| HEIGHT - usize::try_from(value.saturating_mul(HEIGHT as u64) / most).unwrap_or(HEIGHT);
    html! {
        svg.chart viewBox={ "-4 -6 " (WIDTH + 8) " " (HEIGHT + 12) } role="img" aria-label={ (title) ": at most " (span(most)) } {
            line.axis x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            @for (name, values) in lines {
                @let known = known(values);
                @let path = known.iter().map(|(at, value)| format!("{},{}", x(*at), y(*value))).collect::<Vec<_>>().join(" ");
                polyline class={ "line " (name) } points=(path) {}
                @for (at, value) in &known {
                    circle class=(name) cx=(x(*at)) cy=(y(*value)) r="2.5" { title { (name) " " (span(*value)) } }
                }
            }
        }
        (legend(points, Some(most)))
        p.keys { @for (name, _) in lines { span.key data-word=(name) { (name) } " " } }
        details {
            summary { "As a table" }
            (table(title, &["From (UTC)", "p50", "p95"], &html! {
                @for (at, point) in points.iter().enumerate() {
                    tr {
                        th scope="row" { (date(point.from_ms)) }
                        @for (_, values) in lines {
                            td.number { @if let Some(value) = values[at] { (span(value)) } @else { "-" } }
                        }
                    }
                }
            }))
        }
    }
}

/// Returns the values that there are, with their places.
fn known(values: &[Option<u64>]) -> Vec<(usize, u64)> {
    values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?))).collect()
}

fn bar_chart(points: &[Point]) -> Markup {
    let most =
        points.iter().map(|point| point.succeeded + point.failed + point.others).max().unwrap_or_default();
    if most == 0 {
        return html! { p.none { "Nothing to show." } };
    }
    let step = WIDTH / POINTS;
    let height = |count: usize| count * HEIGHT / most;
    html! {
        svg.chart viewBox={ "-4 -6 " (WIDTH + 8) " " (HEIGHT + 12) } role="img" aria-label={ "Ended jobs: at most " (most) " at a time" } {
            line.axis x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
            @for (at, point) in points.iter().enumerate() {
                @let (good, bad, other) = (height(point.succeeded), height(point.failed), height(point.others));
                @let title = format!("{}: {} succeeded, {} failed, {} others", date(point.from_ms), point.succeeded, point.failed, point.others);
                g {
                    title { (title) }
                    rect.good x=(at * step + 2) width=(step - 4) y=(HEIGHT - good) height=(good) {}
                    rect.bad x=(at * step + 2) width=(step - 4) y=(HEIGHT - good - bad) height=(bad) {}
                    rect.other x=(at * step + 2) width=(step - 4) y=(HEIGHT - good - bad - other) height=(other) {}
                }
            }
        }
        (legend(points, None))
        p.keys {
            span.key data-word="good" { "succeeded" } " " span.key data-word="bad" { "failed" } " "
            span.key data-word="other" { "cancelled or skipped" }
        }
        details {
            summary { "As a table" }
            (table("Ended jobs", &["From (UTC)", "Succeeded", "Failed", "Others"], &html! {
                @for point in points {
                    tr {
                        th scope="row" { (date(point.from_ms)) }
                        td.number { (point.succeeded) } td.number { (point.failed) } td.number { (point.others) }
                    }
                }
            }))
        }
    }
}

fn legend(points: &[Point], most: Option<u64>) -> Markup {
    html! {
        p.axis-words {
            span { (points.first().map(|point| date(point.from_ms)).unwrap_or_default()) }
            @if let Some(most) = most { span { "top: " (span(most)) } }
            span { "now" }
        }
    }
}

fn faults(faults: &BTreeMap<&'static str, usize>) -> Markup {
    let mut rows: Vec<_> = faults.iter().collect();
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    if rows.is_empty() {
        return html! { p.none { "No run has failed." } };
    }
    table(
        "Failures by reason",
        &["Reason", "Runs"],
        &html! {
            @for (word, count) in rows { tr { th scope="row" { (word) } td.number { (count) } } }
        },
    )
}

fn minutes(minutes: &BTreeMap<String, u64>) -> Markup {
    let mut rows: Vec<_> = minutes.iter().collect();
    rows.sort_by_key(|(_, ms)| std::cmp::Reverse(**ms));
    let Some(most) = rows.first().map(|(_, ms)| (**ms).max(1)) else {
        return html! { p.none { "No machine has run." } };
    };
    let rest: u64 = rows.iter().skip(ROWS).map(|(_, ms)| **ms).sum();
    table(
        "Machine minutes by repository",
        &["Repository", "Minutes", ""],
        &html! {
            @for (name, ms) in rows.iter().take(ROWS) {
                tr {
                    th scope="row" { a href={ "/runs?repository=" (form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>()) } { (foreign(name)) } }
                    td.number { (**ms / MS_PER_MIN) }
                    td { meter min="0" max=(most) value=(ms) aria-hidden="true" {} }
                }
            }
            @if rest > 0 { tr { th scope="row" { "all others" } td.number { (rest / MS_PER_MIN) } td {} } }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(at: u64, wait: u64, job: u64, result: &str) -> RunRecord {
        serde_json::from_value(serde_json::json!({
            "runner": format!("1-{at:07}"), "name": "n", "loop": 1, "repository": "acme/app", "how": "job_done", "result": result,
            "times": { "seen_ms": at, "started_ms": at, "acquired_ms": at + wait, "done_ms": at + wait + job, "gone_ms": at + wait + job },
        }))
        .expect("a record")
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 95)), (Some(50), Some(95)));
        assert_eq!(
            (percentile(&[7], 50), percentile(&[7], 95), percentile(&[], 50)),
            (Some(7), Some(7), None)
        );
    }

    #[test]
    fn runs_are_counted_at_their_end_and_machine_time_by_repository() {
        let to = POINTS as u64 * 1000;
        let runs =
            [run(0, 100, 200, "Succeeded"), run(500, 300, 100, "Failed"), run(to - 100, 0, 90, "Succeeded")];
        let summary = Summary::of(&runs, 0, to);
        assert_eq!(summary.points[0].waits_ms, [100, 300]);
        assert_eq!((summary.points[0].succeeded, summary.points[0].failed), (1, 1));
        assert_eq!(summary.points[POINTS - 1].succeeded, 1);
        assert_eq!(summary.faults.into_iter().collect::<Vec<_>>(), [("steps", 1)]);
        assert_eq!(
            summary.minutes.into_iter().collect::<Vec<_>>(),
            [("acme/app".to_owned(), 300 + 400 + 90)]
        );
    }

    #[test]
    fn a_history_without_runs_has_charts_that_say_so() {
        let text = charts(&Summary::of(&[], 0, 1000), 0).into_string();
        assert_eq!(text.matches("Nothing to show").count(), 3);
    }
}

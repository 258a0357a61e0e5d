//! The runs of the history, with filters.

use axum::extract::{Query, State};
use dayfly_fleet::history::{History, Index, Outcome, RunQuestion, RunRecord};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Place, page, table};
use super::run::mark;
use super::text::{foreign, moment, span};
use super::{Answer, Desk, Trouble, unreadable};

/// The address, before its filters.
const PATH: &str = "/runs?";
/// Runs of a page.
const ROWS: usize = 100;
/// Runs that are read to find those of a length.
const READ_MAX: u32 = 5000;
const MS_PER_MIN: u64 = 60_000;

/// The filters, as a form sends them: an empty one counts as none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filters {
    repository: String,
    pool: String,
    conclusion: String,
    /// Shortest job, minutes.
    minutes: String,
    /// Only runs that ended before this time, milliseconds since 1970-01-01 UTC.
    before: String,
}

/// The filters after a check.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    question: RunQuestion,
    job_ms_min: Option<u64>,
}

impl Filters {
    fn check(&self) -> Result<Wanted, Trouble> {
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let number = |name: &str, value: &str| match value.trim() {
            "" => Ok(None),
            value => value.parse::<u64>().map(Some).map_err(|_| {
                Trouble::Request(format!("The filter {name} must be a whole number, and {value:?} is none."))
            }),
        };
        let outcome = text(&self.conclusion).map(|word| word.parse::<Outcome>()).transpose();
        let job_ms_min = number("minutes", &self.minutes)?.map(|minutes| minutes.saturating_mul(MS_PER_MIN));
        let limit = if job_ms_min.is_some() { READ_MAX } else { ROWS as u32 + 1 };
        let question = RunQuestion {
            pool: text(&self.pool),
            repository: text(&self.repository),
            outcome: outcome.map_err(Trouble::Request)?,
            since_ms: None,
            before_ms: number("before", &self.before)?,
            limit,
        };
        Ok(Wanted { question, job_ms_min })
    }

    /// Returns the address of the page with the runs before a time.
    fn older(&self, before_ms: u64) -> String {
        let mut pairs = form_urlencoded::Serializer::for_suffix(PATH.to_owned(), PATH.len());
        for (name, value) in [
            ("repository", &self.repository),
            ("pool", &self.pool),
            ("conclusion", &self.conclusion),
            ("minutes", &self.minutes),
        ] {
            if !value.is_empty() {
                pairs.append_pair(name, value);
            }
        }
        pairs.append_pair("before", &before_ms.to_string());
        pairs.finish()
    }
}

pub(super) async fn show(State(desk): State<Desk>, Query(filters): Query<Filters>) -> Answer {
    let Wanted { question, job_ms_min } = filters.check()?;
    let pools: Vec<String> =
        desk.published.site.borrow().pools.iter().map(|pool| pool.name.clone()).collect();
    desk.read(move |published| {
        let index = Index::open(&History::of(&published.state)).map_err(unreadable)?;
        let mut runs = index.runs(&question).map_err(unreadable)?;
        if let Some(least) = job_ms_min {
            runs.retain(|run| run.times.job_ms().is_some_and(|ms| ms >= least));
        }
        let has_more = runs.len() > ROWS;
        runs.truncate(ROWS);
        let older = runs.last().filter(|_| has_more).and_then(ended).map(|at| filters.older(at));
        let main = html! {
            h1 { "Runs" }
            (form(&filters, &pools))
            (list(&runs))
            @if let Some(older) = older { p { a href=(older) rel="next" { "Older runs" } } }
        };
        Ok(page("Runs", Place::Runs, &main))
    })
    .await
}

fn form(filters: &Filters, pools: &[String]) -> Markup {
    html! {
        form.filters role="search" {
            label { "Repository " input name="repository" value=(filters.repository) placeholder="owner/name"; }
            label { "Pool "
                select name="pool" {
                    option value="" { "all" }
                    @for pool in pools { option value=(pool) selected[*pool == filters.pool] { (pool) } }
                    @if !filters.pool.is_empty() && !pools.contains(&filters.pool) {
                        option value=(filters.pool) selected { (filters.pool) }
                    }
                }
            }
            label { "Result "
                select name="conclusion" {
                    option value="" { "all" }
                    @for outcome in Outcome::ALL {
                        @let word = outcome.as_str();
                        option value=(word) selected[word == filters.conclusion] { (word) }
                    }
                }
            }
            label { "Minutes at least " input name="minutes" value=(filters.minutes) inputmode="numeric" size="4"; }
            button { "Show" }
        }
    }
}

fn ended(run: &RunRecord) -> Option<u64> {
    run.times.last()
}

fn list(runs: &[RunRecord]) -> Markup {
    if runs.is_empty() {
        return html! { p.none { "No run is as asked for." } };
    }
    let text = |text: &Option<String>| foreign(text.as_deref().unwrap_or("-"));
    let wait_ms = |run: &RunRecord| {
        let times = &run.times;
        Some(times.acquired?.saturating_sub(times.seen.or(times.queued)?))
    };
    let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), span);
    let rows = html! {
        @for run in runs {
            tr {
                th scope="row" { a href={ "/runs/" (run.runner) } { (run.runner) } }
                td { (mark(run.outcome())) @if let Some(fault) = run.fault() { " " span.why { (fault.as_str()) } } }
                td { (text(&run.job)) }
                td { (text(&run.repository)) }
                td { (text(&run.pool)) }
                td { @if let Some(start) = run.start { (start.as_str()) } @else { "-" } }
                td.number { (time(wait_ms(run))) }
                td.number { (time(run.times.job_ms())) }
                td { @if let Some(at) = ended(run).filter(|_| run.how.is_some()) { (moment(at)) } @else { "-" } }
            }
        }
    };
    table(
        "Runs",
        &["Run", "Result", "Job", "Repository", "Pool", "Start", "Waited", "Ran", "Ended (UTC)"],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        let mut filters = Filters::default();
        for (name, value) in pairs {
            *match *name {
                "repository" => &mut filters.repository,
                "pool" => &mut filters.pool,
                "conclusion" => &mut filters.conclusion,
                "minutes" => &mut filters.minutes,
                _ => &mut filters.before,
            } = (*value).to_owned();
        }
        filters
    }

    #[test]
    fn a_wrong_filter_gets_one_clear_message() {
        let message = |name, value| match filters(&[(name, value)]).check() {
            Err(Trouble::Request(message)) => message,
            other => panic!("{other:?}"),
        };
        insta::assert_snapshot!(
            [
                message("conclusion", "nice"),
                message("minutes", "ten"),
                message("minutes", "-1"),
                message("before", "1e9"),
            ]
            .join("\n"),
            @r#"
        "nice" is no conclusion; they are running, success, failure, cancelled, skipped, lost, no-job, not-up
        The filter minutes must be a whole number, and "ten" is none.
        The filter minutes must be a whole number, and "-1" is none.
        The filter before must be a whole number, and "1e9" is none.
        "#
        );
    }

    #[test]
    fn empty_filters_are_none_and_the_next_page_keeps_the_others() {
        let wanted = filters(&[("pool", " ")]).check().expect("good");
        assert_eq!(wanted.question, RunQuestion { limit: ROWS as u32 + 1, ..RunQuestion::default() });
        let wanted = filters(&[("minutes", "3"), ("conclusion", "failure")]).check().expect("good");
        assert_eq!(wanted.job_ms_min, Some(180_000));
        let older = filters(&[("repository", "a/b&c"), ("before", "9")]).older(7);
        assert_eq!(older, "/runs?repository=a%2Fb%26c&before=7");
    }
}

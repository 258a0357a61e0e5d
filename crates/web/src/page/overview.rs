//! The overview: pools with the reasons of their waits, runners, jobs that wait, the host's budget, the forges.

use axum::extract::State;
use dayfly_fleet::fact::Moment;
use dayfly_fleet::state::Phase;
use dayfly_fleet::status::{LoopStatus, PoolState, PoolStatus, Status};
use dayfly_fleet::why::{self, Process, Reason, Situation};
use maud::{Markup, html};

use super::layout::{Place, page, table};
use super::text::{foreign, since, size, span};
use super::{Answer, Desk};
use crate::pools_now::{PoolNow, pools_now};
use crate::publish::{ForgeAccount, Site};

/// Most rows of each table.
const ROWS_MAX: usize = 200;
const BYTES_PER_MIB: u64 = 1 << 20;

pub(super) async fn show(State(desk): State<Desk>) -> Answer {
    let frame = desk.frames.overview(&desk.published);
    let main = html! { div #live data-live="/live" { (maud::PreEscaped(&*frame)) } };
    Ok(page("Overview", Place::Overview, &main))
}

/// Returns the part of the page that changes.
pub(super) fn part(status: &Status, site: &Site) -> Markup {
    let now_ms = Moment::now().ms();
    let pools = pools_now(status, site);
    html! {
        h1 { "Overview" }
        (summary(&pools, status, now_ms))
        h2 { "Pools" }
        (pool_table(&pools, status, now_ms))
        h2 { "Jobs that wait" }
        (waiting(status, now_ms))
        h2 { "Runners" }
        (runners(status, now_ms))
        div.columns {
            section { h2 { "This host" } (budget(status, site, &pools)) }
            section { h2 { "Forges" } (forges(&site.forges)) }
        }
    }
}

fn summary(pools: &[PoolNow<'_>], status: &Status, now_ms: u64) -> Markup {
    let sum = |value: fn(&PoolNow<'_>) -> u32| pools.iter().map(value).sum::<u32>();
    html! {
        ul.summary {
            li { strong { (sum(|pool| pool.busy)) } " jobs run" }
            li { strong { (sum(|pool| pool.waiting())) } " jobs wait" }
            li { strong { (sum(|pool| pool.in_phase(Phase::Idle))) } " runners are idle" }
            li { strong { (sum(|pool| pool.machines)) } " machines" }
            li { "process " (status.pid) " since " (since(status.began_ms, now_ms)) }
        }
    }
}

fn pool_table(pools: &[PoolNow<'_>], status: &Status, now_ms: u64) -> Markup {
    let process = Process { status: status.clone(), ..Process::default() };
    let situation = Situation { processes: vec![process], now_ms, ..Situation::default() };
    let rows = html! {
        @for pool in pools.iter().take(ROWS_MAX) {
            tr {
                th scope="row" { (foreign(if pool.name.is_empty() { "-" } else { pool.name })) }
                td { (state_mark(pool.status)) }
                td.number { (pool.waiting()) }
                td.number { (pool.busy) }
                td.number { (pool.in_phase(Phase::Idle)) }
                td.number {
                    (pool.in_phase(Phase::Preparing) + pool.in_phase(Phase::Booting) + pool.in_phase(Phase::Starting))
                }
                td.number { @if let Some(entry) = pool.entry { (entry.max) } @else { "-" } }
            }
            // A row of its own, because the sentences do not fit beside the numbers on a phone.
            @let reasons = reasons(pool, &situation);
            @if !reasons.is_empty() {
                tr { td.reason colspan="7" {
                    @for reason in &reasons {
                        p { (foreign(&reason.text)) @if let Some(todo) = &reason.todo { " " span.todo { (foreign(todo)) } } }
                    }
                } }
            }
        }
        @if pools.is_empty() { tr { td colspan="7" { "There is no pool yet." } } }
    };
    table("Pools", &["Pool", "State", "Wait", "Busy", "Idle", "Start", "Most"], &rows)
}

fn state_mark(status: Option<&PoolStatus>) -> Markup {
    let word = match status.map(|status| status.state).unwrap_or_default() {
        PoolState::Running => "running",
        PoolState::Paused => "paused",
        PoolState::Draining => "draining",
        PoolState::GivenUp => "given up",
    };
    html! { span.mark data-word=(word) { (word) } }
}

/// Returns the sentences about a pool whose jobs wait, or that has a trouble.
fn reasons(pool: &PoolNow<'_>, situation: &Situation) -> Vec<Reason> {
    let has_some = pool.status.is_some_and(|status| status.wait.is_some() || !status.forge.is_empty());
    if has_some { why::explain(pool.name, situation) } else { Vec::new() }
}

fn waiting(status: &Status, now_ms: u64) -> Markup {
    let jobs = status.pools.values().flat_map(|pool| pool.jobs.values().map(move |job| (pool, job)));
    let mut jobs: Vec<_> = jobs.collect();
    if jobs.is_empty() {
        return html! { p.none { "No job is known to wait." } };
    }
    jobs.sort_by_key(|(_, job)| job.queued_ms.or(job.seen_ms));
    let rows = html! {
        @for (pool, job) in jobs.iter().take(ROWS_MAX) {
            tr {
                th scope="row" { (foreign(job.name.as_deref().unwrap_or("-"))) }
                td { @if let Some(at) = job.queued_ms.or(job.seen_ms) { (since(at, now_ms)) } @else { "-" } }
                td { (foreign(job.repository.as_deref().unwrap_or("-"))) }
                td { (foreign(job.workflow.as_deref().unwrap_or("-"))) }
                td { (foreign(pool.name.as_deref().unwrap_or("-"))) }
            }
        }
        (more(jobs.len(), 5))
    };
    table("Jobs that wait", &["Job", "Since", "Repository", "Workflow", "Pool"], &rows)
}

fn runners(status: &Status, now_ms: u64) -> Markup {
    let runs = |one: &&LoopStatus| one.phase != Phase::Ended;
    let mut loops: Vec<&LoopStatus> = status.loops.values().filter(runs).collect();
    if loops.is_empty() {
        return html! { p.none { "No runner is here." } };
    }
    loops.sort_by_key(|one| (one.phase != Phase::Busy, one.since_ms));
    let rows = html! {
        @for one in loops.iter().take(ROWS_MAX) {
            tr {
                th scope="row" { (runner_link(one)) }
                td { (foreign(job_of(one))) }
                td { span.mark data-word=(one.phase.as_str()) { (one.phase.as_str()) } }
                td { (since(one.since_ms, now_ms)) }
                td { (foreign(one.pool.as_deref().unwrap_or("-"))) }
                td { (foreign(one.taken.as_ref().and_then(|job| job.repository.as_deref()).unwrap_or("-"))) }
            }
        }
        (more(loops.len(), 6))
    };
    table("Runners", &["Runner", "Job", "Phase", "Since", "Pool", "Repository"], &rows)
}

fn runner_link(one: &LoopStatus) -> Markup {
    match &one.runner {
        Some(runner) => html! { a href={ "/runs/" (runner) } { (runner) } },
        None => html! { "-" },
    }
}

fn job_of(one: &LoopStatus) -> &str {
    let told = one.taken.as_ref().and_then(|job| job.name.as_deref());
    one.job
        .as_deref()
        .or(told)
        .or(one.trouble.as_deref().filter(|_| one.phase == Phase::Pausing))
        .unwrap_or("-")
}

/// Returns a row about rows that are not shown.
fn more(count: usize, columns: usize) -> Markup {
    html! {
        @if count > ROWS_MAX { tr { td colspan=(columns) { "and " (count - ROWS_MAX) " more" } } }
    }
}

fn budget(status: &Status, site: &Site, pools: &[PoolNow<'_>]) -> Markup {
    let sum = |size: fn(&crate::publish::PoolEntry) -> u64| {
        pools.iter().filter_map(|pool| Some(u64::from(pool.machines) * size(pool.entry?))).sum::<u64>()
    };
    let machines = pools.iter().map(|pool| u64::from(pool.machines)).sum::<u64>();
    let number = |value: u64| value.to_string();
    let mib = |value: u64| size(value.saturating_mul(BYTES_PER_MIB));
    let budget = site.budget;
    html! {
        dl.meters {
            (meter("Machines", machines, budget.machines.map(u64::from), number))
            (meter("Virtual CPUs", sum(|entry| u64::from(entry.vcpus)), budget.vcpus.map(u64::from), number))
            (meter("Memory", sum(|entry| u64::from(entry.memory_mib)), budget.memory_mib, mib))
            @if let Some(scratch) = status.scratch {
                (meter("Scratch space", scratch.used_mib, scratch.limit_mib, mib))
            }
        }
    }
}

fn meter(word: &str, used: u64, limit: Option<u64>, shown: impl Fn(u64) -> String) -> Markup {
    html! {
        dt { (word) }
        dd {
            @match limit {
                Some(limit) => {
                    meter min="0" max=(limit.max(1)) value=(used.min(limit)) high=(limit * 9 / 10) aria-label=(word) {}
                    " " (shown(used)) " of " (shown(limit))
                },
                None => { (shown(used)) },
            }
        }
    }
}

fn forges(forges: &[ForgeAccount]) -> Markup {
    html! {
        dl.meters {
            @for forge in forges {
                @let usage = forge.credential.usage();
                dt { (foreign(&forge.name)) }
                @if let Some(blocked) = usage.blocked_for {
                    dd.bad { "takes no calls for " (span(u64::try_from(blocked.as_millis()).unwrap_or(u64::MAX))) }
                }
                @for limit in &usage.limits {
                    dd {
                        meter min="0" max=(limit.limit.max(1)) value=(limit.remaining) low=(limit.limit / 10)
                            aria-label={ "Calls left: " (limit.resource) } {}
                        " " (limit.remaining) " of " (limit.limit) " calls left (" (foreign(&limit.resource)) ")"
                    }
                }
                @if usage.limits.is_empty() { dd.none { "tells no limits" } }
            }
            @if forges.is_empty() { dt.none { "none yet" } }
        }
    }
}

#[cfg(test)]
mod tests;

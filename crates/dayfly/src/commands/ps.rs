//! `dayfly ps`: lists the loops, runners and VMs of every instance of this host.

use dayfly_fleet::instance::{self, InstanceInfo};
use dayfly_fleet::status::{LoopStatus, Status};
use serde::Serialize;

use crate::cli::PsArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;

/// One loop of one instance.
#[derive(Debug, Serialize)]
struct Row {
    instance: String,
    /// True if the instance's process lives. If not, the next start with the same forge, scope and prefix cleans up.
    alive: bool,
    pid: Option<u32>,
    forge: Option<String>,
    scope: Option<String>,
    /// True if the forge is a lab inside the instance's own process.
    private_lab: bool,
    #[serde(rename = "loop")]
    index: Option<u32>,
    #[serde(flatten)]
    status: Option<LoopStatus>,
}

impl Row {
    fn pool(&self) -> Option<&str> {
        self.status.as_ref()?.pool.as_deref()
    }
}

pub(crate) fn run(places: &Places, args: &PsArgs) -> Result<Outcome> {
    let instances = instance::all(&places.state).map_err(Failure::cannot)?;
    let rows: Vec<Row> = instances.iter().flat_map(rows_of).collect();
    if args.json {
        printer::json(&rows);
    } else if rows.is_empty() {
        printer::note(format_args!("no loops run here (state in {})", places.state.display()));
    } else {
        table(&rows);
    }
    Ok(Outcome::Success)
}

fn rows_of(seen: &InstanceInfo) -> Vec<Row> {
    let name = seen.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // An instance that is just starting, or one from before status files existed, has no status.
    let status = Status::read(&seen.folder).ok().flatten();
    let row = |index, loop_status: Option<LoopStatus>| {
        let pool = loop_status.as_ref().and_then(|status| status.pool.as_ref());
        let of_pool = seen.serves.iter().find(|serves| serves.pool.as_ref() == pool);
        let serves = of_pool.or_else(|| seen.serves.first());
        Row {
            instance: name.clone(),
            alive: seen.alive,
            pid: status.as_ref().map(|status| status.pid),
            forge: serves.map(|serves| serves.forge.clone()),
            scope: serves.map(|serves| serves.scope.to_string()),
            private_lab: serves.is_some_and(|serves| serves.private_lab),
            index,
            status: loop_status,
        }
    };
    match &status {
        Some(status) if !status.loops.is_empty() => {
            status.loops.iter().map(|(&index, status)| row(Some(index), Some(status.clone()))).collect()
        }
        _ => vec![row(None, None)],
    }
}

fn table(rows: &[Row]) {
    let now_ms = u64::try_from(dayfly_host::clock::since_epoch().as_millis()).unwrap_or(u64::MAX);
    let cells = rows.iter().map(|row| cells(row, now_ms));
    // Only a configuration file names pools.
    if rows.iter().any(|row| row.pool().is_some()) {
        printer::table(HEAD, cells);
    } else {
        printer::table(without_pool(HEAD), cells.map(without_pool));
    }
}

/// The columns of the table.
const HEAD: [&str; 9] = ["INSTANCE", "POOL", "LOOP", "RUNNER", "STATE", "FOR", "JOBS", "VM", "SCOPE"];

fn without_pool<T>([instance, _, index, runner, state, since, jobs, vm, scope]: [T; 9]) -> [T; 8] {
    [instance, index, runner, state, since, jobs, vm, scope]
}

fn cells(row: &Row, now_ms: u64) -> [String; 9] {
    let nothing = || "-".to_owned();
    let Some(status) = &row.status else {
        let state = match (row.alive, row.private_lab) {
            (false, _) => "abandoned",
            (true, true) => "a demo",
            (true, false) => "starting",
        };
        let state = state.to_owned();
        let scope = row.scope.clone().unwrap_or_else(nothing);
        let mut cells = HEAD.map(|_| nothing());
        (cells[0], cells[4], cells[8]) = (row.instance.clone(), state, scope);
        return cells;
    };
    let state = match (&status.job, row.alive) {
        (_, false) => "abandoned".to_owned(),
        (Some(job), true) => format!("busy: {}", cut(job, 24)),
        (None, true) => status.phase.as_str().to_owned(),
    };
    [
        row.instance.clone(),
        row.pool().unwrap_or("-").to_owned(),
        row.index.map_or_else(nothing, |index| index.to_string()),
        status.runner.clone().unwrap_or_else(nothing),
        state,
        age(now_ms.saturating_sub(status.since_ms) / 1000),
        status.jobs.to_string(),
        status.vmm.map_or_else(nothing, |pid| pid.to_string()),
        row.scope.clone().unwrap_or_else(nothing),
    ]
}

/// Shortens a job's name and removes control characters, because the guest chooses the name and a terminal shows it.
fn cut(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayfly_fleet::status::Phase;

    #[test]
    fn a_row_tells_what_a_loop_does() {
        let status = LoopStatus {
            phase: Phase::Busy,
            runner: Some("1-k3V9x0q".into()),
            vmm: Some(42),
            job: Some("build\u{1b}[31m a very long name of a job".into()),
            jobs: 3,
            ..LoopStatus::default()
        };
        let mut row = Row {
            instance: "a".into(),
            alive: true,
            pid: Some(1),
            forge: None,
            scope: Some("o/r".into()),
            private_lab: false,
            index: Some(1),
            status: Some(status),
        };
        let text = cells(&row, 61_000).join("|");
        assert_eq!(text, "a|-|1|1-k3V9x0q|busy: build[31m a very long na|1m|3|42|o/r");
        row.alive = false;
        assert_eq!(cells(&row, 0)[4], "abandoned");
        row.status = None;
        assert_eq!(cells(&row, 0).join("|"), "a|-|-|-|abandoned|-|-|-|o/r");
    }
}

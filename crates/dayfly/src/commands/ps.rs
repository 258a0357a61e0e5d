//! `dayfly ps`: lists the loops, runners and VMs of every instance of this host, the pools that are paused, drain, or have
//! jobs that wait, and what processes have left that have died.

mod left;

use dayfly_fleet::fact::Moment;
use dayfly_fleet::instance::{self, InstanceInfo};
use dayfly_fleet::remains::{self, Remains};
use dayfly_fleet::status::{LoopStatus, PoolState, PoolStatus, Status};
use dayfly_host::quantity::quantity;
use serde::Serialize;

use crate::cli::PsArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;
use crate::units::short_span;

#[cfg(test)]
pub(in crate::commands) use left::tests::three as left_for_tests;
pub(in crate::commands) use left::{host_of, name_of};

/// One loop of one instance, or one of its pools, or a whole instance whose process has died.
#[derive(Debug, Serialize)]
struct Row {
    instance: String,
    /// True if the instance's process lives. If not, the row is about the whole instance.
    alive: bool,
    pid: Option<u32>,
    forge: Option<String>,
    scope: Option<String>,
    /// True if the forge is a lab inside the instance's own process.
    private_lab: bool,
    #[serde(rename = "loop")]
    index: Option<u32>,
    /// None if the pool runs and no job waits for it.
    #[serde(flatten)]
    mark: Option<PoolMark>,
    /// None for a loop.
    #[serde(flatten)]
    whole_pool: Option<WholePool>,
    #[serde(flatten)]
    status: Option<LoopStatus>,
    /// The remains of the instance, if its process has died.
    #[serde(skip_serializing_if = "Option::is_none")]
    abandoned: Option<Remains>,
}

/// The state of a pool; also beside each of its loops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PoolMark {
    pool_state: PoolState,
    /// Jobs that wait for a runner of the pool.
    waiting: u32,
    /// True if a source of its demand cannot use the forge; `dayfly why POOL` says more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forge_lost: bool,
}

/// A pool that has a row of its own.
#[derive(Debug, Serialize)]
struct WholePool {
    pool: Option<String>,
    /// Start of its state, milliseconds since 1970-01-01 UTC.
    since_ms: u64,
}

impl Row {
    fn pool(&self) -> Option<&str> {
        let of_pool = self.whole_pool.as_ref().and_then(|whole| whole.pool.as_deref());
        of_pool.or_else(|| self.status.as_ref()?.pool.as_deref())
    }
}

impl From<&PoolStatus> for PoolMark {
    fn from(pool: &PoolStatus) -> Self {
        Self { pool_state: pool.state, waiting: pool.waiting, forge_lost: !pool.forge.is_empty() }
    }
}

impl PoolMark {
    /// Returns the state in words.
    fn text(&self) -> String {
        let jobs = match self.waiting {
            0 => None,
            count => Some(quantity(count, "job waits", "jobs wait")),
        };
        let state = match self.pool_state {
            PoolState::Running => None,
            PoolState::Paused => Some("paused".to_owned()),
            PoolState::Draining => Some("draining".to_owned()),
            PoolState::GivenUp => Some("given up".to_owned()),
        };
        let forge = self.forge_lost.then(|| "forge lost".to_owned());
        let all: Vec<String> = state.into_iter().chain(jobs).chain(forge).collect();
        // Jobs are told one by one, so the number may come later.
        if all.is_empty() { "running".to_owned() } else { all.join(", ") }
    }
}

pub(crate) fn run(places: &Places, args: &PsArgs) -> Result<Outcome> {
    let instances = instance::all(&places.state).map_err(Failure::cannot)?;
    let (alive, dead): (Vec<_>, Vec<_>) = instances.iter().partition(|seen| seen.alive);
    let mut rows: Vec<Row> = alive.into_iter().flat_map(rows_of).collect();
    let left: Vec<Remains> = dead
        .iter()
        .map(|seen| remains::of(seen))
        .collect::<std::result::Result<_, _>>()
        .map_err(Failure::cannot)?;
    if args.json {
        let abandoned = dead.iter().zip(left);
        rows.extend(abandoned.map(|(seen, left)| Row { abandoned: Some(left), ..blank(seen, None, None) }));
        printer::json(&rows);
        return Ok(Outcome::Success);
    }
    if rows.is_empty() {
        printer::note(format_args!("no loops run here (state in {})", places.state.display()));
    } else {
        table(&rows);
    }
    if !left.is_empty() {
        left::show(&left, Moment::now().ms());
    }
    Ok(Outcome::Success)
}

fn rows_of(seen: &InstanceInfo) -> Vec<Row> {
    // An instance that is just starting, or one from before status files existed, has no status.
    let status = Status::read(&seen.folder).unwrap_or_else(|error| {
        // Its process writes it again with its next fact.
        printer::warning(format_args!("the status in {} cannot be read: {error}", seen.folder.display()));
        None
    });
    let Some(status) = status else {
        return vec![blank(seen, None, None)];
    };
    let blank = |pool: Option<&String>| blank(seen, Some(status.pid), pool);
    let pools = status.pools.iter().map(|(&first, pool)| {
        let whole_pool = WholePool { pool: pool.name.clone(), since_ms: pool.since_ms };
        (first, Row { mark: Some(pool.into()), whole_pool: Some(whole_pool), ..blank(pool.name.as_ref()) })
    });
    let loops = status.loops.iter().map(|(&index, one)| {
        let mark = status.pool_of(index).map(PoolMark::from);
        (index, Row { index: Some(index), mark, status: Some(one.clone()), ..blank(one.pool.as_ref()) })
    });
    // A pool comes before its loops.
    let mut rows: Vec<(u32, Row)> = pools.chain(loops).collect();
    rows.sort_by_key(|(number, row)| (*number, row.index));
    match rows.is_empty() {
        true => vec![blank(None)],
        false => rows.into_iter().map(|(_, row)| row).collect(),
    }
}

/// Returns a row of an instance without a state.
fn blank(seen: &InstanceInfo, pid: Option<u32>, pool: Option<&String>) -> Row {
    let of_pool = seen.serves.iter().find(|serves| serves.pool.as_ref() == pool);
    let serves = of_pool.or_else(|| seen.serves.first());
    Row {
        instance: super::reload::name_of(seen),
        alive: seen.alive,
        pid,
        forge: serves.map(|serves| serves.forge.clone()),
        scope: serves.map(|serves| serves.scope.to_string()),
        private_lab: serves.is_some_and(|serves| serves.private_lab),
        index: None,
        mark: None,
        whole_pool: None,
        status: None,
        abandoned: None,
    }
}

fn table(rows: &[Row]) {
    let now_ms = Moment::now().ms();
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
    let since = |ms: u64| short_span(now_ms.saturating_sub(ms) / 1000);
    if let (Some(whole), Some(mark)) = (&row.whole_pool, &row.mark) {
        let mut cells = HEAD.map(|_| nothing());
        cells[0].clone_from(&row.instance);
        cells[1] = whole.pool.clone().unwrap_or_else(nothing);
        cells[4] = mark.text();
        // The number of jobs has no beginning.
        if mark.pool_state != PoolState::Running {
            cells[5] = since(whole.since_ms);
        }
        cells[8] = row.scope.clone().unwrap_or_else(nothing);
        return cells;
    }
    let Some(status) = &row.status else {
        // A process writes its status once its pools are prepared.
        let state = match (row.private_lab, row.pid) {
            (true, _) => "a demo",
            (false, None) => "starting",
            (false, Some(_)) => "no loop",
        };
        let state = state.to_owned();
        let scope = row.scope.clone().unwrap_or_else(nothing);
        let mut cells = HEAD.map(|_| nothing());
        (cells[0], cells[4], cells[8]) = (row.instance.clone(), state, scope);
        return cells;
    };
    let state = match &status.job {
        Some(job) => format!("busy: {}", cut(job, 24)),
        None => status.phase.as_str().to_owned(),
    };
    [
        row.instance.clone(),
        row.pool().unwrap_or("-").to_owned(),
        row.index.map_or_else(nothing, |index| index.to_string()),
        status.runner.clone().unwrap_or_else(nothing),
        state,
        since(status.since_ms),
        status.jobs.to_string(),
        status.vmm.map_or_else(nothing, |pid| pid.to_string()),
        row.scope.clone().unwrap_or_else(nothing),
    ]
}

/// Shortens a job's name and removes control characters, because the guest chooses the name and a terminal shows it.
fn cut(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
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
            mark: None,
            whole_pool: None,
            status: Some(status),
            abandoned: None,
        };
        let text = cells(&row, 61_000).join("|");
        assert_eq!(text, "a|-|1|1-k3V9x0q|busy: build[31m a very long na|1m|3|42|o/r");
        row.status = None;
        assert_eq!(
            cells(&row, 0).join("|"),
            "a|-|-|-|no loop|-|-|-|o/r",
            "a scaled pool has none before its first job"
        );
        row.pid = None;
        assert_eq!(cells(&row, 0)[4], "starting");
    }

    /// Returns the rows of an instance with this status.
    fn rows(status: &Status) -> Vec<Row> {
        let folder = tempfile::tempdir().expect("folder");
        status.write(folder.path()).expect("written");
        rows_of(&InstanceInfo { folder: folder.path().to_owned(), serves: Vec::new(), alive: true })
    }

    #[test]
    fn a_pool_that_does_not_run_is_marked_whether_it_has_loops_or_not() {
        let pool = |name: &str, state, waiting| {
            let name = Some(name.to_owned());
            PoolStatus { name, state, since_ms: 1000, waiting, ..PoolStatus::default() }
        };
        let a_loop = |name: &str| LoopStatus { pool: Some(name.to_owned()), ..LoopStatus::default() };
        let mut status = Status::default();
        status.loops.insert(1, a_loop("a"));
        status.loops.insert(1001, a_loop("b"));
        status.pools.insert(0, pool("a", PoolState::Draining, 0));
        status.pools.insert(2000, pool("c", PoolState::Paused, 3));
        status.pools.insert(3000, pool("d", PoolState::Running, 1));
        status.pools.insert(4000, pool("e", PoolState::GivenUp, 0));
        let rows = rows(&status);
        let shown = |row: &Row| cells(row, 61_000)[1..6].join("|");
        assert_eq!(
            rows.iter().map(shown).collect::<Vec<_>>(),
            [
                "a|-|-|draining|1m",
                "a|1|-|preparing|1m",
                "b|1001|-|preparing|1m",
                "c|-|-|paused, 3 jobs wait|1m",
                "d|-|-|1 job waits|-",
                "e|-|-|given up|1m",
            ]
        );
        let json = |row: &Row| serde_json::to_value(row).expect("json");
        let paused = json(&rows[3]);
        assert_eq!((&paused["pool"], &paused["pool_state"]), (&"c".into(), &"paused".into()));
        assert_eq!((&paused["waiting"], &paused["loop"]), (&3.into(), &serde_json::Value::Null));
        assert_eq!(json(&rows[1])["pool_state"], "draining");
        assert_eq!(json(&rows[2]).get("pool_state"), None);
    }
}

//! `dayfly disk`: shows who uses the scratch space of this host, and how much of its limit that is.

use std::collections::BTreeMap;
use std::time::Duration;

use dayfly_fleet::instance;
use dayfly_fleet::scratch::{self, ScratchItem, ScratchKind, ScratchUse};
use dayfly_host::space::SpaceMeter;
use serde::Serialize;

use super::lab::soak;
use super::{jobs, reload};
use crate::cli::DiskArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, Column};
use crate::settings::Places;
use crate::units::{mebibytes, plain, short_id};

/// Most files of soaks whose space is measured, and the longest time for that.
const SOAKS_MEASURED: (usize, Duration) = (200_000, Duration::from_secs(5));

/// The answer, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Disk {
    /// All scratch space, bytes.
    used_bytes: u64,
    /// The limit of this host, MiB: the lowest one of the orchestrators that run.
    limit_mib: Option<u64>,
    /// False if more space is in use than could be measured.
    is_whole: bool,
    users: Vec<User>,
    items: Vec<Row>,
    /// The folders of soaks that were killed, which no limit counts.
    soaks: Vec<SoakSpace>,
}

/// The folder of a soak that was killed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct SoakSpace {
    soak: String,
    bytes: u64,
}

/// The sum of what a pool, or all spares or templates, have.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct User {
    kind: ScratchKind,
    /// None for runs of a pool without a name, and for what no pool has.
    pool: Option<String>,
    count: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    item: ScratchItem,
    /// True if a process has left it that has died, and no start has taken it over.
    is_left: bool,
}

pub(crate) fn run(places: &Places, args: &DiskArgs) -> Result<Outcome> {
    let instances = instance::all(&places.state).map_err(Failure::cannot)?;
    let left = instances.iter().filter(|seen| !seen.alive).map(reload::name_of).collect::<Vec<_>>();
    let limits = jobs::living(places)?.into_iter().filter_map(|(_, status)| status.scratch?.limit_mib);
    let mut disk = disk(scratch::measure(&places.state), limits.min(), &left);
    let mut meter = SpaceMeter::new(SOAKS_MEASURED.0, SOAKS_MEASURED.1);
    let soaks = soak::left::all(&places.state).map_err(Failure::cannot)?;
    disk.soaks = soaks
        .iter()
        .map(|soak| SoakSpace { soak: soak.name(), bytes: meter.allocated(soak.folder()) })
        .collect();
    if args.json {
        printer::json(&disk);
    } else {
        show(&disk);
    }
    Ok(Outcome::Success)
}

/// Puts the answer together. `left` are the instances whose process has died.
fn disk(measured: ScratchUse, limit_mib: Option<u64>, left: &[String]) -> Disk {
    let mut users: BTreeMap<(ScratchKind, Option<String>), (usize, u64)> = BTreeMap::new();
    for item in &measured.items {
        let (count, bytes) = users.entry((item.kind, item.pool.clone())).or_default();
        (*count, *bytes) = (*count + 1, bytes.saturating_add(item.bytes));
    }
    let user = |((kind, pool), (count, bytes))| User { kind, pool, count, bytes };
    let mut users: Vec<User> = users.into_iter().map(user).collect();
    users.sort_by_key(|user| std::cmp::Reverse(user.bytes));
    let is_left = |item: &ScratchItem| item.instance.as_ref().is_some_and(|instance| left.contains(instance));
    let ScratchUse { mut items, is_whole } = measured;
    items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    Disk {
        used_bytes: users.iter().map(|user| user.bytes).fold(0, u64::saturating_add),
        limit_mib,
        is_whole,
        users,
        items: items.into_iter().map(|item| Row { is_left: is_left(&item), item }).collect(),
        soaks: Vec::new(),
    }
}

const USER_COLUMNS: [Column; 4] =
    [Column::whole("SPACE"), Column::whole("WHAT"), Column::whole("COUNT"), Column::cut("POOL")];

const ITEM_COLUMNS: [Column; 5] = [
    Column::whole("SPACE"),
    Column::whole("WHAT"),
    Column::whole("ID"),
    Column::cut("POOL"),
    Column::cut("INSTANCE"),
];

fn show(disk: &Disk) {
    lines(disk, printer::columns()).into_iter().for_each(printer::line);
    if disk.items.iter().any(|row| row.is_left) {
        printer::hint("dayfly ps shows what is left by processes that have died, and who removes it");
    }
}

/// Returns the sum, and the tables of users and of folders that fit a width.
fn lines(disk: &Disk, columns: Option<usize>) -> Vec<String> {
    let mut lines = vec![sentence(disk)];
    if !disk.items.is_empty() {
        let (users, items): (Vec<_>, Vec<_>) =
            (disk.users.iter().map(user_cells).collect(), disk.items.iter().map(item_cells).collect());
        lines.push(String::new());
        lines.extend(printer::fitted(&USER_COLUMNS, &users, columns));
        lines.push(String::new());
        lines.extend(printer::fitted(&ITEM_COLUMNS, &items, columns));
    }
    lines.extend(disk.soaks.iter().map(|SoakSpace { soak, bytes }| {
        format!(
            "the soak {soak} was killed and has left {}; dayfly clear --all removes it",
            mebibytes(*bytes)
        )
    }));
    lines
}

/// Returns the sum in words.
fn sentence(disk: &Disk) -> String {
    let used = mebibytes(disk.used_bytes);
    let least = if disk.is_whole { "" } else { "at least " };
    match disk.limit_mib {
        Some(limit) => {
            let percent = (disk.used_bytes >> 20) * 100 / limit.max(1);
            format!("{least}{used} of scratch space are in use, {percent}% of the limit of {limit} MiB")
        }
        None => format!(
            "{least}{used} of scratch space are in use; no orchestrator that runs has a limit for all of it"
        ),
    }
}

fn user_cells(user: &User) -> [String; 4] {
    [
        mebibytes(user.bytes),
        format!("{}s", user.kind.as_str()),
        user.count.to_string(),
        or_dash(user.pool.as_ref()),
    ]
}

fn item_cells(Row { item, is_left }: &Row) -> [String; 5] {
    let left = if *is_left { ", left" } else { "" };
    let id = if item.kind == ScratchKind::Template { short_id(&item.id) } else { &item.id };
    [
        mebibytes(item.bytes),
        format!("{}{left}", item.kind.as_str()),
        plain(id),
        or_dash(item.pool.as_ref()),
        or_dash(item.instance.as_ref()),
    ]
}

fn or_dash(text: Option<&String>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| plain(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(
        kind: ScratchKind,
        id: &str,
        instance: Option<&str>,
        pool: Option<&str>,
        mib: u64,
    ) -> ScratchItem {
        let text = |text: Option<&str>| text.map(str::to_owned);
        ScratchItem {
            kind,
            id: id.to_owned(),
            instance: text(instance),
            pool: text(pool),
            name: None,
            bytes: mib << 20,
        }
    }

    fn of_two_processes(is_whole: bool, limit_mib: Option<u64>) -> Disk {
        let items = vec![
            item(ScratchKind::Run, "1-aaaaaaa", Some("k3V9x0qA"), Some("build-for-the-desktop"), 700),
            item(ScratchKind::Run, "2-bbbbbbb", Some("k3V9x0qA"), Some("build-for-the-desktop"), 2100),
            item(ScratchKind::Run, "1-ccccccc", Some("p0dead00"), None, 60),
            item(ScratchKind::Spare, "Zx81", Some("k3V9x0qA"), None, 8),
            item(ScratchKind::Template, "0123456789abcdef", None, None, 340),
        ];
        disk(ScratchUse { items, is_whole }, limit_mib, &["p0dead00".to_owned()])
    }

    #[test]
    fn the_largest_user_comes_first_and_what_a_dead_process_has_left_is_marked() {
        let disk = of_two_processes(true, Some(204_800));
        let shown = |columns| anstream::adapter::strip_str(&lines(&disk, columns).join("\n")).to_string();
        let narrow = shown(Some(60));
        let table = narrow.lines().skip(1);
        assert!(table.map(|line| line.chars().count()).all(|width| width <= 60), "{narrow}");
        insta::assert_snapshot!([shown(None), narrow].join("\n\n"));
    }

    #[test]
    fn a_sum_that_is_not_whole_is_the_least_that_is_in_use() {
        insta::assert_snapshot!(sentence(&of_two_processes(false, None)), @"at least 3208 MiB of scratch space are in use; no orchestrator that runs has a limit for all of it");
    }

    #[test]
    fn the_json_has_the_sums_and_each_folder() {
        insta::assert_snapshot!(
            serde_json::to_string_pretty(&of_two_processes(true, Some(4096))).expect("json")
        );
    }
}

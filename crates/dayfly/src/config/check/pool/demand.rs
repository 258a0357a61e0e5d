//! The checks of a pool's demand, and of the numbers that go with it.

use std::collections::HashSet;

use dayfly_fleet::demand::{Demand, Scale, StartOrder};
use dayfly_fleet::pool::Registration;

use super::Table;
use crate::config::file::ConfigFile;
use crate::config::pool_file::{DemandWord, PoolFile, ScopeWord};
use crate::config::resolved::PoolConfig;
use crate::config::schedule::{Period, Schedule};
use crate::config::size_label::SizeLabel;
use crate::{defaults, rules};

/// Longest name of a scale set. It is a label of its runners, too.
const SCALE_SET_LENGTH_MAX: usize = 64;

/// Returns the sources, each once.
pub(super) fn sources(table: &mut Table<'_, '_>) -> Vec<DemandWord> {
    let given = table.pool.demand.to_vec();
    let mut sources: Vec<DemandWord> = Vec::new();
    for source in given {
        if sources.contains(&source) {
            table.error("demand", format!("{} is there twice", source.as_str()), None);
        } else {
            sources.push(source);
        }
    }
    if sources.is_empty() {
        table.error("demand", "at least one source of demand is needed", None);
    }
    if sources.len() > 1 && sources.contains(&DemandWord::Static) {
        let message = "static always keeps max runners, so that another source has nothing to add";
        let hint = "for runners that wait without a job, leave static out and give min_idle".to_owned();
        table.error("demand", message, Some(hint));
    }
    if sources.contains(&DemandWord::Poll)
        && table.are_read(&["scope"])
        && table.pool.scope != ScopeWord::Repo
    {
        let message =
            "poll reads the jobs of one repository, and a forge has no list of those of an organisation";
        let hint = "use scale-set, or a pool for each repository".to_owned();
        table.error("demand", message, Some(hint));
    }
    sources
}

/// Checks that a pool with the source `webhook` has a server for it, and another source for deliveries that are lost.
pub(super) fn webhook(table: &mut Table<'_, '_>, file: &ConfigFile, sources: &[DemandWord]) {
    if !sources.contains(&DemandWord::Webhook) {
        return;
    }
    if file.webhook.is_none() && !table.findings.positions.has("webhook") {
        let hint = "add a table [webhook] with secret_file = \"/etc/dayfly/webhook-secret\"".to_owned();
        table.error(
            "demand",
            "the demand webhook needs a server, and there is no table [webhook]",
            Some(hint),
        );
    }
    if sources == [DemandWord::Webhook] && table.are_read(&["scope"]) {
        let hint = match table.pool.scope {
            ScopeWord::Repo => "add the fallback: demand = [\"webhook\", \"poll\"]",
            ScopeWord::Org | ScopeWord::Enterprise => {
                "use scale-set; or a pool for each repository with demand = [\"webhook\", \"poll\"]"
            }
        };
        let message = "a forge sends a lost delivery only once, so that its job would wait without a runner";
        let key = table.key("demand");
        table.findings.warning(&key, message, Some(hint.to_owned()));
    }
}

/// Returns the demand as the fleet knows it.
pub(super) fn of_spec(pool: &PoolFile, sources: &[DemandWord]) -> Demand {
    if sources != [DemandWord::Static] {
        let idle_timeout = pool.timeouts.idle.map_or(defaults::IDLE, |time| time.0);
        return Demand::Scaled(Scale { min_idle: pool.min_idle, max: pool.max, idle_timeout });
    }
    let start = match pool.start.pause {
        Some(pause) => StartOrder::Paused(pause.0),
        None => StartOrder::Isolated { parallel: pool.start.parallel, limit: pool.start.limit.0 },
    };
    Demand::Static { runners: pool.max, start }
}

/// Checks the keys that have a meaning for one kind of demand only, and that the minimum fits.
pub(super) fn numbers(table: &mut Table<'_, '_>, sources: &[DemandWord]) {
    if !table.are_read(&["demand"]) {
        return;
    }
    let (is_static, meaning) = match sources.contains(&DemandWord::Static) {
        true => (true, "has no meaning with the demand static, which always keeps max runners"),
        false => (false, "has a meaning only with the demand static"),
    };
    let odd: &[&str] = if is_static { &["min_idle", "schedule", "sizes"] } else { &["repeat", "start"] };
    for key in odd.iter().filter(|key| table.has(key)).copied().collect::<Vec<_>>() {
        table.error(key, format!("{key} {meaning}"), None);
    }
    let idle = table.pool.timeouts.idle.filter(|_| is_static);
    if let Some(idle) = idle.filter(|idle| idle.0 < defaults::STATIC_IDLE_MIN) {
        let message =
            format!("{idle} is too short for the demand static, which starts a fresh runner at once");
        table.error("timeouts.idle", message, Some("give at least 1m, or leave it out".to_owned()));
    }
    let start = table.key("start");
    let parts = ["parallel", "limit"].map(|key| format!("{start}.{key}"));
    if let Some(part) = parts
        .iter()
        .find(|part| table.findings.positions.has(part))
        .filter(|_| table.pool.start.pause.is_some())
    {
        table.findings.error(part, "a pause between starts excludes parallel and limit", None);
    }
    if !is_static && table.are_read(&["max", "min_idle"]) {
        let _ = table.take("min_idle", rules::min_idle_fits(table.pool.min_idle, table.pool.max));
    }
}

/// Returns the schedule.
pub(super) fn schedule(table: &mut Table<'_, '_>) -> Schedule {
    let max = table.pool.max;
    let is_comparable = table.are_read(&["max"]);
    let mut entries = Vec::new();
    for (index, entry) in table.pool.schedule.iter().enumerate() {
        entries.extend(table.take(&format!("schedule[{index}].time_zone"), Period::new(entry)));
        if is_comparable {
            let key = format!("schedule[{index}].min_idle");
            let _ = table.take(&key, rules::min_idle_fits(entry.min_idle, max));
        }
    }
    Schedule { entries }
}

/// Returns the name of the scale set, if the pool has one.
pub(super) fn scale_set(table: &mut Table<'_, '_>, name: &str, sources: &[DemandWord]) -> Option<String> {
    let given = table.pool.scale_set.as_deref();
    if !sources.contains(&DemandWord::ScaleSet) {
        if table.has("scale_set") && table.are_read(&["demand"]) {
            table.error("scale_set", "scale_set has a meaning only with the demand scale-set", None);
        }
        return None;
    }
    let name = given.unwrap_or(name);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !(1..=SCALE_SET_LENGTH_MAX).contains(&name.len()) || !name.bytes().all(is_plain) {
        let message = format!(
            "{name:?} is no name of a scale set: 1 to {SCALE_SET_LENGTH_MAX} letters, digits, -, _ or ."
        );
        table.error("scale_set", message, None);
    }
    Some(name.to_owned())
}

/// Returns the sizes that jobs may ask for.
pub(super) fn sizes(table: &mut Table<'_, '_>) -> Vec<SizeLabel> {
    let given = &table.pool.sizes;
    if given.len() > defaults::SIZES_MAX {
        let message = format!("{} sizes are too many: each has a template of its own", given.len());
        table.error("sizes", message, Some(format!("a pool has {} sizes at most", defaults::SIZES_MAX)));
    }
    let mut seen = HashSet::new();
    let mut sizes = Vec::new();
    for (index, size) in given.iter().enumerate() {
        let key = format!("sizes[{index}]");
        let Some(size) = table.take(&key, size.parse::<SizeLabel>()) else { continue };
        let label = size.to_string();
        if !seen.insert(label.clone()) {
            table.error(&key, format!("{size} is there twice"), None);
        }
        if table.pool.labels.iter().any(|own| own.trim().eq_ignore_ascii_case(&label)) {
            let message =
                format!("{size} is one of the labels too, so that a job with it may get either size");
            table.error(&key, message, Some("leave it out of labels".to_owned()));
        }
        sizes.push(size);
    }
    sizes
}

/// Checks that the name of each size's scale set is not too long.
pub(super) fn names_of_sizes(table: &mut Table<'_, '_>, pool: &PoolConfig) {
    let names = pool.sizes.iter().map(|&size| pool.name_of_size(size));
    let Some(longest) = names.max_by_key(String::len) else { return };
    if pool.scale_set.is_some() && longest.len() > SCALE_SET_LENGTH_MAX {
        let message = format!(
            "the scale set of a size would be {longest}, which is longer than {SCALE_SET_LENGTH_MAX} characters"
        );
        table.error("sizes", message, Some("give the pool a shorter scale_set".to_owned()));
    }
}

/// Returns the way in which runners are registered.
pub(super) fn registration(table: &mut Table<'_, '_>, sources: &[DemandWord]) -> Option<Registration> {
    let pool = table.pool;
    if !table.are_read(&["registration", "ephemeral", "demand"]) {
        return None;
    }
    let registration = table.take("registration", rules::registration(pool.registration, pool.ephemeral))?;
    let is_static = sources == [DemandWord::Static];
    match registration {
        Registration::Token { ephemeral: false } if !is_static => {
            table.error(
                "ephemeral",
                "only a runner of the demand static can run one job after another",
                None,
            );
        }
        Registration::Token { .. } if sources.contains(&DemandWord::ScaleSet) => {
            table.error(
                "registration",
                "a scale set gives its runners JIT configs, not registration tokens",
                None,
            );
        }
        Registration::Token { ephemeral: false } => {
            let key = table.key("ephemeral");
            let message =
                "one job after another runs in the same machine, and finds the files of earlier jobs";
            table.findings.warning(&key, message, None);
        }
        Registration::Jit | Registration::Token { .. } => {}
    }
    Some(registration)
}

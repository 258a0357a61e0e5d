//! The checks of `[pools.NAME]`.

mod demand;
mod guest;

use std::num::NonZeroU32;

use dayfly_fleet::pool::{GROUP_DEFAULT, MachineSpec, PoolSpec};
use dayfly_forge::RunnerScope;
use dayfly_vm::{DriverKind, walls};
use indexmap::IndexMap;

use super::{Findings, Forges};
use crate::config::file::ConfigFile;
use crate::config::pool_file::{DemandWord, PoolFile, ScopeWord};
use crate::config::reader::{did_you_mean, join};
use crate::config::resolved::{ForgeConfig, PoolConfig, Timeouts};
use crate::config::schema::nearest;
use crate::exit::Failure;
use crate::{defaults, rules};

/// The table of a pool, and the findings about it.
struct Table<'a, 'b> {
    /// The key of the table, `pools.NAME`.
    at: String,
    pool: &'a PoolFile,
    findings: &'a mut Findings<'b>,
}

impl Table<'_, '_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }

    fn error(&mut self, name: &str, message: impl Into<String>, hint: Option<String>) {
        self.findings.error(&self.key(name), message, hint);
    }

    /// Returns true if all values of the pool are those that were meant.
    fn are_read_all(&self) -> bool {
        !self.findings.positions.is_unread(&self.at)
    }

    fn take<T>(&mut self, name: &str, value: Result<T, impl ToString>) -> Option<T> {
        self.findings.take(&self.key(name), value)
    }

    fn has(&self, name: &str) -> bool {
        self.findings.positions.has(&self.key(name))
    }

    /// Returns true if the values of all keys are those that were meant.
    fn are_read(&self, names: &[&str]) -> bool {
        names.iter().all(|name| !self.findings.positions.is_unread(&self.key(name)))
    }
}

/// Checks a pool. Returns it if it has no error.
pub(super) fn check(
    name: &str,
    pool: &PoolFile,
    file: &ConfigFile,
    forges: &Forges,
    findings: &mut Findings<'_>,
) -> Option<PoolConfig> {
    let before = findings.errors();
    findings.name("pools", name);
    let mut table = Table { at: join("pools", name), pool, findings: &mut *findings };
    let checked = whole(name, &mut table, file, forges);
    let is_read = table.are_read_all();
    checked.filter(|_| is_read && findings.errors() == before)
}

/// Makes all checks, so that all problems are found, and puts the results together at the end.
fn whole(name: &str, table: &mut Table<'_, '_>, file: &ConfigFile, forges: &Forges) -> Option<PoolConfig> {
    let pool = table.pool;
    let forge = forge(table, file, forges);
    let scope = scope(table);
    let machine = machine(table);
    let sources = demand::sources(table);
    let schedule = demand::schedule(table);
    demand::numbers(table, &sources);
    demand::webhook(table, file, &sources);
    let scale_set = demand::scale_set(table, name, &sources);
    let sizes = demand::sizes(table);
    let spec = spec(name, table, forge, scope, machine, &sources);
    let config = PoolConfig {
        name: name.to_owned(),
        forge: pool.forge.clone(),
        spec: spec?,
        sources,
        scale_set,
        min_idle: pool.min_idle,
        max: pool.max,
        schedule,
        timeouts: timeouts(pool),
        weight: pool.weight,
        sizes,
    };
    demand::names_of_sizes(table, &config);
    Some(config)
}

fn forge<'f>(table: &mut Table<'_, '_>, file: &ConfigFile, forges: &'f Forges) -> Option<&'f ForgeConfig> {
    let name = &table.pool.forge;
    if let Some(forge) = forges.get(name) {
        return forge.as_ref();
    }
    // A forge whose table could not be read is defined, too.
    if table.are_read(&["forge"]) && !table.findings.positions.has(&join("forges", name)) {
        let near = nearest(name, file.forges.keys().map(String::as_str)).map(did_you_mean);
        let add = || format!("add a table [forges.{name}]");
        table.error(
            "forge",
            format!("there is no forge {name:?} in this file"),
            near.or_else(|| Some(add())),
        );
    }
    None
}

fn scope(table: &mut Table<'_, '_>) -> Option<RunnerScope> {
    let pool = table.pool;
    if !table.are_read(&["scope", "principal"]) {
        return None;
    }
    if pool.scope == ScopeWord::Repo && !pool.group.eq_ignore_ascii_case(GROUP_DEFAULT) {
        let message =
            format!("a repository knows only the runner group {GROUP_DEFAULT}, not {:?}", pool.group);
        table.error("group", message, Some("groups belong to organisations and enterprises".to_owned()));
    }
    table.take("principal", RunnerScope::parse(pool.scope.as_str(), &pool.principal))
}

fn machine(table: &mut Table<'_, '_>) -> Option<MachineSpec> {
    let pool = table.pool;
    let memory = table.take("memory", pool.memory.in_mib(u64::from(defaults::MEMORY_MIB_MAX)));
    let memory_mib = memory.and_then(|mib| u32::try_from(mib).ok());
    let disk_gib = table.take("disk", pool.disk.in_gib(defaults::DISK_GIB_MAX));
    if let Some(mib) = memory_mib.filter(|_| matches!(pool.driver, None | Some(DriverKind::Qemu))) {
        let _ = table.take("memory", rules::qemu_memory(mib));
    }
    if let Some(model) = &pool.cpu_model {
        let _ = table.take("cpu_model", rules::cpu_model(model));
    }
    require(table);
    let (key, warm_up) = (table.key("warm_up"), pool.warm_up.as_ref());
    if let Some(script) = table.findings.absolute(&key, warm_up) {
        let is_there = || match script.is_file() {
            true => Ok(()),
            false => Err(Failure::usage(format!("the warm-up {} is not there", script.display()))),
        };
        table.findings.on_this_host(&key, is_there);
    }
    for key in ["spares", "warm_up"].into_iter().filter(|key| table.has(key)).collect::<Vec<_>>() {
        if let Some(why) = why_no_forks(pool) {
            let key = table.key(key);
            table.findings.warning(&key, format!("this has no effect, because {why}"), None);
        }
    }
    Some(pool.machine(memory_mib?, disk_gib?))
}

/// Checks the walls that a pool requires: its driver must have them, and this host too if the file is for this host.
fn require(table: &mut Table<'_, '_>) {
    let PoolFile { require, driver, .. } = table.pool;
    if require.is_empty() {
        return;
    }
    let required = || walls::require(None, driver.unwrap_or(DriverKind::Qemu), require, None);
    if driver.is_some_and(|driver| driver != DriverKind::Qemu) {
        let _ = table.take("require", required());
    } else {
        let key = table.key("require");
        table.findings.on_this_host(&key, || required().map_err(Failure::cannot));
    }
}

/// Returns the reason why a pool's machines are not forked from a template, if they are not.
fn why_no_forks(pool: &PoolFile) -> Option<&'static str> {
    match pool.driver {
        Some(DriverKind::PodmanKrun | DriverKind::Krunvm | DriverKind::Process) => {
            Some("only qemu forks machines")
        }
        _ if pool.cold => Some("cold machines are booted"),
        _ if !pool.mounts.is_empty() || pool.dir.is_some() => Some("machines with mounts are booted"),
        None | Some(DriverKind::Qemu) => None,
    }
}

/// Returns the reason why no machine of a pool can be frozen to disk, if there is one.
fn why_none_is_kept(pool: &PoolFile) -> Option<&'static str> {
    match pool.driver {
        Some(DriverKind::PodmanKrun | DriverKind::Krunvm | DriverKind::Process) => {
            Some("only machines of qemu can be frozen")
        }
        _ if !pool.mounts.is_empty() || pool.dir.is_some() => Some("machines with mounts cannot be frozen"),
        _ if pool.keep => Some("keep leaves all machines running"),
        None | Some(DriverKind::Qemu) => None,
    }
}

/// Returns the description of a pool's runners.
fn spec(
    name: &str,
    table: &mut Table<'_, '_>,
    forge: Option<&ForgeConfig>,
    scope: Option<RunnerScope>,
    machine: Option<MachineSpec>,
    sources: &[DemandWord],
) -> Option<PoolSpec> {
    let pool = table.pool;
    let labels = table.take("labels", rules::labels(&pool.labels));
    let prefix = table.take("prefix", rules::prefix(&pool.prefix));
    let scratch = pool.scratch.map(|size| table.take("scratch", super::scratch_mib(size)));
    let registration = demand::registration(table, sources);
    let mounts = guest::mounts(table);
    guest::settings(table);
    let hooks = guest::hooks(table);
    let network = guest::network(table, forge);
    if let Some(why) = pool.keep_failed.and_then(|_| why_none_is_kept(pool)) {
        let key = table.key("keep_failed");
        table.findings.warning(&key, format!("this has no effect, because {why}"), None);
    }
    Some(PoolSpec {
        name: Some(name.to_owned()),
        weight: pool.weight,
        scratch_mib: match scratch {
            Some(size) => Some(size?),
            None => None,
        },
        group: pool.group.clone(),
        allow_public: pool.allow_public,
        labels: labels?,
        registration: registration?,
        prefix: prefix?,
        repeat: pool.repeat.and_then(NonZeroU32::new),
        lifetime: pool.lifetime.map(|time| time.0),
        demand: demand::of_spec(pool, sources),
        dns: pool.dns,
        network: network?,
        mounts: mounts?,
        entrypoint: guest::entrypoint(pool),
        user: pool.user.clone(),
        update: pool.update,
        verbose: pool.verbosity,
        guest_settings: pool.settings.clone().into_iter().collect(),
        hooks: hooks?,
        allow_forks: pool.allow_forks,
        show_host: pool.show_host,
        keep: pool.keep,
        keep_failed: pool.keep_failed.map(|time| time.0),
        ..PoolSpec::new(forge?.url.clone(), scope?, machine?)
    })
}

fn timeouts(pool: &PoolFile) -> Timeouts {
    let limits = pool.timeouts;
    Timeouts {
        registration: limits.registration.map(|time| time.0),
        idle: limits.idle.map(|time| time.0),
        job: limits.job.map(|time| time.0),
    }
}

/// Refuses pools that would share a scale set: a forge gives the jobs of one to a single listener.
pub(super) fn same_scale_sets(pools: &[PoolConfig], findings: &mut Findings<'_>) {
    let mut seen = IndexMap::new();
    let all = pools.iter().flat_map(|pool| pool.by_size().into_iter().map(move |of_size| (pool, of_size)));
    for (pool, of_size) in all {
        let Some(name) = of_size.scale_set else { continue };
        let spec = &pool.spec;
        let place =
            [spec.scope.to_string(), spec.group.clone(), name.clone()].map(|word| word.to_lowercase());
        let place = (spec.forge.url().clone(), spec.scope.kind(), place);
        let first = seen.entry(place).or_insert(of_size.name.clone());
        if *first != of_size.name {
            let table = join("pools", &pool.name);
            let message = format!(
                "the pool {first} has the scale set {name:?} too: same forge, scope, owner and group"
            );
            findings.error(
                &format!("{table}.scale_set"),
                message,
                Some("give one of them another scale_set".to_owned()),
            );
        }
    }
}

/// Warns about pools of one place that have a size in common: a job that asks for it alone may run in either, and lists of jobs
/// and webhooks report it to both.
pub(super) fn same_sizes(pools: &[PoolConfig], findings: &mut Findings<'_>) {
    let mut seen = IndexMap::new();
    for pool in pools {
        for (index, &size) in pool.sizes.iter().enumerate() {
            let scope = pool.spec.scope.to_string().to_lowercase();
            let place = (pool.spec.forge.url().clone(), pool.spec.scope.kind(), scope, size.to_string());
            let first = *seen.entry(place).or_insert(&pool.name);
            if *first != pool.name {
                let key = format!("{}.sizes[{index}]", join("pools", &pool.name));
                let message = format!(
                    "the pool {first} has the size {size} too, and a job with this label may get either"
                );
                let hint = format!("in workflows, runs-on: {} means this pool", pool.name_of_size(size));
                findings.warning(&key, message, Some(hint));
            }
        }
    }
}

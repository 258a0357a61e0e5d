//! The checks of a file that was read, and its conversion to [`Config`]: names, references, numbers that must fit each other.
//!
//! A check that compares several keys is left out if one of them could not be read, because the default that stands in its
//! place was not meant.

mod budget;
mod forge;
mod pool;
mod traces;
mod web;
mod webhook;

use std::path::PathBuf;

use dayfly_fleet::scratch::MACHINE_MIN_MIB;
use indexmap::IndexMap;

use super::file::{ConfigFile, HostFile};
use super::problem::Problem;
use super::reader::{Positions, join};
use super::resolved::{Config, HostBudget, PoolConfig};
use super::value::Size;
use super::{HostSize, Surroundings};
use crate::exit::Failure;
use crate::rules;

/// Longest name of a pool or a forge, bytes.
const NAME_LENGTH_MAX: usize = 32;

/// The problems that the checks find, and what they need to find them.
struct Findings<'a> {
    positions: &'a Positions,
    around: &'a Surroundings,
    problems: Vec<Problem>,
}

impl Findings<'_> {
    /// Adds an error about a key's value.
    fn error(&mut self, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem::error(key, self.positions.value(key), message).hint(hint));
    }

    /// Returns the number of errors so far.
    fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_error()).count()
    }

    /// Adds a warning about a key's value.
    fn warning(&mut self, key: &str, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem::warning(key, self.positions.value(key), message).hint(hint));
    }

    /// Returns a value, or adds the reason why there is none.
    fn take<T>(&mut self, key: &str, value: Result<T, impl ToString>) -> Option<T> {
        value.map_err(|why| self.error(key, why.to_string(), None)).ok()
    }

    /// Adds a warning if something that the file names is not as it must be on this host, unless the file is for another one.
    fn on_this_host(&mut self, key: &str, check: impl FnOnce() -> Result<(), Failure>) {
        if !self.around.is_this_host {
            return;
        }
        if let Err(why) = check() {
            self.warning(key, why.to_string(), why.what_to_do().map(str::to_owned));
        }
    }

    /// Checks that a path of this host is absolute, because a service has no folder that others would expect.
    fn absolute(&mut self, key: &str, path: Option<&PathBuf>) -> Option<PathBuf> {
        let path = path?;
        if path.is_absolute() {
            return Some(path.clone());
        }
        self.error(key, format!("the path {:?} must be absolute", path.display().to_string()), None);
        None
    }

    /// Checks a file with a secret: its path as [`Self::absolute`] does, and on this host that only its owner can read it.
    fn secret_file(&mut self, key: &str, path: Option<&PathBuf>) -> Option<PathBuf> {
        let file = self.absolute(key, path)?;
        self.on_this_host(key, || rules::secret_file(&file));
        Some(file)
    }

    /// Checks the name of a pool or a forge.
    fn name(&mut self, table: &str, name: &str) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_good = (1..=NAME_LENGTH_MAX).contains(&name.len())
            && name.bytes().all(is_plain)
            && !name.starts_with('-');
        if !is_good {
            let key = join(table, name);
            let message = format!("a name must have 1 to {NAME_LENGTH_MAX} letters, digits, - or _");
            self.problems.push(Problem::error(&key, self.positions.name(&key), message));
        }
        is_good
    }
}

/// Checks a file. Returns the configuration if there are only warnings.
pub(super) fn check(
    file: &ConfigFile,
    positions: &Positions,
    around: &Surroundings,
) -> (Option<Config>, Vec<Problem>) {
    let mut findings = Findings { positions, around, problems: Vec::new() };
    let forges = forge::check(file, &mut findings);
    let mut pools: Vec<PoolConfig> = Vec::new();
    for (name, pool) in &file.pools {
        pools.extend(pool::check(name, pool, file, &forges, &mut findings));
    }
    if file.pools.is_empty() && !positions.is_unread("pools") {
        let hint = "add a table [pools.NAME] with forge and principal; `dayfly init` writes one".to_owned();
        findings.error("pools", "there is no pool", Some(hint));
    }
    pool::same_scale_sets(&pools, &mut findings);
    pool::same_sizes(&pools, &mut findings);
    let budget = host(&file.host, &mut findings);
    if let Some(budget) = &budget {
        budget::check(&pools, budget, around.size, &mut findings);
    }
    let webhook = webhook::check(file, &mut findings);
    let web = web::check(file, &mut findings);
    let traces = traces::check(file, &mut findings);
    let problems = findings.problems;
    let config = budget.map(|host| Config {
        forges: forges.into_iter().flat_map(whole).collect(),
        pools,
        host,
        webhook,
        web,
        traces,
    });
    (config, problems)
}

/// Returns the errors that a file would have if it had a pool with these numbers: each with its hint.
pub(super) fn errors_of_numbers(
    pool: &PoolConfig,
    host: &HostBudget,
    around: &Surroundings,
) -> Vec<(String, Option<String>)> {
    let positions = Positions::default();
    let mut findings = Findings { positions: &positions, around, problems: Vec::new() };
    budget::check(std::slice::from_ref(pool), host, around.size, &mut findings);
    let errors = findings.problems.into_iter().filter(Problem::is_error);
    errors.map(|problem| (problem.message, problem.hint)).collect()
}

/// Returns a forge that has no problem.
fn whole<T>((name, forge): (String, Option<T>)) -> Option<(String, T)> {
    forge.map(|forge| (name, forge))
}

fn host(file: &HostFile, findings: &mut Findings<'_>) -> Option<HostBudget> {
    let reserve = file.disk_reserve.map(|size| size.in_mib(u64::MAX));
    let disk_reserve_mib = match reserve {
        Some(size) => Some(findings.take("host.disk_reserve", size)?),
        None => None,
    };
    let scratch_mib = match file.scratch.map(scratch_mib) {
        Some(size) => Some(findings.take("host.scratch", size)?),
        None => None,
    };
    let kept_mib = match file.kept.map(|size| size.in_mib(u64::MAX)) {
        Some(size) => Some(findings.take("host.kept", size)?),
        None => None,
    };
    Some(HostBudget {
        vcpu_overcommit: file.vcpu_overcommit,
        memory_overcommit: file.memory_overcommit,
        max_machines: file.max_machines,
        max_starts: file.max_starts,
        disk_reserve_mib,
        scratch_mib,
        kept_mib,
    })
}

/// Returns a limit of scratch space, MiB. At least one machine must fit into it.
fn scratch_mib(size: Size) -> Result<u64, String> {
    match size.in_mib(u64::MAX)? {
        mib if mib < MACHINE_MIN_MIB => Err(format!(
            "{size} has no room for a machine, for which {MACHINE_MIN_MIB}MiB are needed at least"
        )),
        mib => Ok(mib),
    }
}

/// The checked forges by name; none for one that has a problem.
type Forges = IndexMap<String, Option<super::resolved::ForgeConfig>>;

//! The configuration file of an orchestrator: reading, checking, schema.
//!
//! ```text
//! dayfly.toml ──> reader ──> ConfigFile ──> check ──> Config ──> (an orchestrator)
//!                   │            │            │
//!                   │         schema ──> docs/dayfly.schema.json
//!                   └── problems, with positions ┴──> Reading::findings
//! ```
//!
//! [`ConfigFile`] is the file as it is written; [`Config`] is what it means. All problems are found at once, and each has a
//! line and a column. A secret is never in the file, and one that was written into it is not shown.

mod check;
mod file;
mod pool_file;
mod problem;
mod reader;
mod resolved;
mod schedule;
pub(crate) mod schema;
mod secret;
mod size_label;
#[cfg(test)]
mod tests;
mod traces_file;
mod value;
mod web_file;
mod webhook_file;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub(crate) use file::ConfigFile;
pub(crate) use pool_file::{DemandWord, ScopeWord};
pub(crate) use problem::{Finding, Severity};
pub(crate) use resolved::{
    CertificatePlace, Config, CredentialPlace, ForgeConfig, HostBudget, PoolConfig, SecretPlace, Timeouts,
    TracesConfig, WebConfig, WebhookConfig,
};
pub(crate) use schedule::Schedule;
pub(crate) use value::{MaxAge, Time};

use crate::exit::Failure;
use crate::settings::Places;
use problem::Problem;

/// Largest file, bytes.
const FILE_SIZE_MAX: u64 = 1024 * 1024;

/// The facts about a host that a file is checked against.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// True if the file is for this host: files that it names are then looked for.
    pub(crate) is_this_host: bool,
    /// The size of the host that the file is for; none if it is not known.
    pub(crate) size: Option<HostSize>,
    /// The folder of guest programs that `dir` mounts by default.
    pub(crate) guest_folder: PathBuf,
}

/// The size of a host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostSize {
    /// Processors.
    pub(crate) cpus: u32,
    /// Memory, MiB.
    pub(crate) memory_mib: u64,
}

impl Surroundings {
    /// Returns those of this host.
    pub(crate) fn this_host(places: &Places) -> Self {
        let memory = rustix::system::sysinfo();
        let bytes = memory.totalram * u64::from(memory.mem_unit);
        let cpus = std::thread::available_parallelism().ok().and_then(|cpus| u32::try_from(cpus.get()).ok());
        let size = cpus.map(|cpus| HostSize { cpus, memory_mib: bytes >> 20 });
        Self { is_this_host: true, size, ..Self::another_host(places) }
    }

    /// Returns those of a host of which nothing is known.
    pub(crate) fn another_host(places: &Places) -> Self {
        Self { is_this_host: false, size: None, guest_folder: places.guest_folder() }
    }
}

/// The result of reading a file.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The configuration; none if there is an error.
    pub(crate) config: Option<Config>,
    /// All errors and warnings, in the order of the file.
    pub(crate) findings: Vec<Finding>,
}

impl Reading {
    /// Returns the number of errors.
    pub(crate) fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).count()
    }
}

/// Reads and checks a file.
///
/// # Errors
/// The file cannot be read at all, or is too large.
pub(crate) fn read(path: &Path, around: &Surroundings) -> Result<Reading, Failure> {
    let failed = |why: String| Failure::usage(format!("cannot read {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    if file.metadata().is_ok_and(|found| found.is_dir()) {
        return Err(failed("it is a folder".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(failed("it is larger than 1 MiB".to_owned()));
    }
    Ok(parse(&path.display().to_string(), &bytes, around))
}

/// Returns the errors that a file would have if it had a pool with these numbers: each with its hint.
pub(crate) fn errors_of_numbers(
    pool: &PoolConfig,
    host: &HostBudget,
    around: &Surroundings,
) -> Vec<(String, Option<String>)> {
    check::errors_of_numbers(pool, host, around)
}

/// Reads and checks the content of a file that messages call `name`.
pub(crate) fn parse(name: &str, bytes: &[u8], around: &Surroundings) -> Reading {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            // The text before the place is as long with and without replacements behind it.
            let (at, text) = (error.valid_up_to(), String::from_utf8_lossy(bytes));
            let problem = Problem::error("", at..at + 1, "the file is not UTF-8 text");
            return Reading { config: None, findings: problem::findings(name, &text, vec![problem]) };
        }
    };
    let (file, positions, mut problems) = reader::read(text);
    // A file that is no TOML has no positions, and nothing in it could be checked.
    let mut config = None;
    if !problems.iter().any(|problem| problem.key.is_empty()) {
        let (checked, more) = check::check(&file, &positions, around);
        problems.extend(more);
        config = checked.filter(|_| problems.iter().all(|problem| !problem.is_error()));
    }
    Reading { config, findings: problem::findings(name, text, problems) }
}

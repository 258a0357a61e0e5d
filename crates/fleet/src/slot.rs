//! A slot of a pool: a place for one runner at a time.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use crate::demand::JobDemand;
use crate::pool::{Group, Pool};

/// The settings of one slot, beside those of its pool.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Number of the slot: the first part of its runners' ids.
    pub index: u32,
    /// The environment directory; see [`environment_in`].
    pub environment: PathBuf,
    /// The runner group of its registrations.
    pub group: Group,
    /// All labels of its registrations.
    pub labels: Vec<String>,
    /// Number of runners that it creates, one after another; none: until it is stopped.
    pub repeat: Option<NonZeroU32>,
    /// True if it tries again after an error that may pass, even if its number of runners is limited.
    pub is_patient: bool,
    /// True if another process waits for `<loop>-*.tkn` and removes the note, so that this slot only reads it.
    pub leaves_tkn: bool,
}

impl Slot {
    /// Returns a slot for any job of the pool.
    pub fn new(pool: &Pool, index: u32, environment: PathBuf) -> Self {
        Self {
            index,
            environment,
            group: pool.group.clone(),
            labels: pool.labels.clone(),
            repeat: pool.spec.repeat,
            is_patient: false,
            leaves_tkn: false,
        }
    }

    /// Returns a slot for one runner, for any job of the pool.
    pub fn for_one_runner(pool: &Pool, index: u32, environment: PathBuf) -> Self {
        Self { repeat: NonZeroU32::new(1), ..Self::new(pool, index, environment) }
    }

    /// Returns a slot for one runner, for a job that waits.
    pub fn for_job(pool: &Pool, index: u32, environment: PathBuf, job: &JobDemand) -> Self {
        Self {
            // The forge gets the id of the group; the name is for people.
            group: Group { id: job.group, ..pool.group.clone() },
            labels: job.runner_labels(),
            ..Self::for_one_runner(pool, index, environment)
        }
    }
}

/// Returns the environment directory of a slot under the common one: `<prefix>-<slot, three digits>`.
pub fn environment_in(common: &Path, prefix: &str, index: u32) -> PathBuf {
    common.join(format!("{prefix}-{index:03}"))
}

//! The record of a machine's network in its run folder. It is written before anything is created, and removed last.

use std::io;
use std::path::{Path, PathBuf};

use dayfly_host::file;
use serde::{Deserialize, Serialize};

use super::netlink::Netlink;
use super::policy::NetworkPolicy;
use super::ranges::Prefix;
use super::rules::{self, HostMachine};
use super::used::Judge;
use super::{NetworkError, account, error::step, forwarding, lock, nft};
use crate::machine::record::{Found, ProcessId};

/// Name of the record.
const RECORD: &str = "network.json";

/// The parts of a machine's network that this host has. The namespace is not in the record, because it has no name, and
/// disappears with the last process that holds its card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NetworkRecord {
    /// The machine in the host's rules; none if the host has none for it, because dayfly was not root.
    #[serde(flatten)]
    pub(super) machine: Option<HostMachine>,
    /// The policy, by which its account is judged.
    #[serde(default)]
    pub(super) policy: NetworkPolicy,
    /// The ranges that are shut, this host's addresses included, by which its account is judged.
    #[serde(default)]
    pub(super) shut: Vec<Prefix>,
    /// The process that answers its questions for names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gate: Option<ProcessId>,
}

impl NetworkRecord {
    /// Returns the judge of packets that the machine's rules have counted.
    pub(super) fn judge(&self) -> Judge<'_> {
        let reachable = self.machine.iter().flat_map(|machine| &machine.reachable);
        let exceptions = reachable.map(|thing| (thing.address(), thing.port())).collect();
        Judge { policy: &self.policy, exceptions, shut: &self.shut }
    }

    /// Writes the record; a failure leaves no partial one.
    pub(super) fn write(&self, run_dir: &Path) -> io::Result<()> {
        // Flushed, because a power cut would otherwise leave an empty file under the new name.
        file::replace_durably(&run_dir.join(RECORD), &serde_json::to_vec(self)?)
    }

    /// Writes the record again, with the gate. It is not flushed: a power cut ends the gate too, and a damaged record is
    /// removed then.
    pub(super) fn rewrite(&self, run_dir: &Path) -> io::Result<()> {
        file::replace(&run_dir.join(RECORD), &serde_json::to_vec(self)?)
    }

    pub(super) fn read(run_dir: &Path) -> io::Result<Found<Self>> {
        match std::fs::read(run_dir.join(RECORD)) {
            Ok(text) => Ok(serde_json::from_slice(&text).map_or(Found::Unreadable, Found::Record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }
}

/// Removes what is left of a run folder's network. Does nothing if there is no record. With the last machine of this host,
/// the host's rules are removed too. Returns the path of a damaged record, which is removed: the link of a machine does not
/// outlive the boot whose end damages records.
///
/// # Errors
/// The record cannot be read, or the kernel refuses.
pub(crate) fn remove(run_dir: &Path) -> Result<Option<PathBuf>, NetworkError> {
    let path = run_dir.join(RECORD);
    match NetworkRecord::read(run_dir).map_err(step("read the record"))? {
        Found::Nothing => return Ok(None),
        Found::Record(record) => remove_recorded(run_dir, &record)?,
        Found::Unreadable => {
            std::fs::remove_file(&path).map_err(step("remove the record"))?;
            return Ok(Some(path));
        }
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(step("remove the record")(error)),
        _ => Ok(None),
    }
}

fn remove_recorded(run_dir: &Path, record: &NetworkRecord) -> Result<(), NetworkError> {
    // This ends the gate. It exits with the machine's card too, but the card may still be open.
    account::close(run_dir, record).map_err(step("close the account of the machine"))?;
    // The kernel removes the rest with the card.
    let Some(machine) = &record.machine else { return Ok(()) };
    let link = &machine.link;
    let _lock = lock::acquire()?;
    // This removes both ends, and with them the route that reserves their addresses.
    Netlink::open().and_then(|netlink| netlink.delete(link)).map_err(step("remove the link"))?;
    let links = forwarding::links().map_err(step("list this host's links"))?;
    if links.iter().any(|link| link.starts_with(rules::LINK_PREFIX)) {
        // This fails if the rules were flushed meanwhile, because then the exceptions are gone too.
        if let Err(error) = nft::run("this host", &rules::forget(machine)) {
            tracing::debug!("{error}");
        }
    } else {
        nft::run("this host", rules::REMOVE)?;
    }
    Ok(())
}

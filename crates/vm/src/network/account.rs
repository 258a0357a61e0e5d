//! Closes the account of a machine's network: joins what its gate and its rules have counted, once, before both are removed. Without
//! root, the gate counts alone.
//!
//! The kernel removes a namespace and its counts with its last holder. So this process holds the namespaces of its machines until
//! their accounts are closed. The gate's ledger is a file of the run folder, and outlives gate, machine and dayfly.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dayfly_host::file;

use super::counts::{self, Counts};
use super::gate::{self, ledger};
use super::record::NetworkRecord;
use super::used::{self, NetworkUse};
use crate::machine::record::Found;

/// Name of the file with the closed account.
const CLOSED: &str = "network-use.json";
/// Most bytes of a closed account that are read.
const CLOSED_MAX: u64 = 256 * 1024;
/// Name of the gate's ledger, which is removed with the machine. The closed account stays as long as the run folder, as logs do.
pub(crate) const LEDGER: &str = ledger::FILE_NAME;

/// The namespaces of this process's machines, by the names of their links.
static NAMESPACES: Mutex<BTreeMap<String, OwnedFd>> = Mutex::new(BTreeMap::new());

fn namespaces() -> MutexGuard<'static, BTreeMap<String, OwnedFd>> {
    NAMESPACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the namespace of a machine until its account is closed, or [`let_go`] is called.
pub(super) fn hold(link: &str, namespace: OwnedFd) {
    namespaces().insert(link.to_owned(), namespace);
}

/// Discards the account of an earlier network of the same run folder, or of one that could not be made.
pub(super) fn discard(run_dir: &Path) -> io::Result<()> {
    for name in [LEDGER, CLOSED] {
        match fs::remove_file(run_dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Lets the namespace of a machine go that outlives this process or its run.
pub(crate) fn let_go(run_dir: &Path) {
    if let Ok(Found::Record(NetworkRecord { machine: Some(machine), .. })) = NetworkRecord::read(run_dir) {
        namespaces().remove(&machine.link);
    }
}

/// Ends the gate and writes the account into the run folder, unless that is done. A count that cannot be read is missing in it, and
/// a disk without room costs the account, because neither may keep a network from being removed.
///
/// # Errors
/// The gate does not exit.
pub(super) fn close(run_dir: &Path, record: &NetworkRecord) -> io::Result<()> {
    let had_exited = record.gate.as_ref().is_some_and(|gate| gate::has_exited(gate).unwrap_or_default());
    if run_dir.join(CLOSED).exists() {
        return record.gate.as_ref().map_or(Ok(()), gate::end);
    }
    // Without root, no rules count: the gate's ledger has all connections, and the gate is in the host's namespace.
    let namespace = record.machine.as_ref();
    let namespace = namespace.and_then(|machine| {
        let held = namespaces().remove(&machine.link);
        held.or_else(|| namespace_of_gate(record))
    });
    record.gate.as_ref().map_or(Ok(()), gate::end)?;
    let counts = namespace.map_or(Ok(Counts::default()), counts::read).unwrap_or_else(|error| {
        tracing::debug!("{error}");
        Counts::default()
    });
    let account = joined(run_dir, record, &counts, had_exited);
    let written =
        account.and_then(|account| file::replace(&run_dir.join(CLOSED), &serde_json::to_vec(&account)?));
    if let Err(error) = written {
        tracing::debug!("cannot write the account of {}: {error}", run_dir.display());
    }
    Ok(())
}

/// Returns the namespace of a machine that this process has not started, through its gate.
fn namespace_of_gate(record: &NetworkRecord) -> Option<OwnedFd> {
    let gate = record.gate.as_ref()?;
    let namespace = fs::File::open(gate.network_namespace()).ok()?;
    // Checked after opening, because from then on the descriptor cannot be that of a later process.
    gate.open().ok()??;
    Some(namespace.into())
}

fn joined(
    run_dir: &Path,
    record: &NetworkRecord,
    counts: &Counts,
    had_exited: bool,
) -> io::Result<NetworkUse> {
    let path = run_dir.join(LEDGER);
    // A gate of an older version keeps none.
    let has_ledger = path.exists();
    let ledger = ledger::read(&path)?.unwrap_or_default();
    let mut account = used::join(&record.judge(), &ledger, counts);
    account.gate_killed = had_exited && has_ledger && !ledger.has_ended;
    Ok(account)
}

/// Returns what the machine of a run folder has reached; none if it has no network of its own. Ends its gate, so it is for a
/// machine that has exited or that is about to be ended. Takes some milliseconds.
pub fn network_use(run_dir: &Path) -> Option<NetworkUse> {
    if let Ok(Found::Record(record)) = NetworkRecord::read(run_dir)
        && let Err(error) = close(run_dir, &record)
    {
        tracing::debug!("cannot close the account of {}: {error}", run_dir.display());
    }
    let mut text = Vec::new();
    fs::File::open(run_dir.join(CLOSED)).ok()?.take(CLOSED_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

//! Keeps the host's rules while machines of this process run. Another program may flush them (Debian's nftables.service does
//! when it starts). The machines' own rules would still shut the addresses that the host had when they started, but the
//! internet would be gone, and so would the walls between machines and to the host's later addresses.

use std::collections::BTreeMap;
use std::io;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::step;
use super::rules::{self, HostMachine};
use super::{NetworkError, forwarding, lock, nft};

/// Time between two looks at the rules. A look takes 5 ms.
const INTERVAL: Duration = Duration::from_secs(60);
/// Most machines whose exceptions are in one script.
const MACHINES_MAX: usize = 100;

struct Upkeep {
    /// This process's machines, by their links.
    machines: BTreeMap<String, HostMachine>,
    /// The links that this process has set guard rules for.
    guarded: Vec<String>,
    is_running: bool,
}

static UPKEEP: Mutex<Upkeep> =
    Mutex::new(Upkeep { machines: BTreeMap::new(), guarded: Vec::new(), is_running: false });

fn upkeep() -> MutexGuard<'static, Upkeep> {
    UPKEEP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine for which the host's rules are kept until this is dropped.
#[derive(Debug)]
pub(super) struct Upheld {
    link: String,
}

impl Drop for Upheld {
    fn drop(&mut self) {
        upkeep().machines.remove(&self.link);
    }
}

/// Adds a machine.
pub(super) fn uphold(machine: &HostMachine) -> Upheld {
    upkeep().machines.insert(machine.link.clone(), machine.clone());
    Upheld { link: machine.link.clone() }
}

/// Remembers the links that guard rules were set for.
pub(super) fn keep_guard(links: &[String]) {
    upkeep().guarded = links.to_vec();
}

/// Starts the thread that looks at the rules of the calling thread's namespace, unless it runs. It ends with the last machine.
pub(super) fn start() -> io::Result<()> {
    let mut state = upkeep();
    if !state.is_running {
        std::thread::Builder::new().name("network-rules".to_owned()).spawn(run)?;
        state.is_running = true;
    }
    Ok(())
}

fn run() {
    loop {
        std::thread::sleep(INTERVAL);
        {
            let mut state = upkeep();
            if state.machines.is_empty() {
                state.is_running = false;
                return;
            }
        }
        if let Err(error) = restore() {
            tracing::warn!("cannot check this host's rules for machines: {error}");
        }
    }
}

/// Restores the rules of this host if any of them is missing, for those machines of this process whose links exist. Returns
/// true if something was missing.
pub(super) fn restore() -> Result<bool, NetworkError> {
    // The lock comes first, because a machine that is being removed loses its link under it.
    let _lock = lock::acquire()?;
    let links = forwarding::links().map_err(step("list this host's links"))?;
    let (machines, guarded) = {
        let state = upkeep();
        let here = state.machines.values().filter(|machine| links.contains(&machine.link));
        let machines: Vec<HostMachine> = here.cloned().collect();
        (machines, state.guarded.clone())
    };
    if machines.is_empty() {
        return Ok(false);
    }
    let has_guard = guarded.is_empty() || listed("dayfly-guard")?.is_some();
    if !has_guard {
        nft::run("the guard of this host", &rules::guard(&guarded))?;
    }
    let is_whole = listed("dayfly")?.is_some_and(|text| is_whole(&text, &machines));
    if !is_whole {
        for some in machines.chunks(MACHINES_MAX) {
            nft::run("this host", &rules::host(&some.iter().collect::<Vec<_>>()))?;
        }
    }
    if has_guard && is_whole {
        return Ok(false);
    }
    tracing::warn!(
        "another program has removed dayfly's rules from this host's packet filter (does nftables.service flush them?); they \
         are restored"
    );
    Ok(true)
}

/// Returns a table of this host as nft prints it; none if the table does not exist.
fn listed(table: &str) -> Result<Option<String>, NetworkError> {
    let output = Command::new(nft::program()?)
        .args(["list", "table", "ip", table])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(step("start nft"))?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Returns true if the text of the host's table has a rule of each kind and the link of each machine that has exceptions.
fn is_whole(table: &str, machines: &[HostMachine]) -> bool {
    let chains = [
        "@reachable accept",
        "@open accept",
        "fib daddr type",
        "ct state established,related accept",
        "masquerade",
    ];
    let is_listed = |machine: &HostMachine| {
        let has_elements = machine.is_open || !machine.reachable.is_empty();
        !has_elements || table.contains(&format!("\"{}\"", machine.link))
    };
    chains.iter().all(|rule| table.contains(rule)) && machines.iter().all(is_listed)
}

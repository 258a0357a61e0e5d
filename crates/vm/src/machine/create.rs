//! Creates and starts a machine that shares its environment directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;

use super::handle::Supervising;
use super::mounted::Mounted;
use super::record::{MachineRecord, MachineRecordKind};
use super::spawn::Outputs;
use super::supervise::EVENTS_MAX;
use super::{StartError, Vm, record};
use crate::driver::{krunvm, mounted};
use crate::environment::EnvironmentDir;
use dayfly_host::tool;

/// Longest time that a tool may take to create a machine from an image that was fetched.
const CREATE_LIMIT: Duration = Duration::from_secs(120);

/// Data to create a machine that shares its environment directory, and to find it again.
pub(crate) struct Mounting {
    /// The machine's name.
    pub(crate) name: String,
    /// The guest binary on the host.
    pub(crate) guest_binary: PathBuf,
    pub(crate) plan: mounted::Plan,
    pub(crate) kind: MachineRecordKind,
    /// The file that is locked while the machine is created.
    pub(crate) lock: Option<PathBuf>,
    pub(crate) hello_limit: Duration,
}

/// Creates the machine, then starts it. The record is written before the machine can exist.
pub(crate) async fn start_mounted(
    mounting: Mounting,
    environment: EnvironmentDir,
    run_dir: &Path,
) -> Result<Vm, StartError> {
    let path = environment.path().to_owned();
    environment.watch_removals().map_err(|error| StartError::Io {
        what: "open",
        path,
        source: std::io::Error::other(error),
    })?;
    let (event_sender, events) = mpsc::channel(EVENTS_MAX);
    let (orders, order_receiver) = mpsc::channel(4);
    let detached = Arc::new(AtomicBool::new(false));
    let outputs = Outputs::new();
    let owner = Mounted {
        plan: mounting.plan.clone(),
        run_dir: run_dir.to_owned(),
        hello_limit: mounting.hello_limit,
        environment,
        outputs: outputs.clone(),
        events: event_sender,
        orders: order_receiver,
        detached: Arc::clone(&detached),
    };
    let made = create(mounting, run_dir).await;
    let running = match made.and_then(|()| owner.start()) {
        Ok(running) => running,
        Err(error) => {
            if let Err(left) = record::destroy_leftover(run_dir).await {
                tracing::warn!("{left}");
            }
            return Err(error);
        }
    };
    let supervisor = Supervising::Running(tokio::spawn(owner.run(running)));
    Ok(Vm { events, orders, supervisor, outputs, run_dir: run_dir.to_owned(), detached, parts: None })
}

async fn create(mounting: Mounting, run_dir: &Path) -> Result<(), StartError> {
    let (guest, to) = (mounting.guest_binary, run_dir.join(record::GUEST_FOLDER));
    // A copy, so that the machine's label and its changes affect only its own file.
    std::fs::create_dir_all(&to)
        .and_then(|()| std::fs::copy(&guest, to.join(mounted::GUEST_NAME)))
        .map_err(|source| StartError::of_guest_binary(&guest, source))?;
    let _lock = match &mounting.lock {
        Some(lock) => {
            let io_error = |source| StartError::Io { what: "lock", path: lock.clone(), source };
            Some(record::lock_file(lock).await.map_err(io_error)?)
        }
        None => None,
    };
    if let MachineRecordKind::Krunvm { krunvm, .. } = &mounting.kind {
        // krunvm identifies machines by name alone, so an existing machine of this name is not ours.
        let list = tool::run(&krunvm::list(krunvm), CREATE_LIMIT).await?;
        if krunvm::is_listed(&list, &mounting.name) {
            return Err(StartError::Taken { name: mounting.name, tool: "krunvm" });
        }
    }
    let record = MachineRecord { name: mounting.name, kind: mounting.kind };
    record.write(run_dir).map_err(|source| StartError::Io {
        what: "write the record in",
        path: run_dir.to_owned(),
        source,
    })?;
    tool::run(&mounting.plan.create, CREATE_LIMIT).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dayfly_host::tool::Invocation;

    #[tokio::test]
    async fn a_lock_that_cannot_be_taken_is_named_once() {
        let folder = tempfile::tempdir().expect("folder");
        let guest_binary = folder.path().join("dayfly-guest");
        std::fs::write(&guest_binary, "x").expect("a file");
        let tool = Invocation { program: "/nonexistent".into(), args: Vec::new(), env: Vec::new() };
        let lock = PathBuf::from("/nonexistent/krunvm.lock");
        let mounting = Mounting {
            name: "m".to_owned(),
            guest_binary,
            plan: mounted::Plan { create: tool.clone(), start: tool.clone(), stop: None },
            kind: MachineRecordKind::Krunvm { krunvm: tool, lock: lock.clone() },
            lock: Some(lock),
            hello_limit: Duration::from_secs(1),
        };
        let error = create(mounting, folder.path()).await.expect_err("no lock").to_string();
        assert_eq!(error, "cannot lock /nonexistent/krunvm.lock: No such file or directory (os error 2)");
    }
}

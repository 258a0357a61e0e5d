//! Many machines: none is lost, none leaves anything, no two are alike, and whatever is killed at whatever moment leaves a
//! clean host.
//!
//! Each test has a small edition, and a whole one that `make test-full` runs. What a process leaks is seen only while
//! nothing else runs in it, so they take turns.

mod burst;
mod dice;
mod draws;
mod footprint;
mod killed_builders;
mod killed_runners;
mod killed_vmms;
mod rows;

use std::path::Path;
use std::time::Duration;

use dayfly_e2e::machines::{Stage, enter_network_namespace};
use dayfly_e2e::{image, prepared};
use dayfly_vm::{Preparing, TemplateSettings};
use tokio::sync::{Mutex, MutexGuard};

/// How long anything may take to come to pass on a loaded host.
const PATIENCE: Duration = Duration::from_secs(300);

/// One test after another.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// Machines in a network of their own, with a template.
async fn stage(state: &Path, template: TemplateSettings) -> Stage {
    enter_network_namespace();
    let stage = Stage::new(state, &prepared("DAYFLY_BINARY"), &image(), template).expect("a stage");
    let told = stage.prepare().await;
    let has_failed = |what: &Preparing| matches!(what, Preparing::Failed { .. } | Preparing::Cold { .. });
    assert!(!told.iter().any(has_failed), "{told:?}");
    stage
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "in {} s it did not come to pass that {what}", PATIENCE.as_secs());
}

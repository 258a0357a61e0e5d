//! Tests with many machines: none is lost, none leaves anything behind, no two are alike, and the host is clean after
//! builders, orchestrators or VMMs were killed at any moment.
//!
//! Most tests have a small version, and a full one that `make test-full` runs. The tests take turns, because leaks of a
//! process can be measured only while nothing else runs in it.

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

/// Longest time that a test waits for anything on a loaded host.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until no other test of this program runs, and holds the others back until the guard is dropped.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// Creates a stage for machines in a separate network namespace, with a template.
async fn stage(state: &Path, template: TemplateSettings) -> Stage {
    enter_network_namespace();
    let stage = Stage::new(state, &prepared("DAYFLY_BINARY"), &image(), template).expect("a stage");
    let told = stage.prepare().await;
    let has_failed = |what: &Preparing| matches!(what, Preparing::Failed { .. } | Preparing::Cold { .. });
    assert!(!told.iter().any(has_failed), "{told:?}");
    stage
}

/// Waits until `holds` returns true.
async fn until(what: &str, holds: impl Fn() -> bool) {
    assert!(comes_true(holds).await, "after {} s it is still not true that {what}", PATIENCE.as_secs());
}

/// Waits until `holds` returns true. Returns false if it never does.
async fn comes_true(holds: impl Fn() -> bool) -> bool {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.is_ok()
}

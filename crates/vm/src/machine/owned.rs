//! The machines that this process owns, by their run folders. An owner lets go of sockets and ports in steps, so a take-over in the
//! same process waits until the owner before it has done so.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Longest time that an owner may take to let go. It closes some descriptors.
const LIMIT: Duration = Duration::from_secs(20);

/// The run folders of the machines. A sender is dropped when its machine has no owner any more.
static OWNED: Mutex<BTreeMap<PathBuf, watch::Sender<()>>> = Mutex::new(BTreeMap::new());

fn owned() -> MutexGuard<'static, BTreeMap<PathBuf, watch::Sender<()>>> {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine that this process owns until this is dropped.
#[derive(Debug)]
pub(super) struct Owned(PathBuf);

impl Owned {
    pub(super) fn new(run_dir: &Path) -> Self {
        owned().insert(run_dir.to_owned(), watch::channel(()).0);
        Self(run_dir.to_owned())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        owned().remove(&self.0);
    }
}

/// Waits until this process does not own the machine of a run folder.
///
/// # Errors
/// It owns the machine for too long.
pub(super) async fn let_go(run_dir: &Path) -> io::Result<()> {
    let gone = owned().get(run_dir).map(watch::Sender::subscribe);
    let Some(mut gone) = gone else { return Ok(()) };
    // Nothing is ever sent, so this ends with the sender.
    let waited = tokio::time::timeout(LIMIT, gone.changed()).await;
    waited.map(drop).map_err(|_| io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_take_over_waits_for_the_owner_before_it_and_not_for_ever() {
        let (ours, other) = (Path::new("/nonexistent/a"), Path::new("/nonexistent/b"));
        let owner = Owned::new(ours);
        let_go(other).await.expect("it has no owner");
        let error = let_go(ours).await.expect_err("its owner does not let go");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let ((), gone) = tokio::join!(async { drop(owner) }, let_go(ours));
        gone.expect("it has none any more");
    }
}

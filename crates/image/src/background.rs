//! Runs blocking work on a thread of its own, and reports its progress to async code.

use tokio::sync::mpsc;

use super::{BuildSettings, Cancel, ImageError, Progress};

/// Most progress reports that wait for the caller. Later ones are dropped.
const PROGRESS_QUEUE: usize = 256;

/// Runs blocking `work` on a thread of its own and passes its progress to `tell`. Dropping the future cancels the work
/// through
/// `settings.cancel`.
///
/// # Errors
/// Those of `work`.
pub async fn in_background<T: Send + 'static>(
    settings: BuildSettings,
    tell: &mut (dyn FnMut(Progress) + Send),
    work: impl FnOnce(&BuildSettings, &mut dyn FnMut(Progress)) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let cancel = Cancel::default();
    let _stop = CancelOnDrop(cancel.clone());
    let settings = BuildSettings { cancel, ..settings };
    let (sender, mut progress) = mpsc::channel(PROGRESS_QUEUE);
    let working = tokio::task::spawn_blocking(move || {
        work(&settings, &mut |step| {
            let _ = sender.try_send(step);
        })
    });
    while let Some(step) = progress.recv().await {
        tell(step);
    }
    match working.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking work, and then no caller waits for the result.
            Err(_) => Err(ImageError::Cancelled),
        },
    }
}

/// Cancels the work when the future that waits for it is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

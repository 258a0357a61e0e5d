//! Runs blocking work on a thread of its own, and reports its progress to async code.

use tokio::sync::mpsc;

use super::{BuildSettings, Cancel, ImageError, Progress};

/// Most progress reports that wait for the caller. Later ones are dropped.
const PROGRESS_QUEUE: usize = 256;
/// The lowest priority that a thread can have, as `nice` counts.
const PRIORITY_LOWEST: i32 = 19;

/// Runs blocking `work` on a thread of its own and passes its progress to `tell`. Dropping the future cancels the work
/// through `settings.cancel`; the runtime ends only when the work has removed its files.
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
        let tell = |step| {
            let _ = sender.try_send(step);
        };
        match settings.gently {
            true => gently(|| work(&settings, &mut { tell })),
            false => work(&settings, &mut { tell }),
        }
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

/// Runs `work` with the lowest priority, which the programs that it starts inherit. It has a thread of its own for that,
/// because a thread cannot get its priority back.
fn gently<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let lowered = || {
        if let Err(error) = rustix::process::setpriority_process(None, PRIORITY_LOWEST) {
            tracing::debug!("the priority of a build is not lowered: {error}");
        }
        work()
    };
    let done = std::thread::scope(|scope| scope.spawn(lowered).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Cancels the work when the future that waits for it is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority() -> i32 {
        rustix::process::getpriority_process(None).expect("known")
    }

    #[test]
    fn gentle_work_and_its_programs_have_the_lowest_priority_and_the_caller_keeps_its_own() {
        let before = priority();
        let (own, of_child) = gently(|| {
            let said = std::process::Command::new("nice").output().expect("it runs");
            (priority(), String::from_utf8_lossy(&said.stdout).trim().to_owned())
        });
        assert_eq!((own, of_child.as_str(), priority()), (PRIORITY_LOWEST, "19", before));
    }
}

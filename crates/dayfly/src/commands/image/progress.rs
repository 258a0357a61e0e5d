//! Shows the progress of builds and fetches.

use std::time::Instant;

use dayfly_image::{BuildSettings, ImageError, Progress};

use crate::exit::{Failure, Result};
use crate::printer::Task;

/// Runs `work` on a thread of its own and shows its progress. Dropping the future cancels the work.
pub(super) async fn building<T: Send + 'static>(
    settings: BuildSettings,
    what: &str,
    quiet: bool,
    work: impl FnOnce(&BuildSettings, &mut dyn FnMut(Progress)) -> std::result::Result<T, ImageError>
    + Send
    + 'static,
) -> Result<T> {
    let mut shown = ImageProgress::of(what, quiet);
    let built = dayfly_image::in_background(settings, &mut |step| shown.take(step), work).await;
    let built = built.map_err(Failure::cannot)?;
    shown.done();
    Ok(built)
}

/// Shows the progress of a build or a fetch. Prints nothing until the first step, so a finished build stays silent.
pub(super) struct ImageProgress {
    title: String,
    quiet: bool,
    task: Option<Task>,
    rate: Option<(Instant, u64)>,
}

impl ImageProgress {
    pub(super) fn of(what: &str, quiet: bool) -> Self {
        Self { title: format!("making the {what}"), quiet, task: None, rate: None }
    }

    pub(super) fn take(&mut self, step: Progress) {
        let task = self.task.get_or_insert_with(|| Task::begin(&self.title, self.quiet));
        match step {
            Progress::Waiting { what } => {
                task.phase(&format!("waiting for another process that builds {what}"))
            }
            Progress::Asking => task.phase("asking the registry"),
            Progress::Phase { name } => task.phase(name),
            Progress::Pulling { layers_done, layers, bytes_done, bytes } => {
                task.at(&pulling(layers_done, layers, bytes_done, bytes, &mut self.rate));
            }
            Progress::Line { text } => task.at(&text),
        }
    }

    pub(super) fn done(self) {
        if let Some(task) = self.task {
            task.done("done");
        }
    }
}

/// Describes the progress and the rate of a pull. The rate counts from the start of the pull, without earlier bytes.
fn pulling(
    layers_done: usize,
    layers: usize,
    bytes_done: u64,
    bytes: u64,
    began: &mut Option<(Instant, u64)>,
) -> String {
    let (since, before) = *began.get_or_insert((Instant::now(), bytes_done));
    let rate =
        bytes_done.saturating_sub(before) as f64 / since.elapsed().as_secs_f64().max(0.1) / (1 << 20) as f64;
    let (done_mib, mib) = (bytes_done / (1 << 20), bytes / (1 << 20));
    format!("pulling: {layers_done}/{layers} layers, {done_mib}/{mib} MiB, {rate:.1} MiB/s")
}

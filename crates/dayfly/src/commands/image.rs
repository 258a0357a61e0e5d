//! `dayfly image build|ls|rm`: what the machines boot.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dayfly_vm::Image;
use dayfly_vm::image::{self, BuildSettings, Cancel, ImageError, Progress, Store};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, Task, paint, style};
use crate::settings::Places;
use crate::signals::Signals;

/// How much of a build's progress may wait to be shown; what is more is left out.
const PROGRESS_QUEUE: usize = 256;

pub(crate) async fn build(places: &Places, json: bool) -> Result<Outcome> {
    let mut signals = Signals::take_over()?;
    let image = tokio::select! {
        image = ensure(places, json) => image?,
        // Dropping the build stops it; its programs end, and what it has made is removed.
        signal = signals.next() => return Ok(Outcome::StoppedBy(signal)),
    };
    if json {
        printer::json(&describe(&image));
    } else {
        printer::line(summary(&image));
    }
    Ok(Outcome::Success)
}

pub(crate) fn ls(places: &Places, json: bool) -> Result<Outcome> {
    let images = Store::new(&places.state).list().map_err(Failure::cannot)?;
    if json {
        printer::json(&images.iter().map(describe).collect::<Vec<_>>());
    } else if images.is_empty() {
        printer::note(format_args!(
            "no images in {}; `dayfly image build` makes one",
            places.state.display()
        ));
    } else {
        printer::line(paint(style::HEAD, "id            suite     kernel                 size     age"));
        for image in &images {
            let manifest = image.manifest();
            printer::line(format_args!(
                "{:12}  {:8}  {:21}  {:>7}  {}",
                short(image),
                manifest.suite,
                manifest.kernel,
                mebibytes(manifest.bytes()),
                age(manifest.created_s),
            ));
        }
    }
    Ok(Outcome::Success)
}

pub(crate) fn rm(places: &Places, id: &str) -> Result<Outcome> {
    let store = Store::new(&places.state);
    let image = store.find(id).map_err(Failure::cannot)?;
    store.remove(&image).map_err(Failure::cannot)?;
    printer::line(format_args!("removed {}", short(&image)));
    Ok(Outcome::Success)
}

pub(crate) async fn runner_app(places: &Places) -> Result<Outcome> {
    printer::line(host_runner_app(places, false).await?.display());
    Ok(Outcome::Success)
}

/// The runner app for processes of this host, built where it is missing.
pub(crate) async fn host_runner_app(places: &Places, quiet: bool) -> Result<std::path::PathBuf> {
    let app =
        building(places, "runner app", quiet, |settings, progress| image::runner_app(settings, progress));
    Ok(app.await?.program)
}

/// The image that was asked for by its id.
pub(crate) fn find(places: &Places, wanted: &str) -> Result<Image> {
    Store::new(&places.state).find(wanted).map_err(Failure::cannot)
}

/// The built-in image, built where it is missing.
pub(crate) async fn ensure(places: &Places, quiet: bool) -> Result<Image> {
    building(places, "image", quiet, |settings, progress| image::build(settings, progress)).await
}

/// One line about an image.
pub(crate) fn summary(image: &Image) -> String {
    let manifest = image.manifest();
    format!(
        "{} (Debian {}, Linux {}, {})",
        short(image),
        manifest.suite,
        manifest.kernel,
        mebibytes(manifest.bytes())
    )
}

/// The same for programs.
pub(crate) fn describe(image: &Image) -> Value {
    let manifest = image.manifest();
    json!({
        "id": image.id(), "suite": manifest.suite, "kernel": manifest.kernel, "bytes": manifest.bytes(),
        "created_s": manifest.created_s, "runner_app": manifest.runner_app, "folder": image.folder(),
    })
}

/// Stops a build when whoever waits for it is gone.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Builds something on a thread of its own and shows how it goes.
async fn building<T: Send + 'static>(
    places: &Places,
    what: &str,
    quiet: bool,
    work: impl FnOnce(&BuildSettings, &mut dyn FnMut(Progress)) -> std::result::Result<T, ImageError>
    + Send
    + 'static,
) -> Result<T> {
    let cancel = Cancel::default();
    let _stop = CancelOnDrop(cancel.clone());
    let settings = BuildSettings {
        state: places.state.clone(),
        suite: None,
        packages: None,
        go_folders: places.search_path.clone(),
        cancel,
    };
    let (sender, mut progress) = mpsc::channel(PROGRESS_QUEUE);
    let built = tokio::task::spawn_blocking(move || {
        work(&settings, &mut |step| {
            let _ = sender.try_send(step);
        })
    });
    // Where there is nothing to do, nothing is said.
    let mut task: Option<Task> = None;
    while let Some(step) = progress.recv().await {
        let task = task.get_or_insert_with(|| Task::begin(&format!("building the {what}"), quiet));
        match step {
            Progress::Waiting { what } => {
                task.phase(&format!("waiting for another process that builds {what}"))
            }
            Progress::Phase { name } => task.phase(name),
            Progress::Line { text } => task.at(&text),
        }
    }
    let result = built.await.map_err(Failure::cannot)?.map_err(Failure::cannot)?;
    if let Some(task) = task {
        task.done("done");
    }
    Ok(result)
}

fn short(image: &Image) -> &str {
    image.id().get(..12).unwrap_or(image.id())
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

pub(super) fn age(created_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let seconds = now.saturating_sub(u64::try_from(created_s).unwrap_or_default());
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

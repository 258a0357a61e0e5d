//! `dayfly image build|pull|ls|inspect|rm|gc|kernel|tools`: manages the images that machines boot.

pub(crate) mod check;

use std::time::Instant;

use dayfly_image::Image;
use dayfly_image::oci::ImageName;
use dayfly_image::{
    BuildSettings, Cancel, ImageError, ImageResolver, ImportSettings, Imported, Manifest, Origin, Progress,
    PullPolicy, Store,
};
use serde_json::{Value, json};

use crate::cli::{FetchArgs, ImageBuildArgs, ImageTools, Pull};
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, Task, paint, style};
use crate::settings::Places;

pub(crate) async fn build(places: &Places, args: ImageBuildArgs) -> Result<Outcome> {
    let ImageBuildArgs { suite, packages, json } = args;
    let settings = BuildSettings { suite, packages, ..build_settings(places) };
    let image = building(settings, "image", json, dayfly_image::build).await?;
    if json {
        printer::json(&describe(&image));
    } else {
        printer::line(summary(&image));
    }
    Ok(Outcome::Success)
}

pub(crate) async fn pull(places: &Places, name: &str, fetch: FetchArgs, json: bool) -> Result<Outcome> {
    let image = of_name(places, name, fetch, json).await?.image;
    if json {
        printer::json(&describe(&image));
    } else {
        printer::line(summary(&image));
        tell_lacks(image.manifest());
    }
    Ok(Outcome::Success)
}

pub(crate) async fn kernel(places: &Places, json: bool) -> Result<Outcome> {
    let bundle = building(build_settings(places), "kernel", json, dayfly_image::kernel).await?;
    if json {
        printer::json(&json!({ "id": bundle.manifest.id, "suite": bundle.manifest.suite,
            "kernel": bundle.manifest.kernel, "folder": bundle.folder }));
    } else {
        printer::line(format_args!("Linux {} (Debian {})", bundle.manifest.kernel, bundle.manifest.suite));
    }
    Ok(Outcome::Success)
}

pub(crate) async fn tools(places: &Places, json: bool) -> Result<Outcome> {
    let tools = building(build_settings(places), "tools", json, dayfly_image::tools).await?;
    let manifest = &tools.manifest;
    if json {
        printer::json(&json!({ "id": manifest.id, "suite": manifest.suite,
            "tools": manifest.tools.keys().collect::<Vec<_>>(), "folder": tools.folder }));
    } else {
        let names: Vec<&str> = manifest.tools.keys().map(String::as_str).collect();
        printer::line(format_args!("{} (Debian {})", names.join(", "), manifest.suite));
    }
    Ok(Outcome::Success)
}

pub(crate) fn gc(places: &Places, keep_bytes: u64, json: bool) -> Result<Outcome> {
    let collected = Store::new(&places.state).gc(keep_bytes).map_err(Failure::cannot)?;
    if json {
        let images: Vec<Value> =
            collected.images.iter().map(|(id, bytes)| json!({ "id": id, "bytes": bytes })).collect();
        printer::json(
            &json!({ "images": images, "layers": collected.layers, "layer_bytes": collected.layer_bytes,
            "in_use": collected.in_use, "left_bytes": collected.left_bytes }),
        );
        return Ok(Outcome::Success);
    }
    if collected.layers > 0 {
        printer::line(format_args!(
            "removed {} layers, {}",
            collected.layers,
            mebibytes(collected.layer_bytes)
        ));
    }
    for (id, bytes) in &collected.images {
        printer::line(format_args!("removed {}, {}", id.get(..12).unwrap_or(id), mebibytes(*bytes)));
    }
    for id in &collected.in_use {
        printer::note(format_args!("{} stays: a machine uses it", id.get(..12).unwrap_or(id)));
    }
    printer::line(format_args!("{} left", mebibytes(collected.left_bytes)));
    Ok(Outcome::Success)
}

pub(crate) fn inspect(places: &Places, wanted: &str, json: bool) -> Result<Outcome> {
    let store = Store::new(&places.state);
    let image = by_name(&store, wanted).map_or_else(|| store.find(wanted).map_err(Failure::cannot), Ok)?;
    if json {
        let mut value = json!(image.manifest());
        value["names"] = json!(store.names_of(&image));
        value["folder"] = json!(image.folder());
        printer::json(&value);
        return Ok(Outcome::Success);
    }
    printer::line(summary(&image));
    let manifest = image.manifest();
    let row = |name: &str, value: &str| {
        if !value.is_empty() {
            // These texts come from the image, so they may contain control characters.
            let shown: String = value.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            printer::line(format_args!("  {} {shown}", paint(style::DIM, format_args!("{name:11}"))));
        }
    };
    row("id", image.id());
    row("names", &store.names_of(&image).join(", "));
    row("runner app", format!("{} {}", manifest.runner_app.name, manifest.runner_app.version).trim());
    if let Some(Origin { digest, layers, run, added, lacks, devices_left_out, .. }) = &manifest.origin {
        row("digest", digest.as_str());
        row("layers", &layers.len().to_string());
        row("added", &added.join(", "));
        row("lacks", &lacks.join(", "));
        if *devices_left_out > 0 {
            row("left out", &format!("{devices_left_out} device nodes"));
        }
        row("ENV", &run.env.join(" "));
        row("USER", &run.user);
        row("WORKDIR", &run.working_dir);
        row("ENTRYPOINT", &run.entrypoint.join(" "));
        row("CMD", &run.cmd.join(" "));
    }
    if let Some(report) = dayfly_vm::check::last_check(&image) {
        let verdict = report.why_not().unwrap_or_else(|| "jobs can run in it".to_owned());
        row("checked", &format!("{} ago: {verdict}", age(report.checked_s)));
    }
    row("folder", &image.folder().display().to_string());
    Ok(Outcome::Success)
}

/// Returns the image that was stored when this name was last pulled.
fn by_name(store: &Store, wanted: &str) -> Option<Image> {
    let name = wanted.parse::<ImageName>().ok()?.to_string();
    store.list().ok()?.into_iter().find(|image| store.names_of(image).contains(&name))
}

pub(crate) fn ls(places: &Places, json: bool) -> Result<Outcome> {
    let store = Store::new(&places.state);
    let images = store.list().map_err(Failure::cannot)?;
    if json {
        let with_names = |image: &Image| {
            let mut value = describe(image);
            value["names"] = json!(store.names_of(image));
            value
        };
        printer::json(&images.iter().map(with_names).collect::<Vec<_>>());
    } else if images.is_empty() {
        printer::note(format_args!(
            "no images in {}; `dayfly image build` makes one",
            places.state.display()
        ));
    } else {
        printer::line(paint(
            style::HEAD,
            "id            system            kernel                 size     age      names",
        ));
        for image in &images {
            let manifest = image.manifest();
            printer::line(format_args!(
                "{:12}  {:16}  {:21}  {:>7}  {:7}  {}",
                short(image),
                manifest.suite,
                manifest.kernel,
                mebibytes(manifest.bytes()),
                age(manifest.created_s),
                names_text(&store, image),
            ));
        }
    }
    Ok(Outcome::Success)
}

fn names_text(store: &Store, image: &Image) -> String {
    match image.manifest().origin {
        Some(_) => store.names_of(image).join(", "),
        None => "(built here)".to_owned(),
    }
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

/// Returns the runner app for processes of this host, and builds it if it is missing.
pub(crate) async fn host_runner_app(places: &Places, quiet: bool) -> Result<std::path::PathBuf> {
    Ok(building(build_settings(places), "runner app", quiet, dayfly_image::runner_app).await?.program)
}

/// An image, and the resolver that can find a newer one by the same name.
pub(crate) struct Chosen {
    pub(crate) image: Image,
    pub(crate) source: Option<ImageResolver>,
}

/// Returns the image with this id, folder or name. An image that is given by name is fetched.
pub(crate) async fn of_name(
    places: &Places,
    wanted: &str,
    fetch_args: FetchArgs,
    quiet: bool,
) -> Result<Chosen> {
    let store = Store::new(&places.state);
    if let Some(image) = here(&store, wanted)? {
        store.touch(&image);
        return Ok(Chosen { image, source: None });
    }
    let name = wanted.parse().map_err(|error| Failure::usage(error).hint(NAMES_HINT))?;
    let source = source(places, name, fetch_args)?;
    // The hint also helps with a mistyped id, which is parsed as the name of a repository.
    let image = fetch(&source, quiet).await.map_err(|failure| failure.hint(NAMES_HINT))?;
    Ok(Chosen { image, source: Some(source) })
}

async fn fetch(source: &ImageResolver, quiet: bool) -> Result<Image> {
    let mut shown = Shown::of(&format!("image {}", source.name()), quiet);
    let imported = source.resolve(&mut |step| shown.take(step), &|_| Ok(())).await;
    let Imported { image, warnings } = imported.map_err(Failure::cannot)?;
    shown.done();
    warnings.iter().for_each(printer::warning);
    Ok(image)
}

/// Hint for a name that leads to no image.
const NAMES_HINT: &str =
    "`dayfly image ls` lists images that are here; docs/images.md tells how others are named";

/// Least length of the beginning of an id. Shorter words are parsed as the name of a repository.
const ID_LENGTH_MIN: usize = 4;

/// Returns an image of the store, if `wanted` is its folder or the beginning of its id.
fn here(store: &Store, wanted: &str) -> Result<Option<Image>> {
    if wanted.starts_with(['/', '.']) {
        return store.find(wanted).map(Some).map_err(Failure::cannot);
    }
    let is_id = wanted.len() >= ID_LENGTH_MIN && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    match store.find(wanted) {
        Ok(image) if is_id => Ok(Some(image)),
        Err(error @ ImageError::Ambiguous { .. }) if is_id => Err(Failure::cannot(error)),
        _ => Ok(None),
    }
}

/// Returns the resolver of an image name.
fn source(places: &Places, name: ImageName, fetch: FetchArgs) -> Result<ImageResolver> {
    let policy = match fetch.pull {
        Pull::Always => PullPolicy::Always,
        Pull::Missing => PullPolicy::Missing,
        Pull::Never => PullPolicy::Never,
    };
    let add_tools = fetch.image_tools == ImageTools::Missing;
    let (tool_folders, tool_env) = (places.search_path.clone(), places.tool_env.clone());
    let (build, access) = (build_settings(places), places.registry_access()?);
    Ok(ImageResolver::new(name, ImportSettings { build, access, policy, add_tools, tool_folders, tool_env }))
}

/// Prints which tools were added to an image, and which ones it lacks.
fn tell_lacks(manifest: &Manifest) {
    if let Some(origin) = &manifest.origin {
        if !origin.added.is_empty() {
            printer::note(format_args!("added: {}", origin.added.join(", ")));
        }
        if !origin.lacks.is_empty() {
            printer::warning(format_args!("it lacks {}: jobs that need them fail", origin.lacks.join(", ")));
        }
    }
}

/// Returns the built-in image, and builds it if it is missing.
pub(crate) async fn ensure(places: &Places, quiet: bool) -> Result<Image> {
    building(build_settings(places), "image", quiet, dayfly_image::build).await
}

/// Returns one line about an image, for people.
pub(crate) fn summary(image: &Image) -> String {
    let manifest = image.manifest();
    let system = match &manifest.origin {
        Some(origin) => format!("{}, {}", origin.name, manifest.suite),
        None => format!("Debian {}", manifest.suite),
    };
    format!("{} ({system}, Linux {}, {})", short(image), manifest.kernel, mebibytes(manifest.bytes()))
}

/// Describes an image as JSON.
pub(crate) fn describe(image: &Image) -> Value {
    let manifest = image.manifest();
    json!({
        "id": image.id(), "suite": manifest.suite, "kernel": manifest.kernel, "bytes": manifest.bytes(),
        "created_s": manifest.created_s, "runner_app": manifest.runner_app, "folder": image.folder(),
        "origin": manifest.origin,
    })
}

fn build_settings(places: &Places) -> BuildSettings {
    BuildSettings {
        state: places.state.clone(),
        suite: None,
        packages: None,
        go_folders: places.search_path.clone(),
        cancel: Cancel::default(),
    }
}

/// Runs `work` on a thread of its own and shows its progress. Dropping the future cancels the work.
async fn building<T: Send + 'static>(
    settings: BuildSettings,
    what: &str,
    quiet: bool,
    work: impl FnOnce(&BuildSettings, &mut dyn FnMut(Progress)) -> std::result::Result<T, ImageError>
    + Send
    + 'static,
) -> Result<T> {
    let mut shown = Shown::of(what, quiet);
    let built = dayfly_image::in_background(settings, &mut |step| shown.take(step), work).await;
    let built = built.map_err(Failure::cannot)?;
    shown.done();
    Ok(built)
}

/// Shows the progress of a build or a fetch. Prints nothing until the first step, so a finished build stays silent.
struct Shown {
    title: String,
    quiet: bool,
    task: Option<Task>,
    rate: Option<(Instant, u64)>,
}

impl Shown {
    fn of(what: &str, quiet: bool) -> Self {
        Self { title: format!("making the {what}"), quiet, task: None, rate: None }
    }

    fn take(&mut self, step: Progress) {
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

    fn done(self) {
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
    let mebi = |bytes: u64| bytes / (1 << 20);
    format!(
        "pulling: {layers_done}/{layers} layers, {}/{} MiB, {rate:.1} MiB/s",
        mebi(bytes_done),
        mebi(bytes)
    )
}

fn short(image: &Image) -> &str {
    image.id().get(..12).unwrap_or(image.id())
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

pub(super) fn age(created_s: i64) -> String {
    let seconds = dayfly_host::clock::now_s().saturating_sub(created_s).max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

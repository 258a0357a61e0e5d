//! `dayfly image build|pull|ls|inspect|rm|gc|kernel|tools`: manages the images that machines boot.

pub(crate) mod check;
mod choose;
pub(crate) mod inspect;
mod progress;

use dayfly_image::{BuildSettings, Image, Manifest, Store, is_tool};
use serde_json::{Value, json};

use crate::cli::{FetchArgs, ImageBuildArgs};
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::settings::Places;
use crate::units::{age, mebibytes, short_id};
pub(crate) use choose::{ChosenImage, choose, host_runner_app};
use choose::{build_settings, by_word};
use progress::building;

pub(crate) async fn build(places: &Places, args: ImageBuildArgs) -> Result<Outcome> {
    let ImageBuildArgs { suite, packages, extra, json } = args;
    let settings = BuildSettings { suite, packages, extra, ..build_settings(places) };
    show(&building(settings, "image", json, dayfly_image::build).await?, json);
    Ok(Outcome::Success)
}

pub(crate) async fn pull(places: &Places, name: &str, fetch: FetchArgs, json: bool) -> Result<Outcome> {
    let image = by_word(places, name, fetch.spec(), json).await?.image;
    show(&image, json);
    if !json {
        tell_lacks(image.manifest(), fetch.spec().add_tools);
    }
    Ok(Outcome::Success)
}

fn show(image: &Image, json: bool) {
    if json {
        printer::json(&describe(image));
    } else {
        printer::line(summary(image));
    }
}

pub(crate) async fn kernel(places: &Places, json: bool) -> Result<Outcome> {
    let bundle = building(build_settings(places), "kernel", json, dayfly_image::kernel).await?;
    let manifest = &bundle.manifest;
    if json {
        printer::json(&json!({ "id": manifest.id, "suite": manifest.suite, "kernel": manifest.kernel,
            "folder": bundle.folder }));
    } else {
        printer::line(format_args!("Linux {} (Debian {})", manifest.kernel, manifest.suite));
    }
    Ok(Outcome::Success)
}

pub(crate) async fn tools(places: &Places, json: bool) -> Result<Outcome> {
    let tools = building(build_settings(places), "tools", json, dayfly_image::tools).await?;
    let manifest = &tools.manifest;
    let names: Vec<&str> = manifest.tools.keys().map(String::as_str).collect();
    if json {
        printer::json(&json!({ "id": manifest.id, "suite": manifest.suite, "tools": names,
            "folder": tools.folder }));
    } else {
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
        printer::line(format_args!("removed {}, {}", short_id(id), mebibytes(*bytes)));
    }
    for id in &collected.in_use {
        printer::note(format_args!("{} stays: a machine uses it", short_id(id)));
    }
    printer::line(format_args!("{} left", mebibytes(collected.left_bytes)));
    Ok(Outcome::Success)
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
            "no images in {}; `dayfly image build` builds one",
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
                short_id(image.id()),
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
    printer::line(format_args!("removed {}", short_id(image.id())));
    Ok(Outcome::Success)
}

pub(crate) async fn runner_app(places: &Places) -> Result<Outcome> {
    printer::line(host_runner_app(places, false).await?.display());
    Ok(Outcome::Success)
}

/// Beginning of the message about tools that were left out.
const TOOLS_ADD: &str = "dayfly adds these to an image that is pulled without --image-tools none:";

/// Prints which tools were added to an image, and which ones it lacks. `added` is false if none were to be added.
fn tell_lacks(manifest: &Manifest, added: bool) {
    if let Some(origin) = &manifest.origin {
        if !origin.added.is_empty() {
            printer::note(format_args!("added: {}", origin.added.join(", ")));
        }
        if !origin.lacks.is_empty() {
            printer::warning(format_args!("it lacks {}: jobs that need them fail", origin.lacks.join(", ")));
            let tools: Vec<&str> =
                origin.lacks.iter().map(String::as_str).filter(|lack| is_tool(lack)).collect();
            if !added && !tools.is_empty() {
                printer::note(format_args!("{TOOLS_ADD} {}", tools.join(", ")));
            }
        }
    }
}

/// Returns one line about an image, for people.
pub(crate) fn summary(image: &Image) -> String {
    let manifest = image.manifest();
    let system = match &manifest.origin {
        Some(origin) => format!("{}, {}", origin.name, manifest.suite),
        None => format!("Debian {}", manifest.suite),
    };
    format!("{} ({system}, Linux {}, {})", short_id(image.id()), manifest.kernel, mebibytes(manifest.bytes()))
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

//! `dayfly image build|pull|rm|kernel|tools`: manages the images that machines boot.

pub(crate) mod check;
mod choose;
pub(crate) mod gc;
pub(crate) mod inspect;
pub(crate) mod ls;
mod progress;

use dayfly_image::{BuildSettings, Image, Manifest, Store, is_tool};
use serde_json::{Value, json};

use crate::cli::{BundleArgs, FetchArgs, ImageBuildArgs};
use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;
use crate::units::{mebibytes, short_id};
use choose::by_word;
pub(crate) use choose::{ChosenImage, build_settings, choose, host_runner_app};
use progress::building;

pub(crate) async fn build(places: &Places, args: ImageBuildArgs) -> Result<Outcome> {
    let ImageBuildArgs { suite, packages, extra, again, json } = args;
    let max_age = again.max_age.0;
    let settings = BuildSettings { suite, packages, extra, max_age, ..build_settings(places) };
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

pub(crate) async fn kernel(places: &Places, BundleArgs { again, json }: BundleArgs) -> Result<Outcome> {
    let settings = BuildSettings { max_age: again.max_age.0, ..build_settings(places) };
    let bundle = building(settings, "kernel", json, dayfly_image::kernel).await?;
    let manifest = &bundle.manifest;
    if json {
        printer::json(&json!({ "id": manifest.id, "suite": manifest.suite, "kernel": manifest.kernel,
            "created_s": manifest.created_s, "folder": bundle.folder }));
    } else {
        printer::line(format_args!("Linux {} (Debian {})", manifest.kernel, manifest.suite));
    }
    Ok(Outcome::Success)
}

pub(crate) async fn tools(places: &Places, BundleArgs { again, json }: BundleArgs) -> Result<Outcome> {
    let settings = BuildSettings { max_age: again.max_age.0, ..build_settings(places) };
    let tools = building(settings, "tools", json, dayfly_image::tools).await?;
    let manifest = &tools.manifest;
    let names: Vec<&str> = manifest.tools.keys().map(String::as_str).collect();
    if json {
        printer::json(&json!({ "id": manifest.id, "suite": manifest.suite, "tools": names,
            "created_s": manifest.created_s, "folder": tools.folder }));
    } else {
        printer::line(format_args!("{} (Debian {})", names.join(", "), manifest.suite));
    }
    Ok(Outcome::Success)
}

pub(crate) fn rm(places: &Places, id: &str) -> Result<Outcome> {
    let store = Store::new(&places.state);
    let image = store.find(id).map_err(Failure::cannot)?;
    store.remove(&image).map_err(Failure::cannot)?;
    printer::line(format_args!("removed {}", short_id(image.id())));
    Ok(Outcome::Success)
}

pub(crate) async fn runner_app(places: &Places) -> Result<Outcome> {
    printer::line(host_runner_app(places, false).await?.program.display());
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
    let pulled_s = manifest.origin.as_ref().map(|_| manifest.created_s);
    json!({
        "id": image.id(), "suite": manifest.suite, "kernel": manifest.kernel, "bytes": manifest.bytes(),
        "created_s": manifest.created_s, "packages_s": manifest.packages_s(), "pulled_s": pulled_s,
        "generation": manifest.generation, "runner_app": manifest.runner_app, "folder": image.folder(),
        "origin": manifest.origin,
    })
}

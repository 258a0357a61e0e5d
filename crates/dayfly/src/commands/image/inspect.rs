//! `dayfly image inspect`: shows the parts of an image.

use dayfly_image::oci::ImageName;
use dayfly_image::{Image, Origin, Store};
use serde_json::json;

use super::summary;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::settings::Places;
use crate::units::age;

pub(crate) fn run(places: &Places, wanted: &str, json: bool) -> Result<Outcome> {
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
    for (name, value) in rows(&store, &image) {
        if !value.is_empty() {
            // These texts come from the image, so they may contain control characters.
            let shown: String = value.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            printer::line(format_args!("  {} {shown}", paint(style::DIM, format_args!("{name:11}"))));
        }
    }
    Ok(Outcome::Success)
}

/// Returns the properties of an image by name; an empty one does not apply.
fn rows(store: &Store, image: &Image) -> Vec<(&'static str, String)> {
    let manifest = image.manifest();
    let app = &manifest.runner_app;
    let mut rows = vec![
        ("id", image.id().to_owned()),
        ("names", store.names_of(image).join(", ")),
        ("runner app", format!("{} {}", app.name, app.version).trim().to_owned()),
    ];
    if let Some(made_s) = manifest.packages_s() {
        rows.push(("packages", format!("{} old", age(made_s))));
    }
    let stored = if manifest.origin.is_some() { "pulled" } else { "built" };
    rows.push((stored, format!("{} ago", age(manifest.created_s))));
    if let Some(Origin { digest, layers, run, added, lacks, devices_left_out, .. }) = &manifest.origin {
        let left_out = Some(devices_left_out).filter(|&&nodes| nodes > 0);
        rows.extend([
            ("digest", digest.as_str().to_owned()),
            ("layers", layers.len().to_string()),
            ("added", added.join(", ")),
            ("lacks", lacks.join(", ")),
            ("left out", left_out.map(|nodes| format!("{nodes} device nodes")).unwrap_or_default()),
            ("ENV", run.env.join(" ")),
            ("USER", run.user.clone()),
            ("WORKDIR", run.working_dir.clone()),
            ("ENTRYPOINT", run.entrypoint.join(" ")),
            ("CMD", run.cmd.join(" ")),
        ]);
    }
    if let Some(report) = dayfly_vm::check::last_check(image) {
        let verdict = report.why_not().unwrap_or_else(|| "jobs can run in it".to_owned());
        rows.push(("checked", format!("{} ago: {verdict}", age(report.checked_s))));
    }
    rows.push(("folder", image.folder().display().to_string()));
    rows
}

/// Returns the image that was stored when this name was last pulled.
fn by_name(store: &Store, wanted: &str) -> Option<Image> {
    let name = wanted.parse::<ImageName>().ok()?.to_string();
    store.list().ok()?.into_iter().find(|image| store.names_of(image).contains(&name))
}

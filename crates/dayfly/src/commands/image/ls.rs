//! `dayfly image ls`: lists the images, and how old their packages are.

use dayfly_host::clock::now_s;
use dayfly_image::{Image, Manifest, Store};
use serde_json::json;

use super::describe;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::settings::Places;
use crate::units::{age_at, mebibytes, short_id};

pub(crate) fn run(places: &Places, json: bool) -> Result<Outcome> {
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
        printer::line(paint(style::HEAD, HEAD));
        for image in &images {
            printer::line(row(image.manifest(), &store.names_of(image), now_s()));
        }
    }
    Ok(Outcome::Success)
}

const HEAD: &str =
    "id            system            kernel                 size     packages   stored     names";

/// Returns the line of an image: the age of its packages, and the time since it was built or pulled.
fn row(manifest: &Manifest, names: &[String], now_s: i64) -> String {
    let names = match manifest.origin {
        Some(_) => names.join(", "),
        None => "(built here)".to_owned(),
    };
    let packages = manifest.packages_s().map_or_else(|| "unknown".to_owned(), |made_s| age_at(now_s, made_s));
    format!(
        "{:12}  {:16}  {:21}  {:>7}  {:9}  {:9}  {names}",
        short_id(&manifest.id),
        manifest.suite,
        manifest.kernel,
        mebibytes(manifest.bytes()),
        packages,
        age_at(now_s, manifest.created_s),
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: i64 = 86400;

    fn manifest(created_s: i64, origin: serde_json::Value) -> Manifest {
        serde_json::from_value(json!({
            "format": 1, "id": "0123456789abcdef", "inputs": "", "suite": "trixie", "kernel": "6.12.57-cloud-amd64",
            "created_s": created_s, "packages": {}, "origin": origin,
            "files": { "root.squashfs": { "bytes": 878_706_688, "sha256": "" } },
            "runner_app": { "name": "", "version": "", "sha256": "", "toolchain": "" },
        }))
        .expect("a manifest")
    }

    fn pulled(created_s: Option<i64>) -> serde_json::Value {
        json!({ "name": "ubuntu", "digest": format!("sha256:{}", "0".repeat(64)), "layers": [], "added": [],
            "run": { "env": [], "user": "", "working_dir": "", "entrypoint": [], "cmd": [] }, "lacks": [],
            "devices_left_out": 0, "created_s": created_s })
    }

    #[test]
    fn each_image_has_the_age_of_its_packages_and_the_time_since_it_was_stored() {
        let now_s = 100 * DAY_S;
        let names = ["docker.io/library/ubuntu:24.04".to_owned()];
        let lines = [
            HEAD.to_owned(),
            row(&manifest(now_s - 9 * DAY_S, json!(null)), &[], now_s),
            row(&manifest(now_s - 7200, pulled(Some(now_s - 40 * DAY_S))), &names, now_s),
            row(&manifest(now_s - 7200, pulled(None)), &[], now_s),
            row(&manifest(now_s + DAY_S, json!(null)), &[], now_s),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }
}

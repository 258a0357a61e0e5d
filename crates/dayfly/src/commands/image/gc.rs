//! `dayfly image gc`: removes what was unused for the longest time.

use dayfly_host::quantity::quantity;
use dayfly_image::{Collected, Item, Kind, Store};
use serde_json::{Value, json};

use crate::exit::{Failure, Outcome, Result};
use crate::printer;
use crate::settings::Places;
use crate::units::{mebibytes, short_id};

pub(crate) fn run(places: &Places, keep_bytes: u64, dry_run: bool, json: bool) -> Result<Outcome> {
    let store = Store::new(&places.state);
    let collected = if dry_run { store.gc_preview(keep_bytes) } else { store.gc(keep_bytes) };
    let collected = collected.map_err(Failure::cannot)?;
    if json {
        printer::json(&describe(&collected, dry_run));
    } else {
        lines(&collected, dry_run).iter().for_each(printer::line);
    }
    Ok(Outcome::Success)
}

/// The kinds that are listed one by one, with their names for people and in JSON. Layers are summed up.
const LISTED: [(Kind, &str, &str); 4] = [
    (Kind::Image, "the image", "images"),
    (Kind::Tools, "the tools", "tools"),
    (Kind::Kernel, "the kernel", "kernels"),
    (Kind::RunnerApp, "the runner app", "runner_apps"),
];

/// Describes a collection for people.
fn lines(collected: &Collected, dry_run: bool) -> Vec<String> {
    let removed = if dry_run { "would remove" } else { "removed" };
    let mut lines = Vec::new();
    let layers = bytes_of(collected.removed_of(Kind::Layer));
    if layers.0 > 0 {
        lines.push(format!("{removed} {}, {}", quantity(layers.0, "layer", "layers"), mebibytes(layers.1)));
    }
    for (kind, name, _) in LISTED {
        for item in collected.removed_of(kind) {
            lines.push(format!("{removed} {name} {}, {}", short_id(&item.id), mebibytes(item.bytes)));
        }
        for item in collected.in_use.iter().filter(|item| item.kind == kind) {
            lines.push(format!("{name} {} stays: a process uses it", short_id(&item.id)));
        }
    }
    let (left, freed) = (mebibytes(collected.left_bytes), mebibytes(bytes_of(collected.removed.iter()).1));
    lines.push(match dry_run {
        true => format!("{freed} would be free, {left} left"),
        false => format!("{freed} free, {left} left"),
    });
    lines
}

/// Returns the number of items and the sum of their lengths.
fn bytes_of<'a>(items: impl Iterator<Item = &'a Item>) -> (usize, u64) {
    items.fold((0, 0), |(count, bytes): (usize, u64), item| (count + 1, bytes.saturating_add(item.bytes)))
}

/// Describes a collection as JSON.
fn describe(collected: &Collected, dry_run: bool) -> Value {
    let (layers, layer_bytes) = bytes_of(collected.removed_of(Kind::Layer));
    let in_use: Vec<&str> = collected.in_use.iter().map(|item| item.id.as_str()).collect();
    let freed_bytes = bytes_of(collected.removed.iter()).1;
    let mut value = json!({ "dry_run": dry_run, "layers": layers, "layer_bytes": layer_bytes });
    for (kind, _, key) in LISTED {
        let items = collected.removed_of(kind).map(|item| json!({ "id": item.id, "bytes": item.bytes }));
        value[key] = items.collect();
    }
    value["in_use"] = json!(in_use);
    value["freed_bytes"] = json!(freed_bytes);
    value["left_bytes"] = json!(collected.left_bytes);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected() -> Collected {
        let item = |kind, id: &str, mib: u64| Item { kind, id: id.to_owned(), bytes: mib << 20, used: None };
        Collected {
            removed: vec![
                item(Kind::Layer, "l1", 30),
                item(Kind::Layer, "l2", 12),
                item(Kind::Tools, "0123456789abcdef0123", 380),
                item(Kind::Image, "aa11", 900),
                item(Kind::RunnerApp, "github-act-runner-aa", 40),
            ],
            in_use: vec![item(Kind::Kernel, "cc33", 60), item(Kind::Image, "bb22", 850)],
            left_bytes: 910 << 20,
        }
    }

    #[test]
    fn a_collection_says_what_it_removed_and_what_stays_and_why() {
        insta::assert_snapshot!(lines(&collected(), false).join("\n"), @r"
        removed 2 layers, 42 MiB
        removed the image aa11, 900 MiB
        the image bb22 stays: a process uses it
        removed the tools 0123456789ab, 380 MiB
        the kernel cc33 stays: a process uses it
        removed the runner app github-act-r, 40 MiB
        1362 MiB free, 910 MiB left
        ");
    }

    #[test]
    fn a_dry_run_says_what_would_be_free() {
        let text = lines(&collected(), true).join("\n");
        assert!(text.starts_with("would remove 2 layers, 42 MiB\nwould remove the image aa11"), "{text}");
        assert!(text.ends_with("1362 MiB would be free, 910 MiB left"), "{text}");
        insta::assert_snapshot!(serde_json::to_string_pretty(&describe(&collected(), true)).expect("json"));
    }
}

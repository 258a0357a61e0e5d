//! Properties that hold for any image.

mod seeds;

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use dayfly_property::{Property, assert_shown};

use super::layer::properties::{check_layers, check_packed};
use super::media::{self, Config, Document, MediaError, Platform};
use super::tar::properties::check_tar;
use super::{ImageName, RegistryName, archive as archives};

pub(super) use seeds::{archive, mend_sums};
#[cfg(test)]
pub(super) use seeds::{entry, raw, record};

/// All properties.
pub const ALL: [Property; 6] = [NAMES, MANIFESTS, ARCHIVES, TAR, LAYERS, PACKED];

/// Printing a name and parsing it again gives the same name. Its parts are safe to use in the URLs of a registry.
pub const NAMES: Property = Property { name: "names", seeds: seeds::names, check: check_name };

/// Lookups in an index return the requested entry, and the stored part of a configuration can be parsed again.
pub const MANIFESTS: Property =
    Property { name: "manifests", seeds: seeds::manifests, check: check_manifest };

/// The layers of an archive lie within the archive.
pub const ARCHIVES: Property = Property { name: "archives", seeds: seeds::archives, check: check_archive };

/// The entries of a tar archive keep the reader's limits, and writing and reading them again gives the same entries.
pub const TAR: Property = Property { name: "tar", seeds: seeds::tars, check: check_tar };

/// Layers give a tree in which no path leads outside, and the emitted stream gives the same tree. The layers use few names,
/// so that their entries affect each other.
pub const LAYERS: Property = Property { name: "layers", seeds: seeds::layers, check: check_layers };

/// The same property for one layer as it is stored: with gzip, with Zstandard, or unpacked.
pub const PACKED: Property = Property { name: "packed", seeds: seeds::packed, check: check_packed };

/// Creates a file without a name. Returns it with a path that opens it until the file is closed.
pub(super) fn stored(bytes: &[u8]) -> (std::fs::File, PathBuf) {
    let made = rustix::fs::memfd_create(c"property", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = std::fs::File::from(made.expect("memory"));
    file.write_all(bytes).expect("written");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    (file, path)
}

fn check_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<ImageName>() {
        Err(error) => assert_shown(error),
        Ok(name) => {
            let shown = name.to_string();
            let again = shown.parse::<ImageName>().unwrap_or_else(|error| panic!("{error}, from {name:?}"));
            assert_eq!(again.to_string(), shown);
            match (&name, &again) {
                (ImageName::Registry(name), ImageName::Registry(again)) => {
                    check_registry_name(name);
                    // Printing adds the default tag.
                    let wanted =
                        |name: &RegistryName| (name.repository().to_owned(), name.wanted().to_owned());
                    assert_eq!((name.registry(), wanted(name)), (again.registry(), wanted(again)));
                }
                _ => assert_eq!(name, again),
            }
        }
    }
}

/// Checks that the parts of a name are safe in URLs.
fn check_registry_name(name: &RegistryName) {
    let of = |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
    assert!(of(name.registry(), b".-:[]") && of(name.wanted(), b"._-:"), "{name:?}");
    assert!(of(name.repository(), b"._-/"), "{name:?}");
    let is_name = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric());
    assert!(name.repository().split('/').all(is_name), "{name:?}");
    assert!(name.registry().len() + name.repository().len() < 256, "{name:?}");
}

fn check_manifest(data: &[u8]) {
    match Document::parse(data) {
        Err(error) => assert_shown(error),
        Ok(Document::Manifest(manifest)) => {
            let blobs = manifest.layers.iter().chain([&manifest.config]);
            blobs.for_each(|blob| assert!(blob.digest.digits().bytes().all(|b| b.is_ascii_hexdigit())));
        }
        Ok(Document::Index(index)) => check_index(&index),
    }
    match Config::parse(data, &Platform::of_host()) {
        Err(error) => assert_shown(error),
        Ok(config) => {
            assert!(!config.diff_ids.is_empty());
            config.check(config.diff_ids.len()).expect("as many as there are");
            assert_shown(config.check(config.diff_ids.len() + 1).expect_err("one more"));
            let kept = serde_json::to_vec(&config.run).expect("json");
            assert_eq!(serde_json::from_slice::<media::RunConfig>(&kept).expect("json"), config.run);
        }
    }
}

fn check_index(index: &[media::Descriptor]) {
    let is_in = |found: Result<&media::Descriptor, MediaError>| match found {
        Err(error) => assert_shown(error),
        Ok(found) => assert!(index.contains(found)),
    };
    let host = Platform::of_host();
    if let Ok(found) = media::for_platform(index, &host) {
        let says = |platform: &Platform| {
            platform.architecture.is_empty()
                || (&platform.architecture, &platform.os) == (&host.architecture, &host.os)
        };
        assert!(found.platform.as_ref().is_none_or(says), "{found:?}");
    }
    is_in(media::for_platform(index, &host));
    is_in(media::for_tag(index, None, &host));
    is_in(media::for_tag(index, Some("\u{1b}[1m"), &host));
    for tag in index.iter().flat_map(|descriptor| descriptor.annotations.values()) {
        is_in(media::for_tag(index, Some(tag), &host));
    }
}

fn check_archive(data: &[u8]) {
    let mut data = data.to_vec();
    mend_sums(&mut data);
    let (_open, path) = stored(&data);
    for name in [
        ImageName::OciArchive { path: path.clone(), tag: None },
        ImageName::OciArchive { path: path.clone(), tag: Some("v1".to_owned()) },
        ImageName::DockerArchive { path: path.clone(), name: None },
        ImageName::DockerArchive { path: path.clone(), name: Some("app:1".to_owned()) },
    ] {
        match archives::open(&name, &Platform::of_host()).expect("the name of a file") {
            Err(error) => assert_shown(error),
            Ok(opened) => {
                assert!(!opened.layers.is_empty());
                for layer in opened.layers {
                    let end = layer.offset.checked_add(layer.length).expect("a place");
                    assert!(layer.path == path && end <= data.len() as u64, "{layer:?}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_should_hold_holds_for_all_seeds_and_for_what_is_almost_one() {
        dayfly_property::hold(&super::ALL);
    }
}

//! Parses the indexes, manifests and configurations of images.
//!
//! Formats: OCI image specification 1.1 (`image-index.md`, `manifest.md`, `config.md`), and Docker's image manifest version
//! 2, schema 2, which has the same fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::Digest;

/// Longest index or manifest, bytes: the limit of registries (distribution's own).
pub(crate) const MANIFEST_LENGTH_MAX: u64 = 4 * 1024 * 1024;
/// Longest configuration, bytes.
pub(crate) const CONFIG_LENGTH_MAX: u64 = 8 * 1024 * 1024;

/// Media types that are requested from registries.
pub(crate) const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Annotation in which an OCI layout stores tags.
const TAG: &str = "org.opencontainers.image.ref.name";

/// An error of using a document as an image for this host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MediaError {
    /// The document is no JSON, or not the expected JSON.
    #[error("its {what} cannot be understood: {source}")]
    Json {
        /// The kind of document.
        what: &'static str,
        /// Cause.
        source: serde_json::Error,
    },
    /// The document was parsed but cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// A reference to a blob by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default, deserialize_with = "texts_by_name")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The platform that an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Platform {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) os: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) variant: String,
}

/// An index, or a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// Images for several platforms, or of several tags.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// The configuration of an image: the digests of its unpacked layers, and its run configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) run: RunConfig,
    /// Time of its creation, seconds since 1970-01-01 UTC; none if it does not say one.
    pub(crate) created_s: Option<i64>,
}

/// The run configuration of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunConfig {
    /// `ENV`, as `NAME=value`.
    #[serde(rename(deserialize = "Env"), deserialize_with = "texts", alias = "env")]
    pub env: Vec<String>,
    /// `USER`.
    #[serde(rename(deserialize = "User"), deserialize_with = "or_default", alias = "user")]
    pub user: String,
    /// `WORKDIR`.
    #[serde(rename(deserialize = "WorkingDir"), deserialize_with = "or_default", alias = "working_dir")]
    pub working_dir: String,
    /// `ENTRYPOINT`.
    #[serde(rename(deserialize = "Entrypoint"), deserialize_with = "texts", alias = "entrypoint")]
    pub entrypoint: Vec<String>,
    /// `CMD`.
    #[serde(rename(deserialize = "Cmd"), deserialize_with = "texts", alias = "cmd")]
    pub cmd: Vec<String>,
}

/// Reads a value. `null` is the same as no value, as in Go, in which the tools that write and read images are written.
pub(super) fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Reads a list of texts. The list and each text may be `null`.
pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let texts: Vec<Option<String>> = or_default(from)?;
    Ok(texts.into_iter().map(Option::unwrap_or_default).collect())
}

fn texts_by_name<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let texts: BTreeMap<String, Option<String>> = or_default(from)?;
    Ok(texts.into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect())
}

impl Descriptor {
    /// Returns true if it says that its image is for a platform.
    fn fits(&self, wanted: &Platform) -> bool {
        self.platform.as_ref().is_some_and(|platform| platform.fits(wanted))
    }
}

impl Platform {
    /// Returns this host's platform.
    pub(crate) fn of_host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: String::new() }
    }

    fn fits(&self, wanted: &Self) -> bool {
        self.architecture == wanted.architecture && self.os == wanted.os
    }

    /// Returns the number of the variant, for the choice among images for the same architecture. 0 is the plain
    /// architecture, which is v1 on amd64 and v8 on arm64 (containerd, `platforms`), and runs on every host of it.
    fn level(&self) -> u32 {
        let plain = if self.architecture == "arm64" { "v8" } else { "v1" };
        match self.variant.strip_prefix('v') {
            _ if self.variant.is_empty() || self.variant == plain => 0,
            Some(number) => number.parse().unwrap_or(u32::MAX),
            None => u32::MAX,
        }
    }

    fn text(&self) -> String {
        let parts = [&self.os, &self.architecture, &self.variant].map(String::as_str);
        let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        text.escape_debug().to_string()
    }
}

impl Document {
    /// Parses an index or a manifest. The fields decide which one it is, not the media type.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, MediaError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Either {
            #[serde(default, deserialize_with = "or_default")]
            schema_version: u32,
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
        }
        let either: Either =
            serde_json::from_slice(bytes).map_err(|source| MediaError::Json { what: "manifest", source })?;
        match (either.manifests, either.config, either.layers) {
            // A document that is both could mean different images to different tools.
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                Err(MediaError::Unusable("its manifest is an index at the same time".to_owned()))
            }
            (Some(manifests), None, None) => Ok(Self::Index(manifests)),
            (None, Some(config), Some(layers)) => Ok(Self::Manifest(Manifest { config, layers })),
            _ if either.schema_version == 1 => Err(MediaError::Unusable(
                "its manifest is of Docker's schema 1, which was given up in 2019; push it again".to_owned(),
            )),
            _ => {
                Err(MediaError::Unusable("its manifest names neither layers nor other manifests".to_owned()))
            }
        }
    }
}

/// Returns the image for a platform from an index. Of several variants, the one that most hosts can run is taken.
pub(crate) fn for_platform<'a>(
    index: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor, MediaError> {
    let level = |descriptor: &Descriptor| descriptor.platform.as_ref().map(Platform::level);
    if let Some(found) = index.iter().filter(|descriptor| descriptor.fits(wanted)).min_by_key(|d| level(d)) {
        return Ok(found);
    }
    // A single image need not name its platform in the index, because its configuration does.
    if let [only] = index
        && only.platform.as_ref().is_none_or(|platform| platform.architecture.is_empty())
    {
        return Ok(only);
    }
    let known = index.iter().filter_map(|descriptor| descriptor.platform.as_ref());
    let mut known: Vec<String> = known
        .filter(|platform| platform.os != "unknown")
        .map(Platform::text)
        .filter(|text| !text.is_empty())
        .collect();
    known.dedup();
    if known.is_empty() {
        return Err(MediaError::Unusable(format!("there is no image for {} in it", wanted.text())));
    }
    Err(MediaError::Unusable(format!("it does not support {}, only {}", wanted.text(), list(&known))))
}

/// Returns the image of a tag from the index of an OCI layout. Without a tag, returns the only image. Of several images for
/// several platforms, returns the one for `wanted`.
pub(crate) fn for_tag<'a>(
    index: &'a [Descriptor],
    tag: Option<&str>,
    wanted: &Platform,
) -> Result<&'a Descriptor, MediaError> {
    let tags = || -> Vec<String> { index.iter().filter_map(|d| d.annotations.get(TAG).cloned()).collect() };
    let has_tag = |descriptor: &&Descriptor| match tag {
        Some(tag) => descriptor.annotations.get(TAG).is_some_and(|found| found == tag),
        None => true,
    };
    let mut found: Vec<&Descriptor> = index.iter().filter(has_tag).collect();
    if tag.is_some() {
        found.dedup_by(|one, other| one.digest == other.digest);
    }
    let mut fitting = found.iter().filter(|descriptor| descriptor.fits(wanted));
    match (tag, found.as_slice(), fitting.next(), fitting.next()) {
        (_, [only], ..) => Ok(only),
        (Some(_), [_, ..], Some(only), None) => Ok(only),
        (None, [_, ..], Some(only), None) if tags().is_empty() => Ok(only),
        (Some(tag), [], ..) => {
            Err(MediaError::Unusable(format!("there is no image {tag:?} in it; there is {}", list(&tags()))))
        }
        (Some(tag), ..) => {
            let digests: Vec<String> = found.iter().map(|descriptor| descriptor.digest.to_string()).collect();
            let text = format!("{tag:?} stands for more than one image in it: {}", list(&digests));
            Err(MediaError::Unusable(text))
        }
        (None, [], ..) => Err(MediaError::Unusable("there is no image in it".to_owned())),
        (None, ..) => Err(MediaError::Unusable(format!(
            "there is more than one image in it; add which one after a colon: {}",
            list(&tags())
        ))),
    }
}

/// Lists words of an image, escaped for a terminal.
fn list(words: &[String]) -> String {
    let shown: Vec<String> = words.iter().map(|word| word.escape_debug().to_string()).collect();
    if shown.is_empty() { "nothing that has a name".to_owned() } else { shown.join(", ") }
}

impl Config {
    /// Parses a configuration. Refuses an image for another platform.
    pub(crate) fn parse(bytes: &[u8], wanted: &Platform) -> Result<Self, MediaError> {
        #[derive(Deserialize)]
        struct Whole {
            #[serde(flatten)]
            platform: Platform,
            #[serde(default)]
            config: Option<RunConfig>,
            #[serde(default)]
            created: serde_json::Value,
            #[serde(default, deserialize_with = "or_default")]
            rootfs: RootFs,
        }
        #[derive(Default, Deserialize)]
        struct RootFs {
            #[serde(default, deserialize_with = "or_default")]
            diff_ids: Vec<Digest>,
        }
        let whole: Whole = serde_json::from_slice(bytes)
            .map_err(|source| MediaError::Json { what: "configuration", source })?;
        for (key, value) in [("architecture", &whole.platform.architecture), ("os", &whole.platform.os)] {
            if value.is_empty() {
                return Err(MediaError::Unusable(format!("its configuration has no \"{key}\"")));
            }
        }
        if !whole.platform.fits(wanted) {
            let text = format!("it is for {}, and this host is {}", whole.platform.text(), wanted.text());
            return Err(MediaError::Unusable(text));
        }
        if whole.rootfs.diff_ids.is_empty() {
            return Err(MediaError::Unusable("it has no layers".to_owned()));
        }
        let created_s = whole.created.as_str().and_then(time_of);
        Ok(Self { diff_ids: whole.rootfs.diff_ids, run: whole.config.unwrap_or_default(), created_s })
    }

    /// Checks that there is a digest for each layer.
    pub(crate) fn check(&self, layers: usize) -> Result<(), MediaError> {
        if self.diff_ids.len() == layers {
            return Ok(());
        }
        let text = format!("it has {layers} layers, and digests of {}", self.diff_ids.len());
        Err(MediaError::Unusable(text))
    }
}

/// Parses a time of RFC 3339. Tools that build reproducible images write the years 1 or 1970, which say nothing.
fn time_of(text: &str) -> Option<i64> {
    let seconds = text.parse::<jiff::Timestamp>().ok()?.as_second();
    (seconds > 0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_creation_is_read_as_tools_write_it_and_is_no_reason_to_refuse_an_image() {
        let host = Platform::of_host();
        let created = |value: serde_json::Value| {
            let config = serde_json::json!({ "architecture": host.architecture, "os": "linux", "created": value,
                "rootfs": { "diff_ids": [digest("0")] } });
            Config::parse(config.to_string().as_bytes(), &host).expect("readable").created_s
        };
        assert_eq!(created("2025-06-01T10:00:00Z".into()), Some(1_748_772_000));
        assert_eq!(created("2025-06-01T12:00:00.123456789+02:00".into()), Some(1_748_772_000));
        for says_nothing in ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "yesterday", ""] {
            assert_eq!(created(says_nothing.into()), None, "{says_nothing}");
        }
        for wrong in [serde_json::json!(null), serde_json::json!(7), serde_json::json!({})] {
            assert_eq!(created(wrong), None);
        }
    }

    fn digest(digit: &str) -> String {
        format!("sha256:{}", digit.repeat(64))
    }

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let manifests = platforms.iter().enumerate().map(|(index, platform)| {
            let mut words = platform.split('/');
            let [os, architecture, variant] = [0; 3].map(|_| words.next().unwrap_or_default());
            serde_json::json!({ "mediaType": "x", "digest": digest(&index.to_string()), "size": 1,
                "platform": { "os": os, "architecture": architecture, "variant": variant },
                "annotations": { TAG: format!("v{index}") } })
        });
        let text = serde_json::json!({ "schemaVersion": 2, "manifests": manifests.collect::<Vec<_>>() });
        match Document::parse(text.to_string().as_bytes()) {
            Ok(Document::Index(index)) => index,
            other => panic!("no index: {other:?}"),
        }
    }

    #[test]
    fn the_platform_of_the_host_is_taken_out_of_an_index() {
        let amd64 = Platform { architecture: "amd64".into(), os: "linux".into(), variant: String::new() };
        let both = index(&["linux/arm64", "linux/amd64", "unknown/unknown"]);
        assert_eq!(for_platform(&both, &amd64).expect("there").digest.to_string(), digest("1"));
        // No variant before another, and the lowest if there is no plain one.
        for (platforms, expected) in [
            (["linux/amd64/v3", "linux/amd64"], "1"),
            (["linux/amd64", "linux/amd64/v2"], "0"),
            (["linux/amd64/v2", "linux/amd64/v1"], "1"),
            (["linux/amd64/v10", "linux/amd64/v9"], "1"),
            (["linux/amd64/odd", "linux/amd64/v4"], "1"),
            (["linux/amd64", "linux/amd64"], "0"),
        ] {
            let found = for_platform(&index(&platforms), &amd64).expect("there").digest.to_string();
            assert_eq!(found, digest(expected), "{platforms:?}");
        }
        let arm64 = Platform { architecture: "arm64".into(), ..amd64.clone() };
        let both = index(&["linux/arm64/v9", "linux/arm64/v8"]);
        assert_eq!(for_platform(&both, &arm64).expect("there").digest.to_string(), digest("1"));
        let error = for_platform(&index(&["unknown/unknown"]), &amd64).expect_err("not there");
        assert_eq!(error.to_string(), "there is no image for linux/amd64 in it");
        let error = for_platform(&index(&["linux/arm64", "linux/s390x"]), &amd64).expect_err("not there");
        assert_eq!(error.to_string(), "it does not support linux/amd64, only linux/arm64, linux/s390x");
    }

    #[test]
    fn the_tag_of_a_layout_is_needed_where_there_are_several() {
        let amd64 = Platform { architecture: "amd64".into(), os: "linux".into(), variant: String::new() };
        let mut index = index(&["linux/amd64", "linux/amd64"]);
        assert_eq!(for_tag(&index, Some("v1"), &amd64).expect("there").digest.to_string(), digest("1"));
        assert_eq!(
            for_tag(&index, None, &amd64).expect_err("two").to_string(),
            "there is more than one image in it; add which one after a colon: v0, v1"
        );
        let error = for_tag(&index, Some("v7"), &amd64).expect_err("none").to_string();
        assert_eq!(error, "there is no image \"v7\" in it; there is v0, v1");
        let tags = index[0].annotations.clone();
        index[1].annotations = tags;
        let error = for_tag(&index, Some("v0"), &amd64).expect_err("two").to_string();
        let both = format!("{}, {}", digest("0"), digest("1"));
        assert_eq!(error, format!("\"v0\" stands for more than one image in it: {both}"));
        index[1].digest = index[0].digest.clone();
        assert_eq!(for_tag(&index, Some("v0"), &amd64).expect("one").digest.to_string(), digest("0"));
    }

    #[test]
    fn images_for_several_platforms_may_stand_in_the_index_of_a_layout() {
        let amd64 = Platform { architecture: "amd64".into(), os: "linux".into(), variant: String::new() };
        let mut index = index(&["linux/arm64", "linux/amd64", "unknown/unknown"]);
        for_tag(&index, None, &amd64).expect_err("tags tell them apart");
        index.iter_mut().for_each(|descriptor| descriptor.annotations.clear());
        assert_eq!(for_tag(&index, None, &amd64).expect("there").digest.to_string(), digest("1"));
        for descriptor in &mut index {
            descriptor.annotations.insert(TAG.to_owned(), "v1".to_owned());
        }
        assert_eq!(for_tag(&index, Some("v1"), &amd64).expect("there").digest.to_string(), digest("1"));
    }

    #[test]
    fn null_is_the_same_as_nothing() {
        let host = Platform::of_host();
        let config = serde_json::json!({ "architecture": host.architecture, "os": "linux", "variant": null,
            "author": null, "history": null, "created": null,
            "config": { "User": null, "WorkingDir": null, "Env": null, "Cmd": null, "Entrypoint": [null, "/e"],
                "Labels": null, "Volumes": null, "ExposedPorts": null },
            "rootfs": { "type": null, "diff_ids": [digest("0")] } });
        let config = Config::parse(config.to_string().as_bytes(), &host).expect("readable");
        assert_eq!(
            config.run,
            RunConfig { entrypoint: vec![String::new(), "/e".into()], ..RunConfig::default() }
        );
        let none = serde_json::json!({ "architecture": host.architecture, "os": "linux", "config": null,
            "rootfs": { "diff_ids": [digest("0")] } });
        assert_eq!(
            Config::parse(none.to_string().as_bytes(), &host).expect("readable").run,
            RunConfig::default()
        );
        for rootfs in [serde_json::json!(null), serde_json::json!({ "diff_ids": null })] {
            let text =
                serde_json::json!({ "architecture": host.architecture, "os": "linux", "rootfs": rootfs });
            let error = Config::parse(text.to_string().as_bytes(), &host).expect_err("no layers").to_string();
            assert_eq!(error, "it has no layers");
        }
        let blob = serde_json::json!({ "mediaType": null, "digest": digest("0"), "size": 1, "platform": null,
            "annotations": null, "urls": null, "data": null });
        let manifest = serde_json::json!({ "schemaVersion": null, "mediaType": null, "manifests": null,
            "config": blob, "layers": [blob], "annotations": null, "subject": null });
        let manifest = Document::parse(manifest.to_string().as_bytes()).expect("readable");
        assert!(
            matches!(&manifest, Document::Manifest(manifest) if manifest.layers.len() == 1),
            "{manifest:?}"
        );
        let index = serde_json::json!({ "schemaVersion": 2, "config": null, "layers": null, "manifests": [
            { "digest": digest("0"), "size": 1, "annotations": { TAG: null },
              "platform": { "os": "linux", "architecture": host.architecture, "variant": null } } ] });
        let Document::Index(index) = Document::parse(index.to_string().as_bytes()).expect("readable") else {
            panic!("no index");
        };
        assert!(for_platform(&index, &host).is_ok());
    }

    #[test]
    fn a_configuration_without_a_platform_says_which_key_is_missing() {
        let host = Platform::of_host();
        for (key, value) in [("architecture", serde_json::json!("")), ("os", serde_json::json!(null))] {
            let mut config = serde_json::json!({ "architecture": host.architecture, "os": "linux",
                "rootfs": { "diff_ids": [digest("0")] } });
            config[key] = value;
            let error = Config::parse(config.to_string().as_bytes(), &host).expect_err("none").to_string();
            assert_eq!(error, format!("its configuration has no \"{key}\""));
        }
    }

    #[test]
    fn configurations_are_read_as_go_writes_them_and_kept_as_we_do() {
        let amd64 = Platform { architecture: "amd64".into(), os: "linux".into(), variant: String::new() };
        let text = serde_json::json!({ "architecture": "amd64", "os": "linux",
            "config": { "Env": ["A=b"], "Cmd": null, "Entrypoint": ["/e"], "WorkingDir": "/w", "User": "u:g" },
            "rootfs": { "type": "layers", "diff_ids": [digest("0")] } });
        let config = Config::parse(text.to_string().as_bytes(), &amd64).expect("readable");
        assert_eq!((config.run.env.len(), config.run.user.as_str()), (1, "u:g"));
        let kept = serde_json::to_string(&config.run).expect("json");
        assert_eq!(kept, r#"{"env":["A=b"],"user":"u:g","working_dir":"/w","entrypoint":["/e"],"cmd":[]}"#);
        assert_eq!(serde_json::from_str::<RunConfig>(&kept).expect("again"), config.run);
        let arm = Platform { architecture: "arm64".into(), ..amd64 };
        let error = Config::parse(text.to_string().as_bytes(), &arm).expect_err("other").to_string();
        assert_eq!(error, "it is for linux/amd64, and this host is linux/arm64");
    }

    #[test]
    fn what_is_neither_index_nor_manifest_is_refused() {
        for text in ["{}", "[]", "x", r#"{"schemaVersion":1}"#, r#"{"manifests":[],"layers":[]}"#] {
            assert!(Document::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}

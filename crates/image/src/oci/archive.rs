//! Reads images in files: OCI layouts in folders or archives, and the output of `docker save`.
//!
//! Formats: OCI image specification, `image-layout.md`; Docker Engine API, "Image tarball format" (v1.2). Layers are read
//! from their place in the archive. Nothing is copied.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::layer::LayerBlob;
use super::media::{self, CONFIG_LENGTH_MAX, Config, Document, MANIFEST_LENGTH_MAX, MediaError, Platform};
use super::tar::{Kind, Reader, TarError};
use super::{Digest, ImageName, RunConfig};
use dayfly_host::digest::hexadecimal;
use dayfly_host::open;

/// Most files of an archive.
const FILES_MAX: usize = 100_000;
/// Most links that are followed to one layer. Old versions of `docker save` link identical layers.
const FOLLOWED_MAX: usize = 4;
/// Most indexes within each other.
const INDEXES_MAX: usize = 4;

/// An image that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Digest of its index or manifest, or of its configuration if it has neither.
    pub(crate) digest: Digest,
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<LayerBlob>,
    /// Its run configuration.
    pub(crate) run: RunConfig,
    /// Time of its creation, by its configuration, seconds since 1970-01-01 UTC.
    pub(crate) created_s: Option<i64>,
}

/// An error of reading an image from a file or folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The content is malformed, or has no matching image.
    #[error("{}: {what}", path.display())]
    Content {
        /// Its path.
        path: PathBuf,
        /// The problem.
        what: String,
    },
}

/// Opens an image in a file or folder. Returns none if the name is of another kind.
pub(crate) fn open(name: &ImageName, platform: &Platform) -> Option<Result<Opened, ArchiveError>> {
    Some(match name {
        ImageName::OciFolder { path, tag } => {
            layout(&Files { base: path.clone(), places: None }, tag.as_deref(), platform)
        }
        ImageName::OciArchive { path, tag } => {
            Files::of_archive(path).and_then(|files| layout(&files, tag.as_deref(), platform))
        }
        ImageName::DockerArchive { path, name } => {
            Files::of_archive(path).and_then(|files| saved(&files, name.as_deref(), platform))
        }
        ImageName::Registry(_) | ImageName::Containers(_) | ImageName::Own(_) => return None,
    })
}

/// The files of an image: in a folder, or at places in an archive.
struct Files {
    base: PathBuf,
    places: Option<HashMap<Vec<u8>, FilePlace>>,
}

enum FilePlace {
    At { offset: u64, length: u64 },
    Link(Vec<u8>),
}

impl Files {
    /// Finds the places of an archive's files. Reads only the headers.
    fn of_archive(path: &Path) -> Result<Self, ArchiveError> {
        let io_error = |source| ArchiveError::Io { path: path.to_owned(), source };
        let file = open::regular(path).map_err(io_error)?;
        let length = file.metadata().map_err(io_error)?.len();
        let places = places(file, length).map_err(|error| match error {
            TarError::Io(source) => io_error(source),
            malformed @ TarError::Malformed { .. } => {
                ArchiveError::Content { path: path.to_owned(), what: explain(path, &malformed) }
            }
        })?;
        Ok(Self { base: path.to_owned(), places: Some(places) })
    }

    fn content(&self, what: impl Into<String>) -> ArchiveError {
        ArchiveError::Content { path: self.base.clone(), what: what.into() }
    }

    /// Returns the path of the file that contains `name`, the offset in it, and the length. The file of a folder is regular and
    /// in the folder now. If its owner replaces it before it is read, its digest proves the change.
    fn find(&self, name: &str) -> Result<(PathBuf, u64, u64), ArchiveError> {
        let missing = || self.content(format!("{} is not in it", name.escape_debug()));
        let Some(places) = &self.places else {
            let path = self.base.join(name);
            let opened = open::regular_below(&self.base, name).and_then(|file| file.metadata());
            let metadata = opened.map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => missing(),
                _ => ArchiveError::Io { path: path.clone(), source },
            })?;
            return Ok((path, 0, metadata.len()));
        };
        let mut name = clean(name.as_bytes()).ok_or_else(missing)?;
        for _ in 0..FOLLOWED_MAX {
            match places.get(&name).ok_or_else(missing)? {
                FilePlace::At { offset, length } => return Ok((self.base.clone(), *offset, *length)),
                FilePlace::Link(target) => {
                    let is_from_root = target.starts_with(b"/");
                    let slash = name.iter().rposition(|&byte| byte == b'/').filter(|_| !is_from_root);
                    let folder = slash.map_or(0, |slash| slash + 1);
                    name = clean(&[&name[..folder], target].concat()).ok_or_else(missing)?;
                }
            }
        }
        Err(missing())
    }

    fn read(&self, name: &str, length_max: u64) -> Result<Vec<u8>, ArchiveError> {
        let (path, offset, length) = self.find(name)?;
        if length > length_max {
            return Err(self.content(format!(
                "{} has {length} bytes, which is more than {length_max}",
                name.escape_debug()
            )));
        }
        let read = || {
            let mut file = match &self.places {
                Some(_) => open::regular(&path)?,
                None => open::regular_below(&self.base, name)?,
            };
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(length).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| ArchiveError::Io { path: path.clone(), source })
    }

    fn read_blob(&self, digest: &Digest, length_max: u64) -> Result<Vec<u8>, ArchiveError> {
        let bytes = self.read(&blob_name(digest), length_max)?;
        let found = hexadecimal(&Sha256::digest(&bytes));
        if found == digest.digits() {
            return Ok(bytes);
        }
        Err(self.content(format!("the blob {digest} has the digest sha256:{found}")))
    }

    fn layer(&self, name: &str, diff_id: &Digest) -> Result<LayerBlob, ArchiveError> {
        let (path, offset, length) = self.find(name)?;
        Ok(LayerBlob { path, offset, length, diff_id: diff_id.clone() })
    }
}

/// Returns the text of an error. It names the compression if the file is a compressed archive.
fn explain(path: &Path, error: &TarError) -> String {
    let mut head = [0; 4];
    let _ = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    match head {
        [0x1f, 0x8b, ..] => "it is compressed; unpack it first: gunzip FILE".to_owned(),
        [0x28, 0xb5, 0x2f, 0xfd] => "it is compressed; unpack it first: zstd -d FILE".to_owned(),
        _ => format!("it is no tar archive: {error}"),
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.digits())
}

fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

fn places(mut file: File, length: u64) -> Result<HashMap<Vec<u8>, FilePlace>, TarError> {
    let (mut places, mut at) = (HashMap::new(), 0);
    loop {
        file.seek(SeekFrom::Start(at))?;
        let mut reader = Reader::new(BufReader::with_capacity(4096, &file));
        let header = reader.next().map_err(|error| match error {
            TarError::Malformed { at: within, what } => TarError::Malformed { at: at + within, what },
            error @ TarError::Io(_) => error,
        })?;
        let Some(header) = header else { return Ok(places) };
        let offset = at + reader.position();
        let bad = |what: &str| TarError::Malformed { at, what: what.to_owned() };
        if offset.checked_add(header.size).is_none_or(|end| end > length) {
            return Err(bad("the archive ends in the middle of an entry"));
        }
        if places.len() >= FILES_MAX {
            return Err(bad("it has too many entries"));
        }
        let place = match header.kind {
            Kind::File => Some(FilePlace::At { offset, length: header.size }),
            Kind::Symlink => Some(FilePlace::Link(header.link)),
            // The target is relative to the root of the archive.
            Kind::HardLink => Some(FilePlace::Link([b"/".as_slice(), &header.link].concat())),
            _ => None,
        };
        if let (Some(place), Some(name)) = (place, clean(&header.path)) {
            places.insert(name, place);
        }
        at = offset + header.size.next_multiple_of(512);
    }
}

/// Opens an OCI layout.
fn layout(files: &Files, tag: Option<&str>, platform: &Platform) -> Result<Opened, ArchiveError> {
    let of_media = |error: MediaError| files.content(error.to_string());
    let mut document = Document::parse(&files.read("index.json", MANIFEST_LENGTH_MAX)?).map_err(of_media)?;
    let mut digest = None;
    for depth in 0..INDEXES_MAX {
        let Document::Index(index) = &document else { break };
        // The layout's own index lists tags. All indexes below it list platforms.
        let found = if depth == 0 {
            media::for_tag(index, tag, platform)
        } else {
            media::for_platform(index, platform)
        };
        let found = found.map_err(of_media)?.digest.clone();
        document = Document::parse(&files.read_blob(&found, MANIFEST_LENGTH_MAX)?).map_err(of_media)?;
        // The digest of the image's own index, if it has one, because registries know the image by it, too.
        digest.get_or_insert(found);
    }
    let (Document::Manifest(manifest), Some(digest)) = (document, digest) else {
        return Err(files.content("its index leads to no image"));
    };
    let config = files.read_blob(&manifest.config.digest, CONFIG_LENGTH_MAX)?;
    let config = Config::parse(&config, platform).map_err(of_media)?;
    config.check(manifest.layers.len()).map_err(of_media)?;
    let layers = manifest.layers.iter().zip(&config.diff_ids);
    let layers = layers.map(|(layer, diff_id)| files.layer(&blob_name(&layer.digest), diff_id));
    let layers = layers.collect::<Result<_, _>>()?;
    Ok(Opened { digest, layers, run: config.run, created_s: config.created_s })
}

/// Opens the output of `docker save`.
fn saved(files: &Files, name: Option<&str>, platform: &Platform) -> Result<Opened, ArchiveError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Saved {
        #[serde(default, deserialize_with = "media::or_default")]
        config: String,
        #[serde(default, deserialize_with = "media::texts")]
        repo_tags: Vec<String>,
        #[serde(default, deserialize_with = "media::texts")]
        layers: Vec<String>,
    }
    let of_media = |error: MediaError| files.content(error.to_string());
    let text = files.read("manifest.json", MANIFEST_LENGTH_MAX)?;
    let all: Vec<Saved> = serde_json::from_slice(&text)
        .map_err(|error| files.content(format!("its manifest.json cannot be understood: {error}")))?;
    let tags = |saved: &Saved| saved.repo_tags.clone();
    let known = || all.iter().flat_map(tags).collect::<Vec<_>>().join(", ").escape_debug().to_string();
    let saved = match (name, all.as_slice()) {
        (Some(name), _) => {
            all.iter().find(|saved| tags(saved).iter().any(|tag| is_same_name(tag, name))).ok_or_else(
                || files.content(format!("there is no image {name:?} in it; there is {}", known())),
            )?
        }
        (None, [only]) => only,
        (None, []) => return Err(files.content("there is no image in it")),
        (None, _) => {
            let what =
                format!("there is more than one image in it; add which one after a colon: {}", known());
            return Err(files.content(what));
        }
    };
    let bytes = files.read(&saved.config, CONFIG_LENGTH_MAX)?;
    let digest = Digest::of_digits(&hexadecimal(&Sha256::digest(&bytes)));
    let config = Config::parse(&bytes, platform).map_err(of_media)?;
    config.check(saved.layers.len()).map_err(of_media)?;
    let layers = saved.layers.iter().zip(&config.diff_ids);
    let layers = layers.map(|(layer, diff_id)| files.layer(layer, diff_id)).collect::<Result<_, _>>()?;
    Ok(Opened { digest, layers, run: config.run, created_s: config.created_s })
}

/// Returns true if two names are the same after defaults are added.
fn is_same_name(one: &str, other: &str) -> bool {
    match (one.parse::<ImageName>(), other.parse::<ImageName>()) {
        (Ok(one), Ok(other)) => one.to_string() == other.to_string(),
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties::{self, entry};
    use super::*;

    fn archive(files: &[(String, Vec<u8>)], links: &[(&str, &str)]) -> Vec<u8> {
        let files = files.iter().map(|(path, content)| entry(path, Kind::File, "", content));
        let links = links.iter().map(|(path, target)| entry(path, Kind::Symlink, target, b""));
        properties::archive(&files.chain(links).collect::<Vec<_>>())
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest::of_digits(&hexadecimal(&Sha256::digest(bytes)))
    }

    fn config(layers: &[&[u8]]) -> Vec<u8> {
        let architecture = Platform::of_host().architecture;
        let layers: Vec<Digest> = layers.iter().map(|layer| digest(layer)).collect();
        let config = serde_json::json!({ "architecture": architecture, "os": "linux", "rootfs": { "diff_ids": layers } });
        config.to_string().into_bytes()
    }

    /// Returns the files of a layout with one image of one layer, under two tags.
    fn layout_files() -> Vec<(String, Vec<u8>)> {
        let layer = b"a layer".to_vec();
        let config = config(&[&layer]);
        let of = |bytes: &[u8]| serde_json::json!({ "digest": digest(bytes), "size": bytes.len() });
        let manifest =
            serde_json::json!({ "schemaVersion": 2, "config": of(&config), "layers": [of(&layer)] });
        let manifest = manifest.to_string().into_bytes();
        let tagged = |tag: &str| {
            serde_json::json!({ "digest": digest(&manifest), "size": manifest.len(),
                "annotations": { "org.opencontainers.image.ref.name": tag } })
        };
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [tagged("v1"), tagged("v2")] });
        let blob = |bytes: Vec<u8>| (blob_name(&digest(&bytes)), bytes);
        vec![
            ("./index.json".to_owned(), index.to_string().into_bytes()),
            blob(config),
            blob(manifest),
            blob(layer),
        ]
    }

    fn open_text(text: &str) -> Result<Opened, String> {
        let name = text.parse::<ImageName>().expect("a name");
        open(&name, &Platform::of_host()).expect("a file").map_err(|error| error.to_string())
    }

    #[test]
    fn a_layout_is_the_same_in_a_folder_and_in_an_archive() {
        let folder = tempfile::tempdir().expect("a folder");
        let (base, path) = (folder.path().join("layout"), folder.path().join("a.tar"));
        for (name, content) in layout_files() {
            let to = base.join(name);
            std::fs::create_dir_all(to.parent().expect("a parent")).expect("folders");
            std::fs::write(to, content).expect("a file");
        }
        std::fs::write(&path, archive(&layout_files(), &[])).expect("an archive");
        let one = open_text(&format!("oci:{}:v2", base.display())).expect("readable");
        let other = open_text(&format!("oci-archive:{}:v2", path.display())).expect("readable");
        assert_eq!((&one.digest, &one.run), (&other.digest, &other.run));
        let place = &other.layers[0];
        let text = std::fs::read(&place.path).expect("readable");
        let from = usize::try_from(place.offset).expect("a place");
        assert_eq!(&text[from..from + 7], b"a layer");
        let error = open_text(&format!("oci-archive:{}", path.display())).expect_err("two");
        assert!(error.ends_with("add which one after a colon: v1, v2"), "{error}");
    }

    #[test]
    fn what_is_damaged_or_something_else_is_told_as_what_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.tar");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            open_text(&format!("oci-archive:{}:v1", path.display())).expect_err("refused")
        };
        let whole = archive(&layout_files(), &[]);
        let cut = refused(&whole[..whole.len() - 1533]);
        assert!(cut.ends_with("the archive ends in the middle of an entry"), "{cut}");
        assert!(refused(&[0x1f, 0x8b, 8, 0, 0]).ends_with("it is compressed; unpack it first: gunzip FILE"));
        assert!(refused(&[7; 600]).contains("it is no tar archive: at byte 0"));
        assert!(refused(&archive(&[], &[])).ends_with("index.json is not in it"));
        let mut files = layout_files();
        files[2].1[3] ^= 1;
        let lie = refused(&archive(&files, &[]));
        assert!(lie.contains("the blob sha256:") && lie.contains(" has the digest sha256:"), "{lie}");
        assert!(
            open_text("oci-archive:/nonexistent/x")
                .expect_err("refused")
                .starts_with("cannot read /nonexistent/x")
        );
    }

    /// Writes a layout into a folder.
    fn layout_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in layout_files() {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            std::fs::write(path, content).expect("written");
        }
        folder
    }

    #[test]
    fn a_folder_whose_links_lead_elsewhere_or_whose_files_are_fifos_is_refused() {
        let of = |folder: &tempfile::TempDir| open_text(&format!("oci:{}:v1", folder.path().display()));
        of(&layout_folder()).expect("readable");
        let blobs = |folder: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(folder.join("blobs/sha256")).expect("read");
            entries.map(|entry| entry.expect("entry").path()).collect()
        };
        for index in 0..3 {
            let (folder, elsewhere) = (layout_folder(), tempfile::tempdir().expect("a folder"));
            let blob = &blobs(folder.path())[index];
            let outside = elsewhere.path().join("outside");
            std::fs::rename(blob, &outside).expect("moved");
            std::os::unix::fs::symlink(&outside, blob).expect("linked");
            let error = of(&folder).expect_err("a link");
            assert!(error.contains("a link leads out of the folder"), "{error}");
            std::fs::remove_file(blob).expect("removed");
            let made = std::process::Command::new("mkfifo").arg(blob).status().expect("mkfifo");
            assert!(made.success());
            let error = of(&folder).expect_err("a FIFO");
            assert!(error.contains("it is no regular file"), "{error}");
        }
    }

    #[test]
    fn what_docker_saves_may_link_layers_that_are_alike() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("saved.tar");
        let layer = b"a layer".as_slice();
        let manifest = serde_json::json!([
            { "Config": "c.json", "RepoTags": ["docker.io/library/app:1"], "Layers": ["one/layer.tar", "two/layer.tar"] },
            { "Config": "c.json", "RepoTags": null, "Layers": [] },
        ]);
        let files = [
            ("manifest.json".to_owned(), manifest.to_string().into_bytes()),
            ("c.json".to_owned(), config(&[layer, layer])),
            ("one/layer.tar".to_owned(), layer.to_vec()),
        ];
        let links = [("two/layer.tar", "../one/layer.tar"), ("three/layer.tar", "../../outside")];
        std::fs::write(&path, archive(&files, &links)).expect("an archive");
        let opened = open_text(&format!("docker-archive:{}:app:1", path.display())).expect("readable");
        assert_eq!(opened.layers[0], opened.layers[1]);
        let error = open_text(&format!("docker-archive:{}:other", path.display())).expect_err("none");
        assert!(
            error.ends_with("there is no image \"other\" in it; there is docker.io/library/app:1"),
            "{error}"
        );
    }
}

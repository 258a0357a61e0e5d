//! Seeds for fuzzing, and a function that corrects checksums.

use std::io::Write as _;

use sha2::{Digest as _, Sha256};

use super::super::Digest;
use super::super::media::Platform;
use super::super::tar::{Header, Kind, Writer};
use dayfly_host::digest::hexadecimal;

const BLOCK: usize = 512;

/// Corrects the checksums of all headers, so that the reader gets past them.
pub(in super::super) fn mend_sums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

pub(super) fn names() -> Vec<Vec<u8>> {
    let digest = format!("app:v1@sha256:{}", "0a".repeat(32));
    let names = [
        "ubuntu:24.04",
        "localhost:5000/team/app__x:v1",
        "[::1]:5000/x",
        "docker://oci:80/x",
        "oci-archive:a/b.tar:v1",
        "docker-archive:b.tar:h:5000/x:1",
        "oci:5:v1",
        "containers-storage:localhost/x:1",
        "dayfly:373D0218",
        "docker-daemon:x",
        &digest,
    ];
    names.map(|name| name.as_bytes().to_vec()).to_vec()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of_digits(&hexadecimal(&Sha256::digest(bytes)))
}

/// Returns configuration, manifest and index of an image of one layer.
fn documents(layer: &[u8]) -> [Vec<u8>; 3] {
    let architecture = Platform::of_host().architecture;
    let config = serde_json::json!({ "architecture": architecture, "os": "linux",
        "config": { "Env": ["A=b"], "Cmd": null, "Entrypoint": ["/e"], "WorkingDir": "/w", "User": "u" },
        "rootfs": { "diff_ids": [digest(layer)] } });
    let config = config.to_string().into_bytes();
    let of = |bytes: &[u8]| serde_json::json!({ "digest": digest(bytes), "size": bytes.len() });
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": of(&config), "layers": [of(layer)] });
    let manifest = manifest.to_string().into_bytes();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "x", "digest": digest(&manifest), "size": manifest.len(),
          "platform": { "os": "linux", "architecture": architecture, "variant": "v1" },
          "annotations": { "org.opencontainers.image.ref.name": "v1" } },
        { "digest": digest(b"other"), "size": 1, "platform": { "os": "linux", "architecture": "s390x" } } ] });
    [config, manifest, index.to_string().into_bytes()]
}

pub(super) fn manifests() -> Vec<Vec<u8>> {
    documents(b"a layer").to_vec()
}

pub(super) fn archives() -> Vec<Vec<u8>> {
    let layer = b"a layer".as_slice();
    let [config, manifest, index] = documents(layer);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).digits());
    let layout = [
        ("index.json".to_owned(), index),
        (blob(&config), config.clone()),
        (blob(&manifest), manifest),
        (blob(layer), layer.to_vec()),
    ];
    let saved =
        serde_json::json!([{ "Config": "c.json", "RepoTags": ["app:1"], "Layers": ["two/layer.tar"] }]);
    let saved = [
        ("manifest.json".to_owned(), saved.to_string().into_bytes()),
        ("c.json".to_owned(), config),
        ("one/layer.tar".to_owned(), layer.to_vec()),
    ];
    let link = entry("two/layer.tar", Kind::Symlink, "../one/layer.tar", b"");
    let files = |files: &[(String, Vec<u8>)]| -> Vec<(Header, Vec<u8>)> {
        files.iter().map(|(path, content)| entry(path, Kind::File, "", content)).collect()
    };
    vec![archive(&files(&layout)), archive(&[files(&saved), vec![link]].concat())]
}

/// Returns an entry of an archive.
pub(in super::super) fn entry(path: &str, kind: Kind, link: &str, content: &[u8]) -> (Header, Vec<u8>) {
    let header = Header {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime_s: 7,
        size: content.len() as u64,
        link: link.as_bytes().to_vec(),
        xattrs: Vec::new(),
    };
    (header, content.to_vec())
}

pub(in super::super) fn archive(entries: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (header, content) in entries {
        writer.entry(header, &mut content.as_slice()).expect("written");
    }
    writer.finish().expect("written");
    writer.into_inner()
}

/// Returns the bytes of a header and its content, for entries that this project's writer cannot write.
pub(in super::super) fn raw(path: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
    let mut block = [0; BLOCK];
    block[..path.len()].copy_from_slice(path);
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    let padding = content.len().wrapping_neg() % BLOCK;
    let mut bytes = [block.as_slice(), content, &vec![0; padding]].concat();
    mend_sums(&mut bytes);
    bytes
}

/// Returns a PAX record.
pub(in super::super) fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let length = if rest + 1 < 10 { rest + 1 } else { rest + 2 };
    format!("{length} {key}={value}\n")
}

/// Returns an archive with all extensions that the reader supports.
fn extended() -> Vec<u8> {
    let pax = [
        ("path", "of pax"),
        ("linkpath", "a link"),
        ("uid", "3000000000"),
        ("mtime", "-12.5"),
        ("SCHILY.xattr.user.note", "one"),
    ];
    let pax: String = pax.map(|(key, value)| record(key, value)).concat();
    let sparse = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "holes")];
    let sparse: String = sparse.map(|(key, value)| record(key, value)).concat();
    let sparse = sparse + &record("GNU.sparse.realsize", "1000");
    let old_sparse = [("GNU.sparse.size", "40"), ("GNU.sparse.map", "0,3,30,2")];
    let old_sparse: String = old_sparse.map(|(key, value)| record(key, value)).concat();
    let map = [b"1\n900\n4\n".as_slice(), &[0; BLOCK - 8], b"here"].concat();
    [
        raw(b"g", b'g', record("path", "nobody").as_bytes()),
        raw(b"x", b'x', pax.as_bytes()),
        raw(b"short", b'0', b"content"),
        raw(b"L", b'L', &[&[b'n'; 200][..], b"\0"].concat()),
        raw(b"K", b'K', b"a link of GNU\0"),
        raw(b"short", b'2', b""),
        raw(b"x", b'x', sparse.as_bytes()),
        raw(b"short", b'0', &map),
        raw(b"x", b'x', old_sparse.as_bytes()),
        raw(b"old", b'0', b"abcde"),
        vec![0; 2 * BLOCK],
    ]
    .concat()
}

pub(super) fn tars() -> Vec<Vec<u8>> {
    let capability = |(header, content): (Header, Vec<u8>)| {
        (Header { xattrs: vec![(b"security.capability".to_vec(), vec![1, 0])], ..header }, content)
    };
    let entries = [
        entry("a/", Kind::Folder, "", b""),
        capability(entry("a/x", Kind::File, "", b"content")),
        entry("b", Kind::HardLink, "a/x", b""),
        entry(&"l".repeat(120), Kind::Symlink, "a", b""),
        entry("pipe", Kind::Fifo, "", b""),
        entry("null", Kind::Device, "", b""),
        entry("a/.wh.y", Kind::File, "", b""),
    ];
    vec![archive(&entries), extended(), Vec::new()]
}

pub(super) fn packed() -> Vec<Vec<u8>> {
    let mut seeds = tars();
    for tar in tars() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar).expect("packed");
        seeds.push(encoder.finish().expect("packed"));
        seeds.push(zstd::encode_all(tar.as_slice(), 1).expect("packed"));
    }
    // A skippable frame before a normal one.
    let skipped = [b"\x50\x2a\x4d\x18\x02\0\0\0ab".as_slice(), &seeds[4]].concat();
    seeds.push(skipped);
    seeds
}

/// Returns layers in the encoding of the check (`Choices` in `layer/properties.rs`).
pub(super) fn layers() -> Vec<Vec<u8>> {
    vec![
        // A folder, a file in it, a hard link and a link by path; a second layer hides the file.
        vec![
            0, 1, 0, 4, 0, 0, 1, 0, 1, 0, 9, 0, 1, 1, 1, 1, 0, 1, 0, 0, 3, 2, 0, 0, 0, 255, 0, 1, 0, 5, 0, 0,
            0,
        ],
        (0..120).collect(),
        (0..200).rev().collect(),
    ]
}

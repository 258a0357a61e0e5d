//! Tests of merging layers.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::super::Digest;
use super::super::tar::{Header, Kind, Reader, Writer};
use super::*;

/// Parses a short form of an entry: a path that ends with a slash is a folder, `a -> b` a symbolic link, `a = b` a hard
/// link, `a |` a pipe, `a !` a device, and `a: text` a file with this content.
fn header(text: &str) -> (Header, Vec<u8>) {
    let words = |mark: &str| text.split_once(mark).map(|(path, rest)| (path.to_owned(), rest.to_owned()));
    let (path, kind, link, content) = if let Some((path, target)) = words(" -> ") {
        (path, Kind::Symlink, target, String::new())
    } else if let Some((path, target)) = words(" = ") {
        (path, Kind::HardLink, target, String::new())
    } else if let Some((path, _)) = words(" |") {
        (path, Kind::Fifo, String::new(), String::new())
    } else if let Some((path, _)) = words(" !") {
        (path, Kind::Device, String::new(), String::new())
    } else if text.ends_with('/') {
        (text.to_owned(), Kind::Folder, String::new(), String::new())
    } else {
        let (path, content) = words(": ").unwrap_or((text.to_owned(), String::new()));
        (path, Kind::File, String::new(), content)
    };
    let header = Header {
        path: path.into_bytes(),
        kind,
        mode: if kind == Kind::Folder { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime_s: 7,
        size: content.len() as u64,
        link: link.into_bytes(),
        xattrs: Vec::new(),
    };
    (header, content.into_bytes())
}

fn archive(entries: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        let (header, content) = header(entry);
        writer.entry(&header, &mut content.as_slice()).expect("written");
    }
    writer.finish().expect("written");
    writer.into_inner()
}

fn store(folder: &Path, index: usize, archive: &[u8]) -> LayerBlob {
    use sha2::Digest as _;
    let path = folder.join(index.to_string());
    // The compression depends on the index of the layer.
    let packed = match index % 3 {
        0 => archive.to_vec(),
        1 => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(archive).expect("packed");
            encoder.finish().expect("packed")
        }
        _ => zstd::encode_all(archive, 1).expect("packed"),
    };
    std::fs::write(&path, &packed).expect("written");
    let diff_id = Digest::of_digits(&dayfly_host::digest::hexadecimal(&sha2::Sha256::digest(archive)));
    LayerBlob { path, offset: 0, length: packed.len() as u64, diff_id }
}

/// Returns the merged paths and their contents. A hard link has the content of its file.
fn merge_archives(archives: &[Vec<u8>], limits: &Limits) -> Result<BTreeMap<String, String>, LayerError> {
    let folder = tempfile::tempdir().expect("a folder");
    let layers: Vec<_> =
        archives.iter().enumerate().map(|(index, archive)| store(folder.path(), index, archive)).collect();
    let mut tree = Tree::new(limits);
    scan_all(&layers, limits, &|| false, |index, scanned| tree.apply(index, scanned))?;
    let mut stream = Vec::new();
    let emission = emit(&tree, &layers, &[], &|| false, &mut stream)?;
    let merged = listed(&stream);
    assert_eq!(emission.entries, merged.len() as u64, "each path once");
    Ok(merged)
}

fn listed(stream: &[u8]) -> BTreeMap<String, String> {
    let mut reader = Reader::new(stream);
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    while let Some(header) = reader.next().expect("readable") {
        let mut content = String::new();
        std::io::Read::read_to_string(&mut reader, &mut content).expect("text");
        let link = String::from_utf8_lossy(&header.link).into_owned();
        let what = match header.kind {
            Kind::Folder => "/".to_owned(),
            Kind::Symlink => format!("-> {link}"),
            Kind::HardLink => format!("= {}", found.get(&link).expect("links come after their files")),
            Kind::Fifo => "|".to_owned(),
            Kind::Device => "!".to_owned(),
            Kind::File => content,
        };
        found.insert(String::from_utf8_lossy(&header.path).into_owned(), what);
    }
    found
}

fn merge(layers: &[&[&str]]) -> Result<BTreeMap<String, String>, LayerError> {
    let archives: Vec<_> = layers.iter().map(|entries| archive(entries)).collect();
    merge_archives(&archives, &Limits::default())
}

#[track_caller]
fn check(layers: &[&[&str]], expected: &[(&str, &str)]) {
    let expected: BTreeMap<_, _> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(merge(layers).expect("they can be merged"), expected);
}

#[track_caller]
fn refused(layers: &[&[&str]]) -> String {
    merge(layers).expect_err("refused").to_string()
}

#[test]
fn newer_files_hide_older_ones_and_folders_keep_what_is_in_them() {
    check(
        &[&["./", "a/", "a/x: 1", "a/y: 1", "b: 1"], &["a/", "a/x: 2"], &["b/", "b/z: 3"]],
        &[("a", "/"), ("a/x", "2"), ("a/y", "1"), ("b", "/"), ("b/z", "3")],
    );
    check(&[&["a/", "a/x: 1"], &["a: 2"]], &[("a", "2")]);
    check(&[&["a: 1", "a: 2", "a: 3"]], &[("a", "3")]);
}

#[test]
fn whiteouts_hide_what_lower_layers_have_wherever_they_stand() {
    check(&[&["a/", "a/x: 1", "a/y: 1"], &["a/.wh.x", "a/z: 2"]], &[("a", "/"), ("a/y", "1"), ("a/z", "2")]);
    check(&[&["a/", "a/x: 1"], &["a/x: 2", "a/.wh.x"]], &[("a", "/"), ("a/x", "2")]);
    check(&[&["a/", "a/x: 1"], &["a/", "a/z: 2", "a/.wh..wh..opq"]], &[("a", "/"), ("a/z", "2")]);
    check(&[&["a/", "a/x: 1"], &[".wh.a"], &["a/", "a/y: 3"]], &[("a", "/"), ("a/y", "3")]);
    check(&[&["a: 1"], &[".wh.never", ".wh..wh.plnk/", ".wh..wh.aufs: x"]], &[("a", "1")]);
    assert!(refused(&[&["a/.wh."]]).ends_with("layer 1, entry \"a/.wh.\": it is a whiteout of no name"));
    assert!(refused(&[&["a/.wh..."]]).contains("it is a whiteout of no name"));
}

#[test]
fn hard_links_stay_when_what_they_link_to_goes() {
    check(&[&["a: 1", "b = a", "c = ./a"]], &[("a", "1"), ("b", "= 1"), ("c", "= 1")]);
    check(&[&["a: 1", "b = a"], &[".wh.a"]], &[("b", "1")]);
    check(&[&["a: 1", "b = a"], &["a: 2"]], &[("a", "2"), ("b", "1")]);
    check(&[&["a: 1"], &["b = a"], &[".wh.a"]], &[("b", "1")]);
    check(&[&["a: 1"], &["b = /a", ".wh.a"]], &[("b", "1")]);
    check(&[&["a -> x"], &["b = a"]], &[("a", "-> x"), ("b", "= -> x")]);
    check(&[&["a: 1", "a = a"]], &[("a", "1")]);
    let error = refused(&[&["b = a"]]);
    assert_eq!(error, "layer 1, entry \"b\": it is a link to a, which is not there");
    assert!(refused(&[&["a/", "b = a"]]).ends_with("it is a hard link to the folder a"));
}

#[test]
fn links_of_parents_are_followed_inside_the_image() {
    check(
        &[&["usr/", "usr/lib/", "lib -> usr/lib"], &["lib/x: 2"], &["lib/.wh.x", "lib/y: 3"]],
        &[("usr", "/"), ("usr/lib", "/"), ("lib", "-> usr/lib"), ("usr/lib/y", "3")],
    );
    check(
        &[&["a/", "a/b/", "a/b/l -> ../../c"], &["a/b/l/x: 2"]],
        &[("a", "/"), ("a/b", "/"), ("a/b/l", "-> ../../c"), ("c", "/"), ("c/x", "2")],
    );
    check(&[&["l -> /c", "l: 1"]], &[("l", "1")]);
    check(&[&["deep/er/file: 1"]], &[("deep", "/"), ("deep/er", "/"), ("deep/er/file", "1")]);
    assert!(refused(&[&["a -> b", "b -> a"], &["a/x: 1"]]).ends_with("it leads through more than 40 links"));
    assert!(refused(&[&["a: 1"], &["a/x: 1"]]).ends_with("\"a\" on its way is no folder"));
}

#[test]
fn what_leads_outside_is_refused_by_name() {
    let error = refused(&[&["fine: 1"], &["../etc/passwd: x"]]);
    assert_eq!(error, "layer 2, entry \"../etc/passwd\": it leads outside the image");
    assert!(refused(&[&["a/../../x: 1"]]).ends_with("it leads outside the image"));
    assert!(refused(&[&["a = ../x"]]).ends_with("it is a link that leads outside the image"));
    assert!(refused(&[&["a/l -> ../../x"]]).ends_with("which leads outside the image"));
    assert!(refused(&[&["a/", "a/b -> ..", "c -> a/b/../../.."], &["c/x: 1"]]).contains("outside the image"));
    check(
        &[&["/abs: 1", "a/../b: 2", "l -> /../x"]].map(|_| &["/abs: 1", "a/../b: 2"][..]),
        &[("abs", "1"), ("b", "2")],
    );
}

#[test]
fn devices_are_left_out_and_pipes_stay() {
    check(&[&["dev/", "dev/null !", "pipe |"]], &[("dev", "/"), ("pipe", "|")]);
    check(&[&["null: 1"], &["null !"]], &[]);
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut layer = store(folder.path(), 0, &archive(&["a: 1"]));
    layer.diff_id = Digest::of_digits(&"0".repeat(64));
    let error =
        scan_all(&[layer], &Limits::default(), &|| false, |_, _| Ok(())).expect_err("refused").to_string();
    assert!(error.starts_with("layer 1: its content has the digest sha256:"), "{error}");
    assert!(error.ends_with(&format!("and the image says sha256:{}", "0".repeat(64))), "{error}");
}

#[test]
fn a_layer_that_is_cut_is_refused_however_it_is_packed() {
    let folder = tempfile::tempdir().expect("a folder");
    for index in 0..3 {
        let mut layer = store(folder.path(), index, &archive(&["a: 1", "b: 2"]));
        // The end marker of a tar archive may be missing, and so may the bytes after the end of the compressed data.
        for length in [layer.length / 2, layer.length - 1] {
            layer.length = length;
            let error = scan_all(&[layer.clone()], &Limits::default(), &|| false, |_, _| Ok(()))
                .expect_err("refused")
                .to_string();
            assert!(error.starts_with("layer 1: "), "{error}");
        }
    }
}

/// Returns a frame of Zstandard with one raw block, whose decoder needs a window of this power of two (RFC 8878, section
/// 3.1.1).
fn zstd_frame(content: &[u8], window_log: u8) -> Vec<u8> {
    let block = u32::try_from(content.len() << 3 | 1).expect("short").to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3], &block[..3], content].concat()
}

#[test]
fn windows_of_zstandard_are_accepted_up_to_128_mib() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = archive(&["a: 1", "b: 2"]);
    let packed = |index: usize, frames: &[(std::ops::Range<usize>, u8)]| {
        let mut layer = store(folder.path(), index, &archive);
        let frames = frames.iter().map(|(range, log)| zstd_frame(&archive[range.clone()], *log));
        let bytes = frames.collect::<Vec<_>>().concat();
        std::fs::write(&layer.path, &bytes).expect("written");
        layer.length = bytes.len() as u64;
        layer
    };
    let (half, end) = (archive.len() / 2, archive.len());
    let scan = |layers: &[LayerBlob]| {
        let mut entries = 0;
        scan_all(layers, &Limits::default(), &|| false, |_, scanned| {
            entries += scanned.entries.len();
            Ok(())
        })
        .map(|()| entries)
    };
    // More layers than may be read at once, and a small frame before a large one.
    let mut layers: Vec<LayerBlob> = (0..5).map(|index| packed(index, &[(0..end, 27)])).collect();
    layers.push(packed(5, &[(0..half, 17), (half..end, 27)]));
    assert_eq!(scan(&layers).expect("readable"), 12);
    for frames in [vec![(0..end, 28)], vec![(0..half, 17), (half..end, 31)]] {
        let error = scan(&[packed(6, &frames)]).expect_err("refused").to_string();
        assert_eq!(error, "layer 1: Frame requires too much memory for decoding");
    }
}

#[test]
fn what_would_grow_without_an_end_is_refused() {
    let archives = [archive(&["a: 1"]), archive(&["b: 2", "c: 3"])];
    let limits = Limits { entries: 2, ..Limits::default() };
    let error = merge_archives(&archives, &limits).expect_err("refused").to_string();
    assert!(error.ends_with("an image with more than 2 entries is refused"), "{error}");
    let limits = Limits { bytes: 1000, ..Limits::default() };
    let error = merge_archives(&archives, &limits).expect_err("refused").to_string();
    assert!(error.contains("it is longer than any layer may be"), "{error}");
    let limits = Limits { names: 2, ..Limits::default() };
    assert!(merge_archives(&archives, &limits).expect_err("refused").to_string().contains("names"));
    let limits = Limits { layers: 1, ..Limits::default() };
    assert!(
        merge_archives(&archives, &limits).expect_err("refused").to_string().contains("more than 1 layers")
    );
    let archives = [archive(&["etc/passwd: 12", "etc/passwd: 34", "etc/passwd: 56"])];
    let limits = Limits { kept: 5, ..Limits::default() };
    let error = merge_archives(&archives, &limits).expect_err("refused").to_string();
    assert!(error.ends_with("more than 5 bytes of files like this one is refused"), "{error}");
    let deep = "d/".repeat(600);
    assert!(refused(&[&[&deep]]).ends_with("more than 512 folders are within each other"));
}

/// A few bytes of names give many bytes of paths, and many folders.
#[test]
fn what_grows_behind_links_and_in_folders_that_no_layer_has_is_refused() {
    let long = vec!["d".repeat(250); 10].join("/");
    let error = refused(&[&[&format!("{long}/x: 1"), &format!("l -> {long}"), &format!("l/{long}/x: 1")]]);
    assert!(error.ends_with("it leads through links to a path of more than 4096 bytes"), "{error}");

    let many: Vec<String> = (0..40).map(|number| format!("l/{number}: 1")).collect();
    let mut entries = vec![format!("{long}/"), format!("l -> {long}")];
    entries.extend(many);
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let limits = Limits { names: 10_000, ..Limits::default() };
    let error = merge_archives(&[archive(&entries)], &limits).expect_err("refused").to_string();
    assert!(error.ends_with("the paths that links lead to have too many bytes in all"), "{error}");
    merge_archives(&[archive(&entries)], &Limits::default()).expect("far below what is refused");

    let limits = Limits { entries: 4, ..Limits::default() };
    let error = merge_archives(&[archive(&["a/b/c/d/e/x: 1", "b/x: 1"])], &limits).expect_err("refused");
    assert!(error.to_string().ends_with("too many folders that it is in are in no layer"), "{error}");
}

#[test]
fn a_link_to_nothing_is_refused() {
    assert_eq!(refused(&[&["a -> "]]), "layer 1, entry \"a\": it is a link to nothing");
}

/// Merges layers in a model that knows paths only, as an unpacked tree would.
fn model(layers: &[Vec<String>]) -> BTreeMap<String, String> {
    let mut tree: BTreeMap<String, String> = BTreeMap::new();
    let below = |path: &str, other: &str| other.starts_with(&format!("{path}/"));
    for layer in layers {
        let hidden: Vec<String> = layer
            .iter()
            .filter(|entry| entry.contains(".wh."))
            .map(|entry| entry.replace(".wh.", ""))
            .collect();
        tree.retain(|path, _| !hidden.iter().any(|hidden| path == hidden || below(hidden, path)));
        for entry in layer.iter().filter(|entry| !entry.contains(".wh.")) {
            let (path, what) = match (entry.strip_suffix('/'), entry.split_once(": ")) {
                (Some(folder), _) => (folder.to_owned(), "/".to_owned()),
                (None, Some((path, content))) => (path.to_owned(), content.to_owned()),
                (None, None) => continue,
            };
            if what != "/" {
                tree.retain(|other, _| !below(&path, other));
            }
            tree.insert(path, what);
        }
    }
    tree
}

prop_compose! {
    /// A layer of three folders that always stay folders, with files in them and whiteouts of files.
    fn layer()(entries in prop::collection::vec((0_usize..3, 0_usize..3, 0_usize..4, 0_u8..9), 0..8)) -> Vec<String> {
        let mut layer: Vec<String> = vec!["a/".into(), "a/b/".into(), "c/".into()];
        for (folder, name, kind, content) in entries {
            let (folder, name) = (["a", "a/b", "c"][folder], ["x", "y", "z"][name]);
            layer.push(match kind {
                0 => format!("{folder}/.wh.{name}"),
                1 => format!("{folder}/{name}/"),
                _ => format!("{folder}/{name}: {content}"),
            });
        }
        layer
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn layers_come_to_what_an_unpacked_tree_would(layers in prop::collection::vec(layer(), 1..5)) {
        let archives: Vec<_> = layers.iter().map(|layer| {
            archive(&layer.iter().map(String::as_str).collect::<Vec<_>>())
        }).collect();
        let merged = merge_archives(&archives, &Limits::default()).expect("they can be merged");
        prop_assert_eq!(merged, model(&layers));
    }
}

//! Checks the properties of layers.

use std::collections::BTreeMap;
use std::io::Read as _;

use dayfly_host::digest::hexadecimal;
use dayfly_property::assert_shown;
use sha2::{Digest as _, Sha256};

use super::super::Digest;
use super::super::properties::{archive, mend_sums, stored};
use super::super::tar::{Header, Kind, PATH_MAX, Reader};
use super::tree::{Content, Node, Tree};
use super::{LayerBlob, LayerError, Limits, emit, scan_all};

/// Limits far below the real ones, so that inputs reach them.
const LIMITS: Limits =
    Limits { entries: 400, bytes: 1 << 20, names: 64 << 10, kept: 4096, depth: 16, layers: 8 };
/// Few names, so that entries affect each other, and names with a meaning.
const NAMES: [&str; 15] = [
    "a",
    "b",
    "c",
    "l",
    ".",
    "..",
    "",
    ".wh.a",
    ".wh.b",
    ".wh..wh..opq",
    ".wh..wh.plnk",
    "etc",
    "passwd",
    "a name of so many letters that no more than a few of them fit into what a header of tar has for a path",
    "\u{1b}\n",
];

/// Bytes that are read as choices. After their end, all choices are zero.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        let first = self.0.first().copied().unwrap_or_default();
        self.0 = self.0.get(1..).unwrap_or_default();
        first
    }

    fn path(&mut self) -> Vec<u8> {
        let shape = self.next();
        let parts: Vec<&str> =
            (0..=shape % 5).map(|_| NAMES[usize::from(self.next()) % NAMES.len()]).collect();
        let root = if shape & 0x80 == 0 { "" } else { "/" };
        format!("{root}{}", parts.join("/")).into_bytes()
    }

    /// Returns an entry, or none if the next layer begins.
    fn entry(&mut self) -> Option<(Header, Vec<u8>)> {
        let kind = match self.next() % 8 {
            0..=2 => Kind::File,
            3 => Kind::HardLink,
            4 => Kind::Symlink,
            5 => Kind::Folder,
            6 if self.next().is_multiple_of(2) => Kind::Fifo,
            6 => Kind::Device,
            _ => return None,
        };
        let path = self.path();
        let link = if matches!(kind, Kind::HardLink | Kind::Symlink) { self.path() } else { Vec::new() };
        let content =
            if kind == Kind::File { vec![self.next(); usize::from(self.next())] } else { Vec::new() };
        let odd = u32::from(self.next());
        let header = Header {
            path,
            kind,
            mode: odd * 16,
            uid: odd << 24,
            gid: odd,
            mtime_s: i64::from(odd) - 1,
            size: content.len() as u64,
            link,
            xattrs: if odd.is_multiple_of(5) { vec![(b"user.x".to_vec(), vec![0])] } else { Vec::new() },
        };
        Some((header, content))
    }

    /// Returns the layers that the remaining choices describe.
    fn layers(&mut self) -> Vec<Vec<u8>> {
        let (mut layers, mut layer) = (Vec::new(), Vec::new());
        while !self.0.is_empty() && layers.len() < 5 {
            match self.entry() {
                Some(entry) => layer.push(entry),
                None => layers.push(archive(&std::mem::take(&mut layer))),
            }
        }
        layers.push(archive(&layer));
        layers
    }
}

/// See [`super::super::properties::LAYERS`].
pub(in super::super) fn check_layers(data: &[u8]) {
    check(&Choices(data).layers());
}

/// See [`super::super::properties::PACKED`].
pub(in super::super) fn check_packed(data: &[u8]) {
    let mut data = data.to_vec();
    mend_sums(&mut data);
    check(&[data]);
}

/// Checks layers as they are stored.
fn check(layers: &[Vec<u8>]) {
    let files: Vec<_> = layers.iter().map(|layer| stored(layer)).collect();
    let blobs: Vec<LayerBlob> = files
        .iter()
        .zip(layers)
        .map(|((_, path), layer)| {
            let mut blob = LayerBlob {
                path: path.clone(),
                offset: 0,
                length: layer.len() as u64,
                diff_id: Digest::of_digits(&"0".repeat(64)),
            };
            blob.diff_id = Digest::of_digits(&hexadecimal(&Sha256::digest(unpacked(&blob))));
            blob
        })
        .collect();
    let mut tree = Tree::new(&LIMITS);
    match scan_all(&blobs, &LIMITS, &|| false, |index, scanned| tree.apply(index, scanned)) {
        Err(error) => assert_shown(error),
        Ok(()) => check_tree(&tree, &blobs).unwrap_or_else(|error| panic!("{error}")),
    }
}

/// Returns the unpacked bytes of a layer. Stops after the limit, because longer layers are refused anyway.
fn unpacked(blob: &LayerBlob) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(inner) = blob.open() {
        let _ = inner.take(LIMITS.bytes + 1).read_to_end(&mut bytes);
    }
    bytes
}

fn check_tree(tree: &Tree, blobs: &[LayerBlob]) -> Result<(), LayerError> {
    let mut expected = Listing { contents: blobs.iter().map(contents).collect(), ..Listing::default() };
    expected.walk(tree, &tree.root, &[], 0);
    let mut stream = Vec::new();
    let emission = emit(tree, blobs, &[], &|| false, &mut stream)?;
    let found = listed(&stream);
    assert_eq!(emission.entries, found.len() as u64);
    assert_eq!(expected.files, found);
    Ok(())
}

/// The entry at a path. For a further name of a file, only the first name.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Entry { header: Header, content: Vec<u8> },
    AlsoCalled(Vec<u8>),
}

/// The files of a tree.
#[derive(Default)]
struct Listing {
    /// The contents of the entries of each layer.
    contents: Vec<Vec<Vec<u8>>>,
    files: BTreeMap<Vec<u8>, Found>,
    first_names: BTreeMap<usize, Vec<u8>>,
}

impl Listing {
    fn walk(&mut self, tree: &Tree, node: &Node, path: &[u8], depth: usize) {
        assert!(depth <= LIMITS.depth + 1, "no deeper than the limit");
        for (name, child) in &node.children {
            assert!(!matches!(&**name, b"" | b"." | b"..") && name.len() < 256, "a name: {name:?}");
            assert!(!name.contains(&b'/') && !name.contains(&0), "a name: {name:?}");
            let path = if path.is_empty() { name.to_vec() } else { [path, &**name].join(&b'/') };
            assert!(path.len() <= PATH_MAX, "a path of {} bytes", path.len());
            let is_folder = tree.inodes[child.inode].content == Content::Folder;
            assert!(is_folder || child.children.is_empty(), "only folders hold something");
            self.take(tree, child.inode, &path);
            self.walk(tree, child, &path, depth + 1);
        }
    }

    fn take(&mut self, tree: &Tree, inode: usize, path: &[u8]) {
        if let Some(first) = self.first_names.get(&inode) {
            self.files.insert(path.to_vec(), Found::AlsoCalled(first.clone()));
            return;
        }
        self.first_names.insert(inode, path.to_vec());
        let inode = &tree.inodes[inode];
        let (mut link, mut content) = (Vec::new(), Vec::new());
        let kind = match &inode.content {
            Content::Folder => Kind::Folder,
            Content::Fifo => Kind::Fifo,
            Content::Symlink(target) => {
                link = target.to_vec();
                Kind::Symlink
            }
            Content::Layer { layer, ordinal, .. } => {
                content = self.contents[*layer][usize::try_from(*ordinal).expect("an index")].clone();
                Kind::File
            }
            Content::Bytes(_) | Content::Host { .. } => panic!("nothing was added"),
        };
        let attributes = inode.attributes.clone();
        let header = Header {
            path: path.to_vec(),
            kind,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime_s: attributes.mtime_s.clamp(0, u32::MAX.into()),
            size: content.len() as u64,
            link,
            xattrs: attributes.xattrs,
        };
        self.files.insert(path.to_vec(), Found::Entry { header, content });
    }
}

fn contents(blob: &LayerBlob) -> Vec<Vec<u8>> {
    let mut reader = Reader::new(blob.open().expect("read before"));
    let mut contents = Vec::new();
    while reader.next().expect("read before").is_some() {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("read before");
        contents.push(content);
    }
    contents
}

/// Returns the files of a stream as a program that unpacks it would see them. Checks that each path comes once and after its
/// folder, and that links come after their targets.
fn listed(stream: &[u8]) -> BTreeMap<Vec<u8>, Found> {
    let mut reader = Reader::new(stream);
    let mut files: BTreeMap<Vec<u8>, Found> = BTreeMap::new();
    while let Some(header) = reader.next().expect("readable") {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("whole");
        let path = header.path.clone();
        if let Some(slash) = path.iter().rposition(|&byte| byte == b'/') {
            let folder = files.get(&path[..slash]);
            let is_folder =
                matches!(folder, Some(Found::Entry { header, .. }) if header.kind == Kind::Folder);
            assert!(is_folder, "{} before its folder", path.escape_ascii());
        }
        let found = if header.kind == Kind::HardLink {
            assert!(matches!(files.get(&header.link), Some(Found::Entry { .. })), "a link to nothing");
            Found::AlsoCalled(header.link)
        } else {
            Found::Entry { header, content }
        };
        assert!(files.insert(path, found).is_none(), "a path twice");
    }
    files
}

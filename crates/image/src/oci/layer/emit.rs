//! The second reading of layers: writes all visible files into one stream.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::PathBuf;

use super::super::tar::{Header, Kind, Reader, Writer};
use super::tree::{Content, Node, Tree};
use super::{LayerBlob, LayerError};

/// A file that is also written to the host while it is streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extract {
    /// Its path in the image.
    pub(crate) path: String,
    /// The path on the host.
    pub(crate) to: PathBuf,
}

/// Counts of an emitted stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Emission {
    /// Number of paths, without the root.
    pub(crate) entries: u64,
    /// Length of all files, bytes.
    pub(crate) bytes: u64,
}

/// A file of a layer that is still visible, with its first name.
struct Visible {
    ordinal: u32,
    path: Vec<u8>,
    inode: usize,
}

/// Writes the tree as a tar archive: first folders, each before its content, and everything else that no layer's content
/// holds; then files in the order of their layers; then further names of files.
///
/// # Errors
/// A layer has changed since its first reading; `to` or a file to extract cannot be written.
pub(crate) fn emit(
    tree: &Tree,
    layers: &[LayerBlob],
    extracts: &[Extract],
    is_cancelled: &dyn Fn() -> bool,
    to: impl Write,
) -> Result<Emission, LayerError> {
    let mut plan = Plan::new(layers.len());
    plan.walk(tree, &tree.root, &mut Vec::new());
    let extracts = extracts.iter().filter_map(|extract| {
        let Content::Layer { layer, ordinal, .. } = tree.content(&extract.path)? else { return None };
        Some(((*layer, *ordinal), extract.to.clone()))
    });
    let mut emitter = Emitter {
        tree,
        writer: Writer::new(to),
        extracts: extracts.collect(),
        emission: Emission::default(),
        is_cancelled,
    };
    for (path, inode) in &plan.others {
        emitter.other(path, *inode)?;
    }
    for (index, (layer, mut visible)) in layers.iter().zip(plan.files).enumerate() {
        visible.sort_unstable_by_key(|file| file.ordinal);
        emitter.layer(index, layer, &visible)?;
    }
    for (path, target, inode) in &plan.links {
        let header = emitter.header(path, *inode, Kind::HardLink, 0, target);
        emitter.write(&header, &mut io::empty())?;
    }
    emitter.writer.finish().map_err(to_stream)?;
    Ok(emitter.emission)
}

fn to_stream(source: io::Error) -> LayerError {
    LayerError::Write { what: "the stream of files".to_owned(), source }
}

/// The order in which paths are emitted.
struct Plan {
    others: Vec<(Vec<u8>, usize)>,
    files: Vec<Vec<Visible>>,
    /// Path, path of the first name of the same file, and inode.
    links: Vec<(Vec<u8>, Vec<u8>, usize)>,
    first_names: HashMap<usize, Vec<u8>>,
}

impl Plan {
    fn new(layers: usize) -> Self {
        Self {
            others: Vec::new(),
            files: (0..layers).map(|_| Vec::new()).collect(),
            links: Vec::new(),
            first_names: HashMap::new(),
        }
    }

    fn walk(&mut self, tree: &Tree, node: &Node, path: &mut Vec<u8>) {
        for (name, child) in &node.children {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend(name);
            self.take(tree, child, path);
            self.walk(tree, child, path);
            path.truncate(length);
        }
    }

    fn take(&mut self, tree: &Tree, node: &Node, path: &[u8]) {
        let content = &tree.inodes[node.inode].content;
        if *content != Content::Folder {
            if let Some(first) = self.first_names.get(&node.inode) {
                return self.links.push((path.to_vec(), first.clone(), node.inode));
            }
            self.first_names.insert(node.inode, path.to_vec());
        }
        match content {
            Content::Layer { layer, ordinal, .. } => {
                let visible = Visible { ordinal: *ordinal, path: path.to_vec(), inode: node.inode };
                self.files[*layer].push(visible);
            }
            _ => self.others.push((path.to_vec(), node.inode)),
        }
    }
}

struct Emitter<'a, W> {
    tree: &'a Tree,
    writer: Writer<W>,
    extracts: HashMap<(usize, u32), PathBuf>,
    emission: Emission,
    is_cancelled: &'a dyn Fn() -> bool,
}

impl<W: Write> Emitter<'_, W> {
    fn header(&self, path: &[u8], inode: usize, kind: Kind, size: u64, link: &[u8]) -> Header {
        let attributes = &self.tree.inodes[inode].attributes;
        Header {
            path: path.to_vec(),
            kind,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime_s: attributes.mtime_s,
            size,
            link: link.to_vec(),
            xattrs: if kind == Kind::HardLink { Vec::new() } else { attributes.xattrs.clone() },
        }
    }

    fn write(&mut self, header: &Header, content: &mut dyn io::Read) -> Result<(), LayerError> {
        self.emission.entries += 1;
        self.emission.bytes += header.size;
        self.writer.entry(header, content).map_err(to_stream)
    }

    /// Writes an entry whose content is in no layer.
    fn other(&mut self, path: &[u8], inode: usize) -> Result<(), LayerError> {
        match &self.tree.inodes[inode].content {
            Content::Folder => self.write(&self.header(path, inode, Kind::Folder, 0, b""), &mut io::empty()),
            Content::Fifo => self.write(&self.header(path, inode, Kind::Fifo, 0, b""), &mut io::empty()),
            Content::Symlink(target) => {
                self.write(&self.header(path, inode, Kind::Symlink, 0, target), &mut io::empty())
            }
            Content::Bytes(bytes) => {
                let header = self.header(path, inode, Kind::File, bytes.len() as u64, b"");
                self.write(&header, &mut &bytes[..])
            }
            Content::Host { path: host, size } => {
                let header = self.header(path, inode, Kind::File, *size, b"");
                let what = format!("{} into the image", host.display());
                let mut file =
                    File::open(host).map_err(|source| LayerError::Write { what: what.clone(), source })?;
                self.write(&header, &mut file)
            }
            Content::Layer { .. } => Ok(()),
        }
    }

    /// Reads a layer up to its last visible file, and writes its visible files.
    fn layer(&mut self, index: usize, layer: &LayerBlob, visible: &[Visible]) -> Result<(), LayerError> {
        let of_layer = |what: String| LayerError::layer(index, what);
        if visible.is_empty() {
            return Ok(());
        }
        let inner = layer.open().map_err(|error| of_layer(error.to_string()))?;
        let (mut reader, mut ordinal) = (Reader::new(inner), 0);
        for file in visible {
            if (self.is_cancelled)() {
                return Err(LayerError::Cancelled);
            }
            let header = loop {
                let next = reader.next().map_err(|error| of_layer(error.to_string()))?;
                let header = next.ok_or_else(|| of_layer("it was changed while it was read".to_owned()))?;
                ordinal += 1;
                if ordinal > file.ordinal {
                    break header;
                }
            };
            let Content::Layer { size, .. } = self.tree.inodes[file.inode].content else { continue };
            if header.kind != Kind::File || header.size != size {
                return Err(of_layer("it was changed while it was read".to_owned()));
            }
            let header = self.header(&file.path, file.inode, Kind::File, size, b"");
            match self.extracts.remove(&(index, file.ordinal)) {
                Some(to) => self.extract(&header, &mut reader, to)?,
                None => self.write(&header, &mut Named { inner: &mut reader })?,
            }
        }
        Ok(())
    }

    /// Writes a file into the stream and to the host.
    fn extract(
        &mut self,
        header: &Header,
        content: &mut dyn io::Read,
        to: PathBuf,
    ) -> Result<(), LayerError> {
        let failed = |source| LayerError::Write { what: to.display().to_string(), source };
        let mut file = File::create(&to).map_err(failed)?;
        io::copy(&mut content.take(header.size), &mut file).map_err(failed)?;
        let mut again = File::open(&to).map_err(failed)?;
        self.write(header, &mut again)
    }
}

/// Marks read errors as `InvalidData`, so that a failed read of a layer differs from a failed write to the stream.
struct Named<'a, R> {
    inner: &'a mut R,
}

impl<R: io::Read> io::Read for Named<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

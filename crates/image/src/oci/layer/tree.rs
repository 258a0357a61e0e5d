//! The merged tree of layers: names and attributes of the files that are visible in the end.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::super::tar::PATH_MAX;
use super::scan::Scanned;
use super::scan::{Entry, EntryKind};
use super::{LayerError, Limits, clean};

/// Most links that are followed for one path: the kernel's limit.
const FOLLOWED_MAX: usize = 40;

/// The attributes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attributes {
    /// Permissions with set-id and sticky bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Time of the last change, seconds since 1970-01-01 UTC.
    pub(crate) mtime_s: i64,
    /// Extended attributes.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A folder.
    Folder,
    /// A link by path.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// A file of a layer.
    Layer {
        /// Index of the layer, from 0.
        layer: usize,
        /// Index of the entry in the layer's archive, from 0.
        ordinal: u32,
        /// Length, bytes.
        size: u64,
    },
    /// A file whose bytes the host provides.
    Bytes(Arc<[u8]>),
    /// A file on the host.
    Host {
        /// Its path on the host.
        path: PathBuf,
        /// Length, bytes.
        size: u64,
    },
}

#[derive(Debug)]
pub(super) struct Inode {
    pub(super) content: Content,
    pub(super) attributes: Attributes,
}

/// A name in a folder: its inode, and its children if it is a folder.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) inode: usize,
    pub(super) children: BTreeMap<Box<[u8]>, Node>,
}

/// The files of an image.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(super) root: Node,
    pub(super) inodes: Vec<Inode>,
    kept: HashMap<(usize, u32), Vec<u8>>,
    limits: Limits,
    devices: u64,
    /// Number of folders that were created because a path is in them but no layer has them.
    made: u64,
    /// Length of all paths that were added, after links were followed, bytes.
    paths: u64,
}

/// The parts of a folder's path, and a name in the folder.
type FolderAndName = (Vec<Vec<u8>>, Vec<u8>);

/// The reason why a path cannot be used.
#[derive(Debug)]
enum PathProblem {
    Outside,
    TooManyLinks,
    TooDeep,
    TooLong,
    TooManyFolders,
    TooManyNames,
    NoFolder(Vec<u8>),
}

impl PathProblem {
    fn text(&self) -> String {
        match self {
            Self::Outside => "it leads through links outside the image".to_owned(),
            Self::TooManyLinks => "it leads through more than 40 links".to_owned(),
            Self::TooDeep => "it leads through links into too many folders".to_owned(),
            Self::TooLong => format!("it leads through links to a path of more than {PATH_MAX} bytes"),
            Self::TooManyFolders => "too many folders that it is in are in no layer".to_owned(),
            Self::TooManyNames => "the paths that links lead to have too many bytes in all".to_owned(),
            Self::NoFolder(path) => format!("\"{}\" on its way is no folder", path.escape_ascii()),
        }
    }
}

impl Tree {
    /// Creates an empty tree.
    pub(crate) fn new(limits: &Limits) -> Self {
        let root = Inode { content: Content::Folder, attributes: made() };
        let root_node = Node { inode: 0, children: BTreeMap::new() };
        let (inodes, kept) = (vec![root], HashMap::new());
        Self { root: root_node, inodes, kept, limits: *limits, devices: 0, made: 0, paths: 0 }
    }

    /// Returns the number of device nodes, and of AUFS's own files, that were left out.
    pub(crate) fn devices(&self) -> u64 {
        self.devices
    }

    /// Applies a layer on top of the layers below it.
    pub(crate) fn apply(&mut self, layer: usize, scanned: Scanned) -> Result<(), LayerError> {
        let Scanned { entries, kept } = scanned;
        self.kept.extend(kept.into_iter().map(|(ordinal, content)| ((layer, ordinal), content)));
        let mut hidden = HashMap::new();
        for entry in &entries {
            let astray = |why: PathProblem| LayerError::entry(layer, &entry.path, why.text());
            match entry.what {
                EntryKind::Whiteout => {
                    if let Some(inode) = self.hide(&entry.path).map_err(astray)? {
                        hidden.insert(entry.path.clone(), inode);
                    }
                }
                EntryKind::Opaque => {
                    if let Some(parts) = self.resolve_folder(&entry.path).map_err(astray)?
                        && let Some(node) = self.node_mut(&parts)
                    {
                        node.children.clear();
                    }
                }
                _ => {}
            }
        }
        for entry in entries {
            self.add(layer, entry, &hidden)?;
        }
        Ok(())
    }

    /// Removes a path. Returns its inode if it was no folder.
    fn hide(&mut self, path: &[u8]) -> Result<Option<usize>, PathProblem> {
        let Some((folder, name)) = self.place(path)? else { return Ok(None) };
        let removed = self.node_mut(&folder).and_then(|node| node.children.remove(name.as_slice()));
        Ok(removed.map(|node| node.inode).filter(|&inode| self.inodes[inode].content != Content::Folder))
    }

    fn add(
        &mut self,
        layer: usize,
        entry: Entry,
        hidden: &HashMap<Box<[u8]>, usize>,
    ) -> Result<(), LayerError> {
        let Entry { path, what, attributes, ordinal } = entry;
        let bad = |what: String| LayerError::entry(layer, &path, what);
        let content = match what {
            EntryKind::Whiteout | EntryKind::Opaque => return Ok(()),
            EntryKind::Device => {
                self.devices += 1;
                return self.hide(&path).map(drop).map_err(|why| bad(why.text()));
            }
            EntryKind::HardLink(target) => {
                let found = self.find_exact(&target).map_err(|why| bad(why.text()))?;
                let found = found.or_else(|| hidden.get(&target).copied());
                let inode = found.ok_or_else(|| {
                    bad(format!("it is a link to {}, which is not there", target.escape_ascii()))
                })?;
                if self.inodes[inode].content == Content::Folder {
                    return Err(bad(format!("it is a hard link to the folder {}", target.escape_ascii())));
                }
                return self.link(&path, inode).map_err(|why| bad(why.text()));
            }
            EntryKind::Folder => Content::Folder,
            EntryKind::Fifo => Content::Fifo,
            EntryKind::Symlink(target) => Content::Symlink(target),
            EntryKind::File { size } => Content::Layer { layer, ordinal, size },
        };
        self.put(&path, attributes, content).map_err(|why| bad(why.text()))
    }

    /// Puts one of the host's files or folders at a path. An existing folder keeps its content.
    ///
    /// # Errors
    /// The path cannot be used.
    pub(crate) fn put_own(
        &mut self,
        path: &str,
        attributes: Attributes,
        content: Content,
    ) -> Result<(), String> {
        self.put(path.as_bytes(), attributes, content).map_err(|why| why.text())
    }

    fn put(&mut self, path: &[u8], attributes: Attributes, content: Content) -> Result<(), PathProblem> {
        let mut inode = Inode { content, attributes };
        if inode.content == Content::Folder {
            let parts = self.resolve_parent_of(path)?;
            if let Some(found) = self.node_mut(&parts).map(|node| node.inode)
                && self.inodes[found].content == Content::Folder
            {
                self.inodes[found] = inode;
                return Ok(());
            }
        }
        inode.attributes.xattrs.shrink_to_fit();
        self.inodes.push(inode);
        let inode = self.inodes.len() - 1;
        self.link(path, inode)
    }

    /// Gives an inode a name, and replaces the inode that had the name before.
    fn link(&mut self, path: &[u8], inode: usize) -> Result<(), PathProblem> {
        let mut parts = self.resolve_parent_of(path)?;
        self.count(&parts)?;
        let Some(name) = parts.pop() else { return Err(PathProblem::NoFolder(b"/".to_vec())) };
        let folder = self.make_folders(&parts)?;
        match folder.children.get(name.as_slice()) {
            Some(same) if same.inode == inode => {}
            _ => drop(folder.children.insert(name.into(), Node { inode, children: BTreeMap::new() })),
        }
        Ok(())
    }

    /// Checks a path against the limits. Short names may give long paths and many folders, through links and missing
    /// parents.
    fn count(&mut self, parts: &[Vec<u8>]) -> Result<(), PathProblem> {
        let length = parts.iter().map(|part| part.len() + 1).sum::<usize>().saturating_sub(1);
        self.paths += length as u64;
        if length > PATH_MAX {
            Err(PathProblem::TooLong)
        } else if self.paths > self.limits.names.saturating_mul(2) {
            Err(PathProblem::TooManyNames)
        } else if self.made > self.limits.entries {
            Err(PathProblem::TooManyFolders)
        } else {
            Ok(())
        }
    }

    /// Returns the folder of these parts, which are no links. Creates missing folders.
    fn make_folders(&mut self, parts: &[Vec<u8>]) -> Result<&mut Node, PathProblem> {
        // Links may have made the path deeper than any path of a layer.
        if parts.len() > self.limits.depth {
            return Err(PathProblem::TooDeep);
        }
        let (inodes, count) = (&mut self.inodes, &mut self.made);
        let mut node = &mut self.root;
        for (index, part) in parts.iter().enumerate() {
            node = node.children.entry(part.as_slice().into()).or_insert_with(|| {
                *count += 1;
                inodes.push(Inode { content: Content::Folder, attributes: made() });
                Node { inode: inodes.len() - 1, children: BTreeMap::new() }
            });
            if inodes[node.inode].content != Content::Folder {
                return Err(PathProblem::NoFolder(parts[..=index].join(&b'/')));
            }
        }
        Ok(node)
    }

    fn node(&self, parts: &[Vec<u8>]) -> Option<&Node> {
        parts.iter().try_fold(&self.root, |node, part| node.children.get(part.as_slice()))
    }

    fn node_mut(&mut self, parts: &[Vec<u8>]) -> Option<&mut Node> {
        parts.iter().try_fold(&mut self.root, |node, part| node.children.get_mut(part.as_slice()))
    }

    /// Returns the parts of a path, following all links except one in the last part. Missing parts stay unchanged.
    fn resolve_parent_of(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, PathProblem> {
        let mut parts: Vec<Vec<u8>> =
            clean(path).ok_or(PathProblem::Outside)?.into_iter().map(<[u8]>::to_vec).collect();
        let Some(last) = parts.pop() else { return Ok(parts) };
        let mut resolved = self.resolve(parts)?;
        resolved.push(last);
        Ok(resolved)
    }

    fn resolve(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, PathProblem> {
        let mut waiting: Vec<Vec<u8>> = parts.into_iter().rev().collect();
        // Each part is stored with its node, so that the time is linear in the length of the path.
        let (mut resolved, mut followed) = (Vec::<(Vec<u8>, Option<&Node>)>::new(), 0);
        while let Some(part) = waiting.pop() {
            if part == b".." {
                resolved.pop().ok_or(PathProblem::Outside)?;
                continue;
            }
            let folder = resolved.last().map_or(Some(&self.root), |(_, node)| *node);
            let node = folder.and_then(|folder| folder.children.get(part.as_slice()));
            let Some(Content::Symlink(target)) = node.map(|node| &self.inodes[node.inode].content) else {
                resolved.push((part, node));
                continue;
            };
            followed += 1;
            if followed > FOLLOWED_MAX {
                return Err(PathProblem::TooManyLinks);
            }
            if target.starts_with(b"/") {
                resolved.clear();
            }
            let words = target.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
            waiting.extend(words.rev().map(<[u8]>::to_vec));
        }
        Ok(resolved.into_iter().map(|(part, _)| part).collect())
    }

    /// Returns the folder and the name of a path, or none if the path does not exist.
    fn place(&self, path: &[u8]) -> Result<Option<FolderAndName>, PathProblem> {
        let mut parts = self.resolve_parent_of(path)?;
        let there = self.node(&parts).is_some();
        Ok(parts.pop().filter(|_| there).map(|name| (parts, name)))
    }

    /// Returns the parts of an existing path, following all links except one in the last part, or none if it does not exist.
    fn resolve_folder(&self, path: &[u8]) -> Result<Option<Vec<Vec<u8>>>, PathProblem> {
        let parts = self.resolve_parent_of(path)?;
        Ok(self.node(&parts).is_some().then_some(parts))
    }

    fn find_exact(&self, path: &[u8]) -> Result<Option<usize>, PathProblem> {
        let parts = self.resolve_parent_of(path)?;
        Ok(self.node(&parts).map(|node| node.inode))
    }

    /// Returns the node at a path, following all links.
    fn find(&self, path: &str) -> Option<&Node> {
        let parts = clean(path.as_bytes())?.into_iter().map(<[u8]>::to_vec).collect();
        self.node(&self.resolve(parts).ok()?)
    }

    /// Returns the content at a path, following all links.
    pub(crate) fn content(&self, path: &str) -> Option<&Content> {
        self.find(path).map(|node| &self.inodes[node.inode].content)
    }

    /// Returns the bytes of a file, if they were stored when its layer was read or if the host has provided them.
    pub(crate) fn text(&self, path: &str) -> Option<&[u8]> {
        match self.content(path)? {
            Content::Layer { layer, ordinal, .. } => self.kept.get(&(*layer, *ordinal)).map(Vec::as_slice),
            Content::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the attributes at a path, following all links.
    pub(crate) fn attributes(&self, path: &str) -> Option<&Attributes> {
        self.find(path).map(|node| &self.inodes[node.inode].attributes)
    }

    /// Returns the names in a folder, following all links to it.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let children = self.find(path).map(|node| node.children.keys());
        children.into_iter().flatten().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }
}

/// Returns the attributes of a folder that no layer has although a path is in it.
fn made() -> Attributes {
    Attributes { mode: 0o755, ..Attributes::default() }
}

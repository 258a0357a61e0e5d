//! Packs the kernel modules that a machine needs before its root file system is mounted.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use cpio::newc::{Builder, ModeFileType, trailer};

use super::ImageError;
use super::converter::filter;
use super::error::failed;

/// Names of the modules that a machine boots with. All others are loaded from the root file system.
const NEEDED: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "squashfs",
    "overlay",
    "ext4",
];
/// Modules that the kernel finds by the name of their checksum, so that no dependency names them. Kernels without these
/// modules have them built in.
const WANTED: &[&str] = &["crc32c_generic", "crc32c_intel"];
/// Longest chain of dependencies. The lists name all dependencies of a module, so that two would suffice.
const DEPTH_MAX: usize = 32;
/// Longest module in its file, bytes.
const MODULE_LENGTH_MAX: u64 = super::converter::FILTERED_LENGTH_MAX;
/// Name of the list by which init loads the modules.
const ORDER: &str = "modules.order-for-boot";

/// The modules of a kernel.
struct Tree {
    /// Module name to its file and the files that it needs, relative to the kernel's folder.
    modules: HashMap<String, (String, Vec<String>)>,
    built_in: HashSet<String>,
}

impl Tree {
    fn parse(dependencies: &str, built_in: &str) -> Self {
        let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect();
        Self {
            modules: dependencies
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(file, needs)| (name_of(file), (file.to_owned(), words(needs))))
                .collect(),
            built_in: built_in.lines().map(name_of).collect(),
        }
    }

    /// Returns the files in an order in which they can be loaded.
    fn load_order(&self) -> Result<Vec<String>, ImageError> {
        let (mut order, mut seen) = (Vec::new(), HashSet::new());
        for name in NEEDED {
            if !self.add(name, &mut order, &mut seen, 0) && !self.built_in.contains(*name) {
                return Err(ImageError::Unusable { what: format!("its kernel has no module {name}") });
            }
        }
        for name in WANTED {
            self.add(name, &mut order, &mut seen, 0);
        }
        if let Some(file) = order.iter().find(|file| !is_below(file)) {
            return Err(ImageError::Unusable { what: format!("its list of modules names {file:?}") });
        }
        Ok(order)
    }

    /// Adds a module after its dependencies. Returns false if the module does not exist. Lists come from images, so the walk
    /// also ends for lists with cycles, or with deeper chains than any kernel has.
    fn add(&self, name: &str, order: &mut Vec<String>, seen: &mut HashSet<String>, depth: usize) -> bool {
        let Some((file, needs)) = self.modules.get(name) else { return false };
        if depth < DEPTH_MAX && seen.insert(file.clone()) {
            for need in needs {
                self.add(&name_of(need), order, seen, depth + 1);
            }
            order.push(file.clone());
        }
        true
    }
}

/// Returns true if a path from a list stays inside its folder.
fn is_below(file: &str) -> bool {
    !file.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// Returns the module name of a file: `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is the module `virtio_rng`.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// Writes the archive of a kernel's modules, compressed, and returns the kernel's release. `folder` is
/// `/lib/modules` as the image has it.
pub(super) fn write_initramfs(folder: &Path, to: &Path) -> Result<String, ImageError> {
    let release = release_in(folder, "modules.dep")?;
    let kernel = folder.join(&release);
    let read = |name: &str| {
        let path = kernel.join(name);
        fs::read_to_string(&path).map_err(failed("read", &path))
    };
    let order = Tree::parse(&read("modules.dep")?, &read("modules.builtin")?).load_order()?;
    let archive = archive(&kernel, &release, &order)?;
    let packed = filter("zstd", &["-q", "-19", "-c"], &archive).map_err(failed("compress with zstd", to))?;
    fs::write(to, packed).map_err(failed("write", to))?;
    Ok(release)
}

/// Returns the files of the modules that a machine needs, in an order in which they can be loaded, relative to their
/// kernel's folder. `dependencies` and `built_in` are the contents of `modules.dep` and `modules.builtin`.
pub(super) fn needed(dependencies: &str, built_in: &str) -> Result<Vec<String>, ImageError> {
    Tree::parse(dependencies, built_in).load_order()
}

/// Returns the name of the only folder under `/lib/modules` that contains the file `mark`.
pub(super) fn release_in(folder: &Path, mark: &str) -> Result<String, ImageError> {
    let entries = fs::read_dir(folder).map_err(failed("read", folder))?;
    let mut releases: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join(mark).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    match (releases.pop(), releases.is_empty()) {
        (Some(release), true) => Ok(release),
        (None, _) => Err(ImageError::Unusable { what: "it has no kernel".to_owned() }),
        (Some(_), false) => Err(ImageError::Unusable { what: "it has more than one kernel".to_owned() }),
    }
}

fn archive(kernel: &Path, release: &str, order: &[String]) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let mut archive = Archive { bytes: &mut bytes, folders: HashSet::new(), inode: 0 };
    let mut list = String::new();
    let base = format!("lib/modules/{release}");
    for file in order {
        let path = kernel.join(file);
        let content = plain_module(&path).map_err(failed("read", &path))?;
        let (plain, _) = file.split_once(".ko").unwrap_or((file, ""));
        let name = format!("{base}/{plain}.ko");
        archive.file(&name, &content).map_err(failed("pack", &path))?;
        list.push_str(&format!("/{name}\n"));
    }
    let finish = |archive: &mut Archive<'_>| {
        archive.file(&format!("{base}/{ORDER}"), list.as_bytes())?;
        trailer(&mut *archive.bytes).map(drop)
    };
    finish(&mut archive).map_err(failed("pack", kernel))?;
    Ok(bytes)
}

/// Returns a module without its compression (Debian's are `.ko.xz` since release 13).
fn plain_module(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > MODULE_LENGTH_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let content = fs::read(path)?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => filter("xz", &["-T1", "-dc"], &content),
        Some("zst") => filter("zstd", &["-q", "-dc"], &content),
        _ => Ok(content),
    }
}

/// A cpio archive. It gets an entry for each parent folder of its files.
struct Archive<'a> {
    bytes: &'a mut Vec<u8>,
    folders: HashSet<String>,
    inode: u32,
}

impl Archive<'_> {
    fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        for (end, _) in name.match_indices('/') {
            if self.folders.insert(name[..end].to_owned()) {
                self.entry(&name[..end], 0o755, ModeFileType::Directory, &[])?;
            }
        }
        self.entry(name, 0o644, ModeFileType::Regular, content)
    }

    fn entry(&mut self, name: &str, mode: u32, kind: ModeFileType, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let length =
            u32::try_from(content.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let entry = Builder::new(name).ino(self.inode).nlink(1).mode(mode).set_mode_file_type(kind);
        let mut writer = entry.write(&mut *self.bytes, length);
        writer.write_all(content)?;
        writer.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/drivers/virtio/virtio_mmio.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/virtio/virtio_ring.ko.xz: kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/virtio/virtio.ko.xz:
kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/net/core/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/block/virtio_blk.ko.xz:
kernel/drivers/char/virtio_console.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
kernel/fs/squashfs/squashfs.ko.xz:
kernel/fs/overlayfs/overlay.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
";

    #[test]
    fn each_module_comes_once_and_after_what_it_needs() {
        let order = Tree::parse(DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n").load_order().expect("complete");
        let at = |name: &str| order.iter().position(|file| name_of(file) == name).expect(name);
        assert!(at("virtio") < at("virtio_ring") && at("virtio_ring") < at("virtio_mmio"));
        assert!(at("failover") < at("net_failover") && at("net_failover") < at("virtio_net"));
        assert_eq!(order.len(), 12);
    }

    #[test]
    fn a_kernel_that_lacks_a_module_is_refused_by_name() {
        let error = Tree::parse(DEPENDENCIES, "").load_order().expect_err("no ext4");
        assert_eq!(error.to_string(), "the image cannot be used: its kernel has no module ext4");
    }

    #[test]
    fn a_list_that_goes_in_circles_or_leads_elsewhere_does_no_harm() {
        let circle = DEPENDENCIES
            .replace("virtio.ko.xz:\n", "virtio.ko.xz: kernel/drivers/virtio/virtio_mmio.ko.xz\n");
        let built_in = "kernel/fs/ext4/ext4.ko\n";
        assert_eq!(Tree::parse(&circle, built_in).load_order().expect("an end").len(), 12);
        let astray = DEPENDENCIES.replace("kernel/fs/overlayfs/", "../../../../etc/");
        let error = Tree::parse(&astray, built_in).load_order().expect_err("astray").to_string();
        assert!(error.ends_with("its list of modules names \"../../../../etc/overlay.ko.xz\""), "{error}");
    }

    #[test]
    fn an_archive_holds_plain_modules_and_their_order() {
        let folder = tempfile::tempdir().expect("folder");
        let kernel = folder.path().join("6.1-x");
        let mut order = Vec::new();
        for file in ["kernel/a/virtio.ko", "kernel/b.ko.xz"] {
            let path = kernel.join(file);
            fs::create_dir_all(path.parent().expect("parent")).expect("folders");
            let content = b"module".to_vec();
            let content =
                if file.ends_with("xz") { filter("xz", &["-c"], &content).expect("xz") } else { content };
            fs::write(&path, content).expect("write");
            order.push(file.to_owned());
        }
        let bytes = archive(&kernel, "6.1-x", &order).expect("archive");
        let mut rest: &[u8] = &bytes;
        let mut entries = Vec::new();
        loop {
            let mut reader = cpio::newc::Reader::new(rest).expect("entry");
            if reader.entry().is_trailer() {
                break;
            }
            let name = reader.entry().name().to_owned();
            let mut content = String::new();
            io::Read::read_to_string(&mut reader, &mut content).expect("text");
            entries.push((name, content));
            rest = reader.finish().expect("next");
        }
        assert_eq!(entries[5], ("lib/modules/6.1-x/kernel/a/virtio.ko".to_owned(), "module".to_owned()));
        assert_eq!(entries[6].1, "module");
        let list = "/lib/modules/6.1-x/kernel/a/virtio.ko\n/lib/modules/6.1-x/kernel/b.ko\n";
        assert_eq!(entries[7], ("lib/modules/6.1-x/modules.order-for-boot".to_owned(), list.to_owned()));
    }
}

//! Builds tools from Debian packages: extracts their files, and writes the paths of the libraries into the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use dayfly_guest::environment::TOOLS;

use super::super::converter;
use super::super::debian::{self, Fetch};
use super::super::error::failed;
use super::super::{BuildSettings, ImageError, Progress, packages};
use super::TREE;
use super::elf::Linkage;
use super::table::{Part, wanted};
use crate::oci::tar::Kind;
use dayfly_host::stage::{make_folder, remove_tree};

const PHASE: &str = "making tools that fit any image";
/// The loader, and the folders in which Debian has it and other libraries.
const LOADER: &str = "ld-linux-x86-64.so.2";
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "libexec/sudo"];
/// Folders in which packages have programs.
const PROGRAMS: [&str; 3] = ["bin", "sbin", "libexec/docker"];
/// Folders of packages that may contain parts of tools.
const FOLDERS: [&str; 7] = [
    "bin/",
    "sbin/",
    "libexec/",
    "lib/x86_64-linux-gnu/",
    "lib/git-core/",
    "share/git-core/",
    "share/ca-certificates/",
];
/// Most links that are followed to reach a file.
const FOLLOWED_MAX: usize = 8;

/// Fills the bundle's tree, and returns the files of each tool.
pub(super) fn make(
    settings: &BuildSettings,
    suite: &str,
    stage: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<BTreeMap<String, BTreeSet<String>>, ImageError> {
    patchelf(&["--version"], None)?;
    let names = wanted().iter().filter_map(|wanted| wanted.tool.as_ref()).flat_map(|tool| tool.packages);
    let packages = names.map(|name| match name.strip_prefix('?') {
        Some(name) => packages::pattern(name),
        None => (*name).to_owned(),
    });
    let packages: Vec<String> = packages.collect();
    let phase = "fetching the tools' packages";
    let archive = Fetch { settings, suite, packages: &packages, phase, folder: stage }.run(progress)?;
    progress(Progress::Phase { name: PHASE });
    let passing = stage.join("packages");
    let packages = Packages::read(&archive, &passing)?;
    fs::remove_file(&archive).map_err(failed("remove", &archive))?;
    let mut maker = Maker { packages, tree: stage.join(TREE), placed: BTreeMap::new() };
    let mut tools = BTreeMap::new();
    for wanted in wanted() {
        if settings.cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        let Some(tool) = &wanted.tool else { continue };
        let mut files = BTreeSet::new();
        for part in tool.parts {
            files.extend(maker.part(part)?);
        }
        tools.insert(wanted.name.to_owned(), files);
    }
    remove_tree(&passing)?;
    Ok(tools)
}

/// Runs `patchelf`, on a file if one is given, and returns its output.
fn patchelf(arguments: &[&str], file: Option<&Path>) -> Result<String, ImageError> {
    let output = converter::patchelf(arguments, file);
    let file = file.unwrap_or(Path::new("nothing"));
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ImageError::NoProgram { program: "patchelf", package: "patchelf" },
        _ => failed("run patchelf on", file)(error),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let tail = format!("{}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    Err(ImageError::Failed { program: "patchelf", phase: PHASE, status: output.status.to_string(), tail })
}

/// The files of packages. Their paths have no leading `usr/`, and all of `/bin`, `/sbin` and `/lib` count as below `/usr`.
struct Packages {
    folder: PathBuf,
    files: BTreeSet<String>,
    links: BTreeMap<String, Link>,
}

struct Link {
    /// Its target as the package has it.
    text: String,
    /// The path that the target means.
    to: String,
}

impl Packages {
    /// Extracts from an archive the files that tools may need.
    fn read(archive: &Path, folder: &Path) -> Result<Self, ImageError> {
        let mut packages = Self { folder: folder.to_owned(), files: BTreeSet::new(), links: BTreeMap::new() };
        debian::for_each(archive, &mut |original, header, reader| {
            let path = debian::merged(original);
            if !FOLDERS.iter().any(|folder| path.starts_with(folder)) {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&header.link).into_owned();
            match header.kind {
                Kind::File => {
                    let to = folder.join(path);
                    debian::write(reader, &to)?;
                    // Set-id bits are dropped, because they are for the image, not for this host.
                    let mode = if header.mode & 0o111 == 0 { 0o644 } else { 0o755 };
                    fs::set_permissions(&to, fs::Permissions::from_mode(mode))
                        .map_err(failed("make readable", &to))?;
                    packages.files.insert(path.to_owned());
                }
                Kind::Symlink => {
                    let to = leads_to(original, &text);
                    packages.links.insert(path.to_owned(), Link { text, to });
                }
                // A hard link in a package is a further name of a file.
                Kind::HardLink => {
                    let to = leads_to("", text.trim_start_matches("./"));
                    packages.links.insert(path.to_owned(), Link { text: format!("/{to}"), to });
                }
                Kind::Device | Kind::Folder | Kind::Fifo => {}
            }
            Ok(())
        })?;
        Ok(packages)
    }

    /// Returns the file at a path, following links.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let mut path = path;
        for _ in 0..FOLLOWED_MAX {
            match self.links.get(path) {
                Some(link) => path = &link.to,
                None => break,
            }
        }
        self.files.contains(path).then(|| self.folder.join(path))
    }

    fn find_in(&self, folders: &[&str], name: &str) -> Result<PathBuf, ImageError> {
        let found = folders.iter().find_map(|folder| self.find(&format!("{folder}/{name}")));
        found.ok_or_else(|| missing(name))
    }

    /// Returns the paths below a folder.
    fn below(&self, folder: &str) -> Vec<String> {
        let inside = format!("{folder}/");
        let all = self.files.iter().chain(self.links.keys());
        all.filter(|path| path.starts_with(&inside)).cloned().collect()
    }
}

fn missing(what: &str) -> ImageError {
    ImageError::Unusable { what: format!("{what}, which tools need, is in none of their packages") }
}

/// Returns the path that a link of a package leads to, in the form of the paths of [`Packages`].
fn leads_to(path: &str, link: &str) -> String {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = if link.starts_with('/') { Vec::new() } else { folder.split('/').collect() };
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    debian::merged(&parts.join("/")).to_owned()
}

struct Maker {
    packages: Packages,
    tree: PathBuf,
    /// The files in the tree, each with itself and the libraries that it needs.
    placed: BTreeMap<String, BTreeSet<String>>,
}

impl Maker {
    fn part(&mut self, part: &Part) -> Result<BTreeSet<String>, ImageError> {
        match *part {
            Part::Program(name) => self.program(name, name),
            Part::Named(name, to) => self.program(name, to),
            Part::File { from, to } => {
                let file = self.packages.find(from).ok_or_else(|| missing(from))?;
                self.place(&file, to)
            }
            Part::Folder { from, to } => self.folder(from, to),
            Part::Joined { from, to } => self.joined(from, to),
        }
    }

    fn program(&mut self, name: &str, to: &str) -> Result<BTreeSet<String>, ImageError> {
        let file = self.packages.find_in(&PROGRAMS, name)?;
        self.place(&file, &format!("bin/{to}"))
    }

    fn library(&mut self, name: &str) -> Result<BTreeSet<String>, ImageError> {
        let file = self.packages.find_in(&LIBRARIES, name)?;
        self.place(&file, &format!("lib/{name}"))
    }

    fn folder(&mut self, from: &str, to: &str) -> Result<BTreeSet<String>, ImageError> {
        let mut all = BTreeSet::new();
        for path in self.packages.below(from) {
            let target = format!("{to}{}", &path[from.len()..]);
            match self.packages.links.get(&path) {
                Some(Link { text, .. }) if !text.contains('/') => {
                    let link = self.make_room(&target)?;
                    symlink(text, &link).map_err(failed("link", &link))?;
                    all.insert(target);
                }
                _ => {
                    // A link whose target was not extracted is skipped.
                    if let Some(file) = self.packages.find(&path) {
                        all.extend(self.place(&file, &target)?);
                    }
                }
            }
        }
        if all.is_empty() { Err(missing(from)) } else { Ok(all) }
    }

    fn joined(&mut self, from: &str, to: &str) -> Result<BTreeSet<String>, ImageError> {
        let target = self.make_room(to)?;
        let mut output = File::create(&target).map_err(failed("make", &target))?;
        let paths = self.packages.below(from);
        for file in paths.iter().filter_map(|path| self.packages.find(path)) {
            let mut text = fs::read(&file).map_err(failed("read", &file))?;
            if !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            output.write_all(&text).map_err(failed("write", &target))?;
        }
        if paths.is_empty() { Err(missing(from)) } else { Ok(BTreeSet::from([to.to_owned()])) }
    }

    /// Puts a file and the libraries that it needs into the tree, unless they are in it already. Returns all these files.
    fn place(&mut self, file: &Path, to: &str) -> Result<BTreeSet<String>, ImageError> {
        if let Some(all) = self.placed.get(to) {
            return Ok(all.clone());
        }
        let target = self.make_room(to)?;
        fs::copy(file, &target).map_err(failed("copy to", &target))?;
        let mut all = BTreeSet::from([to.to_owned()]);
        self.placed.insert(to.to_owned(), all.clone());
        let linkage = Linkage::of_file(&target)?;
        if linkage != Linkage::None {
            for name in patchelf(&["--print-needed"], Some(&target))?.lines() {
                all.extend(self.library(name)?);
            }
        }
        let libraries = format!("{TOOLS}/lib");
        let search = ["--force-rpath", "--set-rpath", &libraries];
        match linkage {
            Linkage::Program => {
                all.extend(self.library(LOADER)?);
                let loader = format!("{libraries}/{LOADER}");
                patchelf(&[&["--set-interpreter", &loader], &search[..]].concat(), Some(&target))?;
            }
            // Libraries without a search path of their own are found by the path of their program.
            Linkage::Library if !patchelf(&["--print-rpath"], Some(&target))?.is_empty() => {
                patchelf(&search, Some(&target))?;
            }
            Linkage::Library | Linkage::None => {}
        }
        self.placed.insert(to.to_owned(), all.clone());
        Ok(all)
    }

    fn make_room(&self, to: &str) -> Result<PathBuf, ImageError> {
        let target = self.tree.join(to);
        if let Some(folder) = target.parent() {
            make_folder(folder)?;
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_where_they_would_in_a_system_whose_programs_are_below_usr() {
        for (path, link, to) in [
            ("usr/bin/runc", "../sbin/runc", "sbin/runc"),
            (
                "lib64/ld-linux-x86-64.so.2",
                "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
                "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            ),
            (
                "usr/lib/x86_64-linux-gnu/libz.so.1",
                "../../../lib/x86_64-linux-gnu/libz.so.1.2",
                "lib/x86_64-linux-gnu/libz.so.1.2",
            ),
            ("usr/bin/docker-init", "tini-static", "bin/tini-static"),
            ("usr/bin/x", "../../../../../etc/x", "etc/x"),
        ] {
            assert_eq!(leads_to(path, link), to, "{path}");
        }
    }
}

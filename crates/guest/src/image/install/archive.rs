//! Unpacks an archive into a folder, and makes sure that nothing in the folder leads out of it.
//!
//! GNU tar does the unpacking, and creates no entry outside of its working folder. The names are checked before, because
//! tar would only leave out the wrong part of a name. Everything that was unpacked is checked afterwards: a link can lead
//! outside like a name. All of this happens in a stage folder that only root may enter.

use super::super::log::Log;
use super::super::program::Program;
use super::super::{ImageError, at};
use crate::entrypoint::user::Account;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

/// Name of the stage folder.
const STAGE: &str = ".installing";

/// Largest number of entries in an archive. 2.336.0 has about 20 000.
const ENTRIES_MAX: usize = 200_000;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("{path} has the sha256 {found}, and not {wanted}: the file was changed, or is incomplete")]
    Digest { path: String, found: String, wanted: String },
    #[error("the archive's entry {0:?} would be outside of it")]
    Outside(String),
    #[error("the archive's link {link:?} leads outside of it, to {target:?}")]
    LinkOutside { link: String, target: String },
    #[error("the archive's entry {0:?} is neither a file, nor a folder, nor a link")]
    Kind(String),
    #[error("the archive's entry {0:?} is a hard link to something outside of it")]
    HardLink(String),
    #[error("the archive has more than {ENTRIES_MAX} entries")]
    Entries,
    #[error("the archive has no {program}: it is no runner app, or one for another system")]
    NoProgram { program: String },
}

/// A folder beside the result, which is removed when it is dropped.
pub(super) struct Stage {
    path: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // If this fails, only disk space is lost.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Stage {
    pub(super) fn make(dir: &Path) -> Result<Self, ImageError> {
        fs::create_dir_all(dir).map_err(at("cannot make the folder", dir))?;
        let path = dir.join(STAGE);
        // A killed build may have left it behind.
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new().mode(0o700).create(&path).map_err(at("cannot make the folder", &path))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the folder in which the app is put together.
    fn tree(&self) -> Result<PathBuf, ImageError> {
        let tree = self.path.join("tree");
        DirBuilder::new().mode(0o755).create(&tree).map_err(at("cannot make the folder", &tree))?;
        Ok(tree)
    }

    /// Copies a program that is a whole app, and checks its digest.
    pub(super) fn take(
        &self,
        program: &Path,
        name: &str,
        sha256: &str,
        log: &Log,
    ) -> Result<PathBuf, ImageError> {
        let tree = self.tree()?;
        let to = tree.join(name);
        fs::copy(program, &to).map_err(at("cannot copy", program))?;
        check_digest(&to, sha256, log)?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&to, executable).map_err(at("cannot make executable", &to))?;
        Ok(tree)
    }

    /// Checks and unpacks an archive.
    pub(super) fn unpack(&self, archive: &Path, sha256: &str, log: &Log) -> Result<PathBuf, ImageError> {
        check_digest(archive, sha256, log)?;
        let archive = fs::canonicalize(archive).map_err(at("cannot find", archive))?.display().to_string();
        // With these options tar prints absolute names unchanged, and a name with a line end on one line.
        let list =
            ["tar", "--list", "--gzip", "--absolute-names", "--quoting-style=escape", "--file", &archive];
        check_names(&Program::new(list).answer(log)?)?;
        let tree = self.tree()?;
        let unpack =
            ["tar", "--extract", "--gzip", "--no-same-owner", "--no-same-permissions", "--file", &archive];
        Program::new(unpack).in_folder(&tree).run(log)?;
        check_tree(&tree)?;
        Ok(tree)
    }
}

fn check_digest(path: &Path, wanted: &str, log: &Log) -> Result<(), ImageError> {
    let answer =
        Program::new(["sha256sum", "--binary", "--"]).with([path.display().to_string()]).answer(log)?;
    // The line begins with a backslash if sha256sum has escaped the name.
    let found = answer.trim_start_matches('\\').split(' ').next().unwrap_or_default().to_owned();
    if found == wanted {
        return Ok(());
    }
    let (path, wanted) = (path.display().to_string(), wanted.to_owned());
    Err(ArchiveError::Digest { path, found, wanted }.into())
}

/// Checks the names of an archive's entries, one per line.
fn check_names(list: &str) -> Result<(), ArchiveError> {
    if list.lines().count() > ENTRIES_MAX {
        return Err(ArchiveError::Entries);
    }
    let outside = |name: &&str| {
        Path::new(name).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    };
    match list.lines().find(outside) {
        Some(name) => Err(ArchiveError::Outside(name.to_owned())),
        None => Ok(()),
    }
}

/// Checks everything that was unpacked from an archive.
fn check_tree(tree: &Path) -> Result<(), ImageError> {
    // For each file with several names: how many names were seen, how many it has, and one of them.
    let mut linked: HashMap<u64, (u64, u64, String)> = HashMap::new();
    walk(tree, &mut |path, metadata| {
        let name = path.strip_prefix(tree).unwrap_or(path).display().to_string();
        if metadata.is_symlink() {
            let target = fs::read_link(path).map_err(at("cannot read the link", path))?;
            let inside = stays_inside(Path::new(&name), &target);
            let target = target.display().to_string();
            let outside = ArchiveError::LinkOutside { link: name, target };
            return if inside { Ok(()) } else { Err(outside.into()) };
        }
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(ArchiveError::Kind(name).into());
        }
        if metadata.is_file() && metadata.nlink() > 1 {
            linked.entry(metadata.ino()).or_insert((0, metadata.nlink(), name)).0 += 1;
        }
        Ok(())
    })?;
    match linked.into_values().find(|(seen, all, _)| seen < all) {
        Some((_, _, name)) => Err(ArchiveError::HardLink(name).into()),
        None => Ok(()),
    }
}

/// Returns true if a link's target is in the folder that the link's name is relative to.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// Calls `each` for everything in a folder, without following links.
fn walk(
    folder: &Path,
    each: &mut impl FnMut(&Path, &Metadata) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at("cannot read", &folder))? {
            let path = entry.map_err(at("cannot read", &folder))?.path();
            let metadata = fs::symlink_metadata(&path).map_err(at("cannot look at", &path))?;
            each(&path, &metadata)?;
            if metadata.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}

/// Gives a folder with its whole content to a user. The official app writes to it.
pub(super) fn give(tree: &Path, account: Option<&Account>) -> Result<(), ImageError> {
    walk(tree, &mut |path, _| give_one(path, account))?;
    give_one(tree, account)
}

/// Gives one file or folder to a user.
pub(super) fn give_one(path: &Path, account: Option<&Account>) -> Result<(), ImageError> {
    let Some(account) = account else { return Ok(()) };
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(at("cannot change the owner of", path))
}

#[cfg(test)]
mod tests {
    use super::super::super::program::quiet;
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    /// Returns the ustar header of one entry, and its content.
    fn entry(name: &str, kind: u8, link: &str, content: &str) -> Vec<u8> {
        let mut header = vec![0; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000755\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", content.len()));
        put(136, "00000000000\0");
        put(148, "        ");
        put(157, link);
        put(257, "ustar\x0000");
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header.extend(content.as_bytes());
        header.resize(header.len().next_multiple_of(512), 0);
        header
    }

    /// Unpacks an archive with these entries. Returns the result, and the folder around the stage.
    fn unpacked(entries: &[Vec<u8>]) -> (Result<PathBuf, String>, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let tar = folder.path().join("a.tar");
        let mut bytes = entries.concat();
        bytes.resize(bytes.len() + 1024, 0);
        fs::write(&tar, bytes).expect("written");
        assert!(std::process::Command::new("gzip").arg(&tar).status().expect("gzip").success());
        let archive = folder.path().join("a.tar.gz");
        let digest =
            Program::new(["sha256sum", archive.to_str().expect("text")]).answer(&quiet()).expect("digest");
        let stage = Stage::make(&folder.path().join("dir")).expect("made");
        let result = stage.unpack(&archive, &digest[..64], &quiet());
        // Before the stage is removed.
        let kept = folder.path().join("kept");
        let result = result.map_err(|error| error.to_string()).map(|tree| {
            fs::rename(tree, &kept).expect("moved");
            kept.clone()
        });
        (result, folder)
    }

    #[test]
    fn an_archive_comes_out_with_its_links() {
        let entries = [
            entry("./bin/", b'5', "", ""),
            entry("./bin/Runner.Listener", b'0', "", "program"),
            entry("./bin/current", b'2', "../bin/Runner.Listener", ""),
            entry("./bin/again", b'1', "./bin/Runner.Listener", ""),
        ];
        let (tree, _folder) = unpacked(&entries);
        let tree = tree.expect("good");
        for name in ["bin/Runner.Listener", "bin/current", "bin/again"] {
            assert_eq!(fs::read_to_string(tree.join(name)).expect(name), "program");
        }
    }

    #[test]
    fn what_would_be_outside_is_refused_by_name_and_is_not_there() {
        let outside = |name: &str| format!("the archive's entry {name:?} would be outside of it");
        for (entries, error) in [
            (vec![entry("../evil", b'0', "", "x")], outside("../evil")),
            (vec![entry("a/../../evil", b'0', "", "x")], outside("a/../../evil")),
            (vec![entry("/tmp/dayfly-evil", b'0', "", "x")], outside("/tmp/dayfly-evil")),
            (
                vec![entry("a", b'2', "/etc", "")],
                "the archive's link \"a\" leads outside of it, to \"/etc\"".to_owned(),
            ),
            (
                vec![entry("a/b", b'2', "../../x", "")],
                "the archive's link \"a/b\" leads outside of it, to \"../../x\"".to_owned(),
            ),
            (
                vec![entry("fifo", b'6', "", "")],
                "the archive's entry \"fifo\" is neither a file, nor a folder, nor a link".to_owned(),
            ),
        ] {
            let (result, folder) = unpacked(&entries);
            assert_eq!(result, Err(error));
            for path in
                [folder.path().join("evil"), folder.path().join("dir/evil"), "/tmp/dayfly-evil".into()]
            {
                assert!(!path.exists(), "{}", path.display());
            }
            assert_eq!(
                fs::read_dir(folder.path().join("dir")).expect("there").count(),
                0,
                "the stage is gone"
            );
        }
    }

    #[test]
    fn nothing_is_written_through_a_link_and_nothing_outside_is_linked() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let outside = folder.path().to_str().expect("text");
        let through = [entry("a", b'2', outside, ""), entry("a/evil", b'0', "", "x")];
        assert!(unpacked(&through).0.is_err());
        assert!(!folder.path().join("evil").exists());
        let secret = folder.path().join("secret");
        fs::write(&secret, "s3cret").expect("written");
        let hard = [entry("a", b'1', secret.to_str().expect("text"), "")];
        assert!(unpacked(&hard).0.is_err());
        assert_eq!(fs::metadata(&secret).expect("there").nlink(), 1);
    }

    #[test]
    fn a_file_that_has_another_name_outside_is_found() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).expect("made");
        fs::write(folder.path().join("secret"), "").expect("written");
        fs::hard_link(folder.path().join("secret"), tree.join("a")).expect("linked");
        let error = check_tree(&tree).expect_err("linked from outside").to_string();
        assert_eq!(error, "the archive's entry \"a\" is a hard link to something outside of it");
        symlink("b", tree.join("c")).expect("linked");
        fs::rename(folder.path().join("secret"), tree.join("b")).expect("moved");
        check_tree(&tree).expect("both names are inside");
    }

    #[test]
    fn an_archive_that_is_not_what_it_should_be_is_not_looked_into() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let archive = folder.path().join("a.tar.gz");
        fs::write(&archive, "cut o").expect("written");
        let stage = Stage::make(folder.path()).expect("made");
        let error = stage.unpack(&archive, &"0".repeat(64), &quiet()).expect_err("other").to_string();
        assert!(error.contains("a.tar.gz has the sha256 ") && error.contains(", and not 000"), "{error}");
    }

    proptest! {
        #[test]
        fn a_link_stays_inside_exactly_where_no_prefix_of_its_way_leads_out(
            link in proptest::collection::vec("[ab]", 1..4),
            target in proptest::collection::vec("[ab]|\\.\\.|\\.", 1..8),
        ) {
            let mut depth = i32::try_from(link.len()).expect("small") - 1;
            let mut inside = true;
            for part in &target {
                depth += match part.as_str() { ".." => -1, "." => 0, _ => 1 };
                inside &= depth >= 0;
            }
            prop_assert_eq!(stays_inside(&link.iter().collect::<PathBuf>(), &target.iter().collect::<PathBuf>()), inside);
        }
    }
}

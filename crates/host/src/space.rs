//! Free and used space of file systems.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The unit of `st_blocks`, bytes (inode(7)).
const BLOCK: u64 = 512;

/// Returns the space that this user may still write in the file system of a path, MiB.
pub fn free_mib(path: &Path) -> io::Result<u64> {
    let statistics = rustix::fs::statvfs(path)?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize) / (1024 * 1024))
}

/// Returns the bytes that a file has on the disk: blocks that are allocated, not its length, which is more if it is sparse.
pub fn on_disk(file: &Metadata) -> u64 {
    file.blocks().saturating_mul(BLOCK)
}

/// Measures the space that files take on the disk, with one bound for the cost of all its looks.
#[derive(Debug)]
pub struct SpaceMeter {
    entries_left: usize,
    until: Instant,
    /// Files with several names, by device and inode: each counts once.
    seen: HashSet<(u64, u64)>,
    is_whole: bool,
}

impl SpaceMeter {
    /// Returns a meter that looks at so many files and folders, and for so long, at most.
    pub fn new(entries_max: usize, time_max: Duration) -> Self {
        let until = Instant::now() + time_max;
        Self { entries_left: entries_max, until, seen: HashSet::new(), is_whole: true }
    }

    /// Returns the bytes that a file, or a folder with everything in it, has on the disk. Follows no link and enters no other file system. A path that does not exist has
    /// none.
    pub fn allocated(&mut self, path: &Path) -> u64 {
        let Some(root) = self.look(path) else { return 0 };
        let device = root.dev();
        let mut sum = self.bytes_of(&root);
        let mut folders: Vec<PathBuf> = root.is_dir().then(|| path.to_owned()).into_iter().collect();
        while let Some(folder) = folders.pop() {
            let Some(entries) = self.known(fs::read_dir(&folder)) else { continue };
            for entry in entries {
                let Some(path) = self.known(entry).map(|entry| entry.path()) else { break };
                let Some(found) = self.look(&path).filter(|found| found.dev() == device) else {
                    if self.is_used_up() { return sum } else { continue }
                };
                sum = sum.saturating_add(self.bytes_of(&found));
                if found.is_dir() {
                    folders.push(path);
                }
            }
        }
        sum
    }

    /// Returns false if something could not be read, or was left out because the bound was reached. The sizes are then
    /// the least that the files have.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Looks at a file, if there is any and the bound allows it.
    fn look(&mut self, path: &Path) -> Option<Metadata> {
        if self.is_used_up() {
            self.is_whole = false;
            return None;
        }
        self.entries_left -= 1;
        self.known(fs::symlink_metadata(path))
    }

    fn is_used_up(&self) -> bool {
        self.entries_left == 0 || Instant::now() >= self.until
    }

    /// Takes a file that was removed meanwhile as none.
    fn known<T>(&mut self, result: io::Result<T>) -> Option<T> {
        if let Err(error) = &result {
            self.is_whole &= error.kind() == io::ErrorKind::NotFound;
        }
        result.ok()
    }

    fn bytes_of(&mut self, found: &Metadata) -> u64 {
        let is_counted = found.is_dir() || found.nlink() < 2 || self.seen.insert((found.dev(), found.ino()));
        if is_counted { on_disk(found) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn meter() -> SpaceMeter {
        SpaceMeter::new(1000, Duration::from_secs(60))
    }

    /// Returns the bytes of a folder beyond those of its folders, which differ between file systems.
    fn of_files(folder: &Path, meter: &mut SpaceMeter) -> u64 {
        meter.allocated(folder) / MIB * MIB
    }

    #[test]
    fn allocated_blocks_count_and_the_length_of_a_sparse_file_does_not() {
        let folder = tempfile::tempdir().expect("folder");
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).expect("folders");
        File::create(inner.join("sparse")).and_then(|file| file.set_len(32 << 30)).expect("sparse");
        assert_eq!(of_files(folder.path(), &mut meter()), 0);
        let mut whole = File::create(inner.join("whole")).expect("file");
        whole.write_all(&vec![7; 3 << 20]).and_then(|()| whole.sync_all()).expect("written");
        assert_eq!(of_files(folder.path(), &mut meter()), 3 * MIB);
        assert_eq!(of_files(&inner.join("whole"), &mut meter()), 3 * MIB);
    }

    #[test]
    fn a_file_with_two_names_counts_once_and_what_a_link_names_does_not_count() {
        let (folder, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let path = folder.path().join("a");
        let mut file = File::create(&path).expect("file");
        file.write_all(&vec![7; 2 << 20]).and_then(|()| file.sync_all()).expect("written");
        fs::hard_link(&path, folder.path().join("b")).expect("a second name");
        std::os::unix::fs::symlink(folder.path(), other.path().join("link")).expect("a link");
        let mut meter = meter();
        assert_eq!(of_files(folder.path(), &mut meter), 2 * MIB);
        assert_eq!(of_files(other.path(), &mut meter), 0);
        assert_eq!(of_files(folder.path(), &mut meter), 0, "the same meter has counted it");
        assert!(meter.is_whole());
    }

    #[test]
    fn a_look_ends_at_its_bound_and_says_so() {
        let folder = tempfile::tempdir().expect("folder");
        (0..20).for_each(|number| fs::write(folder.path().join(number.to_string()), "x").expect("file"));
        let mut all = SpaceMeter::new(21, Duration::from_secs(60));
        let whole = all.allocated(folder.path());
        assert!(all.is_whole());
        let mut few = SpaceMeter::new(10, Duration::from_secs(60));
        assert!(few.allocated(folder.path()) < whole && !few.is_whole());
        let mut late = SpaceMeter::new(1000, Duration::ZERO);
        assert_eq!((late.allocated(folder.path()), late.is_whole()), (0, false));
    }

    #[test]
    fn what_is_not_there_has_no_space() {
        let mut meter = meter();
        assert_eq!((meter.allocated(Path::new("/nonexistent/x")), meter.is_whole()), (0, true));
    }
}

//! The memory of a template: a sparse file on the disk, and a sealed memory file in each process that forks the template.
//!
//! A VMM opens the memory that it copies from for writing, even if it maps the memory privately (QEMU 7.2). A VMM that a
//! guest has taken over could then change what all later machines start from. So forks get a sealed memory file, which no
//! process can change, even if it has the file open for writing.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, SealFlags, SeekFrom};
use rustix::io::Errno;

/// Size of the units that are left out if they are zero, bytes.
const PAGE: usize = 4096;
/// Size of one read, bytes.
const CHUNK: usize = 1 << 20;

/// Creates the memory of a machine that becomes a template. The VMM's user reopens it through /proc.
pub(crate) fn make(bytes: u64) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("dayfly-template", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&memory, bytes)?;
    rustix::fs::fchmod(&memory, Mode::from_raw_mode(0o666))?;
    Ok(memory)
}

/// Writes memory into a new file, without pages that are zero.
pub(crate) fn write(memory: &OwnedFd, path: &Path) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    copy(&File::from(memory.try_clone()?), &file)
}

/// Copies a file into a sealed memory file, which can be mapped and read but never changed.
pub(crate) fn open_sealed(path: &Path) -> io::Result<OwnedFd> {
    let file = File::open(path)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let sealed = File::from(rustix::fs::memfd_create("dayfly-template", flags)?);
    copy(&file, &sealed)?;
    rustix::fs::fchmod(&sealed, Mode::from_raw_mode(0o666))?;
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&sealed, all)?;
    Ok(sealed.into())
}

/// Copies the pages that are not zero. The rest becomes holes.
pub(crate) fn copy(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, length)? {
        at = start;
        while at < end {
            let wanted = usize::try_from(end - at).map_or(CHUNK, |rest| rest.min(CHUNK));
            from.read_exact_at(&mut buffer[..wanted], at)?;
            write_runs(to, &buffer[..wanted], at)?;
            at += wanted as u64;
        }
    }
    Ok(())
}

/// Returns the next range of a file that is not a hole.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok(Some((start, rustix::fs::seek(file, SeekFrom::Hole(start))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes each run of pages that are not zero.
fn write_runs(to: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let is_zero = |page: &[u8]| page.iter().all(|&byte| byte == 0);
    let mut start = 0;
    while start < bytes.len() {
        let page_at = |at: usize| &bytes[at..bytes.len().min(at + PAGE)];
        if is_zero(page_at(start)) {
            start += PAGE;
            continue;
        }
        let mut end = start;
        while end < bytes.len() && !is_zero(page_at(end)) {
            end += PAGE;
        }
        to.write_all_at(&bytes[start..end.min(bytes.len())], at + start as u64)?;
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::process::Command;

    #[test]
    fn zeroes_take_no_space_on_either_side_and_nothing_else_is_lost() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("memory");
        let memory = make(8 << 20).expect("memory");
        let file = File::from(memory.try_clone().expect("clone"));
        // Zeroes that were written, a page amid them, and bytes across the border of a chunk.
        file.write_all_at(&[0; 64 * PAGE], 0).expect("write");
        file.write_all_at(&[7; 100], 9 * PAGE as u64).expect("write");
        file.write_all_at(&[8; 3 * PAGE], CHUNK as u64 - PAGE as u64).expect("write");
        file.write_all_at(&[9; 1], (8 << 20) - 1).expect("write");
        write(&memory, &path).expect("write");
        let on_disk = std::fs::metadata(&path).expect("metadata");
        assert_eq!((on_disk.len(), on_disk.mode() & 0o777), (8 << 20, 0o600));
        assert!(on_disk.blocks() * 512 <= 16 * PAGE as u64, "{} bytes", on_disk.blocks() * 512);
        let sealed = File::from(open_sealed(&path).expect("open"));
        assert!(sealed.metadata().expect("metadata").blocks() * 512 <= 16 * PAGE as u64);
        let (mut before, mut after) = (vec![0; 8 << 20], vec![1; 8 << 20]);
        file.read_exact_at(&mut before, 0).expect("read");
        sealed.read_exact_at(&mut after, 0).expect("read");
        assert!(before == after);
    }

    /// The attack of a VMM that a guest has taken over, as another user.
    const ATTACK: &str = r#"
import ctypes, fcntl, mmap, os, sys
if os.getuid() == 0:
    os.setgid(64001); os.setuid(64001)
path = sys.argv[1]
def refused(what, attempt):
    try:
        attempt()
    except OSError:
        return
    sys.exit(what + " was possible")
fd = os.open(path, os.O_RDWR)
private = mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
private[0] = 1
refused("writing", lambda: os.pwrite(fd, b"x", 0))
refused("mapping for writing", lambda: mmap.mmap(fd, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE))
refused("shortening", lambda: os.ftruncate(fd, 0))
refused("lengthening", lambda: os.ftruncate(fd, 1 << 30))
libc = ctypes.CDLL(None, use_errno=True)
# Punching a hole, zeroing, with and without keeping the length, collapsing.
for mode in (3, 16, 17, 8):
    def punch():
        if libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(4096)):
            raise OSError(ctypes.get_errno(), "refused")
    refused("fallocate", punch)
refused("sealing", lambda: fcntl.fcntl(fd, 1033, 0))
"#;

    #[test]
    fn a_vmm_that_was_taken_over_can_map_the_memory_and_never_change_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("memory");
        let memory = make(1 << 20).expect("memory");
        File::from(memory.try_clone().expect("clone")).write_all_at(b"template", 0).expect("write");
        write(&memory, &path).expect("write");
        let sealed = open_sealed(&path).expect("open");
        // A VMM inherits the descriptor, too.
        rustix::io::fcntl_setfd(&sealed, rustix::io::FdFlags::empty()).expect("inherit");
        let attacker = Command::new("python3")
            .args(["-c", ATTACK, &format!("/proc/self/fd/{}", sealed.as_raw_fd())])
            .output()
            .expect("python3");
        assert!(attacker.status.success(), "{}", String::from_utf8_lossy(&attacker.stderr));
        let mut start = [0; 8];
        File::from(sealed).read_exact_at(&mut start, 0).expect("read");
        assert_eq!(&start, b"template");
    }
}

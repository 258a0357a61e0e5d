//! temp
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

fn copy(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut at = 0;
    while at < size {
        let n = from.read_at(&mut buffer, at)?;
        for (i, page) in buffer[..n].chunks(4096).enumerate() {
            if page.iter().any(|&b| b != 0) {
                to.write_all_at(page, at + (i as u64) * 4096)?;
            }
        }
        at += n as u64;
    }
    Ok(())
}
pub(crate) fn write(memory: &OwnedFd, path: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    copy(&File::from(memory.try_clone()?), &file)?;
    file.flush()
}
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let from = File::open(path)?;
    let fd = rustix::fs::memfd_create("dayfly-template", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let to = File::from(fd);
    copy(&from, &to)?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(0o666))?;
    rustix::fs::fcntl_add_seals(
        &to,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(to.into())
}

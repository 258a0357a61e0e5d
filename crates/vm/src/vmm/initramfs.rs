//! Builds the initramfs of a machine: the image's archive of kernel modules, followed by an archive with the guest binary.
//!
//! The kernel unpacks the archives one after the other. So an image does not contain the guest binary, host and guest are
//! always from the same build, and a changed guest binary needs no new image.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use cpio::newc::{Builder, ModeFileType, trailer};
use rustix::fs::{MemfdFlags, Mode};

/// Alignment of an uncompressed archive, bytes. The kernel finds archives only at multiples of this.
const ALIGNMENT: u64 = 4;

/// Why the initramfs could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitramfsError {
    /// The guest binary cannot be used.
    #[error(transparent)]
    Guest(io::Error),
    /// The image's archive cannot be read.
    #[error(transparent)]
    Image(io::Error),
    /// The memory file cannot be created or written.
    #[error(transparent)]
    Memory(io::Error),
}

/// Returns a memory file with both archives, which the VMM's user can read through the descriptor.
pub(crate) fn with_guest(modules: &Path, guest_binary: &Path) -> Result<OwnedFd, InitramfsError> {
    let guest = read_guest(guest_binary).map_err(InitramfsError::Guest)?;
    let mut modules = File::open(modules).map_err(InitramfsError::Image)?;
    let descriptor = rustix::fs::memfd_create("dayfly-initramfs", MemfdFlags::CLOEXEC)
        .map_err(|error| InitramfsError::Memory(error.into()))?;
    let mut file = File::from(descriptor);
    io::copy(&mut modules, &mut file).map_err(InitramfsError::Image)?;
    append_guest(&mut file, &guest).map_err(InitramfsError::Memory)?;
    Ok(file.into())
}

/// Reads the guest binary, which must be a static program for x86-64, because the initramfs has no libraries.
fn read_guest(path: &Path) -> io::Result<Vec<u8>> {
    let mut guest = Vec::new();
    File::open(path)?.read_to_end(&mut guest)?;
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
    // ELF, 64 bits, little-endian. Machine 62 is x86-64.
    if guest.get(..6) != Some(b"\x7fELF\x02\x01") || guest.get(18..20) != Some(&[62, 0]) {
        return wrong("it is no program for x86-64");
    }
    if needs_interpreter(&guest) {
        return wrong("it is not static (build it with -C target-feature=+crt-static)");
    }
    Ok(guest)
}

/// Returns true if a program header requests a dynamic loader (type 3, PT_INTERP).
fn needs_interpreter(elf: &[u8]) -> bool {
    let number = |at: usize, length: usize| {
        elf.get(at..at + length)
            .map(|bytes| bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte)))
    };
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else {
        return false;
    };
    (0..count).any(|index| {
        usize::try_from(table + index * size).ok().and_then(|at| number(at, 4)).is_some_and(|kind| kind == 3)
    })
}

fn append_guest(file: &mut File, guest: &[u8]) -> io::Result<()> {
    let end = file.stream_position()?;
    let padding = end.next_multiple_of(ALIGNMENT) - end;
    file.write_all(&[0; ALIGNMENT as usize][..usize::try_from(padding).unwrap_or_default()])?;
    let length = u32::try_from(guest.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let entry = Builder::new("init").ino(1).nlink(1).mode(0o755).set_mode_file_type(ModeFileType::Regular);
    let mut writer = entry.write(&mut *file, length);
    writer.write_all(guest)?;
    writer.finish()?;
    trailer(&mut *file)?;
    // The VMM runs as another user and reopens the file through /proc.
    rustix::fs::fchmod(&*file, Mode::from_raw_mode(0o444))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::SeekFrom;

    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64, 0);
        elf[18] = 62;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = u8::try_from(kinds.len()).expect("few");
        for kind in kinds {
            let mut header = kind.to_le_bytes().to_vec();
            header.resize(56, 0);
            elf.extend(header);
        }
        elf
    }

    #[test]
    fn the_guest_follows_the_modules_at_a_multiple_of_four() {
        let folder = tempfile::tempdir().expect("folder");
        let (modules, guest) = (folder.path().join("modules"), folder.path().join("guest"));
        std::fs::write(&modules, b"12345").expect("write");
        std::fs::write(&guest, elf(&[1, 2])).expect("write");
        let mut file = File::from(with_guest(&modules, &guest).expect("build"));
        file.seek(SeekFrom::Start(0)).expect("seek");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("read");
        assert_eq!(&bytes[..8], b"12345\0\0\0");
        let reader = cpio::newc::Reader::new(&bytes[8..]).expect("archive");
        assert_eq!((reader.entry().name(), reader.entry().mode()), ("init", 0o100_755));
        assert_eq!(reader.entry().file_size() as usize, elf(&[1, 2]).len());
    }

    #[test]
    fn what_could_not_run_as_init_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let modules = folder.path().join("modules");
        std::fs::write(&modules, b"").expect("write");
        let guest = folder.path().join("guest");
        let refused = |content: &[u8]| {
            std::fs::write(&guest, content).expect("write");
            with_guest(&modules, &guest).expect_err("refused").to_string()
        };
        assert_eq!(refused(b"#!/bin/sh\n"), "it is no program for x86-64");
        assert!(refused(&elf(&[1, 3])).starts_with("it is not static"));
        std::fs::remove_file(&guest).expect("remove");
        assert!(matches!(with_guest(&modules, &guest), Err(InitramfsError::Guest(_))));
    }
}

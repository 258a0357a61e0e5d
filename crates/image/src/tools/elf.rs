//! Tells programs that a loader starts, libraries and other files apart: System V ABI, "ELF Header" and "Program Header".

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::super::ImageError;
use super::super::error::failed;

/// Bytes that are read of a file: enough for the headers of any program.
const HEAD: u64 = 4096;
/// Kinds of program headers: the table of needed libraries (`PT_DYNAMIC`), and the path of the loader (`PT_INTERP`).
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;

/// The way in which the loader uses a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linkage {
    /// Not at all: a script, data, or a static program.
    None,
    /// A library, or a file that is loaded like one.
    Library,
    /// A program that names its loader.
    Program,
}

impl Linkage {
    pub(super) fn of_file(path: &Path) -> Result<Self, ImageError> {
        let mut head = Vec::new();
        let file = File::open(path).map_err(failed("open", path))?;
        file.take(HEAD).read_to_end(&mut head).map_err(failed("read", path))?;
        Ok(Self::of(&head))
    }

    /// Returns the linkage of a file that begins with these bytes. Only 64-bit little-endian files count as programs or
    /// libraries.
    fn of(head: &[u8]) -> Self {
        if !head.starts_with(b"\x7fELF\x02\x01") {
            return Self::None;
        }
        let number = |at: usize, length: usize| {
            let bytes = head.get(at..at.saturating_add(length)).unwrap_or_default();
            bytes.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte))
        };
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        let kinds = (0..count).map(|index| {
            let at = table.saturating_add(index * size);
            usize::try_from(at).map_or(0, |at| number(at, 4))
        });
        let kinds: Vec<u64> = kinds.collect();
        match (kinds.contains(&INTERPRETER.into()), kinds.contains(&DYNAMIC.into())) {
            (true, _) => Self::Program,
            (false, true) => Self::Library,
            (false, false) => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(64, 0);
        head[32] = 64;
        head[54] = 56;
        head[56] = u8::try_from(kinds.len()).expect("few");
        for kind in kinds {
            head.extend(kind.to_le_bytes());
            head.extend([0; 52]);
        }
        head
    }

    #[test]
    fn a_program_names_its_loader_and_a_library_does_not() {
        assert_eq!(Linkage::of(&elf(&[6, INTERPRETER, 1, DYNAMIC])), Linkage::Program);
        assert_eq!(Linkage::of(&elf(&[1, DYNAMIC])), Linkage::Library);
        assert_eq!(Linkage::of(&elf(&[1, 1])), Linkage::None);
        assert_eq!(Linkage::of(b"#!/bin/sh\n"), Linkage::None);
        let own = std::env::current_exe().expect("a program");
        assert_eq!(Linkage::of_file(&own).expect("readable"), Linkage::Program);
    }

    #[test]
    fn a_damaged_header_is_no_program() {
        let mut head = elf(&[1]);
        head[32..40].fill(0xff);
        head[54..58].fill(0xff);
        assert_eq!(Linkage::of(&head), Linkage::None);
        assert_eq!(Linkage::of(&head[..40]), Linkage::None);
    }
}

//! Parses the header block of an entry.

use super::BLOCK;

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file with content.
    File,
    /// Another name of an entry that came before.
    HardLink,
    /// A link by path.
    Symlink,
    /// A character or block device.
    Device,
    /// A folder.
    Folder,
    /// A named pipe.
    Fifo,
}

/// The header of an entry, with all extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Path as the archive has it.
    pub(crate) path: Vec<u8>,
    /// Kind of the entry.
    pub(crate) kind: Kind,
    /// Permissions with set-id and sticky bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Time of the last change, seconds since 1970-01-01 UTC.
    pub(crate) mtime_s: i64,
    /// Length of the content as a reader of the file sees it, bytes; 0 for all but files.
    pub(crate) size: u64,
    /// Target of links.
    pub(crate) link: Vec<u8>,
    /// Extended attributes.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One header block, not parsed yet.
pub(super) struct Raw<'a>(pub(super) &'a [u8; BLOCK]);

impl Raw<'_> {
    pub(super) fn is_end(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// Returns true if the checksum is right. Programs have written two kinds of sums: of unsigned bytes, and of signed
    /// ones.
    pub(super) fn has_right_sum(&self) -> bool {
        let Some(expected) = number(&self.0[148..156]) else { return false };
        let as_summed = |(at, &byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { byte };
        let bytes = || self.0.iter().enumerate().map(as_summed);
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        expected == unsigned || expected == signed
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Returns the path. Only POSIX headers have the prefix field; GNU headers use its bytes for other fields.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        if &self.0[257..263] == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Option<i64> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Option<i64> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Option<i64> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Option<i64> {
        number(&self.0[124..136])
    }

    pub(super) fn mtime(&self) -> Option<i64> {
        number(&self.0[136..148])
    }
}

/// Returns the bytes up to the first zero.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&byte| byte == 0).unwrap_or(field.len())]
}

/// Parses a number: octal digits between blanks and zeroes, or a big-endian number after a marker bit, in which GNU and star
/// write large and negative numbers. An empty field is 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0] | 0x80) - 256 } else { i128::from(field[0] & 0x7f) };
        let mut value = first;
        for &byte in &field[1..] {
            value = value.checked_mul(256)?.checked_add(i128::from(byte))?;
        }
        return i64::try_from(value).ok();
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if digits[end..].iter().any(|byte| !blank(byte)) {
        return None;
    }
    digits[..end].iter().try_fold(0_i64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_behind_a_bit() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777"), Some(0o77_777_777));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\x02\0\0\0"), Some(0x200_0000));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf6"), Some(-10));
        assert_eq!(number(b"8       "), None);
        assert_eq!(number(b"64 4    "), None);
        assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}

//! Writes tar archives for `mksquashfs -tar`.

use std::io::{self, Write};

use super::BLOCK;
use super::header::{Header, Kind};

/// Largest number that fits into a header field of eight bytes.
const ID_MAX: u32 = 0o7_777_777;
/// Largest number that fits into a header field of twelve bytes.
const SIZE_MAX: u64 = 0o77_777_777_777;

/// A writer of an archive.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    inner: W,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub(crate) fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Returns the output.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn into_inner(self) -> W {
        self.inner
    }

    /// Writes an entry. `content` gives the content of a file. It must be at least as long as the header's size.
    pub(crate) fn entry(&mut self, header: &Header, content: &mut dyn io::Read) -> io::Result<()> {
        let records = records(header);
        if !records.is_empty() {
            let size = records.len() as u64;
            self.inner.write_all(&block(header, b'x', b"PaxHeaders/x", b"", size))?;
            self.inner.write_all(&records)?;
            self.pad(size)?;
        }
        let (path, link) = (cut(&header.path), cut(&header.link));
        self.inner.write_all(&block(header, type_of(header.kind), path, link, header.size))?;
        let mut buffer = [0; 64 * 1024];
        let mut left = header.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = content.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.inner.write_all(&buffer[..count])?;
            left -= count as u64;
        }
        self.pad(header.size)
    }

    /// Ends the archive.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default();
        self.inner.write_all(&[0; BLOCK][..padding])
    }
}

fn type_of(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Device => b'3',
        Kind::Folder => b'5',
        Kind::Fifo => b'6',
    }
}

/// Returns the part of a path that fits into the header's field.
fn cut(path: &[u8]) -> &[u8] {
    &path[..path.len().min(100)]
}

fn block(header: &Header, kind: u8, path: &[u8], link: &[u8], size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let octal = |value: u64, width: usize| format!("{value:0width$o}\0").into_bytes();
    put(0, path);
    put(100, &octal(header.mode.into(), 7));
    put(108, &octal(header.uid.min(ID_MAX).into(), 7));
    put(116, &octal(header.gid.min(ID_MAX).into(), 7));
    put(124, &octal(size.min(SIZE_MAX), 11));
    put(136, &octal(mtime(header), 11));
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Returns the time of the last change, limited to the unsigned 32-bit seconds of squashfs.
fn mtime(header: &Header) -> u64 {
    u64::from(u32::try_from(header.mtime_s.max(0)).unwrap_or(u32::MAX))
}

/// Returns the PAX records for the values that do not fit into the header.
fn records(header: &Header) -> Vec<u8> {
    let mut records = Vec::new();
    if header.path.len() > 100 {
        record(&mut records, b"path", &header.path);
    }
    if header.link.len() > 100 {
        record(&mut records, b"linkpath", &header.link);
    }
    for (key, value) in [("uid", header.uid), ("gid", header.gid)] {
        if value > ID_MAX {
            record(&mut records, key.as_bytes(), value.to_string().as_bytes());
        }
    }
    if header.size > SIZE_MAX {
        record(&mut records, b"size", header.size.to_string().as_bytes());
    }
    for (name, value) in &header.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// Appends a PAX record. Its length includes the digits of the length itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(format!("{length} ").as_bytes());
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Reader;
    use super::*;

    prop_compose! {
        fn header()(
            path in prop::collection::vec(1_u8..=255, 1..300),
            kind in prop::sample::select(vec![Kind::File, Kind::HardLink, Kind::Symlink, Kind::Folder, Kind::Fifo]),
            (mode, uid, gid, mtime) in (0_u32..0o10000, any::<u32>(), any::<u32>(), 0_u32..u32::MAX),
            link in prop::collection::vec(1_u8..=255, 1..300),
            xattr in prop::collection::vec(any::<u8>(), 0..1200),
            size in 0_u64..1500,
        ) -> Header {
            let mut path = path;
            // A file whose name ends with a slash would be read as a folder.
            path.push(b'x');
            let is_link = matches!(kind, Kind::HardLink | Kind::Symlink);
            Header {
                path, kind, mode, uid, gid,
                mtime_s: mtime.into(),
                size: if kind == Kind::File { size } else { 0 },
                link: if is_link { link } else { Vec::new() },
                xattrs: vec![(b"security.capability".to_vec(), xattr)],
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(headers in prop::collection::vec(header(), 0..4)) {
            let mut writer = Writer::new(Vec::new());
            for header in &headers {
                writer.entry(header, &mut io::repeat(7)).expect("written");
            }
            writer.finish().expect("written");
            let bytes = writer.into_inner();
            let mut reader = Reader::new(bytes.as_slice());
            for header in &headers {
                let read = reader.next().expect("readable");
                prop_assert_eq!(read.as_ref(), Some(header));
            }
            prop_assert_eq!(reader.next().expect("readable"), None);
        }
    }
}

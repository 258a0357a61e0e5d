//! Reads an archive from its beginning to its end.

use std::io::{self, Read};

use super::header::{Header, Kind, Raw};
use super::pax::{self, Extension};
use super::sparse::{self, Map};
use super::{BLOCK, EXTENSION_MAX, PATH_MAX, SEGMENTS_MAX, TarError};

/// Most extension headers before one entry: long name, long link and PAX, with room for repetitions.
const EXTENSIONS_MAX: usize = 16;
/// Longest sparse map before a file's content, bytes.
const MAP_LENGTH_MAX: usize = 4 * 1024 * 1024;

/// A reader of an archive. It also reads the content of the current entry.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    /// Bytes read.
    at: u64,
    /// Bytes of the current entry that the archive still holds.
    stored: u64,
    /// Padding after the current entry, bytes.
    padding: u64,
    content: Content,
    ended: bool,
}

/// The way in which the content of the current entry is stored.
#[derive(Debug)]
enum Content {
    Plain,
    Sparse {
        map: Map,
        /// The next segment.
        next: usize,
        /// Bytes that were read so far.
        seen: u64,
    },
}

impl<R: Read> Reader<R> {
    /// Creates a reader that starts at the beginning of an archive.
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, at: 0, stored: 0, padding: 0, content: Content::Plain, ended: false }
    }

    /// Returns the input at its current position.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// Returns the position, bytes from the beginning.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Returns the next entry, or none at the end. Skips the unread content of the previous entry.
    pub(crate) fn next(&mut self) -> Result<Option<Header>, TarError> {
        self.pass_over()?;
        if self.ended {
            return Ok(None);
        }
        let (mut extension, mut long_path, mut long_link) = (Extension::default(), None, None);
        for _ in 0..EXTENSIONS_MAX {
            let start = self.at;
            let Some(block) = self.block()? else {
                self.ended = true;
                return Ok(None);
            };
            let raw = Raw(&block);
            if !raw.has_right_sum() {
                return Err(malformed(start, "this is no tar header (its checksum is wrong)"));
            }
            match raw.kind() {
                b'x' => {
                    let records = self.extension(&raw, start)?;
                    extension =
                        Extension::parse(&records, SEGMENTS_MAX).map_err(|what| malformed(start, what))?;
                }
                // Global headers are ignored, as the tools that write layers do.
                b'g' => drop(self.extension(&raw, start)?),
                b'L' => long_path = Some(without_zeroes(self.extension(&raw, start)?)),
                b'K' => long_link = Some(without_zeroes(self.extension(&raw, start)?)),
                _ => {
                    extension.path = extension.path.or(long_path);
                    extension.link = extension.link.or(long_link);
                    return self.entry(&raw, extension, start).map(Some);
                }
            }
        }
        Err(malformed(self.at, format!("more than {EXTENSIONS_MAX} headers stand before one entry")))
    }

    /// Reads the input to its end, so that a digest covers all of it.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while self.inner.read(&mut buffer)? > 0 {}
        Ok(())
    }

    fn pass_over(&mut self) -> Result<(), TarError> {
        let mut left = std::mem::take(&mut self.stored) + std::mem::take(&mut self.padding);
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.inner.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(malformed(self.at, "the archive ends in the middle of an entry"));
            }
            self.at += count as u64;
            left -= count as u64;
        }
        self.content = Content::Plain;
        Ok(())
    }

    /// Reads one block. Returns none at the end of the archive: two blocks of zeroes, or the end of the input after one or
    /// none. If anything else stands behind one block of zeroes, tools differ about it: GNU tar ends there, and Go's reader,
    /// which unpacks layers for containerd and podman, refuses the archive, as this one does.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let (block, filled) = self.fill()?;
        match filled {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(malformed(self.at, "the archive ends in the middle of a header")),
        }
        if !Raw(&block).is_end() {
            return Ok(Some(block));
        }
        let start = self.at;
        let (next, _) = self.fill()?;
        if Raw(&next).is_end() {
            return Ok(None);
        }
        Err(malformed(start, "more stands behind a single block of zeroes, and two of them end an archive"))
    }

    /// Reads up to one block. Returns it, filled up with zeroes, and the number of bytes that were there.
    fn fill(&mut self) -> Result<([u8; BLOCK], usize), TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        self.at += filled as u64;
        Ok((block, filled))
    }

    fn extension(&mut self, raw: &Raw<'_>, start: u64) -> Result<Vec<u8>, TarError> {
        let size = raw.size().and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| malformed(start, "its size is no number"))?;
        if size > EXTENSION_MAX {
            return Err(malformed(
                start,
                format!("a header of {size} bytes is too long (at most {EXTENSION_MAX})"),
            ));
        }
        let mut content = Vec::new();
        (&mut self.inner).take(size).read_to_end(&mut content)?;
        self.at += content.len() as u64;
        if content.len() as u64 != size {
            return Err(malformed(self.at, "the archive ends in the middle of a header"));
        }
        self.padding = padding_of(size);
        self.pass_over()?;
        Ok(content)
    }

    fn entry(&mut self, raw: &Raw<'_>, extension: Extension, start: u64) -> Result<Header, TarError> {
        let bad = |what: &str| malformed(start, what);
        let field =
            |value: Option<i64>, name: &str| value.ok_or_else(|| bad(&format!("its {name} is no number")));
        let id = |value: Option<i64>, name: &str| {
            u32::try_from(field(value, name)?).map_err(|_| bad(&format!("its {name} does not fit")))
        };
        let path = extension.path.unwrap_or_else(|| raw.path());
        let kind = kind_of(raw.kind(), &path).ok_or_else(|| {
            bad(&format!("{} is of the unknown kind {:?}", path.escape_ascii(), char::from(raw.kind())))
        })?;
        let link = extension.link.unwrap_or_else(|| raw.link());
        if path.len() > PATH_MAX || link.len() > PATH_MAX {
            return Err(bad(&format!("a path is longer than {PATH_MAX} bytes")));
        }
        let mut header = Header {
            kind,
            mode: u32::try_from(field(raw.mode(), "mode")? & 0o7777).unwrap_or_default(),
            uid: extension.uid.map_or_else(|| id(raw.uid(), "owner"), Ok)?,
            gid: extension.gid.map_or_else(|| id(raw.gid(), "group"), Ok)?,
            mtime_s: extension.mtime_s.map_or_else(|| field(raw.mtime(), "time"), Ok)?,
            size: 0,
            link: if matches!(kind, Kind::HardLink | Kind::Symlink) { link } else { Vec::new() },
            xattrs: extension.xattrs,
            path,
        };
        if kind == Kind::File {
            let of_header = || {
                field(raw.size(), "size")
                    .and_then(|size| u64::try_from(size).map_err(|_| bad("its size is negative")))
            };
            let stored = extension.size.map_or_else(of_header, Ok)?;
            if stored > i64::MAX.unsigned_abs() {
                return Err(bad("its size does not fit"));
            }
            self.padding = padding_of(stored);
            self.stored = stored;
            header.size = self.begin(raw, &extension.sparse, stored, start)?;
        }
        Ok(header)
    }

    /// Prepares the reader for the content of a file. Returns the file's length with its holes.
    fn begin(
        &mut self,
        raw: &Raw<'_>,
        sparse: &pax::Sparse,
        stored: u64,
        start: u64,
    ) -> Result<u64, TarError> {
        let numbers_and_size = if raw.kind() == b'S' {
            let size =
                super::header::number(&raw.0[sparse::OLD_SIZE]).and_then(|size| u64::try_from(size).ok());
            Some((self.old_map(raw, start)?, size))
        } else if sparse.major == Some(1) && sparse.minor == Some(0) {
            Some((self.map_in_content(start)?, sparse.size))
        } else if sparse.is_there {
            Some((sparse.map.clone(), sparse.size))
        } else {
            None
        };
        let Some((numbers, size)) = numbers_and_size else { return Ok(stored) };
        let size = size.ok_or_else(|| malformed(start, "a sparse file has no length"))?;
        let map = Map::new(&numbers, size).map_err(|what| malformed(start, what))?;
        if map.stored() != self.stored {
            return Err(malformed(start, "a sparse map and the content after it are of different lengths"));
        }
        self.content = Content::Sparse { map, next: 0, seen: 0 };
        Ok(size)
    }

    /// Reads the pairs of the old GNU format. Blocks with further pairs do not count as content.
    fn old_map(&mut self, raw: &Raw<'_>, start: u64) -> Result<Vec<u64>, TarError> {
        let mut numbers = Vec::new();
        let (from, count) = sparse::OLD_PAIRS;
        sparse::pairs_of_block(raw.0, from, count, &mut numbers).map_err(|what| malformed(start, what))?;
        let mut more = raw.0[sparse::OLD_EXTENDED] != 0;
        while more {
            let block = self.block()?.ok_or_else(|| malformed(start, "a sparse map ends too early"))?;
            let (from, count) = sparse::NEXT_PAIRS;
            sparse::pairs_of_block(&block, from, count, &mut numbers)
                .map_err(|what| malformed(start, what))?;
            more = block[sparse::NEXT_EXTENDED] != 0;
        }
        Ok(numbers)
    }

    /// Reads the map of format 1.0: decimal numbers, one a line, in whole blocks. The first number is the count of pairs.
    fn map_in_content(&mut self, start: u64) -> Result<Vec<u64>, TarError> {
        let (mut text, mut length, mut numbers, mut wanted) = (Vec::new(), 0, Vec::new(), None);
        loop {
            // The text is searched for a newline after each block, which would take very long for a long line.
            if self.stored < BLOCK as u64 || length > MAP_LENGTH_MAX || text.len() > BLOCK {
                return Err(malformed(start, "a sparse map does not end"));
            }
            let mut block = [0; BLOCK];
            self.inner.read_exact(&mut block)?;
            self.at += BLOCK as u64;
            self.stored -= BLOCK as u64;
            length += BLOCK;
            text.extend(block);
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let number = pax::decimal(&text[..end]);
                let number = number
                    .ok_or_else(|| malformed(start, "a sparse map has an entry that is not a number"))?;
                text.drain(..=end);
                match wanted {
                    None if number > SEGMENTS_MAX as u64 => {
                        return Err(malformed(
                            start,
                            format!("a sparse file has more than {SEGMENTS_MAX} segments"),
                        ));
                    }
                    None => wanted = Some(number * 2),
                    Some(_) => numbers.push(number),
                }
                if wanted == Some(numbers.len() as u64) {
                    return Ok(numbers);
                }
            }
        }
    }
}

/// Reads the content of the current entry, with holes as zeroes.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (most, is_hole) = match &mut self.content {
            Content::Plain => (self.stored, false),
            Content::Sparse { map, next, seen } => match map.segments.get(*next) {
                Some(segment) if segment.offset <= *seen => (segment.offset + segment.length - *seen, false),
                Some(segment) => (segment.offset - *seen, true),
                None => (map.size - *seen, true),
            },
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = if is_hole {
            buffer[..most].fill(0);
            most
        } else {
            let count = self.inner.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the archive ends in the middle of a file",
                ));
            }
            self.at += count as u64;
            self.stored -= count as u64;
            count
        };
        if let Content::Sparse { map, next, seen } = &mut self.content {
            *seen += count as u64;
            if map.segments.get(*next).is_some_and(|segment| *seen >= segment.offset + segment.length) {
                *next += 1;
            }
        }
        Ok(count)
    }
}

fn malformed(at: u64, what: impl Into<String>) -> TarError {
    TarError::Malformed { at, what: what.into() }
}

fn padding_of(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// Cuts a name at its first zero, because GNU's long names end with a zero.
fn without_zeroes(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|&byte| byte == 0) {
        name.truncate(end);
    }
    name
}

/// Returns the kind of an entry. Before POSIX, a folder was a file whose name ends with a slash.
fn kind_of(byte: u8, path: &[u8]) -> Option<Kind> {
    Some(match byte {
        0 | b'0' if path.ends_with(b"/") => Kind::Folder,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' => Kind::Folder,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::super::super::properties::{raw, record};
    use super::*;

    /// Returns all entries with their contents.
    fn read_all(archive: &[u8]) -> Result<Vec<(Header, Vec<u8>)>, TarError> {
        let mut reader = Reader::new(archive);
        let mut entries = Vec::new();
        while let Some(header) = reader.next()? {
            let mut content = Vec::new();
            (&mut reader).take(1 << 20).read_to_end(&mut content)?;
            entries.push((header, content));
        }
        Ok(entries)
    }

    fn gnu_tar(folder: &std::path::Path, args: &[&str]) -> Vec<u8> {
        let output = Command::new("tar").args(args).current_dir(folder).stderr(Stdio::inherit()).output();
        output.expect("tar").stdout
    }

    #[test]
    fn all_formats_of_gnu_tar_say_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
        std::fs::create_dir(folder.path().join("d".repeat(120))).expect("a folder");
        std::fs::write(folder.path().join(&long), "content").expect("a file");
        std::os::unix::fs::symlink("t".repeat(300), folder.path().join("link")).expect("a link");
        let holes = std::fs::File::create(folder.path().join("holes")).expect("a file");
        for at in 0..30 {
            std::os::unix::fs::FileExt::write_all_at(&holes, b"data", at * 100_000).expect("write");
        }
        holes.set_len(3_000_001).expect("length");
        let sparse = std::fs::read(folder.path().join("holes")).expect("read");
        for format in
            ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"]
        {
            let mut args = vec!["-c", "-S", "--sort=name", "--format"];
            args.extend(format.split(' '));
            args.extend([&long, "holes", "link"]);
            let mut reader = Reader::new(std::io::Cursor::new(gnu_tar(folder.path(), &args)));
            let file = reader.next().expect("readable").expect("an entry");
            assert_eq!((file.path.as_slice(), file.size), (long.as_bytes(), 7), "{format}");
            let holes = reader.next().expect("readable").expect("an entry");
            assert_eq!((holes.path.as_slice(), holes.size), (b"holes".as_slice(), 3_000_001), "{format}");
            let mut content = Vec::new();
            reader.read_to_end(&mut content).expect("content");
            assert!(content == sparse, "{format}");
            let link = reader.next().expect("readable").expect("an entry");
            assert_eq!((link.kind, link.link), (Kind::Symlink, "t".repeat(300).into_bytes()), "{format}");
            assert_eq!(reader.next().expect("readable"), None);
        }
    }

    #[test]
    fn what_ends_too_early_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("file"), [7; 2000]).expect("a file");
        let archive = gnu_tar(folder.path(), &["-c", "file"]);
        assert_eq!(read_all(&archive).expect("whole").len(), 1);
        for length in [100, 512, 600, 2300] {
            let error = read_all(&archive[..length]).expect_err("cut").to_string();
            assert!(error.contains("ends in the middle"), "{length}: {error}");
        }
        let mut wrong = archive.clone();
        wrong[0] ^= 1;
        let error = read_all(&wrong).expect_err("damaged").to_string();
        assert_eq!(error, "at byte 0: this is no tar header (its checksum is wrong)");
    }

    #[test]
    fn two_blocks_of_zeroes_or_nothing_at_all_end_an_archive() {
        let (a, z) = (raw(b"a", b'0', b"aaa"), raw(b"z", b'0', b"zzz"));
        let zeroes = |count: usize| vec![0_u8; count];
        let garbage = b"garbage".repeat(300);
        for (case, end) in [
            zeroes(0),
            zeroes(512),
            zeroes(512 * 40),
            [zeroes(1024), garbage.clone()].concat(),
            // No whole block.
            zeroes(700),
            // GNU tar and Go end at the second block, whatever comes then.
            [zeroes(1024), z.clone()].concat(),
        ]
        .iter()
        .enumerate()
        {
            let read =
                read_all(&[&a[..], &z, end].concat()).unwrap_or_else(|error| panic!("{case}: {error}"));
            let found: Vec<_> = read.into_iter().map(|(header, content)| (header.path, content)).collect();
            assert_eq!(found, [(b"a".to_vec(), b"aaa".to_vec()), (b"z".to_vec(), b"zzz".to_vec())], "{case}");
        }
        for behind in [[z, zeroes(1024)].concat(), garbage, b"x".to_vec()] {
            let error = read_all(&[a.clone(), zeroes(512), behind].concat()).expect_err("lost").to_string();
            assert_eq!(
                error,
                "at byte 1536: more stands behind a single block of zeroes, and two of them end an archive"
            );
        }
    }

    #[test]
    fn a_size_that_no_file_has_is_refused() {
        let records = record("size", &u64::MAX.to_string());
        let archive = [raw(b"x", b'x', records.as_bytes()), raw(b"file", b'0', b"content")].concat();
        let error = read_all(&archive).expect_err("refused").to_string();
        assert_eq!(error, "at byte 1024: its size does not fit");
    }

    #[test]
    fn a_sparse_map_whose_lines_do_not_end_is_refused_soon() {
        let records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")];
        let records: String = records.map(|(key, value)| record(key, value)).concat();
        let content = vec![b'0'; MAP_LENGTH_MAX];
        let archive = [raw(b"x", b'x', records.as_bytes()), raw(b"file", b'0', &content)].concat();
        let mut reader = Reader::new(archive.as_slice());
        let error = reader.next().expect_err("refused").to_string();
        assert_eq!(error, "at byte 1024: a sparse map does not end");
        assert!(reader.position() < 4096, "{}", reader.position());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Reading a damaged archive always ends, and never panics.
        #[test]
        fn any_bytes_come_to_an_end(changes in prop::collection::vec((0_usize..4096, any::<u8>()), 1..8)) {
            static ARCHIVE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut archive = ARCHIVE.get_or_init(|| {
                let folder = tempfile::tempdir().expect("a folder");
                std::fs::write(folder.path().join("n".repeat(150)), "content").expect("a file");
                gnu_tar(folder.path(), &["-c", "--format=pax", "."])
            }).clone();
            for (at, byte) in changes {
                let at = at % archive.len();
                archive[at] = byte;
            }
            // The checksums are corrected, so that the reader gets past them.
            for start in (0..archive.len()).step_by(BLOCK) {
                let sum: u32 = (0..BLOCK).map(|at| if (148..156).contains(&at) { 32 } else { u32::from(archive[start + at]) }).sum();
                archive[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let _ = read_all(&archive);
        }
    }
}

//! Checks the properties of tar archives.

use std::io::Read as _;

use dayfly_property::assert_shown;

use super::super::properties::mend_sums;
use super::{Header, Kind, PATH_MAX, Reader, TarError, Writer};

/// Contents up to this length are compared, bytes.
const COMPARED: u64 = 64 * 1024;

/// See [`super::super::properties::TAR`].
pub(in super::super) fn check_tar(data: &[u8]) {
    let mut data = data.to_vec();
    mend_sums(&mut data);
    let mut reader = Reader::new(data.as_slice());
    let mut entries = Vec::new();
    loop {
        match reader.next() {
            Err(error) => break assert_shown(error),
            Ok(None) => break,
            Ok(Some(header)) => {
                assert!(header.path.len() <= PATH_MAX && header.link.len() <= PATH_MAX);
                assert!(!header.path.contains(&0) && !header.link.contains(&0));
                let mut content = Vec::new();
                let read = (&mut reader).take(COMPARED).read_to_end(&mut content);
                assert!(read.is_err() || content.len() as u64 == header.size.min(COMPARED), "{header:?}");
                if read.is_ok() && header.size <= COMPARED {
                    entries.push((as_written(header), content));
                }
            }
        }
        assert!(reader.position() <= data.len() as u64);
    }
    assert_eq!(again(&entries).unwrap_or_else(|error| panic!("{error}")), entries);
}

/// Returns the header as the writer stores it, which follows the limits of squashfs.
fn as_written(mut header: Header) -> Header {
    header.mtime_s = header.mtime_s.clamp(0, u32::MAX.into());
    while header.kind == Kind::File && header.path.ends_with(b"/") {
        header.path.pop();
    }
    header
}

fn again(entries: &[(Header, Vec<u8>)]) -> Result<Vec<(Header, Vec<u8>)>, TarError> {
    let mut writer = Writer::new(Vec::new());
    for (header, content) in entries {
        writer.entry(header, &mut content.as_slice())?;
    }
    writer.finish()?;
    let bytes = writer.into_inner();
    let (mut reader, mut found) = (Reader::new(bytes.as_slice()), Vec::new());
    while let Some(header) = reader.next()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        found.push((header, content));
    }
    Ok(found)
}

//! Opens stored layers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::super::Digest;
use dayfly_host::open;

/// Largest Zstandard window that is accepted, as a power of two: 128 MiB, which `zstd --long=27` and `--ultra -22` use and
/// every decoder takes unasked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Size of read buffers, bytes.
const READ: usize = 256 * 1024;

/// The place of a layer: a file, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerBlob {
    /// The file.
    pub(crate) path: PathBuf,
    /// Offset of the layer in the file, bytes.
    pub(crate) offset: u64,
    /// Length of the stored layer, bytes.
    pub(crate) length: u64,
    /// Digest of the unpacked layer.
    pub(crate) diff_id: Digest,
}

impl LayerBlob {
    /// Returns true if the layer is packed with Zstandard, whose decoder takes as much memory as the layer says, up to
    /// 128 MiB.
    pub(super) fn is_zstd(&self) -> io::Result<bool> {
        let mut head = Vec::new();
        self.stored()?.take(4).read_to_end(&mut head)?;
        Ok(is_zstd(&head))
    }

    /// Opens the layer as an unpacked tar archive.
    pub(crate) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        unpacked(BufReader::with_capacity(READ, self.stored()?))
    }

    fn stored(&self) -> io::Result<io::Take<File>> {
        let mut file = open::regular(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.length))
    }
}

/// Returns true if content begins with a normal or a skippable frame of Zstandard.
fn is_zstd(head: &[u8]) -> bool {
    matches!(head, [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Unpacks by the compression that the content itself shows, because media types of real images may be wrong.
fn unpacked(mut packed: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let head = packed.fill_buf()?;
    Ok(match head {
        [0x1f, 0x8b, ..] => {
            Box::new(BufReader::with_capacity(READ, flate2::bufread::MultiGzDecoder::new(packed)))
        }
        head if is_zstd(head) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(BufReader::with_capacity(READ, decoder))
        }
        [0x42, 0x5a, 0x68, ..] => return Err(unknown("bzip2")),
        [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, ..] => return Err(unknown("xz")),
        _ => Box::new(packed),
    })
}

fn unknown(compression: &str) -> io::Error {
    let text =
        format!("it is compressed with {compression}, which no OCI layer may be; there are gzip and zstd");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

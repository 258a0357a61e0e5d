//! Digests and ids.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

/// Characters of an id: 64 bits are enough to tell a host's images and templates apart.
const ID_LENGTH: usize = 16;

/// Returns the SHA-256 of parts, as hexadecimal digits. Hashes the length of each part before the part, so that no two lists
/// of parts give the same bytes.
pub fn digest_of(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hexadecimal(&hasher.finalize())
}

/// Returns the id of a digest: its first digits.
pub fn id_of(digest: &str) -> String {
    digest.chars().take(ID_LENGTH).collect()
}

/// Returns the SHA-256 of a file.
pub fn digest_of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Returns the SHA-256 of a program. Reads the file again only if it has changed.
pub fn digest_of_program(path: &Path) -> io::Result<String> {
    type Known = HashMap<PathBuf, ((u64, u64, u64, i64, i64), String)>;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let metadata = std::fs::metadata(path)?;
    let state = (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((found, digest)) = known().get_or_insert_default().get(path)
        && *found == state
    {
        return Ok(digest.clone());
    }
    let digest = digest_of_file(path)?;
    known().get_or_insert_default().insert(path.to_owned(), (state, digest.clone()));
    Ok(digest)
}

/// Formats bytes as lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_part_ends_counts() {
        assert_ne!(digest_of(&["ab", "c"]), digest_of(&["a", "bc"]));
        assert_eq!(digest_of(&["ab", "c"]), digest_of(&["ab", "c"]));
        assert_eq!(id_of(&digest_of(&[])), "e3b0c44298fc1c14");
    }

    #[test]
    fn a_program_that_was_replaced_has_another_digest() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("program");
        std::fs::write(&path, "one").expect("write");
        let first = digest_of_program(&path).expect("digest");
        assert_eq!(digest_of_program(&path).expect("digest"), first);
        let new = folder.path().join("new");
        std::fs::write(&new, "two").expect("write");
        std::fs::rename(&new, &path).expect("rename");
        assert_ne!(digest_of_program(&path).expect("digest"), first);
    }
}

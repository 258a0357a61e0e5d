//! Parses PAX records: `<length> <key>=<value>\n`.

/// The values of the records that this program uses. All other records are ignored, as POSIX requires.
#[derive(Debug, Default)]
pub(super) struct Extension {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime_s: Option<i64>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// Keys of GNU tar's sparse formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    /// Length of the file with its holes, bytes.
    pub(super) size: Option<u64>,
    /// Offset and length of each segment, in turn.
    pub(super) map: Vec<u64>,
    pub(super) is_there: bool,
}

const XATTR: &[u8] = b"SCHILY.xattr.";
/// Most extended attributes of a file. Linux lists 64 KiB of names at most, and each new one is compared with the others.
const XATTRS_MAX: usize = 1000;

impl Extension {
    /// Parses the records of a header.
    pub(super) fn parse(mut rest: &[u8], segments_max: usize) -> Result<Self, String> {
        let mut extension = Self::default();
        while !rest.is_empty() {
            let (key, value, after) = record(rest).ok_or("a PAX record is malformed")?;
            extension.take(key, value, segments_max).map_err(|what| {
                format!("the PAX record {} {what}", String::from_utf8_lossy(key).escape_debug())
            })?;
            rest = after;
        }
        Ok(extension)
    }

    fn take(&mut self, key: &[u8], value: &[u8], segments_max: usize) -> Result<(), &'static str> {
        const NO_NUMBER: &str = "holds no number that fits";
        let number = || decimal(value).ok_or(NO_NUMBER);
        let id = || number().and_then(|id| u32::try_from(id).map_err(|_| NO_NUMBER));
        // An empty value cancels the value of a global header. It has no effect, because global headers are ignored.
        match key {
            _ if value.is_empty() && !key.starts_with(XATTR) => {}
            b"path" | b"linkpath" | b"GNU.sparse.name" if value.contains(&0) => {
                return Err("has a zero in it");
            }
            // The record `path` of a sparse file holds a name for programs that do not know the sparse format.
            b"path" if self.sparse.is_there && self.path.is_some() => {}
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(id()?),
            b"gid" => self.gid = Some(id()?),
            b"mtime" => self.mtime_s = Some(seconds(value).ok_or("holds no time")?),
            _ if key.starts_with(XATTR) => self.xattr(&key[XATTR.len()..], value)?,
            _ if key.starts_with(b"GNU.sparse.") => self.sparse(key, value, segments_max)?,
            _ => {}
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if name.is_empty() || name.len() > 255 || name.contains(&0) {
            return Err("is no name of an extended attribute");
        }
        self.xattrs.retain(|(known, _)| known != name);
        if self.xattrs.len() == XATTRS_MAX {
            return Err("is one extended attribute too many");
        }
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }

    fn sparse(&mut self, key: &[u8], value: &[u8], segments_max: usize) -> Result<(), &'static str> {
        let sparse = &mut self.sparse;
        let number = || decimal(value).ok_or("holds no number");
        sparse.is_there = true;
        match &key[b"GNU.sparse.".len()..] {
            b"major" => sparse.major = Some(number()?),
            b"minor" => sparse.minor = Some(number()?),
            b"size" | b"realsize" => sparse.size = Some(number()?),
            b"name" => self.path = Some(value.to_vec()),
            b"offset" if sparse.map.len().is_multiple_of(2) => sparse.map.push(number()?),
            b"numbytes" if !sparse.map.len().is_multiple_of(2) => sparse.map.push(number()?),
            b"offset" | b"numbytes" => return Err("stands alone"),
            b"map" => {
                for word in value.split(|&byte| byte == b',') {
                    sparse.map.push(decimal(word).ok_or("has an entry that is not a number")?);
                    if sparse.map.len() > 2 * segments_max {
                        return Err("has too many segments");
                    }
                }
            }
            _ => {}
        }
        if sparse.map.len() > 2 * segments_max { Err("has too many segments") } else { Ok(()) }
    }
}

/// Returns the key and the value of the first record, and the rest of the bytes.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..blank])?).ok()?;
    let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Parses a time that may have a sign and a fraction. Rounds it down to whole seconds, as file systems do.
fn seconds(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = digits.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = digits.split_at(point.unwrap_or(digits.len()));
    let fraction = fraction.strip_prefix(b".").unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let whole = i64::try_from(decimal(whole)?).ok()?;
    let down = negative && fraction.iter().any(|&byte| byte != b'0');
    Some(if negative { -whole - i64::from(down) } else { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_tell_their_own_length() {
        let parsed = Extension::parse(b"11 path=ab\n22 SCHILY.xattr.u.x=\0\n\n12 uid=70000\n", 1);
        assert!(parsed.is_err(), "a wrong length");
        let extension = Extension::parse(b"11 path=ab\n21 SCHILY.xattr.ux=\0\n13 uid=70000\n", 1)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(extension.path.as_deref(), Some(b"ab".as_slice()));
        assert_eq!((extension.uid, extension.gid), (Some(70000), None));
        assert_eq!(extension.xattrs, [(b"ux".to_vec(), b"\0".to_vec())]);
        for bad in ["x path=a\n", "9 path=a", "99 path=a\n", "6 pat\n", "", "30 "] {
            assert_eq!(Extension::parse(bad.as_bytes(), 1).is_ok(), bad.is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_has_a_limited_number_of_extended_attributes() {
        let records = |count: usize| -> Vec<u8> {
            (0..count).flat_map(|number| format!("25 SCHILY.xattr.u{number:05}=v\n").into_bytes()).collect()
        };
        assert_eq!(Extension::parse(&records(1000), 1).expect("as many as allowed").xattrs.len(), 1000);
        let error = Extension::parse(&records(1001), 1).expect_err("too many");
        assert!(error.contains("one extended attribute too many"), "{error}");
    }

    #[test]
    fn times_are_cut_towards_the_past() {
        assert_eq!(seconds(b"12.999999"), Some(12));
        assert_eq!(seconds(b"-12.5"), Some(-13));
        assert_eq!(seconds(b"-12.0"), Some(-12));
        assert_eq!(seconds(b"x"), None);
        assert_eq!(seconds(b"1.x"), None);
    }
}

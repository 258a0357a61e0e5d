//! Versions of runner apps, and their order.

use std::cmp::Ordering;

/// A version such as `2.336.0` or `2.337.0-beta.1`, ordered by number. A pre-release is lower than the same version
/// without one, as in <https://semver.org>. Any number of parts is accepted (missing ones are 0).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    numbers: Vec<u64>,
    pre_release: Vec<Identifier>,
}

/// A part of a pre-release: numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Word(String),
}

impl Version {
    /// Parses a version, with or without a leading `v`; `None` for anything else. Build metadata (`+...`) does not
    /// count.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split_once('+').map_or(text, |(version, _)| version);
        let (numbers, pre_release) = text.split_once('-').unwrap_or((text, ""));
        let mut numbers = numbers.split('.').map(number).collect::<Option<Vec<_>>>()?;
        // `2.9` and `2.9.0` are the same version.
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        let identifier =
            |part: &str| number(part).map_or_else(|| Identifier::Word(part.to_owned()), Identifier::Number);
        let pre_release = pre_release.split('.').filter(|part| !part.is_empty()).map(identifier).collect();
        Some(Self { numbers, pre_release })
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        // "No pre-release" is the highest of all.
        let pre_release = |version: &Self| (version.pre_release.is_empty(), version.pre_release.clone());
        self.numbers.cmp(&other.numbers).then_with(|| pre_release(self).cmp(&pre_release(other)))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> Version {
        Version::parse(text).expect(text)
    }

    #[test]
    fn versions_are_ordered_by_number_and_not_as_text() {
        let in_order = [
            "1.99.9",
            "2.9.0",
            "2.10.0-alpha",
            "2.10.0-beta.2",
            "2.10.0-beta.11",
            "2.10.0",
            "2.10.1",
            "2.100",
            "10.0.0",
        ];
        for pair in in_order.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("v2.9"), version("2.9.0+build.5"));
    }

    #[test]
    fn other_texts_are_no_versions() {
        for text in ["", "latest", "2..1", "2.x", "-1", "2.9.0.tar"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn plain_versions_order_like_their_numbers(a in [0_u64..20, 0..20, 0..20], b in [0_u64..20, 0..20, 0..20]) {
            let text = |n: [u64; 3]| format!("{}.{}.{}", n[0], n[1], n[2]);
            prop_assert_eq!(version(&text(a)).cmp(&version(&text(b))), a.cmp(&b));
        }
    }
}

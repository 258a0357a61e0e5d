//! The stored results of probes, in one file of the state folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::firmware::Firmware;
use super::platform::guest_model;
use crate::accel::Accel;
use dayfly_host::digest::digest_of_program;
use dayfly_host::file;

/// Name of the file that stores sightings.
pub(super) const SIGHTINGS: &str = "probes.json";
/// Most sightings that are stored: those of a few kernels and QEMUs of one host.
const SIGHTINGS_MAX: usize = 16;
/// Time until a guest that did not boot is tried again, seconds, because the host may have been too busy.
pub(super) const FAILURE_KEPT_S: i64 = 24 * 3600;

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sighting {
    /// The firmware that the guest booted from, or the last one that was tried.
    pub(super) firmware: Firmware,
    /// Time from the start of its VMM to its hello, milliseconds; none if it did not say hello.
    pub(super) hello_ms: Option<u64>,
    /// The observation, in words for people.
    pub(super) seen: String,
    /// True if it did not say hello because of this host, on which no guest could.
    #[serde(default)]
    pub(super) of_host: bool,
    /// Time of the probe, seconds since 1970-01-01 UTC.
    pub(super) at_s: i64,
}

impl Sighting {
    /// Returns true if the stored result is still believed at this time.
    pub(super) fn is_believed(&self, trust: Trust, now_s: i64) -> bool {
        let is_fresh = now_s.saturating_sub(self.at_s) < FAILURE_KEPT_S;
        self.hello_ms.is_some() || (trust == Trust::Remembered && is_fresh)
    }
}

pub(super) type Sightings = BTreeMap<String, Sighting>;

/// The stored results that are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A success, and a failure for a day.
    Remembered,
    /// Only a success, because a person who asks wants to know whether a failure has been fixed.
    Success,
}

/// Returns the key of a sighting, which is valid for this kernel, this QEMU and its firmwares, this processor, and the
/// guest's processor model.
pub(super) fn key(qemu: &Path, accel: Accel, cpu_model: Option<&str>) -> std::io::Result<String> {
    let system = rustix::system::uname();
    let mut digests = vec![digest_of_program(qemu)?];
    let files = Firmware::candidates(qemu).into_iter().filter_map(|firmware| firmware.file(qemu));
    for file in files {
        digests.push(digest_of_program(&file)?);
    }
    let short = |digest: &String| digest.get(..16).unwrap_or(digest).to_owned();
    let guest = guest_model(accel, cpu_model);
    Ok(format!(
        "{accel}; {}; {}; {}; {guest}",
        system.release().to_string_lossy(),
        digests.iter().map(short).collect::<Vec<_>>().join(" "),
        processor()
    ))
}

/// Returns the model name of this host's processor.
fn processor() -> &'static str {
    static PROCESSOR: OnceLock<String> = OnceLock::new();
    PROCESSOR.get_or_init(|| {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        model.trim_start_matches(['\t', ' ', ':']).to_owned()
    })
}

pub(super) fn read(path: &Path) -> Sightings {
    let Ok(text) = fs::read(path) else { return Sightings::default() };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!("{} cannot be read, so this host is probed again: {error}", path.display());
        Sightings::default()
    })
}

pub(super) fn remember(path: &Path, key: String, sighting: &Sighting) {
    let mut sightings = read(path);
    if sightings.len() >= SIGHTINGS_MAX {
        sightings.clear();
    }
    sightings.insert(key, sighting.clone());
    let written = serde_json::to_vec_pretty(&sightings)
        .map_err(std::io::Error::from)
        .and_then(|text| file::replace(path, &text));
    if let Err(error) = written {
        tracing::warn!("cannot remember what works on this host in {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sightings_are_remembered_apart_and_a_damaged_file_costs_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(SIGHTINGS);
        let sighting = |hello_ms| Sighting {
            firmware: Firmware::Default,
            hello_ms,
            seen: "x".to_owned(),
            of_host: true,
            at_s: 5,
        };
        remember(&path, "a".to_owned(), &sighting(Some(300)));
        remember(&path, "b".to_owned(), &sighting(None));
        assert_eq!(read(&path).get("a"), Some(&sighting(Some(300))));
        assert_eq!(read(&path).len(), 2);
        fs::write(&path, "{").expect("damage");
        assert!(read(&path).is_empty());
        remember(&path, "a".to_owned(), &sighting(None));
        assert_eq!(read(&path).len(), 1);
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
    }

    #[test]
    fn a_success_is_believed_for_ever_and_a_failure_for_a_day_at_most() {
        let sighting = |hello_ms| Sighting {
            firmware: Firmware::Default,
            hello_ms,
            seen: "x".to_owned(),
            of_host: true,
            at_s: 1_000,
        };
        let (success, failure) = (sighting(Some(300)), sighting(None));
        for (trust, age_s, of_failure) in [
            (Trust::Remembered, FAILURE_KEPT_S - 1, true),
            (Trust::Remembered, FAILURE_KEPT_S, false),
            (Trust::Success, 0, false),
        ] {
            assert_eq!(failure.is_believed(trust, 1_000 + age_s), of_failure, "{trust:?} {age_s}");
            assert!(success.is_believed(trust, 1_000 + 100 * age_s), "{trust:?} {age_s}");
        }
    }
}

//! The key of a template: the parts that its id is computed from.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::accel::Accel;
use crate::spec::Egress;
use dayfly_host::digest;
use dayfly_image::Manifest;

/// Version of the format. It grows if a change makes a different template from the same parts, or one that older programs
/// cannot use.
pub(super) const FORMAT: u32 = 1;

/// Number of digits of an id that people and folders see.
const SHOWN_LENGTH: usize = 16;

/// Id of a template: a digest of all parts that it was built from. People and folders see its first digits; a comparison
/// takes all of them, because who writes an image's files can find two with the same first digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateId(String);

impl TemplateId {
    /// Returns the first digits of the id.
    pub fn as_str(&self) -> &str {
        self.0.get(..SHOWN_LENGTH).unwrap_or(&self.0)
    }
}

impl fmt::Display for TemplateId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The parts that a fork must share with its template, and those that determine the template's content.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyParts<'a> {
    pub(super) image: &'a Manifest,
    /// Digest of the guest binary.
    pub(super) guest: &'a str,
    /// Digest of the VMM's program.
    pub(super) vmm: &'a str,
    /// Digest of the VMM's firmware.
    pub(super) firmware: &'a str,
    pub(super) accel: Accel,
    pub(super) cpus: u32,
    pub(super) memory_mib: u32,
    pub(super) disk_mib: u64,
    /// The VMM's arguments for a fork, which contain the CPU model and the devices. The machine's name is left empty.
    pub(super) vmm_args: &'a [String],
    /// The user that runner apps run as.
    pub(super) user: &'a str,
    /// The script, and the destinations that it reaches: what it finds there is in the memory of all forks.
    pub(super) warm_up: Option<(&'a str, &'a Egress)>,
}

/// Returns the id of a template with these parts.
pub(super) fn id_of(parts: &KeyParts<'_>) -> TemplateId {
    let KeyParts { image, guest, vmm, firmware, accel, cpus, memory_mib, disk_mib, vmm_args, user, warm_up } =
        parts;
    let mut all: Vec<String> = [FORMAT, *cpus, *memory_mib].map(|number| number.to_string()).to_vec();
    all.extend([disk_mib.to_string(), format!("{accel:?}")]);
    // All files of the image, because the image's id only identifies what the image was to be built from.
    all.extend(image.files.iter().map(|(name, file)| format!("{name} {}", file.sha256)));
    all.extend([guest, vmm, firmware, user].map(|&text| text.to_owned()));
    all.push(format!("{} arguments", vmm_args.len()));
    all.extend(vmm_args.iter().cloned());
    all.push(match warm_up {
        None => "cold".to_owned(),
        Some((script, egress)) => format!("warm {egress:?} {script}"),
    });
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    TemplateId(digest::digest_of(&all))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::network::NetworkPolicy;
    use dayfly_image::FileDigest;

    fn manifest() -> Manifest {
        serde_json::from_value(serde_json::json!({
            "format": 1, "id": "a", "inputs": "a", "suite": "bookworm", "kernel": "6.1", "created_s": 1, "files": {},
            "runner_app": { "name": "x", "version": "1", "sha256": "", "toolchain": "" }, "packages": {},
        }))
        .expect("the manifest of an image")
    }

    #[test]
    fn each_part_makes_another_template() {
        let with_root = |sha256: &str| {
            let mut image = manifest();
            let file = FileDigest { bytes: 1, sha256: sha256.to_owned() };
            image.files.insert("root.squashfs".to_owned(), file);
            image
        };
        let (image, other_image) = (with_root("00"), with_root("01"));
        let (args, more) = (vec!["-cpu".to_owned(), "max".to_owned()], vec!["-cpumax".to_owned()]);
        let (guarded, open) = (Egress::default(), Egress::Policy(NetworkPolicy::Open));
        let parts = KeyParts {
            image: &image,
            guest: "g",
            vmm: "v",
            firmware: "f",
            accel: Accel::Tcg,
            cpus: 2,
            memory_mib: 1024,
            disk_mib: 4096,
            vmm_args: &args,
            user: "runner",
            warm_up: None,
        };
        let others = [
            KeyParts { image: &other_image, ..parts },
            KeyParts { guest: "g2", ..parts },
            KeyParts { vmm: "v2", ..parts },
            KeyParts { firmware: "f2", ..parts },
            KeyParts { guest: "gv", vmm: "", ..parts },
            KeyParts { vmm: "vf", firmware: "", ..parts },
            KeyParts { accel: Accel::Kvm, ..parts },
            KeyParts { cpus: 1024, memory_mib: 2, ..parts },
            KeyParts { memory_mib: 1025, ..parts },
            KeyParts { disk_mib: 4097, ..parts },
            KeyParts { vmm_args: &more, ..parts },
            KeyParts { user: "root", ..parts },
            KeyParts { warm_up: Some(("", &guarded)), ..parts },
            KeyParts { warm_up: Some(("docker pull x", &guarded)), ..parts },
            KeyParts { warm_up: Some(("docker pull x", &open)), ..parts },
        ];
        let mut ids: Vec<_> = others.iter().map(id_of).collect();
        ids.push(id_of(&parts));
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert_eq!(id_of(&parts), id_of(&KeyParts { ..parts }));
        assert_eq!((id_of(&parts).as_str().len(), id_of(&parts).to_string().len()), (16, 16));
    }
}

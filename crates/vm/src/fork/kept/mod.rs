//! Machines that are kept: frozen to disk after their job has failed, so that a person can look into them hours later. They
//! hold no processor and no memory.
//!
//! ```text
//!   machine ──keep──> <state>/kept/<runner id>/                 ──thaw──> machine, as often as wanted
//!                       state       memory and devices                      its disk is an overlay, so that nothing
//!                       disk.img    its scratch disk                        of the kept machine changes
//!                       base.img    the disk of its template, if it had one
//!                       root.img    the root file system of its image
//! ```
//!
//! The last two are further names of files that exist, so they cost nothing as long as template and image are there, and the
//! machine needs neither. A folder is built in a stage and gets its name by one rename: a machine is kept whole or not at all.

use dayfly_host::stage::Maker;

mod freeze;
mod manifest;
mod store;
mod thaw;

pub(super) use freeze::KeptSource;
pub use freeze::{KeepError, keep};
pub use manifest::{KeptAbout, KeptManifest};
pub use store::{
    Collected, FOLDER, KeptError, KeptMachine, KeptRoom, LockedMachine, collect, find, list, remove_all,
};
pub use thaw::{ThawError, thaw};

/// Builds the folders of kept machines. A VMM that still writes into a stage is in the record of its run, which ends it.
struct KeptMaker;

impl Maker for KeptMaker {}

/// The state of memory and devices.
const STATE: &str = "state";
/// The scratch disk.
const DISK: &str = "disk.img";
/// The disk of the template.
const BASE: &str = "base.img";
/// The root file system.
const ROOT: &str = "root.img";
/// The description.
const MANIFEST: &str = "manifest.json";
/// The file that is locked while the machine is thawed or removed.
const LOCK: &str = "lock";
/// The folder of the machine while it is thawed.
const MACHINE: &str = "vm";

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use dayfly_host::digest::digest_of_program;

    use super::KeptManifest;
    use crate::machine::KeptVmm;

    /// Returns the description of a VMM, a fork, of this program.
    pub(crate) fn vmm(program: &Path) -> KeptVmm {
        let text = serde_json::json!({
            "platform": {
                "qemu": program,
                "firmware": "default",
                "accel": "tcg",
                "cpu_model": "Nehalem-v1",
                "tcg_threads": "single",
                "slowness": 1.0,
            },
            "program": digest_of_program(program).expect("a digest"),
            "cpus": 1,
            "memory_mib": 256,
            "disk_mib": 1024,
            "card": "user",
            "is_fork": true,
        });
        serde_json::from_value(text).expect("a description")
    }

    /// Returns the description of a machine that is kept until a time.
    pub(crate) fn manifest(runner: &str, until_s: i64) -> KeptManifest {
        let text = serde_json::json!({
            "format": super::manifest::FORMAT,
            "runner": runner,
            "name": format!("p-{runner}"),
            "network": "guarded",
            "dns": "1.1.1.1",
            "until_s": until_s,
            "kept_s": until_s - 1,
            "vmm": vmm(Path::new("/proc/self/exe")),
        });
        serde_json::from_value(text).expect("a description")
    }
}

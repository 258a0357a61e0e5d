//! The manifest of a template.

use serde::{Deserialize, Serialize};

use super::key::TemplateId;
use crate::accel::Accel;

/// The description of a template, which is stored in its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateManifest {
    /// Version of the format. Templates of another version are not used.
    pub format: u32,
    /// The template's id.
    pub id: TemplateId,
    /// Id of the image that the template was booted from.
    pub image: String,
    /// The accelerator.
    pub accel: Accel,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Scratch disk, MiB.
    pub disk_mib: u64,
    /// The file that the warm-up was read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<String>,
    /// Time of the build, seconds since 1970-01-01 UTC.
    pub created_s: i64,
    /// Duration of the build, milliseconds.
    pub took_ms: u64,
    /// Length of the file with the devices' state, bytes.
    pub state_bytes: u64,
}

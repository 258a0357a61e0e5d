//! What a template says about itself.

use serde::{Deserialize, Serialize};

use super::key::TemplateId;
use crate::accel::Accel;

/// The manifest of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateManifest {
    /// Layout; templates of another one are not used.
    pub format: u32,
    /// The template's id.
    pub id: TemplateId,
    /// Id of the image that it was booted from.
    pub image: String,
    /// What runs its instructions.
    pub accel: Accel,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Scratch disk, MiB.
    pub disk_mib: u64,
    /// Where its warm-up was read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<String>,
    /// When it was made, seconds since 1970-01-01 UTC.
    pub created_s: i64,
    /// How long that took, milliseconds.
    pub took_ms: u64,
    /// Length of its state, bytes.
    pub state_bytes: u64,
}

//! The programs of the host that run at the start and at the end of a job, as a loop gives them to the entrypoint.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Most bytes of a script.
pub const SCRIPT_MAX: usize = 32 * 1024;

/// The hooks of one runner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// The script before the first step of a job, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_started: Option<String>,
    /// The script after the last step, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_completed: Option<String>,
    /// True if jobs of forks are not ended.
    #[serde(default)]
    pub allow_forks: bool,
}

impl Hooks {
    /// Returns a script as a loop writes it.
    #[must_use]
    pub fn encode(script: &[u8]) -> String {
        STANDARD.encode(script)
    }

    /// Returns a script as the host had it.
    ///
    /// # Errors
    /// The text is not base64.
    pub fn decode(script: &str) -> Result<Vec<u8>, base64::DecodeError> {
        STANDARD.decode(script)
    }
}

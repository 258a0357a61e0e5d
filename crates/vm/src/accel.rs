//! The accelerators, which run a guest's instructions.

use serde::{Deserialize, Serialize};

/// The accelerator that runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// The processor itself, through `/dev/kvm`.
    Kvm,
    /// Emulation: 10 to 50 times slower, and no security boundary.
    Tcg,
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// The requested accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccelChoice {
    /// KVM if a probe guest has booted with it, else emulation.
    #[default]
    Auto,
    /// KVM, without emulation as a fallback.
    Kvm,
    /// Emulation.
    Tcg,
}

/// The error for a text that names no accelerator.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is no accelerator (one of: auto, kvm, tcg)")]
pub struct AccelChoiceError(String);

impl std::str::FromStr for AccelChoice {
    type Err = AccelChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(AccelChoiceError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for AccelChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

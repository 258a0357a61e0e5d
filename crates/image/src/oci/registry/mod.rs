//! Registries: how images come from them.
//!
//! Protocol: OCI distribution specification 1.1; Docker's "Token Authentication Specification" for bearer tokens. What a
//! registry says is believed only where a digest proves it; a tag is what it says it is.

mod auth;
mod client;
mod config;
mod credentials;
mod download;
mod error;
mod nearby;
mod pull;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use config::{Registries, RegistriesError, RegistrySetting};
pub(crate) use error::RegistryError;
pub(crate) use pull::{Pull, Remote, look};

/// How registries are reached. Nothing of it is looked for here: whoever reads the environment says where things are.
#[derive(Debug, Clone, Default)]
pub struct RegistryAccess {
    /// Files with credentials, as docker and podman keep them (`config.json`, `auth.json`); the first that knows a registry
    /// wins. One that is not there is no error.
    pub credentials: Vec<PathBuf>,
    /// Folders where credential helpers may be: usually the search path.
    pub helper_folders: Vec<PathBuf>,
    /// What credential helpers see of the environment.
    pub helper_env: Vec<(String, String)>,
    /// Mirrors, authorities, and registries without encryption.
    pub registries: Registries,
    /// A proxy for all registries but those of `no_proxy`.
    pub proxy: Option<String>,
    /// Hosts and domains that are reached without the proxy, separated by commas.
    pub no_proxy: String,
}

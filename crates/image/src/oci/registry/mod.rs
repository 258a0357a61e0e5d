//! Fetches images from registries.
//!
//! Protocol: OCI distribution specification 1.1; Docker's "Token Authentication Specification" for bearer tokens. Content is
//! accepted only if its digest matches. The registry is trusted only for the digest that a tag means.

mod auth;
mod client;
mod config;
mod credentials;
mod download;
mod error;
mod nearby;
mod patience;
mod pull;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use config::{Registries, RegistriesError, RegistrySetting};
pub(crate) use error::RegistryError;
pub(crate) use pull::{Pull, Remote, look};

/// Access to registries. The caller fills it from the environment; this module reads no variables.
#[derive(Clone, Default)]
pub struct RegistryAccess {
    /// Files with credentials in the formats of docker and podman (`config.json`, `auth.json`). The first file with
    /// credentials for a registry is used. A missing file is no error.
    pub credentials: Vec<PathBuf>,
    /// Folders that may contain credential helpers: usually the search path.
    pub helper_folders: Vec<PathBuf>,
    /// Environment of credential helpers.
    pub helper_env: Vec<(String, String)>,
    /// Settings of single registries: mirrors, authorities, and connections without encryption.
    pub registries: Registries,
    /// A proxy for all registries except those in `no_proxy`.
    pub proxy: Option<String>,
    /// Hosts and domains that are reached without the proxy, separated by commas.
    pub no_proxy: String,
}

impl std::fmt::Debug for RegistryAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address of a proxy and the variables of helpers may hold passwords.
        f.debug_struct("RegistryAccess")
            .field("credentials", &self.credentials)
            .field("registries", &self.registries)
            .field("has_proxy", &self.proxy.is_some())
            .finish_non_exhaustive()
    }
}

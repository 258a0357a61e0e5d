//! Reads OCI and Docker images: their names, registries, archives and layers.

pub(crate) mod archive;
pub(crate) mod layer;
pub(crate) mod media;
mod name;
#[cfg(any(test, feature = "fuzzing"))]
pub mod properties;
pub(crate) mod registry;
pub(crate) mod tar;

pub use media::RunConfig;
pub use name::{DEFAULT_REGISTRY, DEFAULT_TAG, Digest, ImageName, NameError, RegistryName};
pub use registry::{Registries, RegistriesError, RegistryAccess, RegistrySetting};

//! Reads the settings of single registries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Longest file, bytes.
const LENGTH_MAX: u64 = 1024 * 1024;

/// Settings of registries, by host, with a port if they have one: `docker.io`, `localhost:5000`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Registries(BTreeMap<String, RegistrySetting>);

/// Settings of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySetting {
    /// Mirrors, which are asked before the registry and in this order: a host, with a port or path if it needs them.
    pub mirrors: Vec<String>,
    /// True if the client accepts certificates of unknown authorities, and connections without encryption.
    pub insecure: bool,
    /// A file of certificate authorities besides the system's, in PEM form. The path is relative to the file of settings.
    pub authorities: Option<PathBuf>,
}

/// An error of reading a file of settings.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct RegistriesError {
    path: PathBuf,
    what: String,
}

impl Registries {
    /// Reads a file of settings: a JSON object with one member for each registry.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn read(path: &Path) -> Result<Self, RegistriesError> {
        let wrong = |what: String| RegistriesError { path: path.to_owned(), what };
        let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > LENGTH_MAX {
            return Err(wrong(format!("it is longer than {LENGTH_MAX} bytes")));
        }
        let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let mut registries: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        for setting in registries.0.values_mut() {
            setting.authorities = setting.authorities.take().map(|file| folder.join(file));
        }
        Ok(registries)
    }

    /// Returns the settings of a registry.
    pub(super) fn of(&self, registry: &str) -> RegistrySetting {
        self.0.get(registry).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_are_refused_and_files_found_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registries.json");
        std::fs::write(&path, r#"{"h:5000": {"authorities": "ca.pem", "insecure": false}}"#).expect("write");
        let setting = Registries::read(&path).expect("readable").of("h:5000");
        assert_eq!(setting.authorities, Some(folder.path().join("ca.pem")));
        assert_eq!(Registries::read(&path).expect("readable").of("other"), RegistrySetting::default());
        std::fs::write(&path, r#"{"h:5000": {"insecur": true}}"#).expect("write");
        let error = Registries::read(&path).expect_err("a slip").to_string();
        assert!(error.contains("registries.json: unknown field `insecur`"), "{error}");
    }

    #[test]
    fn debugging_output_shows_no_password_of_a_proxy_or_a_helper() {
        let secret = || "http://jane:s3cret@proxy".to_owned();
        let access = super::super::RegistryAccess {
            proxy: Some(secret()),
            helper_env: vec![("TOKEN".to_owned(), secret())],
            ..Default::default()
        };
        let text = format!("{access:?}");
        assert!(text.contains("has_proxy: true") && !text.contains("s3cret"), "{text}");
    }
}

//! GitHub Apps. An App is created from a manifest in two steps, as at GitHub: the form brings a code, and the code brings the App
//! with its key. Each App counts as installed for every owner, with the permissions of its manifest.

use std::collections::BTreeMap;

use dayfly_host::digest::hexadecimal;
use serde::{Deserialize, Serialize};

use super::LabState;
use crate::journal::Record;
use crate::keys::PublicKey;
use crate::refusal::Refusal;

/// Most Apps of a lab, and most manifests whose code was not used yet.
const APPS_MAX: usize = 100;
/// Time for which a code serves, as at GitHub.
const CODE_LIFE_MS: i64 = 3600 * 1000;
const NAME_LEN_MAX: usize = 34;
/// Most permissions of a manifest. GitHub has about 60.
const PERMISSIONS_MAX: usize = 100;

/// A GitHub App.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct App {
    /// Also the id of its installation.
    pub(crate) id: u64,
    pub(crate) manifest: AppManifest,
    pub(crate) public_key: PublicKey,
}

/// The parts of a manifest that the lab heeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppManifest {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) default_permissions: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) default_events: Vec<String>,
}

/// The manifests that wait for their code.
#[derive(Debug, Default)]
pub(crate) struct WaitingManifests(BTreeMap<String, (i64, AppManifest)>);

impl App {
    /// Returns the client id. GitHub's begin with `Iv`, too.
    pub(crate) fn client_id(&self) -> String {
        format!("Iv23lab{}", self.id)
    }

    /// Returns the name in addresses.
    pub(crate) fn slug(&self) -> String {
        self.manifest
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect()
    }
}

impl AppManifest {
    fn check(&self) -> Result<(), Refusal> {
        let mut errors = Vec::new();
        let name = &self.name;
        if !(1..=NAME_LEN_MAX).contains(&name.chars().count()) || name.contains(char::is_control) {
            errors.push(format!("name must have 1 to {NAME_LEN_MAX} characters"));
        }
        if self.default_permissions.len() > PERMISSIONS_MAX || self.default_events.len() > PERMISSIONS_MAX {
            errors.push(format!("a manifest has at most {PERMISSIONS_MAX} permissions and events"));
        }
        let is_word = |text: &str| {
            (1..=100).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        for (permission, access) in &self.default_permissions {
            if !is_word(permission) || !matches!(access.as_str(), "read" | "write" | "admin") {
                errors.push(
                    "default_permissions must be words with the access read, write or admin".to_owned(),
                );
            }
        }
        if !self.default_events.iter().all(|event| is_word(event)) {
            errors.push("default_events must be words".to_owned());
        }
        if errors.is_empty() { Ok(()) } else { Err(Refusal::invalid(errors)) }
    }
}

impl LabState {
    /// Takes a manifest, and returns the code that brings its App.
    pub(crate) fn take_manifest(&mut self, manifest: AppManifest) -> Result<String, Refusal> {
        manifest.check()?;
        let now_ms = self.now_ms();
        let waiting = &mut self.manifests.0;
        waiting.retain(|_, (expires_ms, _)| *expires_ms > now_ms);
        if waiting.len() >= APPS_MAX || self.apps.len() >= APPS_MAX {
            return Err(Refusal::new(422, format!("The lab holds {APPS_MAX} Apps at most")));
        }
        let code = hexadecimal(&rand::random::<[u8; 20]>());
        waiting.insert(code.clone(), (now_ms + CODE_LIFE_MS, manifest));
        Ok(code)
    }

    /// Checks that a manifest waits for a code.
    pub(crate) fn waiting_manifest(&self, code: &str) -> Result<(), Refusal> {
        let waiting = self.manifests.0.get(code).filter(|(expires_ms, _)| *expires_ms > self.now_ms());
        waiting.map(|_| ()).ok_or_else(Refusal::not_found)
    }

    /// Creates the App of a code, once. `public_key` is the half of its key that the lab keeps.
    pub(crate) fn create_app(&mut self, code: &str, public_key: PublicKey) -> Result<App, Refusal> {
        let now_ms = self.now_ms();
        let waiting = self.manifests.0.remove(code).filter(|(expires_ms, _)| *expires_ms > now_ms);
        let (_, manifest) = waiting.ok_or_else(Refusal::not_found)?;
        let app = App { id: self.new_id(), manifest, public_key };
        self.record(&Record::App(app.clone()));
        self.apps.push(app.clone());
        Ok(app)
    }

    /// Returns an App by its app id or its client id.
    pub(crate) fn app(&self, id: &str) -> Option<&App> {
        self.apps.iter().find(|app| app.id.to_string() == id || app.client_id() == id)
    }
}

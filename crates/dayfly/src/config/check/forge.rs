//! The checks of `[forges.NAME]`.

use dayfly_forge::ApiBase;

use super::{Findings, Forges};
use crate::config::file::{ConfigFile, ForgeFile};
use crate::config::resolved::{CredentialPlace, ForgeConfig};
use crate::config::{reader, secret};
use crate::rules;

/// The keys of which each is a way to authenticate.
const WAYS: [&str; 4] = ["token_file", "token_env", "token_credential", "app_id"];
/// The keys that belong to `app_id`.
const OF_APP: [&str; 2] = ["key_file", "installation"];
/// Longest name of a variable or a credential, bytes.
const NAME_LENGTH_MAX: usize = 128;

pub(super) fn check(file: &ConfigFile, findings: &mut Findings<'_>) -> Forges {
    let mut forges = Forges::new();
    for (name, forge) in &file.forges {
        let table = reader::join("forges", name);
        let is_named = findings.name("forges", name);
        let checked = one(&table, forge, findings).filter(|_| is_named);
        forges.insert(name.clone(), checked);
        if !file.pools.values().any(|pool| pool.forge == *name) && !file.pools.is_empty() {
            findings.warning(&table, "no pool uses this forge", None);
        }
    }
    forges
}

fn one(table: &str, forge: &ForgeFile, findings: &mut Findings<'_>) -> Option<ForgeConfig> {
    let url = findings.take(&format!("{table}.url"), ApiBase::from_host_or_url(&forge.url));
    let credential = credential(table, forge, findings);
    let ca_file = findings.absolute(&format!("{table}.ca_file"), forge.ca_file.as_ref());
    if let Some(file) = &ca_file {
        findings.on_this_host(&format!("{table}.ca_file"), || rules::authorities(file).map(drop));
    }
    Some(ForgeConfig { url: url?, credential: credential?, ca_file })
}

fn credential(table: &str, forge: &ForgeFile, findings: &mut Findings<'_>) -> Option<CredentialPlace> {
    let key = |name: &str| format!("{table}.{name}");
    let positions = findings.positions;
    let given: Vec<&str> = WAYS.into_iter().filter(|way| positions.has(&key(way))).collect();
    if !given.contains(&"app_id") {
        for of_app in OF_APP.into_iter().filter(|name| positions.has(&key(name))) {
            let hint = given.is_empty().then(|| "give app_id = N beside it".to_owned());
            findings.error(
                &key(of_app),
                format!("{of_app} is for a GitHub App, and there is no app_id"),
                hint,
            );
        }
    }
    match given[..] {
        [] => {
            let hint = "give token_file, token_env, token_credential, or app_id with key_file".to_owned();
            findings.error(table, "there is no way to authenticate at this forge", Some(hint));
            None
        }
        [first, second, ..] => {
            let message = format!("{first} and {second} are two ways to authenticate, and one is needed");
            findings.error(&key(second), message, None);
            None
        }
        ["token_file"] => findings
            .secret_file(&key("token_file"), forge.token_file.as_ref())
            .map(CredentialPlace::TokenFile),
        ["token_env"] => {
            plain(&key("token_env"), forge.token_env.as_ref()?, findings).map(CredentialPlace::TokenEnv)
        }
        ["token_credential"] => {
            let name = forge.token_credential.as_ref()?;
            plain(&key("token_credential"), name, findings).map(CredentialPlace::Systemd)
        }
        [_] => app(table, forge, findings),
    }
}

fn app(table: &str, forge: &ForgeFile, findings: &mut Findings<'_>) -> Option<CredentialPlace> {
    let (id_key, file_key) = (format!("{table}.app_id"), format!("{table}.key_file"));
    if !findings.positions.has(&file_key) {
        findings.error(&id_key, "a GitHub App needs its private key: the key key_file is missing", None);
    }
    let key_file = findings.secret_file(&file_key, forge.key_file.as_ref())?;
    Some(CredentialPlace::App { id: forge.app_id?, installation: forge.installation, key_file })
}

/// Checks the name of a variable or a credential. It must not be the secret itself, nor lead to another folder.
pub(super) fn plain(key: &str, name: &str, findings: &mut Findings<'_>) -> Option<String> {
    if secret::looks_like_one(name) {
        let message = "this is a token itself; the name of the place that holds it is needed";
        findings.error(key, message, None);
        return None;
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if !(1..=NAME_LENGTH_MAX).contains(&name.len()) || name.starts_with('.') || !name.bytes().all(is_plain) {
        let message = format!("{name:?} is no name: 1 to {NAME_LENGTH_MAX} letters, digits, _, - or .");
        findings.error(key, message, None);
        return None;
    }
    Some(name.to_owned())
}

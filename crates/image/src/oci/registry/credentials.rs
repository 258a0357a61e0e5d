//! Finds the credentials that `docker login` and `podman login` have stored.
//!
//! Formats: docker's `config.json` (docker/cli, "Credential helpers" and "Credential store"), podman's `auth.json`
//! (containers-auth.json(5)), whose keys may also be the beginning of a repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};
use tokio::io::AsyncWriteExt as _;

use super::super::media::or_default;
use super::super::{DEFAULT_REGISTRY, RegistryName};
use super::{RegistryAccess, RegistryError};

/// Longest file or answer, bytes.
const LENGTH_MAX: u64 = 4 * 1024 * 1024;
/// Longest time that a helper may take. Some helpers send requests to a cloud.
const HELPER_LIMIT: Duration = Duration::from_secs(30);
/// docker's key for Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";
/// The user of credentials whose secret is no password but a refresh token.
const TOKEN_USER: &str = "<token>";

/// A user and a secret.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) user: String,
    pub(super) secret: SecretString,
    /// True if the secret is a refresh token of OAuth 2.
    pub(super) is_refresh_token: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    #[serde(deserialize_with = "or_defaults")]
    auths: BTreeMap<String, Auth>,
    #[serde(deserialize_with = "or_defaults")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    #[serde(deserialize_with = "or_default")]
    auth: SecretString,
    #[serde(deserialize_with = "or_default")]
    username: String,
    #[serde(deserialize_with = "or_default")]
    password: SecretString,
    #[serde(deserialize_with = "or_default")]
    identitytoken: SecretString,
}

/// Reads a map. As for Go, which writes these files, the map and each of its values may be `null`.
fn or_defaults<'de, T, D>(from: D) -> Result<BTreeMap<String, T>, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    let values: BTreeMap<String, Option<T>> = or_default(from)?;
    Ok(values.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// Returns the credentials for an image. None means to send requests without credentials.
pub(super) async fn find(
    access: &RegistryAccess,
    name: &RegistryName,
) -> Result<Option<Credential>, RegistryError> {
    for path in &access.credentials {
        let Some(file) = read(path)? else { continue };
        if let Some(found) = in_file(access, path, &file, name).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<File>, RegistryError> {
    let of_file = |what: String| RegistryError::Credentials(format!("{}: {what}", path.display()));
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(|error| of_file(error.to_string()))?,
    };
    if !metadata.is_file() || metadata.len() > LENGTH_MAX {
        return Err(of_file(format!("it is no file of at most {LENGTH_MAX} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| of_file(error.to_string()))?;
    // serde's own text is not shown, because it may quote the content of the file.
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        of_file(format!(
            "line {}: it cannot be understood as docker's config.json or podman's auth.json",
            error.line()
        ))
    })
}

async fn in_file(
    access: &RegistryAccess,
    path: &Path,
    file: &File,
    name: &RegistryName,
) -> Result<Option<Credential>, RegistryError> {
    let helper = file.cred_helpers.iter().find(|(key, _)| is_key_of(key, name.registry()));
    if let Some((_, helper)) = helper {
        return ask(access, helper, name.registry()).await;
    }
    if !file.creds_store.is_empty()
        && let Some(found) = ask(access, &file.creds_store, name.registry()).await?
    {
        return Ok(Some(found));
    }
    let whole = format!("{}/{}", name.registry(), name.repository());
    let fits = |key: &&String| is_key_of(key, name.registry()) || is_prefix(key, &whole);
    let best = file.auths.keys().filter(fits).max_by_key(|key| key.len());
    best.map(|key| of_auth(&file.auths[key], key, path)).transpose().map(Option::flatten)
}

/// Returns true if a key names a registry. docker's keys may be addresses, podman's are hosts.
fn is_key_of(key: &str, registry: &str) -> bool {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = host.split_once("/v1").or(host.split_once("/v2")).map_or(host, |(host, _)| host);
    let host = host.trim_end_matches('/');
    let is_hub = matches!(host, "index.docker.io" | "registry-1.docker.io" | "docker.io");
    host == registry || (registry == DEFAULT_REGISTRY && is_hub)
}

fn is_prefix(key: &str, whole: &str) -> bool {
    whole.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn of_auth(auth: &Auth, key: &str, path: &Path) -> Result<Option<Credential>, RegistryError> {
    if !auth.identitytoken.expose_secret().is_empty() {
        let (user, secret) = (TOKEN_USER.to_owned(), auth.identitytoken.clone());
        return Ok(Some(Credential { user, secret, is_refresh_token: true }));
    }
    if auth.auth.expose_secret().is_empty() {
        let known = !auth.username.is_empty();
        let (user, secret) = (auth.username.clone(), auth.password.clone());
        return Ok(known.then_some(Credential { user, secret, is_refresh_token: false }));
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(auth.auth.expose_secret().trim_end_matches('\0'))
        .ok();
    let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = text.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    let Some((user, secret)) = pair else {
        let what = format!("{}: its entry for {key} is not a user and password in base64", path.display());
        return Err(RegistryError::Credentials(what));
    };
    Ok(Some(Credential { user: user.to_owned(), secret: secret.into(), is_refresh_token: false }))
}

/// Runs a credential helper (docker-credential-helpers, "Development": `get` with the server on standard input).
async fn ask(
    access: &RegistryAccess,
    helper: &str,
    registry: &str,
) -> Result<Option<Credential>, RegistryError> {
    let of_helper = |what: String| {
        RegistryError::Credentials(format!("the credential helper docker-credential-{helper}: {what}"))
    };
    if helper.is_empty() || !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        return Err(of_helper("this is no name of a program".to_owned()));
    }
    let program = access
        .helper_folders
        .iter()
        .map(|folder| folder.join(format!("docker-credential-{helper}")))
        .find(|program| program.is_file())
        .ok_or_else(|| of_helper("it is not installed (it must be in PATH)".to_owned()))?;
    let server = if registry == DEFAULT_REGISTRY { HUB } else { registry };
    let run = tokio::time::timeout(HELPER_LIMIT, run(&program, server, &access.helper_env)).await;
    let output = run
        .map_err(|_| of_helper(format!("it did not answer within {} s", HELPER_LIMIT.as_secs())))?
        .map_err(|error| of_helper(error.to_string()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said[..said.len().min(1000)]).trim().to_owned();
        // The text of all helpers if they have no credentials for the server.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(of_helper(format!("it failed ({}): {said}", output.status)));
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct HelperAnswer {
        username: String,
        secret: SecretString,
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
        .map_err(|_| of_helper("it answered something else than a user and a secret".to_owned()))?;
    let is_refresh_token = answer.username == TOKEN_USER;
    Ok(Some(Credential { user: answer.username, secret: answer.secret, is_refresh_token }))
}

async fn run(
    program: &PathBuf,
    server: &str,
    env: &[(String, String)],
) -> std::io::Result<std::process::Output> {
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Write errors are ignored, because a helper that does not read reports the reason by its status.
        let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
    }
    child.wait_with_output().await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::super::ImageName;
    use super::*;

    fn name(text: &str) -> RegistryName {
        match text.parse() {
            Ok(ImageName::Registry(name)) => name,
            other => panic!("no registry name: {other:?}"),
        }
    }

    fn access(folder: &Path, text: &str) -> RegistryAccess {
        let path = folder.join("config.json");
        std::fs::write(&path, text).expect("write");
        let credentials = vec![folder.join("not-there.json"), path];
        RegistryAccess { credentials, helper_folders: vec![folder.to_owned()], ..RegistryAccess::default() }
    }

    async fn user_for(access: &RegistryAccess, text: &str) -> String {
        match find(access, &name(text)).await {
            Ok(found) => found.map_or("nobody".to_owned(), |found| {
                format!("{}:{}", found.user, found.secret.expose_secret())
            }),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn keys_are_hosts_addresses_or_beginnings_of_repositories() {
        let folder = tempfile::tempdir().expect("a folder");
        let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let text = serde_json::json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": encoded("hub:h") },
            "quay.io": { "auth": encoded("all:q:x") },
            "quay.io/team": { "auth": encoded("team:t") },
            "ghcr.io": { "auth": "%" },
            "azure.io": { "auth": encoded("x:y"), "identitytoken": "refresh" },
        } });
        let access = access(folder.path(), &text.to_string());
        assert_eq!(user_for(&access, "ubuntu").await, "hub:h");
        assert_eq!(user_for(&access, "quay.io/other/x").await, "all:q:x");
        assert_eq!(user_for(&access, "quay.io/team/x").await, "team:t");
        assert_eq!(user_for(&access, "quay.io/teamwork/x").await, "all:q:x");
        assert_eq!(user_for(&access, "azure.io/x").await, "<token>:refresh");
        assert_eq!(user_for(&access, "localhost:5000/x").await, "nobody");
        let wrong = user_for(&access, "ghcr.io/x").await;
        assert!(wrong.ends_with("its entry for ghcr.io is not a user and password in base64"), "{wrong}");
    }

    #[tokio::test]
    async fn null_in_a_file_of_credentials_is_the_same_as_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        for text in [
            serde_json::json!({ "auths": null, "credHelpers": null, "credsStore": null, "HttpHeaders": null }),
            serde_json::json!({ "auths": { "quay.io": null }, "credHelpers": {} }),
            serde_json::json!({ "auths": { "quay.io": { "auth": null, "username": null, "password": null,
                "identitytoken": null } } }),
        ] {
            let access = access(folder.path(), &text.to_string());
            assert_eq!(user_for(&access, "quay.io/x").await, "nobody", "{text}");
        }
        let text =
            serde_json::json!({ "auths": { "quay.io": { "auth": null, "username": "u", "password": "p" } } });
        assert_eq!(user_for(&access(folder.path(), &text.to_string()), "quay.io/x").await, "u:p");
    }

    #[tokio::test]
    async fn helpers_are_asked_and_their_failures_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let helper = |name: &str, script: &str| {
            let path = folder.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\nread -r server\n{script}\n")).expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
        };
        helper("good", r#"echo "{\"ServerURL\":\"$server\",\"Username\":\"$server\",\"Secret\":\"s\"}""#);
        helper("none", "echo credentials not found in native keychain; exit 1");
        helper("bad", "echo the reason; exit 2");
        let text = serde_json::json!({ "credsStore": "none", "credHelpers": {
            "good.io": "good", "bad.io": "bad", "gone.io": "gone", "evil.io": "../x" } });
        let access = access(folder.path(), &text.to_string());
        assert_eq!(user_for(&access, "good.io/x").await, "good.io:s");
        assert_eq!(user_for(&access, "other.io/x").await, "nobody");
        let bad = user_for(&access, "bad.io/x").await;
        assert_eq!(
            bad,
            "the credential helper docker-credential-bad: it failed (exit status: 2): the reason"
        );
        assert!(user_for(&access, "gone.io/x").await.ends_with("it is not installed (it must be in PATH)"));
        assert!(user_for(&access, "evil.io/x").await.ends_with("this is no name of a program"));
    }
}

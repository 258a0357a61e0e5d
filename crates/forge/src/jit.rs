//! The JIT config: everything that a runner app needs to act as one runner, in one blob.
//!
//! ```text
//! base64( { ".runner": base64(json), ".credentials": base64(json), ".credentials_rsaparams": base64(json) } )
//! ```
//!
//! The blob is an identity, not a token: it holds the private key with which the runner requests its access tokens. So it
//! goes to one VM only, and this module never prints it. Numbers and flags are stored as strings, because
//! github-act-runner 0.13.0 requires strings and actions/runner accepts them.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest accepted JIT config, in bytes. Real ones have about 4 kB.
pub const ENCODED_LEN_MAX: usize = 64 * 1024;

/// The content of a JIT config.
#[derive(Clone, PartialEq, Eq)]
pub struct JitConfig {
    /// The file `.runner`: the identity of the runner and the addresses of its servers.
    pub runner: RunnerFile,
    /// The file `.credentials`: the endpoint that issues its tokens.
    pub credentials: CredentialsFile,
    /// The file `.credentials_rsaparams`: the private key. Secret.
    pub key: RsaParameters,
}

/// The file `.runner`, with the names that actions/runner 2.336.0 reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunnerFile {
    /// The id of the registration.
    pub agent_id: String,
    /// The runner's name.
    pub agent_name: String,
    /// The id of the runner group.
    pub pool_id: String,
    /// The name of the runner group.
    #[serde(default)]
    pub pool_name: String,
    /// `True` if the runner must not update itself.
    #[serde(default)]
    pub disable_update: String,
    /// `True` if the runner runs only one job.
    #[serde(default)]
    pub ephemeral: String,
    /// The address of the old service. Equal to [`Self::server_url_v2`] if there is no old service, so that
    /// actions/runner does not call it.
    #[serde(default)]
    pub server_url: String,
    /// The work folder of the jobs, relative to the folder of the runner app.
    #[serde(default)]
    pub work_folder: String,
    /// The web address of the repository, organisation or enterprise.
    #[serde(default)]
    pub git_hub_url: String,
    /// `True` if the runner uses the broker protocol. Some servers write a JSON boolean.
    #[serde(default, rename = "UseV2Flow", deserialize_with = "text_or_bool")]
    pub use_v2_flow: String,
    /// The address of the broker. It ends with a slash.
    #[serde(default, rename = "ServerUrlV2")]
    pub server_url_v2: String,
}

/// The file `.credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CredentialsFile {
    /// The authentication scheme: `OAuth`.
    pub scheme: String,
    /// The settings of the scheme.
    pub data: CredentialsData,
}

/// The member `Data` of the file `.credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CredentialsData {
    /// The client id, a GUID.
    pub client_id: String,
    /// The token endpoint.
    pub authorization_url: String,
    /// `True` if the client signs with PS256 instead of RS256.
    #[serde(default, deserialize_with = "text_or_bool")]
    pub require_fips_cryptography: String,
}

/// The file `.credentials_rsaparams`: an RSA private key, each number big-endian in base64. Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of RFC 8017, section 3.2")]
pub struct RsaParameters {
    pub d: String,
    pub dp: String,
    pub dq: String,
    pub exponent: String,
    pub inverse_q: String,
    pub modulus: String,
    pub p: String,
    pub q: String,
}

impl fmt::Debug for RsaParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaParameters(secret)")
    }
}

impl fmt::Debug for JitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JitConfig")
            .field("agent_id", &self.runner.agent_id)
            .field("agent_name", &self.runner.agent_name)
            .field("server_url_v2", &self.runner.server_url_v2)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Errors of reading a JIT config. No variant repeats the blob.
#[derive(Debug, Error)]
pub enum JitError {
    /// The blob is far longer than a real JIT config.
    #[error("the JIT config has {len} bytes, more than {ENCODED_LEN_MAX}: this is something else")]
    TooLong {
        /// The length of the blob in bytes.
        len: usize,
    },
    /// The blob or one of its inner files is not base64.
    #[error("the JIT config{place} is not base64")]
    NotBase64 {
        /// The place of the error, written to follow the words "JIT config"; empty for the blob itself.
        place: String,
        /// The cause.
        #[source]
        source: base64::DecodeError,
    },
    /// The blob or one of its inner files is not the expected JSON.
    #[error("the JIT config{place} is not the JSON expected there")]
    NotJson {
        /// The place of the error, written to follow the words "JIT config"; empty for the blob itself.
        place: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// One of the three files is missing.
    #[error("the JIT config has no file \"{file}\"")]
    FileMissing {
        /// The file.
        file: &'static str,
    },
    /// The broker's address is not an http or https address with a host.
    #[error("the JIT config names \"{url}\" as its server, which is no http or https address with a host")]
    BadServer {
        /// The address.
        url: String,
    },
}

const RUNNER: &str = ".runner";
const CREDENTIALS: &str = ".credentials";
const RSA_PARAMETERS: &str = ".credentials_rsaparams";

impl JitConfig {
    /// Returns the blob for the runner app (`--jitconfig`). Secret.
    pub fn encode(&self) -> String {
        let file = |value: serde_json::Value| BASE64.encode(value.to_string());
        let blob = serde_json::json!({
            RUNNER: file(serde_json::json!(self.runner)),
            CREDENTIALS: file(serde_json::json!(self.credentials)),
            RSA_PARAMETERS: file(serde_json::json!(self.key)),
        });
        BASE64.encode(blob.to_string())
    }

    /// Decodes a blob that a forge issued.
    ///
    /// # Errors
    /// See [`JitError`]. Its texts contain no part of the blob's secrets.
    pub fn decode(encoded: &str) -> Result<Self, JitError> {
        if encoded.len() > ENCODED_LEN_MAX {
            return Err(JitError::TooLong { len: encoded.len() });
        }
        let here = String::new;
        let blob =
            BASE64.decode(encoded.trim()).map_err(|source| JitError::NotBase64 { place: here(), source })?;
        let files: BTreeMap<String, String> =
            serde_json::from_slice(&blob).map_err(|source| JitError::NotJson { place: here(), source })?;
        Ok(Self {
            runner: decode_file(&files, RUNNER)?,
            credentials: decode_file(&files, CREDENTIALS)?,
            key: decode_file(&files, RSA_PARAMETERS)?,
        })
    }

    /// Returns host and port of the broker, which must be reachable from the VM.
    ///
    /// # Errors
    /// [`JitError::BadServer`] if the config contains no such address.
    pub fn server(&self) -> Result<(String, u16), JitError> {
        let url = &self.runner.server_url_v2;
        let bad = || JitError::BadServer { url: url.clone() };
        let parsed = reqwest::Url::parse(url).map_err(|_| bad())?;
        let host = parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let port = parsed.port_or_known_default().ok_or_else(bad)?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad());
        }
        Ok((host.to_owned(), port))
    }
}

fn decode_file<T: serde::de::DeserializeOwned>(
    files: &BTreeMap<String, String>,
    file: &'static str,
) -> Result<T, JitError> {
    let place = || format!("'s file \"{file}\"");
    let encoded = files.get(file).ok_or(JitError::FileMissing { file })?;
    let text = BASE64.decode(encoded).map_err(|source| JitError::NotBase64 { place: place(), source })?;
    serde_json::from_slice(&text).map_err(|source| JitError::NotJson { place: place(), source })
}

fn text_or_bool<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Flag(bool),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Text(text) => text,
        Either::Flag(true) => "True".to_owned(),
        Either::Flag(false) => "False".to_owned(),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn config(server: &str) -> JitConfig {
        let number = || "c2VjcmV0LW51bWJlcg==".to_owned();
        JitConfig {
            runner: RunnerFile {
                agent_id: "7".into(),
                agent_name: "vm-1".into(),
                pool_id: "1".into(),
                pool_name: "Default".into(),
                disable_update: "True".into(),
                ephemeral: "True".into(),
                server_url: server.into(),
                work_folder: "_work".into(),
                git_hub_url: "http://10.0.2.2:8099/o/r".into(),
                use_v2_flow: "True".into(),
                server_url_v2: server.into(),
            },
            credentials: CredentialsFile {
                scheme: "OAuth".into(),
                data: CredentialsData {
                    client_id: "c92f91d8-1656-4b10-9624-c573de4acadb".into(),
                    authorization_url: "http://10.0.2.2:8099/oauth/token".into(),
                    require_fips_cryptography: "True".into(),
                },
            },
            key: RsaParameters {
                d: number(),
                dp: number(),
                dq: number(),
                exponent: number(),
                inverse_q: number(),
                modulus: number(),
                p: number(),
                q: number(),
            },
        }
    }

    #[test]
    fn a_config_survives_encoding_and_decoding() {
        let config = config("http://10.0.2.2:8099/broker/");
        assert_eq!(JitConfig::decode(&config.encode()).unwrap(), config);
    }

    #[test]
    fn the_files_carry_the_names_that_runner_apps_read() {
        let text = serde_json::to_string(&config("http://h/").runner).unwrap();
        for name in ["AgentId", "AgentName", "PoolId", "GitHubUrl", "UseV2Flow", "ServerUrlV2", "WorkFolder"]
        {
            assert!(text.contains(&format!("\"{name}\":\"")), "{name} is missing in {text}");
        }
    }

    #[test]
    fn the_server_is_found_with_and_without_a_port() {
        assert_eq!(config("http://10.0.2.2:8099/broker/").server().unwrap(), ("10.0.2.2".into(), 8099));
        assert_eq!(config("https://broker.example/").server().unwrap(), ("broker.example".into(), 443));
        assert!(config("file:///etc/passwd").server().is_err());
        assert!(config("").server().is_err());
    }

    #[test]
    fn debugging_output_shows_no_secret() {
        let text = format!("{:?} {:?}", config("http://h/"), config("http://h/").key);
        assert!(!text.contains("c2VjcmV0"), "{text}");
        assert!(text.contains("vm-1"));
    }

    #[test]
    fn a_boolean_flag_is_read_like_its_text() {
        let mut runner = serde_json::to_value(config("http://h/").runner).unwrap();
        runner["UseV2Flow"] = serde_json::Value::Bool(true);
        assert_eq!(serde_json::from_value::<RunnerFile>(runner).unwrap().use_v2_flow, "True");
    }

    #[test]
    fn what_is_no_config_is_refused_without_repeating_it() {
        for junk in ["", "%%%", "e30=", "bm90LWpzb24=", &"A".repeat(ENCODED_LEN_MAX + 1)] {
            let error = JitConfig::decode(junk).unwrap_err().to_string();
            assert!(junk.is_empty() || junk.len() < 4 || !error.contains(junk), "{error}");
        }
    }
}

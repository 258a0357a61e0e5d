//! The JIT config: everything that a runner app needs to act as one runner, in one blob.
//!
//! ```text
//! base64( { ".runner": base64(json), ".credentials": base64(json), ".credentials_rsaparams": base64(json) } )
//! ```
//!
//! The blob is an identity, not a token: it holds the private key with which the runner requests its access tokens. So it
//! goes to one VM only, and this module never prints it. The guest crate reads the blob and its files
//! ([`runner_app::JitConfig`]), for the host as for the machine. Numbers and flags are stored as strings, because
//! github-act-runner 0.13.0 requires strings and actions/runner accepts them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dayfly_guest::runner_app;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

/// Longest accepted JIT config, in bytes. Real ones have about 4 kB.
pub const ENCODED_LEN_MAX: usize = 64 * 1024;

/// The content of a JIT config.
#[derive(Debug, Clone)]
pub struct JitConfig {
    /// The file `.runner`: the identity of the runner and the addresses of its servers.
    pub runner: RunnerFile,
    /// The file `.credentials`: the endpoint that issues its tokens.
    pub credentials: CredentialsFile,
    /// The file `.credentials_rsaparams`: the private key.
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

/// The file `.credentials_rsaparams`: an RSA private key, each number big-endian in base64.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of RFC 8017, section 3.2")]
pub struct RsaParameters {
    #[serde(serialize_with = "exposed")]
    pub d: SecretString,
    #[serde(serialize_with = "exposed")]
    pub dp: SecretString,
    #[serde(serialize_with = "exposed")]
    pub dq: SecretString,
    pub exponent: String,
    #[serde(serialize_with = "exposed")]
    pub inverse_q: SecretString,
    pub modulus: String,
    #[serde(serialize_with = "exposed")]
    pub p: SecretString,
    #[serde(serialize_with = "exposed")]
    pub q: SecretString,
}

/// Writes a secret number into a JIT config, which is a secret as a whole.
fn exposed<S: Serializer>(number: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(number.expose_secret())
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
    /// The blob does not have its form, or does not have the three files.
    #[error(transparent)]
    Form(#[from] runner_app::JitConfigError),
    /// A file has other members than the protocol requires.
    #[error("the JIT config's file \"{file}\" is not the JSON expected there")]
    Content {
        /// The file.
        file: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The broker's address is not an http or https address with a host.
    #[error("the JIT config names {url:?} as its server, which is no http or https address with a host")]
    BadServer {
        /// The address.
        url: String,
    },
}

impl JitConfig {
    /// Returns the blob for the runner app (`--jitconfig`).
    pub fn encode(&self) -> SecretString {
        let file = |value: serde_json::Value| BASE64.encode(value.to_string());
        let blob = serde_json::json!({
            runner_app::RunnerFile::Runner.name(): file(serde_json::json!(self.runner)),
            runner_app::RunnerFile::Credentials.name(): file(serde_json::json!(self.credentials)),
            runner_app::RunnerFile::RsaParams.name(): file(serde_json::json!(self.key)),
        });
        BASE64.encode(blob.to_string()).into()
    }

    /// Decodes a blob that a forge issued.
    ///
    /// # Errors
    /// See [`JitError`]. Its texts contain no part of the blob's secrets.
    pub fn decode(encoded: &str) -> Result<Self, JitError> {
        if encoded.len() > ENCODED_LEN_MAX {
            return Err(JitError::TooLong { len: encoded.len() });
        }
        let files = runner_app::JitConfig::parse(encoded)?;
        Ok(Self {
            runner: content(&files, runner_app::RunnerFile::Runner)?,
            credentials: content(&files, runner_app::RunnerFile::Credentials)?,
            key: content(&files, runner_app::RunnerFile::RsaParams)?,
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

fn content<T: serde::de::DeserializeOwned>(
    files: &runner_app::JitConfig,
    file: runner_app::RunnerFile,
) -> Result<T, JitError> {
    serde_json::from_slice(files.file(file)).map_err(|source| JitError::Content { file: file.name(), source })
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

/// Returns a JIT config for tests, whose numbers are no key.
#[cfg(test)]
pub(crate) fn sample(server: &str) -> JitConfig {
    let number = || SecretString::from("c2VjcmV0LW51bWJlcg==");
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
            exponent: "AQAB".to_owned(),
            inverse_q: number(),
            modulus: "bW9kdWx1cw==".to_owned(),
            p: number(),
            q: number(),
        },
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::sample as config;
    use super::*;

    #[test]
    fn a_config_survives_encoding_and_decoding() {
        let config = config("http://10.0.2.2:8099/broker/");
        let encoded = config.encode();
        let decoded = JitConfig::decode(encoded.expose_secret()).unwrap();
        assert_eq!((&decoded.runner, &decoded.credentials), (&config.runner, &config.credentials));
        assert_eq!(decoded.encode().expose_secret(), encoded.expose_secret());
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

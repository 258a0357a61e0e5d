//! JIT configs: everything that a runner app needs to be a registered runner, as one base64 text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The three files of a JIT config. Their names are fixed here; a config with other files is rejected, because the
/// names become paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerFile {
    /// `.runner`: names, addresses and flags.
    Runner,
    /// `.credentials`: client id, and the address that issues tokens.
    Credentials,
    /// `.credentials_rsaparams`: the private key.
    RsaParams,
}

impl RunnerFile {
    /// All three, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Credentials, Self::RsaParams, Self::Runner];

    /// Returns its name in the runner app's folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runner => ".runner",
            Self::Credentials => ".credentials",
            Self::RsaParams => ".credentials_rsaparams",
        }
    }
}

/// The reason why a JIT config is rejected. No variant holds content, which is secret.
#[derive(Debug, thiserror::Error)]
pub enum JitConfigError {
    /// The text or one of its files is not base64.
    #[error("{what} of the JIT config is not base64")]
    Base64 {
        /// `the whole`, or the name of the file.
        what: &'static str,
    },
    /// The decoded base64 is not a JSON object.
    #[error("{what} of the JIT config is not a JSON object")]
    Json {
        /// `the whole`, or the name of the file.
        what: &'static str,
    },
    /// One of the three files is missing.
    #[error("the JIT config has no file {0}")]
    Missing(&'static str),
    /// The config has a file that no runner app has.
    #[error(
        "the JIT config has a file named {0:?}; only .runner, .credentials and .credentials_rsaparams are known"
    )]
    Unknown(String),
}

/// A parsed JIT config, as `POST .../actions/runners/generate-jitconfig` returns it in `encoded_jit_config`.
///
/// The text is base64 of a JSON object `{file name: base64 of its content}`. It holds a private key, so treat it as a
/// bearer secret. `Debug` shows only the settings.
#[derive(Clone)]
pub struct JitConfig {
    runner: Vec<u8>,
    credentials: Vec<u8>,
    rsa_params: Vec<u8>,
    settings: RunnerSettings,
}

impl std::fmt::Debug for JitConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("JitConfig").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The settings in `.runner` that other code needs.
///
/// The case of keys is ignored. Values may be texts or JSON values of any kind, because services write both
/// `"AgentId":"23"` and `"AgentId":23`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerSettings {
    /// `AgentName`: the runner's name at the forge.
    pub agent_name: Option<String>,
    /// `AgentId`: the registration's id.
    pub agent_id: Option<String>,
    /// `ServerUrl`, which the runner app contacts first.
    pub server_url: Option<String>,
    /// `ServerUrlV2`, the broker.
    pub server_url_v2: Option<String>,
    /// `GitHubUrl`, the scope in which the runner is registered.
    pub github_url: Option<String>,
    /// `WorkFolder`, relative to the runner app's folder.
    pub work_folder: Option<String>,
}

impl JitConfig {
    /// Parses a JIT config and checks that it is complete.
    ///
    /// # Errors
    /// [`JitConfigError`] says which part is wrong.
    pub fn parse(encoded: &str) -> Result<Self, JitConfigError> {
        let what = "the whole";
        let json = STANDARD.decode(encoded.trim()).map_err(|_| JitConfigError::Base64 { what })?;
        let mut files = object(&json).ok_or(JitConfigError::Json { what })?;
        let mut take = |file: RunnerFile| {
            let what = file.name();
            let content = files.remove(what).ok_or(JitConfigError::Missing(what))?;
            let content = content.as_str().ok_or(JitConfigError::Base64 { what })?;
            let content = STANDARD.decode(content).map_err(|_| JitConfigError::Base64 { what })?;
            if object(&content).is_none() {
                return Err(JitConfigError::Json { what });
            }
            Ok(content)
        };
        let runner = take(RunnerFile::Runner)?;
        let credentials = take(RunnerFile::Credentials)?;
        let rsa_params = take(RunnerFile::RsaParams)?;
        if let Some((name, _)) = files.into_iter().next() {
            return Err(JitConfigError::Unknown(name.chars().take(80).collect()));
        }
        let settings = RunnerSettings::read(&runner);
        Ok(Self { runner, credentials, rsa_params, settings })
    }

    /// Returns the content of one of the files, byte for byte as the forge created it.
    #[must_use]
    pub fn file(&self, file: RunnerFile) -> &[u8] {
        match file {
            RunnerFile::Runner => &self.runner,
            RunnerFile::Credentials => &self.credentials,
            RunnerFile::RsaParams => &self.rsa_params,
        }
    }

    /// Returns the texts of the config that must not appear in a log: each file in base64, and the members of the private
    /// key, except for the public exponent.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let files = RunnerFile::ALL.into_iter().map(|file| STANDARD.encode(self.file(file)));
        let key = object(&self.rsa_params).unwrap_or_default();
        let members = key.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("exponent"));
        files.chain(members.filter_map(|(_, value)| value.as_str().map(str::to_owned))).collect()
    }

    /// Returns the settings in `.runner`.
    #[must_use]
    pub fn settings(&self) -> &RunnerSettings {
        &self.settings
    }
}

/// Parses a JSON object. The text may start with a byte order mark, as the files may.
fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).ok()
}

impl RunnerSettings {
    fn read(runner: &[u8]) -> Self {
        let keys = object(runner).unwrap_or_default();
        let get = |name: &str| {
            let (_, value) = keys.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        Self {
            agent_name: get("AgentName"),
            agent_id: get("AgentId"),
            server_url: get("ServerUrl"),
            server_url_v2: get("ServerUrlV2"),
            github_url: get("GitHubUrl"),
            work_folder: get("WorkFolder"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn encode(files: &Value) -> String {
        let files: Map<_, _> = files
            .as_object()
            .expect("object")
            .iter()
            .map(|(name, content)| (name.clone(), STANDARD.encode(content.to_string()).into()))
            .collect();
        STANDARD.encode(Value::Object(files).to_string())
    }

    fn whole() -> Value {
        json!({
            ".runner": {"agentid": 23, "AgentName": "vm-1", "ServerUrl": "http://h/b/", "WorkFolder": "_work"},
            ".credentials": {"Scheme": "OAuth"},
            ".credentials_rsaparams": {"d": "s3cret"},
        })
    }

    #[test]
    fn the_three_files_come_out_byte_for_byte() {
        let jit = JitConfig::parse(&encode(&whole())).expect("whole");
        for file in RunnerFile::ALL {
            assert_eq!(jit.file(file), whole()[file.name()].to_string().as_bytes());
        }
        assert_eq!(jit.settings().agent_id.as_deref(), Some("23"));
        assert_eq!(jit.settings().server_url.as_deref(), Some("http://h/b/"));
        assert_eq!(jit.settings().github_url, None);
        assert!(!format!("{jit:?}").contains("s3cret"));
    }

    #[test]
    fn the_secrets_are_the_files_and_the_parts_of_the_key() {
        let mut files = whole();
        files[".credentials_rsaparams"]["exponent"] = json!("AQAB");
        let secrets = JitConfig::parse(&encode(&files)).expect("whole").secrets();
        for file in RunnerFile::ALL {
            assert!(secrets.contains(&STANDARD.encode(files[file.name()].to_string())), "{file:?}");
        }
        assert_eq!(secrets[3..], ["s3cret"], "the exponent is public");
    }

    #[test]
    fn a_name_that_is_not_one_of_the_three_is_refused() {
        let mut files = whole();
        files["../../etc/cron.d/x"] = json!({});
        let error = JitConfig::parse(&encode(&files)).expect_err("unknown");
        assert!(matches!(error, JitConfigError::Unknown(name) if name == "../../etc/cron.d/x"));
    }

    #[test]
    fn damaged_configs_say_what_is_wrong() {
        let mut files = whole();
        files.as_object_mut().expect("object").remove(".credentials");
        let cases = [
            ("%%%".to_owned(), "the whole of the JIT config is not base64"),
            (STANDARD.encode("[]"), "the whole of the JIT config is not a JSON object"),
            (encode(&files), "the JIT config has no file .credentials"),
            (STANDARD.encode(r#"{".runner":"%"}"#), ".runner of the JIT config is not base64"),
            (STANDARD.encode(r#"{".runner":"WzFd"}"#), ".runner of the JIT config is not a JSON object"),
        ];
        for (text, message) in cases {
            assert_eq!(JitConfig::parse(&text).expect_err(message).to_string(), message);
        }
    }
}

//! What the `.env` file says.

use super::options::Options;
use dayfly_guest::envfile::{self, EnvFileError};
use dayfly_guest::runner_app::{JitConfig, JitConfigError};

/// Settings of one runner. `Debug` is left out: they hold secrets.
pub(super) struct Settings {
    /// The runner's name at the forge.
    pub(super) name: String,
    /// The loop's secret.
    pub(super) secret: String,
    /// `None`: no change of user.
    pub(super) user: Option<String>,
    pub(super) jit_config: JitConfig,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SettingsError {
    #[error("settings: {0}")]
    File(#[from] EnvFileError),
    #[error("settings: {0} is missing")]
    Missing(&'static str),
    #[error("settings: they are for runner {found}, and this is {wanted}")]
    OtherRunner { found: String, wanted: String },
    #[error("settings: RUNNER_JITCONFIG: {0}")]
    JitConfig(#[from] JitConfigError),
}

impl Settings {
    pub(super) fn parse(text: &str, options: &Options) -> Result<Self, SettingsError> {
        let variables = envfile::parse(text)?;
        let get = |name| variables.get(name).filter(|value| !value.is_empty());
        let need = |name| get(name).ok_or(SettingsError::Missing(name));
        if let Some(found) = get("RUNNER_ID").filter(|id| *id != options.runner_id) {
            return Err(SettingsError::OtherRunner {
                found: found.to_owned(),
                wanted: options.runner_id.clone(),
            });
        }
        let user = match &options.user {
            Some(user) => user.as_str(),
            None => get("RUNNER_USER").unwrap_or("runner"),
        };
        Ok(Self {
            name: options.name.as_deref().map_or_else(|| need("RUNNER_NAME"), Ok)?.to_owned(),
            secret: need("RUNNER_SECRET")?.to_owned(),
            user: Some(user.to_owned()).filter(|user| !user.is_empty()),
            jit_config: JitConfig::parse(need("RUNNER_JITCONFIG")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, SettingsError> {
        let args = ["-i", "2-abc"].map(str::to_owned);
        Settings::parse(text, &Options::parse(&args).expect("good"))
    }

    #[test]
    fn what_is_missing_is_named() {
        let message = |text| parse(text).err().expect("refused").to_string();
        assert_eq!(message(""), "settings: RUNNER_NAME is missing");
        assert_eq!(message("RUNNER_NAME=n"), "settings: RUNNER_SECRET is missing");
        assert_eq!(message("RUNNER_NAME=n\nRUNNER_SECRET=''"), "settings: RUNNER_SECRET is missing");
        assert_eq!(message("RUNNER_NAME=n\nRUNNER_SECRET=s"), "settings: RUNNER_JITCONFIG is missing");
        assert_eq!(message("RUNNER_ID=1-xyz"), "settings: they are for runner 1-xyz, and this is 2-abc");
        assert_eq!(
            message("RUNNER_NAME=n\nRUNNER_SECRET=s\nRUNNER_JITCONFIG=%%"),
            "settings: RUNNER_JITCONFIG: the whole of the JIT config is not base64"
        );
    }
}

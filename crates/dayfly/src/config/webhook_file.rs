//! The table of the server for webhooks, `[webhook]`, as it is written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::defaults;

/// The server that takes the deliveries of webhooks for all pools, and the secret that they are signed with: one of
/// secret_file, secret_env and secret_credential.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table with the keys of the webhook server")]
pub(crate) struct WebhookFile {
    /// Address and port to listen at: 127.0.0.1:9440 behind a proxy on this host, [::]:9440 for all addresses of this host.
    pub(crate) listen: String,
    /// Path of the webhook's address.
    pub(crate) path: String,
    /// File that contains the webhook's secret; only its owner may be able to read it (mode 0600).
    pub(crate) secret_file: Option<PathBuf>,
    /// Name of the environment variable that contains the webhook's secret.
    pub(crate) secret_env: Option<String>,
    /// Name of the systemd credential that contains the webhook's secret (LoadCredential= of the unit).
    pub(crate) secret_credential: Option<String>,
    /// File with the server's certificate and its chain (PEM); without it, the server speaks HTTP.
    pub(crate) cert_file: Option<PathBuf>,
    /// File that contains the certificate's private key (PEM); only its owner may be able to read it (mode 0600).
    pub(crate) key_file: Option<PathBuf>,
    /// A proxy adds TLS before this server, so that it may speak HTTP at an address that is not loopback.
    pub(crate) behind_proxy: bool,
    /// Most requests a second in the long run; the requests of five seconds may come at once.
    #[schemars(range(min = 1, max = defaults::WEBHOOK_RATE_MAX))]
    pub(crate) rate_limit: u32,
}

impl Default for WebhookFile {
    fn default() -> Self {
        Self {
            listen: defaults::WEBHOOK_LISTEN.to_owned(),
            path: defaults::WEBHOOK_PATH.to_owned(),
            secret_file: None,
            secret_env: None,
            secret_credential: None,
            cert_file: None,
            key_file: None,
            behind_proxy: false,
            rate_limit: defaults::WEBHOOK_RATE,
        }
    }
}

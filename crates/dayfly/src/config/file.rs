//! The file as it is written: its tables and keys. Their comments are the descriptions of the schema.

use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pool_file::PoolFile;
use super::traces_file::TracesFile;
use super::value::Size;
use super::web_file::WebFile;
use super::webhook_file::WebhookFile;
use crate::defaults;

/// The configuration of `dayfly orchestrator`: forges, pools of runners, and the share of this host that they may use.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "the tables forges, pools, host, webhook, web and traces")]
#[schemars(title = "dayfly.toml")]
pub(crate) struct ConfigFile {
    /// The forges, by a name that pools refer to.
    pub(crate) forges: IndexMap<String, ForgeFile>,
    /// The pools of runners, by name.
    pub(crate) pools: IndexMap<String, PoolFile>,
    /// The share of this host that all pools together may use.
    pub(crate) host: HostFile,
    /// The server for webhooks of the forges; pools with the demand webhook need it.
    pub(crate) webhook: Option<WebhookFile>,
    /// The server for the page and the metrics; without this table there is none.
    pub(crate) web: Option<WebFile>,
    /// The collector of traces; without this table no trace is sent.
    pub(crate) traces: Option<TracesFile>,
}

/// A forge, and how to authenticate at it: by one of token_file, token_env, token_credential, or app_id with key_file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table with the keys of a forge")]
pub(crate) struct ForgeFile {
    /// Address of the forge: GitHub, a GitHub Enterprise Server, or a lab.
    pub(crate) url: String,
    /// File that contains the token; only its owner may be able to read it (mode 0600).
    pub(crate) token_file: Option<PathBuf>,
    /// Name of the environment variable that contains the token.
    pub(crate) token_env: Option<String>,
    /// Name of the systemd credential that contains the token (LoadCredential= of the unit).
    pub(crate) token_credential: Option<String>,
    /// Id of a GitHub App.
    #[schemars(range(min = 1))]
    pub(crate) app_id: Option<u64>,
    /// Id of the App's installation; without it, the installation of the pool's owner is looked up.
    #[schemars(range(min = 1))]
    pub(crate) installation: Option<u64>,
    /// File that contains the App's private key (PEM); only its owner may be able to read it (mode 0600).
    pub(crate) key_file: Option<PathBuf>,
    /// File with certificates of authorities (PEM) that dayfly and the machines trust beside those of the system: for a GitHub
    /// Enterprise Server with an authority of its own, or a proxy that opens TLS.
    pub(crate) ca_file: Option<PathBuf>,
}

impl Default for ForgeFile {
    fn default() -> Self {
        Self {
            url: defaults::FORGE_URL.to_owned(),
            token_file: None,
            token_env: None,
            token_credential: None,
            app_id: None,
            installation: None,
            key_file: None,
            ca_file: None,
        }
    }
}

/// The share of this host that the machines of all pools together may use.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table with the keys of the host's budget")]
pub(crate) struct HostFile {
    /// Virtual CPUs of all machines for each processor of this host, e.g. 2.0; without it, only memory limits the machines.
    #[schemars(range(min = 0.1, max = 64))]
    pub(crate) vcpu_overcommit: Option<f64>,
    /// Memory of all machines as a multiple of this host's memory, because jobs rarely use all of theirs (default 3).
    #[schemars(range(min = 0.1, max = 64))]
    pub(crate) memory_overcommit: Option<f64>,
    /// Most machines of all pools together.
    #[schemars(range(min = 1))]
    pub(crate) max_machines: Option<u32>,
    /// Most machines that start at once (default: the number of processors).
    #[schemars(range(min = 1, max = defaults::STARTS_MAX))]
    pub(crate) max_starts: Option<u32>,
    /// Space that stays free on the disk of the state folder; no machine starts if less is free.
    pub(crate) disk_reserve: Option<Size>,
    /// Most space on the disk for runs, spares and templates of this host; no machine starts that would exceed it.
    pub(crate) scratch: Option<Size>,
    /// Most space on the disk for machines that keep_failed keeps; the oldest ones go (default 20GiB, at most scratch / 4).
    pub(crate) kept: Option<Size>,
}

//! The table of the server for the page and the metrics, `[web]`, as it is written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::defaults;

/// The server for the page and the metrics. It only shows, and is off without this table.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a table with the keys of the server for the page and the metrics"
)]
pub(crate) struct WebFile {
    /// Address and port to listen at, or unix: and the absolute path of a socket; an address that other hosts reach needs
    /// token_file.
    pub(crate) listen: String,
    /// File that contains the token which clients need; only its owner may be able to read it (mode 0600).
    pub(crate) token_file: Option<PathBuf>,
}

impl Default for WebFile {
    fn default() -> Self {
        Self { listen: defaults::WEB_LISTEN.to_owned(), token_file: None }
    }
}

//! The table of the collector of traces, `[traces]`, as it is written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::defaults;

/// The collector that gets a trace of each run by OTLP over HTTP. Without this table no trace is sent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "a table with the keys of the collector of traces")]
pub(crate) struct TracesFile {
    /// Address of the collector, to which /v1/traces is added.
    pub(crate) endpoint: String,
    /// File with headers that the collector wants, one NAME: VALUE a line, such as Authorization: Bearer TOKEN; only its owner
    /// may be able to read it (mode 0600).
    pub(crate) headers_file: Option<PathBuf>,
}

impl Default for TracesFile {
    fn default() -> Self {
        Self { endpoint: defaults::TRACES_ENDPOINT.to_owned(), headers_file: None }
    }
}

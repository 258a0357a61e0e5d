//! The checks of `[traces]`.

use dayfly_traces::Endpoint;

use super::Findings;
use crate::config::file::ConfigFile;
use crate::config::resolved::TracesConfig;

/// Checks the collector of traces. Returns it if the file has one without an error.
pub(super) fn check(file: &ConfigFile, findings: &mut Findings<'_>) -> Option<TracesConfig> {
    let traces = file.traces.as_ref()?;
    let endpoint = findings.take("traces.endpoint", traces.endpoint.parse::<Endpoint>());
    let headers_file = match traces.headers_file.as_ref() {
        None => None,
        file => Some(findings.secret_file("traces.headers_file", file)?),
    };
    let endpoint = endpoint?;
    if endpoint.is_open() && headers_file.is_some() {
        let message =
            format!("{endpoint} is another host without TLS, and others on the way could read the headers");
        findings.error("traces.endpoint", message, Some("give an https address".to_owned()));
        return None;
    }
    Some(TracesConfig { endpoint, headers_file })
}

//! The checks of `[web]`.

use dayfly_web::ListenAddress;

use super::Findings;
use crate::config::file::ConfigFile;
use crate::config::resolved::WebConfig;

/// Checks the server for the page and the metrics. Returns it if the file has one without an error.
pub(super) fn check(file: &ConfigFile, findings: &mut Findings<'_>) -> Option<WebConfig> {
    let web = file.web.as_ref()?;
    let listen = findings.take("web.listen", web.listen.parse::<ListenAddress>());
    let token_file = match web.token_file.as_ref() {
        None => None,
        file => Some(findings.secret_file("web.token_file", file)?),
    };
    let listen = listen?;
    if !listen.is_local() && token_file.is_none() {
        let message = format!("{listen} can be reached from other hosts, and there is no token");
        let hint = "add token_file; `openssl rand -hex 32` makes a token".to_owned();
        findings.error("web.listen", message, Some(hint));
        return None;
    }
    Some(WebConfig { listen, token_file })
}

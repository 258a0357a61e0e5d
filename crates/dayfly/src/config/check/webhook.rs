//! The checks of `[webhook]`.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use super::Findings;
use super::forge::plain;
use crate::config::file::ConfigFile;
use crate::config::pool_file::DemandWord;
use crate::config::resolved::{CertificatePlace, SecretPlace, WebhookConfig};
use crate::config::webhook_file::WebhookFile;
use crate::rules;

/// The keys of which each names the place of the secret.
const PLACES: [&str; 3] = ["secret_file", "secret_env", "secret_credential"];
/// Longest path, bytes.
const PATH_LENGTH_MAX: usize = 200;

fn key(name: &str) -> String {
    format!("webhook.{name}")
}

/// Checks the server for webhooks. Returns it if the file has one without an error.
pub(super) fn check(file: &ConfigFile, findings: &mut Findings<'_>) -> Option<WebhookConfig> {
    let webhook = file.webhook.as_ref()?;
    let is_used = file.pools.values().any(|pool| pool.demand.to_vec().contains(&DemandWord::Webhook));
    if !is_used && !file.pools.is_empty() {
        findings.warning("webhook", "no pool has the demand webhook", None);
    }
    let listen = listen(webhook, findings);
    let path = path(webhook, findings);
    let secret = secret(webhook, findings);
    let certificate = certificate(webhook, findings);
    Some(WebhookConfig {
        listen: listen?,
        path: path?,
        secret: secret?,
        certificate,
        rate_limit: NonZeroU32::new(webhook.rate_limit)?,
    })
}

fn listen(webhook: &WebhookFile, findings: &mut Findings<'_>) -> Option<SocketAddr> {
    let text = &webhook.listen;
    let wrong = |_| format!("{text:?} is no address with a port, such as 127.0.0.1:9440 or [::]:9440");
    let listen = findings.take(&key("listen"), text.parse::<SocketAddr>().map_err(wrong))?;
    let is_plain = !["cert_file", "key_file"].iter().any(|name| findings.positions.has(&key(name)));
    if is_plain && !webhook.behind_proxy && !listen.ip().to_canonical().is_loopback() {
        let message =
            format!("{listen} is not loopback, and without TLS everyone on the way can read the deliveries");
        let hint =
            "give cert_file and key_file; or behind_proxy = true, if a proxy before it adds TLS".to_owned();
        findings.error(&key("listen"), message, Some(hint));
    }
    Some(listen)
}

fn path(webhook: &WebhookFile, findings: &mut Findings<'_>) -> Option<String> {
    let path = &webhook.path;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if path.starts_with('/') && path.len() <= PATH_LENGTH_MAX && path.bytes().all(is_plain) {
        return Some(path.clone());
    }
    let message =
        format!("{path:?} is no path: / and at most {PATH_LENGTH_MAX} letters, digits, -, ., _, ~ or /");
    findings.error(&key("path"), message, None);
    None
}

fn secret(webhook: &WebhookFile, findings: &mut Findings<'_>) -> Option<SecretPlace> {
    let given: Vec<&str> = PLACES.into_iter().filter(|name| findings.positions.has(&key(name))).collect();
    match given[..] {
        [] => {
            let hint =
                "give secret_file, secret_env or secret_credential; `openssl rand -hex 32` makes a secret"
                    .to_owned();
            findings.error(
                "webhook",
                "the webhook has no secret, so anyone could send deliveries",
                Some(hint),
            );
            None
        }
        [first, second, ..] => {
            let message = format!("{first} and {second} are two places of the secret, and one is needed");
            findings.error(&key(second), message, None);
            None
        }
        ["secret_file"] => {
            findings.secret_file(&key("secret_file"), webhook.secret_file.as_ref()).map(SecretPlace::File)
        }
        ["secret_env"] => {
            plain(&key("secret_env"), webhook.secret_env.as_ref()?, findings).map(SecretPlace::Env)
        }
        [_] => plain(&key("secret_credential"), webhook.secret_credential.as_ref()?, findings)
            .map(SecretPlace::Systemd),
    }
}

fn certificate(webhook: &WebhookFile, findings: &mut Findings<'_>) -> Option<CertificatePlace> {
    let (cert, private) = (key("cert_file"), key("key_file"));
    match (findings.positions.has(&cert), findings.positions.has(&private)) {
        (false, false) => return None,
        (true, false) => {
            findings.error(&cert, "the certificate needs its private key: the key key_file is missing", None)
        }
        (false, true) => findings.error(
            &private,
            "the private key needs its certificate: the key cert_file is missing",
            None,
        ),
        (true, true) => {}
    }
    let cert_file = findings.absolute(&cert, webhook.cert_file.as_ref());
    let key_file = findings.absolute(&private, webhook.key_file.as_ref());
    let (cert_file, key_file) = (cert_file?, key_file?);
    findings.on_this_host(&cert, || rules::is_there(&cert_file, "certificate"));
    findings.on_this_host(&private, || rules::secret_file(&key_file));
    Some(CertificatePlace { cert_file, key_file })
}

//! The client for addresses that are no forge's: those to which the lab sends webhooks, and the collector of traces.

use std::time::Duration;

use reqwest::Url;

use crate::error::ForgeError;
use crate::tls;

/// Longest time for a delivery. GitHub waits as long for the answer to a webhook.
const LIMIT: Duration = Duration::from_secs(10);

/// Creates a client that delivers something to an address. It follows no redirect, as GitHub does not, and uses no proxy.
///
/// # Errors
/// [`ForgeError::NoCertificates`] for an https address if the host has no certificate authority.
pub fn delivery_client(url: &Url) -> Result<reqwest::Client, ForgeError> {
    let builder = reqwest::Client::builder()
        .timeout(LIMIT)
        .tls_backend_preconfigured(tls::config(url, None)?)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    builder.build().map_err(|source| ForgeError::Client { source })
}

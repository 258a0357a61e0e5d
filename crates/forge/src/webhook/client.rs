//! The client with which the lab sends deliveries.

use std::time::Duration;

use reqwest::Url;

use crate::error::ForgeError;
use crate::tls;

/// Longest time for a delivery. GitHub waits as long for its answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Creates a client that sends a delivery to an address. It follows no redirect, as GitHub does not, and uses no proxy.
///
/// # Errors
/// [`ForgeError::NoCertificates`] for an https address if the host has no certificate authority.
pub fn client(url: &Url) -> Result<reqwest::Client, ForgeError> {
    let builder = reqwest::Client::builder()
        .timeout(LIMIT)
        .tls_backend_preconfigured(tls::config(url, None)?)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    builder.build().map_err(|source| ForgeError::Client { source })
}

//! [`Forge`]: a connection pool, an address and a credential.

use std::fmt;
use std::time::Duration;

use super::address::ApiBase;
use super::credential::Credential;
use super::error::ForgeError;
use super::{request, tls};

/// Longest time from the first byte that is sent to the last byte that is received.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A forge and the credential for it. Clones share their connections.
#[derive(Clone)]
pub struct Forge {
    pub(crate) http: reqwest::Client,
    base: ApiBase,
    credential: Credential,
}

impl fmt::Debug for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forge")
            .field("base", &self.base)
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

/// Options for the connection to a forge.
#[derive(Clone, Default)]
pub struct ForgeOptions {
    /// An HTTP proxy for the forge, with user and password if it needs them. It is not used for a forge on loopback.
    pub proxy: Option<reqwest::Url>,
    /// Certificate authorities in addition to the system's, in PEM form, for a GHES that has its own authority.
    pub extra_authorities: Option<Vec<u8>>,
}

impl fmt::Debug for ForgeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address of a proxy may hold a password.
        let proxy = self.proxy.as_ref().map(|proxy| proxy.host_str().unwrap_or_default());
        f.debug_struct("ForgeOptions").field("proxy_host", &proxy).finish_non_exhaustive()
    }
}

impl Forge {
    /// Creates a client for the forge at `base`, without a proxy. It sends nothing yet.
    ///
    /// # Errors
    /// [`ForgeError::NoCertificates`] for an https address if the host has no certificate authority.
    pub fn new(base: ApiBase, credential: impl Into<Credential>) -> Result<Self, ForgeError> {
        Self::with_options(base, credential, &ForgeOptions::default())
    }

    /// Creates a client for the forge at `base`. It sends nothing yet.
    ///
    /// # Errors
    /// [`ForgeError::BadCertificates`] and [`ForgeError::Client`] if the options are invalid; otherwise the same as
    /// [`Self::new`].
    pub fn with_options(
        base: ApiBase,
        credential: impl Into<Credential>,
        options: &ForgeOptions,
    ) -> Result<Self, ForgeError> {
        let client = |source| ForgeError::Client { source };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("dayfly/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .tls_backend_preconfigured(tls::config(base.url(), options.extra_authorities.as_deref())?)
            // `request` follows those redirects that are harmless.
            .redirect(reqwest::redirect::Policy::none())
            // The caller decides whether the environment's proxy settings apply.
            .no_proxy();
        if let Some(proxy) = options.proxy.clone().filter(|_| !base.is_loopback()) {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(client)?);
        }
        Ok(Self { http: builder.build().map_err(client)?, base, credential: credential.into() })
    }

    /// Returns the address of the REST API.
    pub fn base(&self) -> &ApiBase {
        &self.base
    }

    /// Returns the credential, which also counts the calls.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Checks that the forge answers and accepts the credential.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn check(&self) -> Result<(), ForgeError> {
        let call = request::Call::get("check the credential", self.base.join("")?);
        self.send(call).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debugging_output_shows_no_password_of_a_proxy() {
        let proxy = reqwest::Url::parse("http://jane:s3cret@proxy:3128").ok();
        let text = format!("{:?}", ForgeOptions { proxy, ..ForgeOptions::default() });
        assert!(text.contains("\"proxy\"") && !text.contains("s3cret") && !text.contains("jane"), "{text}");
    }
}

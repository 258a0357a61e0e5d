//! [`Forge`]: a connection pool, an address and a token.

use std::fmt;
use std::time::Duration;

use super::address::ApiBase;
use super::error::ForgeError;
use super::{request, tls};

/// From the first byte sent to the last one got.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A forge and the token for it. Clones share their connections.
#[derive(Clone)]
pub struct Forge {
    pub(crate) http: reqwest::Client,
    base: ApiBase,
    pub(crate) token: String,
}

impl fmt::Debug for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forge").field("base", &self.base).field("token", &"secret").finish_non_exhaustive()
    }
}

/// How a forge is reached, beside its address.
#[derive(Debug, Clone, Default)]
pub struct ForgeOptions {
    /// An HTTP proxy for it, with its user and password if it needs them. A forge on loopback is never asked through one.
    pub proxy: Option<reqwest::Url>,
    /// Certificate authorities beside the system's, in PEM form, for a GHES with one of its own.
    pub extra_authorities: Option<Vec<u8>>,
}

impl Forge {
    /// A client for the forge at `base`, reached without a proxy. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ForgeError::NoCertificates`] for an https address on a host that knows no certificate authority.
    pub fn new(base: ApiBase, token: impl Into<String>) -> Result<Self, ForgeError> {
        Self::with_options(base, token, &ForgeOptions::default())
    }

    /// A client for the forge at `base`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ForgeError::BadCertificates`] and [`ForgeError::Client`] for options that cannot be, and as [`Self::new`].
    pub fn with_options(
        base: ApiBase,
        token: impl Into<String>,
        options: &ForgeOptions,
    ) -> Result<Self, ForgeError> {
        let client = |source| ForgeError::Client { source };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("dayfly/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .tls_backend_preconfigured(tls::config(base.url(), options.extra_authorities.as_deref())?)
            // What the environment says of proxies is for the caller to read.
            .no_proxy();
        if let Some(proxy) = options.proxy.clone().filter(|_| !base.is_loopback()) {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(client)?);
        }
        Ok(Self { http: builder.build().map_err(client)?, base, token: token.into() })
    }

    /// The REST API's address.
    pub fn base(&self) -> &ApiBase {
        &self.base
    }

    /// Asks the forge whether it is there and takes the token.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn check(&self) -> Result<(), ForgeError> {
        let call = request::Call::get("check the token", self.base.join("")?);
        self.send(call).await.map(drop)
    }
}

//! The certificate of the server.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// A certificate with its chain and its private key.
#[derive(Clone)]
pub struct WebhookTls(pub(super) Arc<ServerConfig>);

impl fmt::Debug for WebhookTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookTls").finish_non_exhaustive()
    }
}

/// The reason why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum WebhookTlsError {
    /// The chain cannot be read.
    #[error("the certificate is no PEM: {why}")]
    Certificate {
        /// The cause.
        why: String,
    },
    /// The key cannot be read.
    #[error("the private key is no PEM: {why}")]
    Key {
        /// The cause.
        why: String,
    },
    /// The key and the certificate do not belong together, or are of a kind that is not supported.
    #[error("the certificate and the private key cannot be used together")]
    Pair(#[from] rustls::Error),
}

impl WebhookTls {
    /// Reads a certificate with its chain, the server's own first, and its private key, both in PEM form.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, WebhookTlsError> {
        let bad = |why: String| WebhookTlsError::Certificate { why };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| bad(error.to_string()))?;
        if chain.is_empty() {
            return Err(bad("there is no certificate in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| WebhookTlsError::Key { why: error.to_string() })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self(Arc::new(config)))
    }
}

//! TLS settings: the certificate authorities that are trusted for an https address.

use std::error::Error;
use std::sync::Arc;

use reqwest::Url;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::error::ForgeError;

/// Returns the TLS settings for a forge at `url`. Trusted are the certificate authorities of this system (or of the file
/// in `SSL_CERT_FILE`, a variable that the crate `rustls_native_certs` reads) and those in `more`, a text in PEM form.
///
/// The system's authorities are read only for an https address, so that a host without any authority can connect to its
/// own lab.
pub(super) fn config(url: &Url, more: Option<&[u8]>) -> Result<ClientConfig, ForgeError> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = more {
        let bad = |why: String| ForgeError::BadCertificates { why };
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("the text contains no certificate".to_owned()));
        }
    }
    if url.scheme() == "https" {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(ForgeError::NoCertificates { url: url.to_string(), why });
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| ForgeError::Tls { source })?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// Returns true if the cause of an error is an untrusted certificate.
pub fn is_of_certificate(error: &(dyn Error + 'static)) -> bool {
    // The `source` of an I/O error that wraps another error is the cause of that error, which skips the wrapped error
    // itself.
    if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        return is_of_certificate(inner);
    }
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
        || error.source().is_some_and(is_of_certificate)
}

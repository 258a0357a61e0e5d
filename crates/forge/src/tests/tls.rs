//! Tests with forges that are reached by https or through a proxy.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::server::{Server, serve_one};
use crate::{ApiBase, Forge, ForgeError, ForgeOptions};

/// Starts a TLS server on loopback with its own certificate. Returns its port and the certificate as PEM.
async fn https_forge() -> (u16, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let pem =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(&certificate));
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_one(stream, &Mutex::default(), &|_| (200, "{}".to_owned())).await;
            }
        }
    });
    (port, pem.into_bytes())
}

fn base(text: &str) -> ApiBase {
    ApiBase::from_host_or_url(text).unwrap()
}

#[tokio::test]
async fn a_forge_whose_certificate_is_trusted_is_spoken_to() {
    let (port, pem) = https_forge().await;
    let options = ForgeOptions { extra_authorities: Some(pem), ..ForgeOptions::default() };
    let forge = Forge::with_options(base(&format!("https://localhost:{port}")), "secret", &options).unwrap();
    forge.check().await.unwrap();
}

#[tokio::test]
async fn a_forge_with_a_certificate_of_nobody_or_of_another_host_is_not() {
    let (port, pem) = https_forge().await;
    let (_, of_another) = https_forge().await;
    let trusting = |pem: Vec<u8>| ForgeOptions { extra_authorities: Some(pem), ..ForgeOptions::default() };
    let cases = [
        (format!("https://localhost:{port}"), trusting(of_another)),
        (format!("https://127.0.0.1:{port}"), trusting(pem)),
    ];
    for (url, options) in cases {
        let forge = Forge::with_options(base(&url), "secret", &options).unwrap();
        let error = forge.check().await.unwrap_err();
        assert!(matches!(error, ForgeError::Certificate { .. }), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn additional_authorities_that_are_none_are_refused() {
    for junk in [&b""[..], b"junk", b"-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n"] {
        let options = ForgeOptions { extra_authorities: Some(junk.to_vec()), ..ForgeOptions::default() };
        let error = Forge::with_options(base("http://127.0.0.1:1"), "x", &options).unwrap_err();
        assert!(matches!(error, ForgeError::BadCertificates { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_forge_elsewhere_and_never_for_one_on_loopback() {
    let proxy = Server::plain(|_| (200, "{}".to_owned())).await;
    let options = ForgeOptions { proxy: Some(proxy.url().parse().unwrap()), ..ForgeOptions::default() };
    // This name cannot be resolved, so only the proxy can have answered.
    let far = Forge::with_options(base("http://forge.invalid"), "x", &options).unwrap();
    far.check().await.unwrap();
    assert!(proxy.heads()[0].starts_with("GET http://forge.invalid/api/v3/ "), "{:?}", proxy.heads());

    let near = Server::plain(|_| (200, "{}".to_owned())).await;
    let forge = Forge::with_options(base(&near.url()), "x", &options).unwrap();
    forge.check().await.unwrap();
    assert_eq!((near.heads().len(), proxy.heads().len()), (1, 1));
}

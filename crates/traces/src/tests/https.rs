//! Tests with a collector that is reached by https.
//!
//! The trusted authorities are those of `SSL_CERT_FILE`, which a process reads for itself. So each case runs in a child: this
//! test again, with the variables of the case.

#![expect(clippy::print_stdout, reason = "the child tells its result")]

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::collector::{Collector, Refusal};

/// The address of the collector, which only the child has.
const ADDRESS: &str = "DAYFLY_TEST_COLLECTOR";
/// The name of this test, for its child.
const NAME: &str = "tests::https::traces_go_only_to_a_collector_whose_certificate_is_trusted";

/// A certificate authority of its own.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let body = BASE64.encode(certificate.der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// Starts a collector for `127.0.0.1` with a certificate of this authority.
    fn collector(&self) -> TestCollector {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a server");
        let config = Arc::new(config);
        let open = move |stream: TcpStream| {
            let connection = ServerConnection::new(Arc::clone(&config)).map_err(std::io::Error::other)?;
            Ok(StreamOwned::new(connection, stream))
        };
        TestCollector::start_within("https", [], open).expect("a collector")
    }
}

/// Sends one trace. Prints the counts, and the reason of a refusal.
async fn send(url: &str) {
    let (mut writer, exporter, _folder) = match opened(url) {
        Ok(ends) => ends,
        Err(error) => return println!("RESULT {error}"),
    };
    end(&mut writer, "1-aaaaaaa");
    drop(writer);
    let counts = exporter.counts();
    exporter.run().await;
    let collector = Collector::new(&url.parse().expect("an address"), &Headers::default()).expect("a client");
    let refusal = match collector.post(Vec::new()).await {
        Ok(_) => "taken".to_owned(),
        Err(Refusal::ForGood { why }) => format!("for good: {why}"),
        Err(Refusal::ForNow { why, .. }) => format!("for now: {why}"),
    };
    println!("RESULT sent {} lost {} {refusal}", counts.sent(), counts.lost());
}

/// Runs the child with the authorities of a file. Returns its result.
fn sent_by_child(url: &str, authorities: &Path) -> String {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", NAME, "--nocapture"])
        .env(ADDRESS, url)
        .env("SSL_CERT_FILE", authorities)
        .env_remove("SSL_CERT_DIR")
        .output()
        .expect("the child");
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    let result = text.lines().find_map(|line| Some(line.split_once("RESULT ")?.1.to_owned()));
    result.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&child.stderr)))
}

#[tokio::test]
async fn traces_go_only_to_a_collector_whose_certificate_is_trusted() {
    if let Ok(url) = std::env::var(ADDRESS) {
        return send(&url).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).expect("written");
        path
    };
    let (ours_file, other_file) = (file("ours.pem", &ours.pem), file("other.pem", &other.pem));
    let collector = ours.collector();
    let began = Instant::now();
    let results = [
        sent_by_child(&collector.url, &ours_file),
        sent_by_child(&collector.url, &other_file),
        sent_by_child(&collector.url.replace("127.0.0.1", "localhost"), &ours_file),
        sent_by_child(&collector.url, &folder.path().join("missing.pem")),
    ];
    // None of them is tried again, so that nobody waits.
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(collector.spans().iter().filter(|span| span.parent_span_id.is_empty()).count(), 1);
    let port = collector.url.rsplit(':').next().expect("a port");
    let shown = results.join("\n").replace(port, "PORT").replace(&folder.path().display().to_string(), "DIR");
    insta::assert_snapshot!(shown);
}

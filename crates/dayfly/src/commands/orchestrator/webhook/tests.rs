//! Tests of the start of the server for webhooks: port, secret, certificate.

use std::fs::File;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tempfile::TempDir;

use super::*;
use crate::config::SecretPlace;

fn private(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    path
}

fn config(secret: PathBuf) -> WebhookConfig {
    WebhookConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        path: "/webhook".to_owned(),
        secret: SecretPlace::File(secret),
        certificate: None,
        rate_limit: NonZeroU32::new(100).expect("not zero"),
    }
}

fn refusal(config: &WebhookConfig) -> Failure {
    listen(config).map(|_| ()).expect_err("refused")
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_with_its_address_and_the_remedy() {
    let folder = tempfile::tempdir().expect("folder");
    let free = config(private(&folder, "secret", "s3cret\n"));
    let first = listen(&free).expect("a port");
    let address = first.url.split('/').nth(2).expect("an address");
    let taken = WebhookConfig { listen: address.parse().expect("an address"), ..free };
    let failure = refusal(&taken);
    assert!(
        failure.to_string().starts_with(&format!("cannot listen for webhooks at {address}: ")),
        "{failure}"
    );
    assert!(failure.what_to_do().is_some_and(|hint| hint.contains("webhook.listen")));
    assert_eq!(failure.code(), 3);
}

#[tokio::test]
async fn a_secret_is_one_line_in_a_private_file_and_its_line_end_does_not_count() {
    let folder = tempfile::tempdir().expect("folder");
    let secret = |text: &str| secret(&config(private(&folder, "secret", text)));
    let (with, without) = (secret("s3cret\n").expect("good"), secret("s3cret").expect("good"));
    assert!(with.verifies(b"x", &without.sign(b"x")));
    assert!(secret("\n").expect_err("refused").to_string().contains("is empty"));
    assert!(secret("a\nb").expect_err("refused").to_string().contains("one line"));
    let open = private(&folder, "open", "s3cret");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("a mode");
    let failure = refusal(&config(open));
    assert!(failure.to_string().starts_with("webhook: cannot use the webhook's secret in "), "{failure}");
    assert!(!failure.to_string().contains("s3cret"));
    let missing = refusal(&config(folder.path().join("none")));
    assert!(missing.to_string().contains("cannot read the webhook's secret from "), "{missing}");
}

/// Writes a new certificate and its key. `age_s` is the age of both files.
fn renew(folder: &TempDir, age_s: u64) -> CertificatePlace {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let pem = |kind: &str, der: &[u8]| {
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64.encode(der))
    };
    let cert_file = private(folder, "cert.pem", &pem("CERTIFICATE", made.cert.der()));
    let key_file = private(folder, "key.pem", &pem("PRIVATE KEY", &made.signing_key.serialize_der()));
    let changed = SystemTime::now() - Duration::from_secs(age_s);
    for file in [&cert_file, &key_file] {
        File::options().append(true).open(file).and_then(|file| file.set_modified(changed)).expect("a time");
    }
    CertificatePlace { cert_file, key_file }
}

#[test]
fn a_renewed_certificate_serves_new_connections_and_a_broken_one_none() {
    let folder = tempfile::tempdir().expect("folder");
    let mut renewal = Renewal::new(&renew(&folder, 300)).expect("a certificate");
    let mut current = renewal.current.subscribe();
    renewal.look().expect("nothing new");
    assert!(!current.has_changed().expect("open"));
    renew(&folder, 200);
    renewal.look().expect("a new one");
    assert!(current.has_changed().expect("open"));
    current.mark_unchanged();

    let place = renew(&folder, 100);
    fs::write(&place.cert_file, "half of it").expect("written");
    let failure = renewal.look().expect_err("broken");
    assert!(failure.to_string().contains("cert.pem") && failure.to_string().contains("no PEM"), "{failure}");
    assert!(!current.has_changed().expect("open"));
    renewal.look().expect("told once");
    renew(&folder, 0);
    renewal.look().expect("whole again");
    assert!(current.has_changed().expect("open"));
}

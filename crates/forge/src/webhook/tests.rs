//! Tests of deliveries, and of the server over loopback.

#![expect(clippy::unwrap_used, reason = "tests")]

mod delivery;
mod server;

use super::WebhookSecret;

/// Returns the secret of the tests.
fn secret() -> WebhookSecret {
    WebhookSecret::new("s3cret".into()).unwrap()
}

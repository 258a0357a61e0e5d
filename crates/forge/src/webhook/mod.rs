//! Webhooks: the deliveries by which a forge reports each change of a job (`workflow_job`). A [`WebhookServer`] takes them
//! for all pools of a process.
//!
//! ```text
//! request ──> path, method, rate, length ──> signature of the raw body ──> delivery (JSON or form) ──> queue of each pool
//!             404   405     429   413        401, never parsed             400                         503 if one is full
//! ```
//!
//! A forge waits ten seconds for the answer and does not repeat a delivery that failed. It may deliver late, twice, or in
//! another order, so a reader of a [`WebhookQueue`] must expect that (docs.github.com, "Handling webhook deliveries").
//!
//! The lab signs its own deliveries with the same [`WebhookSecret`].

mod bucket;
mod delivery;
mod queue;
mod refusal;
mod server;
mod signature;
#[cfg(test)]
mod tests;
mod tls;

pub use delivery::{JobAction, JobDelivery, Webhook, WebhookError, WebhookHeaders};
pub use queue::{WebhookQueue, WebhookQueues};
pub use server::{WebhookOptions, WebhookServer};
pub use signature::WebhookSecret;
pub use tls::{WebhookTls, WebhookTlsError};

/// Name of the header with the kind of the event.
pub const EVENT_HEADER: &str = "x-github-event";
/// Name of the header with the id of the delivery. A delivery that is sent again has the same id.
pub const DELIVERY_HEADER: &str = "x-github-delivery";
/// Name of the header with the signature.
pub const SIGNATURE_HEADER: &str = "x-hub-signature-256";

//! Traces: one for each run, from the time at which its job was queued until all of it is gone.
//!
//! ```text
//!   facts ──> TraceWriter ──> queue ──> Exporter ──> POST /v1/traces ──> collector
//!             fold (pure)     bounded   a task of its own: holds, builds spans (pure), sends, tries again
//! ```
//!
//! The loop of the process adds a fact to a fold and never waits: if the queue is full, the trace is dropped and counted. A run
//! that ends is held for some seconds, because the forge may report the end of its job later. A slow or dead collector costs
//! traces and nothing else.
//!
//! The messages are those of the OpenTelemetry protocol, OTLP 1.x over HTTP with protobuf. The names of attributes follow the
//! semantic conventions for CI/CD where these have one; the others begin with `dayfly.`. The exporter of the OpenTelemetry SDK
//! is not used: it traces the code that runs, while these spans are made afterwards, and it reads the environment.
//!
//! This crate prints nothing, reads no environment variable, and knows no command line.

mod collector;
mod counts;
mod endpoint;
mod exporter;
mod headers;
mod held;
mod open_runs;
mod spans;
#[cfg(any(test, feature = "test-collector"))]
pub mod test_collector;
#[cfg(test)]
mod tests;
mod writer;

pub use counts::TraceCounts;
pub use endpoint::{Endpoint, EndpointError};
pub use exporter::{Exporter, ExporterOptions, PoolRepositories, channel};
pub use headers::{Headers, HeadersError};
pub use writer::TraceWriter;

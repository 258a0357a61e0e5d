//! Machines that start from others: templates, their forks, and spares.
//!
//! ```text
//!   template ──> Opened ──┬──> spares: stopped forks, created before they are needed
//!                         └──> ForkOrigin: spare, else fork, else boot ──StartSource──> machine
//!   machine ──> kept: frozen to disk after its job has failed ──> machine
//! ```
//!
//! This layer stands above [`crate::machine`], which only asks its [`StartSource`](crate::machine::StartSource) for the next
//! start and tells it how the start went.

pub mod kept;
mod origin;
mod parts;
mod spares;
mod start;
pub mod template;

pub use spares::Spares;
pub(crate) use start::start;

/// Host name of a machine that does not belong to a runner yet.
const NEUTRAL_HOSTNAME: &str = "dayfly";

//! Where jobs come from.
//!
//! - [`client`] speaks to GitHub-like forges: it registers runners and starts workflows;
//! - [`lab`] is such a forge of dayfly's own, in this process or behind `dayfly lab serve`;
//! - [`workflow`] and [`expression`] are what the lab knows of workflow files; they are pure;
//! - [`jit`] is the blob that makes a program a runner; client and lab share it.
//!
//! Nothing here knows of virtual machines, prints, or reads the environment.

pub mod client;
pub mod expression;
pub mod jit;
pub mod lab;
mod proof;
mod secret;
pub mod workflow;

/// What an address of a forge is.
pub use reqwest::Url;

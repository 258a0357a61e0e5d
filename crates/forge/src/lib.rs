//! A client of GitHub-like forges: GitHub, GHES and the lab. It registers runners and starts workflows.
//!
//! - [`Forge`] is the client: the address of a forge and a [`Credential`];
//! - [`Credential`] is a token or a GitHub App, with a budget of calls that all clients share;
//! - [`ForgeUse`] is the table of the permissions that each use needs;
//! - [`jit`] reads and writes JIT configs, which make a program a runner;
//! - [`scale_set`] speaks the protocol of scale sets, which tells how many runners a forge needs;
//! - [`webhook`] takes the deliveries by which a forge reports each change of a job;
//! - [`proof`] lets a lab prove that it runs on this host; the lab implements the other half.
//!
//! The client repeats a call a few times if the connection or the forge fails and if repeating it does no harm. It requests a JIT
//! config only once, because the first call may have registered a runner although its answer was lost. It holds calls back if
//! the forge's limits demand it, the least important ones first ([`Importance`]).
//!
//! This crate has no code for virtual machines. It prints nothing and does not read the environment.

mod address;
mod answer;
mod app;
mod budget;
mod client;
mod credential;
mod delivery_client;
mod error;
mod examine;
pub mod jit;
mod lab;
mod open_jobs;
mod permission;
pub mod proof;
#[cfg(any(test, feature = "fuzzing"))]
pub mod properties;
mod registration;
mod request;
mod retry;
mod runner;
mod running_lab;
pub mod scale_set;
mod scope;
#[cfg(test)]
mod tests;
mod tls;
pub mod webhook;
mod workflow;

pub use address::ApiBase;
pub use answer::{GithubJob, GithubRun, GithubRunner, GithubStep, RunnerLabel};
pub use app::{AppError, AppKey, AppKeyError, AppManifest, GithubApp, Installation, NewApp};
pub use budget::{CallCounts, CallEnd, Importance, RateLimit, Usage};
pub use client::{Forge, ForgeOptions};
pub use credential::{Credential, CredentialKind};
pub use delivery_client::delivery_client;
pub use error::ForgeError;
pub use examine::{Place, TokenFacts};
pub use lab::ProvenLab;
pub use open_jobs::OpenJobs;
pub use permission::{Access, ForgeUse, Permission, PermissionLevel};
pub use registration::RegistrationToken;
/// The type of a forge's address.
pub use reqwest::Url;
pub use runner::{Deletion, JitRequest, NewRunner};
pub use scope::{RunnerScope, ScopeError, ScopeKind};
pub use tls::is_of_certificate;
pub use workflow::Dispatch;

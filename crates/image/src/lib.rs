//! Images: what machines boot, made once and shared by all of them.
//!
//! ```text
//!   <state>/images/
//!     <id>/                 whole, or not there
//!       root.squashfs       root file system; a shared lock on it means that a machine uses it
//!       kernel, initramfs   the initramfs holds kernel modules only
//!       manifest.json       what is in it, and from what it was made
//!       build.log
//!     .build/<id>/          being built; a rename makes it whole
//!     .build/<id>.lock      held by who builds it
//! ```
//!
//! An id is the digest of all that goes in: suite, package list, scripts, runner app, and the builder's version; of an image
//! from elsewhere its layers and what the host adds. The same inputs give the same id, and then there is nothing to do.

mod additions;
mod apt;
mod background;
mod build;
mod command;
mod debian;
mod error;
mod gc;
mod go;
mod import;
mod kernel;
mod manifest;
mod modules;
mod names;
pub mod oci;
mod once;
mod packages;
mod progress;
mod recipe;
mod resolver;
mod runner_app;
mod store;
mod tools;

pub use background::in_background;
pub use build::{BuildSettings, build};
pub use error::ImageError;
pub use gc::Collected;
pub use go::Go;
pub use import::{ImportSettings, Imported, PullPolicy, import};
pub use kernel::{KernelBundle, KernelManifest, kernel};
pub use manifest::{FileDigest, Manifest, Origin, RunnerAppManifest};
pub use progress::{Cancel, Progress};
pub use resolver::ImageResolver;
pub use runner_app::{RunnerApp, runner_app};
pub use store::{Image, Store};
pub use tools::{Tools, ToolsManifest, tools};

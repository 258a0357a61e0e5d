//! Images that machines boot. Each is built once and shared by all machines.
//!
//! ```text
//!   <state>/images/
//!     <id>/                 complete, or absent
//!       root.squashfs       root file system; a shared lock on it means that a machine uses it
//!       kernel, initramfs   the initramfs holds kernel modules only
//!       manifest.json       its content and its inputs
//!       build.log
//!     .build/<id>/          being built; a rename publishes it
//!     .build/<id>.lock      held by the process that builds it
//! ```
//!
//! An id is the digest of all inputs. For a built image they are suite, package list, scripts, runner app, and the builder's
//! version; for an imported image, its layers and the host's additions. The same inputs give the same id, so that nothing is
//! built twice. Only age is no input: [`keep_fresh`] builds the next generation of the same inputs, which has an id of its own.

mod additions;
mod age;
mod apt;
mod background;
mod build;
mod command;
mod converter;
mod debian;
mod error;
mod gc;
mod generations;
mod go;
mod import;
mod in_use;
mod kernel;
mod manifest;
mod modules;
mod names;
pub mod oci;
mod once;
mod packages;
mod progress;
mod recipe;
mod refresh;
mod resolver;
mod runner_app;
mod series;
mod store;
mod tools;

pub use age::{Age, MAX_AGE_DEFAULT};
pub use background::in_background;
pub use build::{BuildSettings, build};
pub use error::ImageError;
pub use gc::{Collected, Item, Kind};
pub use go::Go;
pub use import::{ImportSettings, Imported, PullPolicy, import};
pub use in_use::InUse;
pub use kernel::{KernelBundle, KernelManifest, kernel};
pub use manifest::{Bundles, FileDigest, Manifest, Origin, RunnerAppManifest};
pub use progress::{Cancel, Progress};
pub use refresh::{AgingPart, Part, Refresh, aging, keep_fresh};
pub use resolver::{Accept, ImageResolver};
pub use runner_app::{RunnerApp, runner_app};
pub use store::{Image, Store};
pub use tools::{Tools, ToolsManifest, is_tool, tools};

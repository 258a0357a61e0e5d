//! The code that the host and a dayfly guest share: their protocol, the formats of shared files, and facts about runner
//! apps.
//!
//! The binary of the same name runs in the machine. The host links only this library.

pub mod envfile;
pub mod environment;
pub mod finding;
pub mod hooks;
pub mod origin;
pub mod os_release;
pub mod packages;
pub mod protocol;
pub mod runner_app;
pub mod variables;

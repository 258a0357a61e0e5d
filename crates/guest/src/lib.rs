//! What the host and a dayfly guest have in common: the protocol they speak, the files they share, and what is
//! known of runner apps.
//!
//! The binary of the same name is what runs in the machine. The host links only this library.

pub mod envfile;
pub mod environment;
pub mod finding;
pub mod os_release;
pub mod packages;
pub mod protocol;
pub mod runner_app;
pub mod variables;

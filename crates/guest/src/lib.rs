//! What the host and a dayfly guest have in common: the protocol they speak, and what is known of runner apps.
//!
//! The binary of the same name is what runs in the machine. The host links only this library.

pub mod protocol;

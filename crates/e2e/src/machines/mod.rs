//! Starts single machines for tests and the bench: the built-in image at the default size, with a command instead of the
//! runner app.

mod apart;
mod disk;
mod said;
mod stage;

pub use apart::enter_network_namespace;
pub use disk::{Disk, Filler};
pub use said::Said;
pub use stage::{Error, Stage, script};

//! Messages of process 1 on the machine's console.

use std::io::Write as _;

/// Start of each line.
pub(crate) const PREFIX: &str = "dayfly-guest: ";

/// Prints one line. Errors are ignored, because nothing can be done if there is no console.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("{PREFIX}{text}\n").as_bytes());
}

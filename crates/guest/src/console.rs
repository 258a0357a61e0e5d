//! What process 1 says on the machine's console.

use std::io::Write as _;

/// Prints one line. Nothing can be done where there is no console, so errors do not count.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("dayfly-guest: {text}\n").as_bytes());
}

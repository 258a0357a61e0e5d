//! Messages of process 1 on the machine's console, and the output of commands that people and jobs read.

use std::io::Write as _;

/// Start of each line.
pub(crate) const PREFIX: &str = "dayfly-guest: ";

/// Prints one line. Errors are ignored, because nothing can be done if there is no console.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("{PREFIX}{text}\n").as_bytes());
}

/// Prints a text to standard output, at once. Errors are ignored: if nothing reads it any more, the command goes on.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush());
}

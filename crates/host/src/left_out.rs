//! Tells what tests leave out because this process is not root, so that nothing is left out in silence.

use std::fs::File;
use std::io::Write as _;

/// The variable that names the file to which tests write what they leave out. `scripts/test` prints its lines.
const FILE: &str = "DAYFLY_TEST_LEFT_OUT";

/// Returns true if this process is root. Otherwise says that the calling test is left out, because only root may do this.
///
/// # Panics
/// Panics if the file that `DAYFLY_TEST_LEFT_OUT` names cannot be written.
#[must_use]
#[expect(clippy::print_stderr, reason = "it is for those who run the tests")]
pub fn root_may(what: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    // The harness of the standard library names the thread of a test after it.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    let test = test.rsplit("::").next().unwrap_or(test);
    let line = format!("{test}: only root may {what}\n");
    match std::env::var_os(FILE) {
        // In one write, because the programs of several tests append to it.
        Some(path) => {
            let file = File::options().append(true).create(true).open(path);
            file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the list of what is left out");
        }
        None => eprint!("left out: {line}"),
    }
    false
}

//! The log of an image's steps: their own lines, and with `-v` the lines of all programs that they run.

use std::fs::File;
use std::io::Write as _;
use std::sync::Mutex;

/// The default destination: standard error.
const USUAL: &str = "2";

pub(super) struct Log {
    name: &'static str,
    to: Option<Mutex<File>>,
    verbose: bool,
}

impl Log {
    /// Opens the log. `to` is a descriptor's number or a path. If it cannot be opened, this is reported on standard
    /// error, which then gets the lines, because the image matters more than the log.
    pub(super) fn open(name: &'static str, to: Option<&str>, verbose: Option<&str>) -> Self {
        let verbose = !matches!(verbose, None | Some("0"));
        let to = to.unwrap_or(USUAL);
        let opened = crate::sink::open(to);
        if let Err(error) = &opened {
            crate::console::say(&format!("{name}: cannot write the log {to}: {error}"));
        }
        let to = opened.or_else(|_| crate::sink::open(USUAL)).ok().map(Mutex::new);
        Self { name, to, verbose }
    }

    /// Logs a line.
    pub(super) fn say(&self, text: &str) {
        let Some(to) = &self.to else { return };
        let line = format!("{}: {text}\n", self.name);
        // If the log has no reader, nothing can be done.
        let _ = to.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(line.as_bytes());
    }

    /// Logs a line that only `-v` shows.
    pub(super) fn detail(&self, text: &str) {
        if self.verbose {
            self.say(text);
        }
    }
}

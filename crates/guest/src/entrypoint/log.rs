//! What the entrypoint prints: the app's lines and its own words.

use dayfly_guest::runner_app::relay;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Standard output, and a file beside it where one is asked for.
pub(super) struct Log {
    runner_id: String,
    file: Option<Mutex<File>>,
    verbose: bool,
}

impl Log {
    /// A file that cannot be written is said and done without: the runner matters more than its log.
    pub(super) fn open(runner_id: &str, path: Option<&Path>, verbose: bool) -> Self {
        let open = |path| File::options().append(true).create(true).mode(0o600).open(path);
        let (file, error) = match path.map(open).transpose() {
            Ok(file) => (file.map(Mutex::new), None),
            Err(error) => (None, Some(error)),
        };
        let log = Self { runner_id: runner_id.to_owned(), file, verbose };
        if let (Some(error), Some(path)) = (error, path) {
            log.say(&format!("cannot write the log {}: {error}", path.display()));
        }
        log
    }

    /// A line of its own.
    pub(super) fn say(&self, text: &str) {
        self.print("entrypoint", text);
    }

    /// A line that only `-v` shows.
    pub(super) fn detail(&self, text: &str) {
        if self.verbose {
            self.say(text);
        }
    }

    /// A line of the runner app.
    pub(super) fn relay(&self, text: &str) {
        self.print("runner", text);
    }

    fn print(&self, source: &str, text: &str) {
        let mut line = relay(source, &self.runner_id, text);
        line.push('\n');
        // One write for each line keeps lines of different threads whole. Nobody reads: nothing to be done.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
        if let Some(file) = &self.file {
            let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        }
    }
}

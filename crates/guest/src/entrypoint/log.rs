//! The entrypoint's log: its own lines, and the lines of all programs that it runs.

use dayfly_guest::runner_app::relay;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Largest number of bytes that are stored for one source.
const KEPT_MAX: usize = 16 * 1024 * 1024;

/// The destinations of all lines: standard output, another descriptor or file if one is requested, and a folder of files.
pub(super) struct Log {
    runner_id: String,
    copy: Option<Mutex<File>>,
    kept: OnceLock<Kept>,
    verbose: AtomicBool,
}

/// A folder with a file for each source of lines.
struct Kept {
    folder: PathBuf,
    files: Mutex<HashMap<&'static str, KeptFile>>,
}

/// The file and the number of bytes in it; `None` if no more can be written.
type KeptFile = Option<(File, usize)>;

impl Log {
    /// Opens the log. `to` is a descriptor's number or a path. If it cannot be opened, this is logged and the run
    /// continues without it, because the runner matters more than its log. Call this before anything else opens a file,
    /// so that a number means the same descriptor as when this process started.
    pub(super) fn open(runner_id: &str, to: Option<&str>, verbose: bool) -> Self {
        let (copy, error) = match to.map(open_copy).transpose() {
            Ok(copy) => (copy.flatten().map(Mutex::new), None),
            Err(error) => (None, Some(error)),
        };
        let log =
            Self { runner_id: runner_id.to_owned(), copy, kept: OnceLock::new(), verbose: verbose.into() };
        if let (Some(error), Some(to)) = (error, to) {
            log.say(&format!("cannot write the log {to}: {error}"));
        }
        log
    }

    /// Sets whether details are logged from now on.
    pub(super) fn set_verbose(&self, verbose: bool) {
        self.verbose.store(verbose, Ordering::Relaxed);
    }

    /// Stores all lines from now on in files in `folder`. If the folder cannot be created, no lines are stored.
    pub(super) fn keep_in(&self, folder: &Path) {
        if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(folder) {
            return self.detail(&format!("lines are not kept in {}: {error}", folder.display()));
        }
        // Only the first call counts.
        let _ = self.kept.set(Kept { folder: folder.to_owned(), files: Mutex::default() });
    }

    /// Logs a line of the entrypoint's own.
    pub(super) fn say(&self, text: &str) {
        self.relay("entrypoint", text);
    }

    /// Logs a line that only `-v` shows.
    pub(super) fn detail(&self, text: &str) {
        if self.verbose.load(Ordering::Relaxed) {
            self.say(text);
        }
    }

    /// Relays a line of a program.
    pub(super) fn relay(&self, source: &'static str, text: &str) {
        let mut line = relay(source, &self.runner_id, text);
        line.push('\n');
        // One write for each line keeps the lines of different threads whole. Errors are ignored: if the output has no
        // reader, nothing can be done.
        let _ = io::stdout().lock().write_all(line.as_bytes());
        if let Some(copy) = &self.copy {
            let _ = copy.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        }
        if let Some(kept) = self.kept.get() {
            kept.write(&self.runner_id, source, text);
        }
    }
}

/// Opens the copy; `None` for standard output, which gets every line anyway.
fn open_copy(to: &str) -> io::Result<Option<File>> {
    if to.parse() == Ok(1) { Ok(None) } else { crate::sink::open(to).map(Some) }
}

impl Kept {
    fn write(&self, runner_id: &str, source: &'static str, text: &str) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.entry(source).or_insert_with(|| {
            let path = self.folder.join(format!("{runner_id}.{source}.log"));
            let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let open = File::options().append(true).create(true).mode(0o640).custom_flags(flags).open(path);
            open.ok().map(|file| (file, 0))
        });
        let Some((open, length)) = file else { return };
        *length += text.len() + 1;
        let full = *length > KEPT_MAX;
        let line = if full { "... (no more is kept)\n".to_owned() } else { format!("{text}\n") };
        // If the disk is full or the limit is reached, no more lines of this source are stored.
        if open.write_all(line.as_bytes()).is_err() || full {
            *file = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_source_is_bounded() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let kept = Kept { folder: folder.path().to_owned(), files: Mutex::default() };
        let line = "x".repeat(1024 * 1024 - 1);
        for _ in 0..20 {
            kept.write("1-a", "runner", &line);
        }
        kept.write("1-a", "docker", "one line");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("kept");
        let text = read("1-a.runner.log");
        assert!(text.len() < KEPT_MAX + 100 && text.ends_with("\n... (no more is kept)\n"), "{}", text.len());
        assert_eq!(read("1-a.docker.log"), "one line\n");
    }
}

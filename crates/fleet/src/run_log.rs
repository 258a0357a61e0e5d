//! Writes the log of each runner to `logs/<runner>.jsonl` under the state folder, for `dayfly logs`, also after its end.
//!
//! A log has one line of JSON for each fact. The length of a file and the number of files have bounds; the oldest files are
//! removed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dayfly_guest::runner_app::{self, APP_LOG, DIAGNOSTICS};

use crate::fact::{Fact, FactRecord};

/// Folder of the logs, under the state folder.
pub const FOLDER: &str = "logs";
/// Longest log of one runner, bytes.
const LENGTH_MAX: u64 = 16 * 1024 * 1024;
/// Most bytes of the lines that show the runner app's own log files after a failure. They come last and do not count for
/// [`LENGTH_MAX`], so that a job which prints too much does not hide why it failed.
const APP_LOG_LENGTH_MAX: u64 = 1024 * 1024;
/// Most logs in the folder.
const FILES_MAX: usize = 500;

/// The logs of this process's runners.
#[derive(Debug)]
pub struct RunLogs {
    folder: PathBuf,
    open: HashMap<String, RunLog>,
}

#[derive(Debug)]
struct RunLog {
    file: File,
    length: u64,
    app_log_length: u64,
}

impl RunLogs {
    /// Opens the folder of logs under `state`, and creates it if it is missing.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder, open: HashMap::new() })
    }

    /// Writes a fact into the log of its runner. Does nothing for a fact of a loop as a whole.
    ///
    /// # Errors
    /// No space. The runner goes on without its log.
    pub fn take(&mut self, record: &FactRecord) -> io::Result<()> {
        let Some(runner) = &record.runner else { return Ok(()) };
        let id = runner.id.as_str();
        if !self.open.contains_key(id) {
            prune(&self.folder, FILES_MAX - 1)?;
            let path = path_of(&self.folder, id);
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            self.open.insert(id.to_owned(), RunLog { file, length: 0, app_log_length: 0 });
        }
        if let Some(log) = self.open.get_mut(id) {
            log.write(record)?;
        }
        if record.fact == Fact::Ended {
            self.open.remove(id);
        }
        Ok(())
    }
}

impl RunLog {
    fn write(&mut self, record: &FactRecord) -> io::Result<()> {
        let source = relayed_source(record);
        // Each job has hundreds of lines of the runner app's diagnostics; `-vv` shows them as they come.
        if source == Some(DIAGNOSTICS) {
            return Ok(());
        }
        let (length, length_max) = match source {
            Some(APP_LOG) => (&mut self.app_log_length, APP_LOG_LENGTH_MAX),
            _ => (&mut self.length, LENGTH_MAX),
        };
        let is_line = matches!(record.fact, Fact::Line { .. });
        if is_line && *length > length_max {
            return Ok(());
        }
        let mut line = serde_json::to_vec(record)?;
        *length += line.len() as u64 + 1;
        if is_line && *length > length_max {
            let fact = Fact::Cut { why: "the log is too long".to_owned() };
            line = serde_json::to_vec(&FactRecord { fact, ..record.clone() })?;
        }
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

/// Returns the source that the entrypoint names in a line; none for other facts and lines.
fn relayed_source(record: &FactRecord) -> Option<&str> {
    let Fact::Line { text, .. } = &record.fact else { return None };
    runner_app::parse_relayed(text).map(|relayed| relayed.source)
}

/// Returns the path of a runner's log.
pub fn path_of(folder: &Path, runner: &str) -> PathBuf {
    folder.join(format!("{runner}.jsonl"))
}

/// Removes the oldest logs beyond `most`.
fn prune(folder: &Path, most: usize) -> io::Result<()> {
    let mut logs: Vec<(SystemTime, PathBuf)> = fs::read_dir(folder)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .filter(|(_, path)| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    if logs.len() <= most {
        return Ok(());
    }
    logs.sort_unstable();
    for (_, path) in &logs[..logs.len() - most] {
        // The error is ignored, because another instance may remove the same log at the same time.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunnerId;
    use crate::fact::{Moment, RunnerRef};

    fn line(id: &RunnerId, text: String) -> FactRecord {
        let source = dayfly_guest::protocol::Source::Entrypoint;
        let runner = Some(RunnerRef { id: id.clone(), name: id.to_string() });
        FactRecord { at: Moment::of_ms(1), loop_index: 0, runner, fact: Fact::Line { source, text } }
    }

    #[test]
    fn the_runner_apps_diagnostics_are_not_kept_but_its_log_after_a_failure_is() {
        let state = tempfile::tempdir().expect("folder");
        let mut logs = RunLogs::open(state.path()).expect("open");
        let id = RunnerId::random(0);
        for source in [DIAGNOSTICS, "runner", APP_LOG] {
            let text = runner_app::relay(source, id.as_str(), "[RUNNER 2026-01-02 03:04:05Z INFO x] y");
            logs.take(&line(&id, text)).expect("write");
        }
        let kept = fs::read_to_string(path_of(&state.path().join(FOLDER), id.as_str())).expect("a log");
        let kept: Vec<&str> = kept.lines().collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(kept[0].contains("[runner@") && kept[1].contains("[app-log@"), "{kept:?}");
    }

    #[test]
    fn a_log_has_a_bound_and_says_where_it_was_cut() {
        let state = tempfile::tempdir().expect("folder");
        let mut logs = RunLogs::open(state.path()).expect("open");
        let id = RunnerId::random(0);
        for _ in 0..40 {
            logs.take(&line(&id, "x".repeat(1024 * 1024))).expect("write");
        }
        let text = fs::read_to_string(path_of(&state.path().join(FOLDER), id.as_str())).expect("read");
        assert!(text.len() as u64 <= LENGTH_MAX + 100, "{}", text.len());
        assert!(text.trim_end().ends_with("\"event\":\"cut\",\"why\":\"the log is too long\"}"));
    }

    #[test]
    fn a_full_log_has_room_for_the_apps_own_log_and_a_bound_for_it() {
        let state = tempfile::tempdir().expect("folder");
        let mut logs = RunLogs::open(state.path()).expect("open");
        let id = RunnerId::random(0);
        for _ in 0..17 {
            logs.take(&line(&id, "x".repeat(1024 * 1024))).expect("write");
        }
        let relay = |text: &str| runner_app::relay(APP_LOG, id.as_str(), text);
        logs.take(&line(&id, relay("the reason"))).expect("write");
        for _ in 0..40 {
            logs.take(&line(&id, relay(&"y".repeat(100 * 1024)))).expect("write");
        }
        let text = fs::read_to_string(path_of(&state.path().join(FOLDER), id.as_str())).expect("read");
        assert!(text.contains("the reason"));
        assert!(text.len() as u64 <= LENGTH_MAX + APP_LOG_LENGTH_MAX + 400, "{}", text.len());
    }

    #[test]
    fn the_oldest_logs_go() {
        let folder = tempfile::tempdir().expect("folder");
        for number in 0..5 {
            let path = folder.path().join(format!("{number}.jsonl"));
            let file = File::create(&path).expect("file");
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 - number);
            file.set_modified(at).expect("time");
        }
        prune(folder.path(), 2).expect("prune");
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .expect("read")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
            .collect();
        left.sort_unstable();
        assert_eq!(left, ["0.jsonl", "1.jsonl"]);
    }
}

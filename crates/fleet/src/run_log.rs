//! Writes the log of each runner to `logs/<runner>.jsonl` under the state folder, for `dayfly logs`, also after its end.
//!
//! A log has one line of JSON for each fact. The length of a file and the number of files have bounds; the oldest files are
//! removed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dayfly_guest::runner_app::{self, APP_LOG, DIAGNOSTICS};

use crate::fact::{Fact, FactRecord};
use crate::history::History;

/// Folder of the logs, under the state folder.
pub const FOLDER: &str = "logs";
/// Longest log of one runner, bytes.
const LENGTH_MAX: u64 = 16 * 1024 * 1024;
/// Room at the end of a log for the facts of the runner's end, bytes. All other facts leave it free, because a guest decides
/// how many lines and faults there are.
const END_ROOM: u64 = 64 * 1024;
/// Room after those for the last fact of all, bytes.
const LAST_ROOM: u64 = 1024;
/// Room before those for the forge's report about the job, bytes. Its annotations have a bound of 16 KiB, and JSON may need
/// six times as much.
const FORGE_ROOM: u64 = 128 * 1024;
/// Room before those for the record of the machine's network, bytes. It has 24 KiB of names, and 256 rows of some 200 bytes.
const NETWORK_ROOM: u64 = 128 * 1024;
/// Room before those for the lines of the runner app's own log files, which come after a failure, bytes. All other lines
/// leave it free, so that a job which prints too much does not hide why it failed.
const APP_LOG_ROOM: u64 = 1024 * 1024;
/// Length of a log's end in which its last line is looked for, bytes.
const TAIL: u64 = 512 * 1024;
/// Most logs in the folder.
const FILES_MAX: usize = 500;

/// The logs of this process's runners.
#[derive(Debug)]
pub struct RunLogs {
    folder: PathBuf,
    history: History,
    open: HashMap<String, RunLog>,
}

#[derive(Debug)]
struct RunLog {
    file: File,
    length: u64,
    /// True if the log has a note that facts are missing.
    is_cut: bool,
}

impl RunLogs {
    /// Opens the folder of logs under `state`, and creates it if it is missing.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder, history: History::of(state), open: HashMap::new() })
    }

    /// Writes a fact into the log of its runner, and into its history if no journal has it. Does nothing for a fact of a loop as
    /// a whole.
    ///
    /// # Errors
    /// No space. The runner goes on without its log.
    pub fn take(&mut self, record: &FactRecord) -> io::Result<()> {
        let Some(runner) = &record.runner else { return Ok(()) };
        let id = runner.id.as_str();
        self.history.add(record)?;
        if matches!(record.fact, Fact::JobConcluded { .. }) && !self.open.contains_key(id) {
            return append_late(&path_of(&self.folder, id), record);
        }
        if !self.open.contains_key(id) {
            prune(&self.folder, FILES_MAX - 1)?;
            let path = path_of(&self.folder, id);
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            self.open.insert(id.to_owned(), RunLog { length: file.metadata()?.len(), file, is_cut: false });
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
    /// Writes a fact if there is room for it. The first fact without room leaves a note that the log was cut.
    fn write(&mut self, record: &FactRecord) -> io::Result<()> {
        // Each job has hundreds of lines of the runner app's diagnostics; `-vv` shows them as they come.
        if relayed_source(record) == Some(DIAGNOSTICS) || self.append(record)? || self.is_cut {
            return Ok(());
        }
        self.is_cut = true;
        let fact = Fact::Cut { why: "the log is too long".to_owned() };
        self.append(&FactRecord { fact, ..record.clone() }).map(drop)
    }

    /// Appends a fact. Returns false if there is no room for it.
    fn append(&mut self, record: &FactRecord) -> io::Result<bool> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let length = self.length + line.len() as u64;
        if length > length_max(record) {
            return Ok(false);
        }
        self.file.write_all(&line)?;
        self.length = length;
        Ok(true)
    }
}

/// Appends the forge's report to the log of a runner that has ended. Does nothing if the log is gone.
fn append_late(path: &Path, record: &FactRecord) -> io::Result<()> {
    let file = match OpenOptions::new().append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut log = RunLog { length: file.metadata()?.len(), file, is_cut: false };
    log.append(record).map(drop)
}

/// Returns the length of the log up to which a fact is written. A runner has a few facts of its end.
fn length_max(record: &FactRecord) -> u64 {
    match &record.fact {
        Fact::Ended => LENGTH_MAX,
        Fact::Cut { .. }
        | Fact::Stopping { .. }
        | Fact::EntrypointExited { .. }
        | Fact::VmUsed { .. }
        | Fact::VmGone { .. }
        | Fact::VmHandedOver
        | Fact::VmKept { .. }
        | Fact::VmFrozen { .. }
        | Fact::Over { .. }
        | Fact::RegistrationEnded { .. } => LENGTH_MAX - LAST_ROOM,
        Fact::JobConcluded { .. } => LENGTH_MAX - LAST_ROOM - END_ROOM,
        Fact::NetworkUsed { .. } => LENGTH_MAX - LAST_ROOM - END_ROOM - FORGE_ROOM,
        _ if relayed_source(record) == Some(APP_LOG) => {
            LENGTH_MAX - LAST_ROOM - END_ROOM - FORGE_ROOM - NETWORK_ROOM
        }
        _ => LENGTH_MAX - LAST_ROOM - END_ROOM - FORGE_ROOM - NETWORK_ROOM - APP_LOG_ROOM,
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

/// Returns the number of the last line in a runner's log; 0 if it has none. A process that takes the runner over goes on with
/// the line after it.
pub(crate) fn last_line(state: &Path, runner: &str) -> u64 {
    let tail = (|| {
        let mut file = File::open(path_of(&state.join(FOLDER), runner))?;
        file.seek(SeekFrom::Start(file.metadata()?.len().saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        io::Result::Ok(tail)
    })();
    let tail = tail.unwrap_or_default();
    let number = |line: &[u8]| match serde_json::from_slice::<FactRecord>(line).ok()?.fact {
        Fact::Line { number, .. } => Some(number),
        _ => None,
    };
    tail.split(|byte| *byte == b'\n').filter_map(number).max().unwrap_or_default()
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
    use crate::job_end::tests::{failed_on, longest};

    fn record(id: &RunnerId, fact: Fact) -> FactRecord {
        let runner = Some(RunnerRef { id: id.clone(), name: id.to_string() });
        FactRecord { at: Moment::of_ms(1), pool: None, loop_index: 0, runner, fact }
    }

    fn line(id: &RunnerId, text: String) -> FactRecord {
        record(id, Fact::Line { number: 1, source: dayfly_guest::protocol::Source::Entrypoint, text })
    }

    #[test]
    fn the_last_line_of_a_log_is_found_by_its_number() {
        let state = tempfile::tempdir().expect("folder");
        let id = RunnerId::random(0);
        assert_eq!(last_line(state.path(), id.as_str()), 0, "there is no log");
        let mut logs = RunLogs::open(state.path()).expect("open");
        let text = || "x".repeat(8 * 1024);
        for number in 1..=200 {
            let source = dayfly_guest::protocol::Source::Entrypoint;
            logs.take(&record(&id, Fact::Line { number, source, text: text() })).expect("write");
        }
        logs.take(&record(&id, Fact::Listening)).expect("write");
        let mut file = OpenOptions::new().append(true).open(path_of(&state.path().join(FOLDER), id.as_str()));
        file.as_mut().expect("open").write_all(b"{\"at_ms\":1,\"event\":\"li").expect("write");
        assert_eq!(last_line(state.path(), id.as_str()), 200);
    }

    #[test]
    fn a_report_of_the_forge_is_in_the_log_even_if_it_comes_after_the_runners_end() {
        let state = tempfile::tempdir().expect("folder");
        let mut logs = RunLogs::open(state.path()).expect("open");
        let (id, unknown) = (RunnerId::random(0), RunnerId::random(1));
        let facts = [Fact::Registering, failed_on("r", 1).fact(), Fact::Ended, failed_on("r", 0).fact()];
        for fact in facts.clone() {
            logs.take(&record(&id, fact)).expect("write");
        }
        let path = path_of(&state.path().join(FOLDER), id.as_str());
        let text = fs::read_to_string(&path).expect("a log");
        let read: Vec<Fact> =
            text.lines().map(|line| serde_json::from_str::<FactRecord>(line).expect("a fact").fact).collect();
        assert_eq!(read, facts);
        assert!(logs.open.is_empty(), "no file stays open");
        logs.take(&record(&unknown, failed_on("r", 1).fact())).expect("nothing to write");
        assert!(
            !path_of(&state.path().join(FOLDER), unknown.as_str()).exists(),
            "a removed log does not return"
        );
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
        assert!(text.len() as u64 <= LENGTH_MAX, "{}", text.len());
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
        assert!(text.len() as u64 <= LENGTH_MAX, "{}", text.len());
    }

    #[test]
    fn a_full_log_has_room_for_the_longest_report_of_the_forge_also_after_the_runners_end() {
        let state = tempfile::tempdir().expect("folder");
        let mut logs = RunLogs::open(state.path()).expect("open");
        let (early, late) = (RunnerId::random(0), RunnerId::random(1));
        // JSON writes this character in six.
        let report = longest('\u{1}').fact();
        for (id, facts) in [(&early, [report.clone(), Fact::Ended]), (&late, [Fact::Ended, report.clone()])] {
            let relayed = runner_app::relay(APP_LOG, id.as_str(), &"y".repeat(100));
            let fill = [100 * 1024, 100].map(|length| line(id, "x".repeat(length)));
            (0..200).for_each(|_| logs.take(&fill[0]).expect("write"));
            (0..20_000).for_each(|_| logs.take(&line(id, relayed.clone())).expect("write"));
            (0..2000).for_each(|_| logs.take(&fill[1]).expect("write"));
            facts.into_iter().for_each(|fact| logs.take(&record(id, fact)).expect("write"));
            let text = fs::read_to_string(path_of(&state.path().join(FOLDER), id.as_str())).expect("read");
            assert_eq!(text.matches("\"event\":\"job_concluded\"").count(), 1);
            assert!(text.len() as u64 <= LENGTH_MAX, "{}", text.len());
        }
    }

    #[test]
    fn facts_of_any_kind_are_bounded_and_the_end_always_fits() {
        let state = tempfile::tempdir().expect("folder");
        let mut logs = RunLogs::open(state.path()).expect("open");
        let id = RunnerId::random(0);
        let mut take = |fact: Fact| {
            let record = FactRecord { fact, ..line(&id, String::new()) };
            logs.take(&record).expect("write");
        };
        let long = || "x".repeat(1024 * 1024);
        for _ in 0..40 {
            take(Fact::Warning { message: long() });
            take(Fact::JobStarted { job: long() });
            take(Fact::VmGone { exit: long() });
        }
        // Short ones fill what the long ones have left.
        for _ in 0..20_000 {
            take(Fact::Warning { message: "x".repeat(100) });
            take(Fact::Stopping { reason: "x".repeat(100) });
        }
        take(Fact::Ended);
        let text = fs::read_to_string(path_of(&state.path().join(FOLDER), id.as_str())).expect("read");
        assert!(text.len() as u64 <= LENGTH_MAX, "{}", text.len());
        assert!(text.trim_end().ends_with("\"event\":\"ended\"}"));
        assert_eq!(text.matches("\"event\":\"cut\"").count(), 1);
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

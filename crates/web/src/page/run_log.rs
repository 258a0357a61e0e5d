//! The log of a run, as the page reads it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_fleet::history::History;
use dayfly_fleet::{RunnerId, run_log};

use super::{Trouble, unreadable};

/// Most bytes that one look at a log reads. A log has 16 MiB at most.
const BYTES_MAX: u64 = 17 << 20;
/// Most rows that one look returns.
pub(super) const ROWS_MAX: usize = 2000;

/// A row of the log: a line of the guest, or a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) at_ms: u64,
    pub(super) text: String,
    /// True for a line that a program in the machine has printed.
    pub(super) is_line: bool,
}

/// The rows after a place in a log.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) rows: Vec<Row>,
    /// The place after them.
    pub(super) next: u64,
    /// True if no more will come.
    pub(super) is_over: bool,
}

/// A whole log.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) records: Vec<FactRecord>,
    /// The place after it; none if only the history has the run's facts.
    pub(super) next: Option<u64>,
}

/// Returns the log of a run, or else its facts in the history; empty if neither is there.
pub(super) fn read(state: &Path, runner: &RunnerId) -> Result<Log, Trouble> {
    let (records, next) = records_from(state, runner, 0)?;
    if !records.is_empty() {
        return Ok(Log { records, next: Some(next) });
    }
    let records = History::of(state).facts_of(runner.as_str()).map_err(unreadable)?;
    Ok(Log { records, next: None })
}

/// Returns the rows after a place in the log. A place beyond its end has none.
pub(super) fn read_from(state: &Path, runner: &RunnerId, from: u64) -> Result<Lines, Trouble> {
    let (records, next) = records_from(state, runner, from)?;
    let is_over = records.iter().any(|record| record.fact == Fact::Ended);
    let mut rows: Vec<Row> = records.iter().map(Row::of).collect();
    let surplus = rows.len().saturating_sub(ROWS_MAX);
    rows.drain(..surplus);
    Ok(Lines { rows, next, is_over })
}

/// Reads whole lines only, because the last one may still be written. Skips lines that are no facts of this version.
fn records_from(state: &Path, runner: &RunnerId, from: u64) -> Result<(Vec<FactRecord>, u64), Trouble> {
    let path = run_log::path_of(&state.join(run_log::FOLDER), runner.as_str());
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Vec::new(), from)),
        opened => opened.map_err(unreadable)?,
    };
    // Of a place that a client has made up, some file systems say that it is not possible.
    if from > file.metadata().map_err(unreadable)?.len() {
        return Ok((Vec::new(), from));
    }
    file.seek(SeekFrom::Start(from)).map_err(unreadable)?;
    let mut reader = BufReader::new(file.take(BYTES_MAX));
    let (mut records, mut next, mut line) = (Vec::new(), from, Vec::new());
    while reader.read_until(b'\n', &mut line).map_err(unreadable)? > 0 && line.ends_with(b"\n") {
        next += line.len() as u64;
        records.extend(serde_json::from_slice::<FactRecord>(&line).ok());
        line.clear();
    }
    Ok((records, next))
}

impl Row {
    pub(super) fn of(record: &FactRecord) -> Self {
        let (text, is_line) = match &record.fact {
            Fact::Line { text, .. } => (text.clone(), true),
            fact => (in_words(fact), false),
        };
        Self { at_ms: record.at.ms(), text, is_line }
    }
}

/// Returns the name of a fact, and its fields in the form `key=value`.
fn in_words(fact: &Fact) -> String {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::to_value(fact) else { return String::new() };
    let name = fields.remove("event").unwrap_or_default();
    let mut words = vec![name.as_str().unwrap_or_default().replace('_', " ")];
    let fields = fields.iter();
    words.extend(fields.map(|(key, value)| match value.as_str() {
        Some(text) => format!("{key}={text}"),
        None => format!("{key}={value}"),
    }));
    words.join(" ")
}

/// Returns the rows that contain a text, in any case, and the number of all of them; the last ones, if there are too many.
pub(super) fn search(records: &[FactRecord], wanted: &str) -> (Vec<Row>, usize) {
    let wanted = wanted.to_lowercase();
    let rows = records.iter().map(Row::of);
    let mut rows: Vec<Row> =
        rows.filter(|row| wanted.is_empty() || row.text.to_lowercase().contains(&wanted)).collect();
    let count = rows.len();
    rows.drain(..count.saturating_sub(ROWS_MAX));
    (rows, count)
}

#[cfg(test)]
mod tests {
    use dayfly_fleet::fact::{Moment, RunnerRef};
    use dayfly_guest::protocol::Source;

    use super::*;

    fn record(fact: Fact) -> FactRecord {
        let id: RunnerId = "1-aaaaaaa".parse().expect("an id");
        let runner = Some(RunnerRef { name: "p-1-aaaaaaa".to_owned(), id });
        FactRecord { at: Moment::of_ms(7), pool: None, loop_index: 1, runner, fact }
    }

    fn line(text: &str) -> FactRecord {
        record(Fact::Line { number: 1, source: Source::Entrypoint, text: text.to_owned() })
    }

    fn write(folder: &Path, records: &[FactRecord], rest: &str) {
        std::fs::create_dir_all(folder.join(run_log::FOLDER)).expect("folder");
        let lines = records.iter().map(|record| serde_json::to_string(record).expect("json") + "\n");
        let text = lines.collect::<String>() + rest;
        std::fs::write(folder.join(run_log::FOLDER).join("1-aaaaaaa.jsonl"), text).expect("written");
    }

    #[test]
    fn a_log_that_grows_is_read_on_from_the_last_whole_line() {
        let folder = tempfile::tempdir().expect("folder");
        let id: RunnerId = "1-aaaaaaa".parse().expect("an id");
        assert!(read(folder.path(), &id).expect("none").records.is_empty());
        write(folder.path(), &[record(Fact::RunnerUp), line("a")], "{\"at_ms\": 8, \"loo");
        let log = read(folder.path(), &id).expect("read");
        assert_eq!(log.records.len(), 2);
        let next = log.next.expect("a place");
        assert!(read_from(folder.path(), &id, next).expect("read").rows.is_empty());
        write(folder.path(), &[record(Fact::RunnerUp), line("a"), line("b"), record(Fact::Ended)], "");
        let Lines { rows, is_over, next: end } = read_from(folder.path(), &id, next).expect("read");
        assert_eq!(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), ["b", "ended"]);
        assert!(is_over && end > next);
        assert!(read_from(folder.path(), &id, u64::MAX / 4).expect("beyond the end").rows.is_empty());
    }

    #[test]
    fn a_search_finds_lines_in_any_case_and_says_how_many() {
        let mut records: Vec<FactRecord> = (0..ROWS_MAX + 5).map(|at| line(&format!("Error {at}"))).collect();
        records.push(line("fine"));
        let (rows, count) = search(&records, "eRRor");
        assert_eq!((rows.len(), count), (ROWS_MAX, ROWS_MAX + 5));
        assert_eq!(rows.last().expect("one").text, format!("Error {}", ROWS_MAX + 4));
        assert_eq!(search(&records, "").1, ROWS_MAX + 6);
        assert_eq!(search(&records, "absent").1, 0);
    }
}

//! The last lines of a runner's log, and those that come.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use super::text::foreign_line;
use crate::commands::logs::{LogWords, RunLog, find};
use crate::exit::{Failure, Result};
use crate::settings::Places;

/// Bytes at the end of the log that are read first.
const TAIL: u64 = 256 * 1024;
/// Most bytes that are read at a time.
const READ_MAX: u64 = 256 * 1024;
/// Most lines that are kept.
const LINES_MAX: usize = 2000;
/// Longest line of the file; a longer one is left out.
const LINE_MAX: usize = 1024 * 1024;

/// The log of a runner that is shown.
#[derive(Debug)]
pub(super) struct LogTail {
    /// None if only the history has facts of the runner, which do not grow.
    file: Option<File>,
    /// The beginning of a line whose end has not been written.
    partial: Vec<u8>,
    /// True if `partial` is the end of a line whose beginning was left out.
    is_cut: bool,
    words: LogWords,
    pub(super) lines: VecDeque<String>,
}

impl LogTail {
    /// Opens the log of a runner at its end.
    ///
    /// # Errors
    /// There is no log, or it cannot be read.
    pub(super) fn open(places: &Places, runner: &str) -> Result<Self> {
        let mut words = LogWords::default();
        let (file, lines) = match find(places, runner)? {
            RunLog::File(path) => {
                let opened = File::open(&path);
                let cannot = |error: io::Error| {
                    Failure::cannot(format!("cannot read the log {}: {error}", path.display()))
                };
                (Some(opened.map_err(cannot)?), VecDeque::new())
            }
            RunLog::Facts(records) => {
                (None, records.iter().flat_map(|record| plain(&words.of(record))).collect())
            }
        };
        let mut tail = Self { file, partial: Vec::new(), is_cut: false, words, lines };
        tail.go_to_tail().map_err(Failure::cannot)?;
        tail.grow().map_err(Failure::cannot)?;
        Ok(tail)
    }

    fn go_to_tail(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let begin = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(begin))?;
        self.is_cut = begin > 0;
        Ok(())
    }

    /// Reads what has been written since, up to a bound. Returns the number of new lines.
    pub(super) fn grow(&mut self) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Ok(0) };
        let mut read = Vec::new();
        file.take(READ_MAX).read_to_end(&mut read)?;
        let mut count = 0;
        for part in read.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") {
                count += self.end_line();
            } else if self.partial.len() > LINE_MAX {
                (self.is_cut, self.partial) = (true, Vec::new());
            }
        }
        Ok(count)
    }

    /// Takes in a line that is complete. Returns the number of lines that it has for people.
    fn end_line(&mut self) -> usize {
        let line = std::mem::take(&mut self.partial);
        if std::mem::take(&mut self.is_cut) {
            return 0;
        }
        let Ok(record) = serde_json::from_slice(&line) else { return 0 };
        let words = self.words.of(&record);
        let count = words.len();
        self.lines.extend(plain(&words));
        let surplus = self.lines.len().saturating_sub(LINES_MAX);
        self.lines.drain(..surplus);
        count
    }
}

/// Returns lines without styles, which the screen has its own of.
fn plain(words: &[String]) -> Vec<String> {
    words.iter().map(|text| foreign_line(&anstream::adapter::strip_str(text).to_string())).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use dayfly_fleet::run_log;

    use super::*;

    fn line(text: &str) -> String {
        let fact = serde_json::json!({"at_ms": 0, "loop": 1, "runner": "1-aaaaaaa", "name": "n",
            "event": "line", "source": "entrypoint", "text": text});
        format!("{fact}\n")
    }

    /// Returns a state folder with a log, and the log's file.
    fn log(text: &str) -> (tempfile::TempDir, Places, File) {
        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().join(run_log::FOLDER);
        std::fs::create_dir(&folder).expect("a folder");
        let mut file = File::create(folder.join("1-aaaaaaa.jsonl")).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let places = Places::for_tests(state.path());
        (state, places, file)
    }

    #[test]
    fn lines_come_as_they_are_written_and_half_a_line_waits_for_its_end() {
        let (_state, places, mut file) = log(&line("one"));
        let mut tail = LogTail::open(&places, "1-aaaaaaa").expect("open");
        assert_eq!(tail.lines, ["00:00:00 one"]);
        let next = line("two\u{1b}[2J\u{202e}");
        let (begin, end) = next.split_at(20);
        file.write_all(begin.as_bytes()).expect("written");
        assert_eq!(tail.grow().expect("read"), 0);
        file.write_all(end.as_bytes()).expect("written");
        assert_eq!(tail.grow().expect("read"), 1);
        assert_eq!(tail.lines, ["00:00:00 one", "00:00:00 two[2J‹U+202E›"]);
    }

    #[test]
    fn a_long_log_is_read_from_its_end_and_only_its_last_lines_are_kept() {
        let text: String = (0..50_000).map(|number| line(&number.to_string())).collect();
        let (_state, places, mut file) = log(&text);
        let mut tail = LogTail::open(&places, "1-aaaaaaa").expect("open");
        assert_eq!(tail.lines.back().map(String::as_str), Some("00:00:00 49999"));
        let more: String = (0..2500).map(|number| line(&number.to_string())).collect();
        file.write_all(more.as_bytes()).expect("written");
        while tail.grow().expect("read") > 0 {}
        assert_eq!(tail.lines.len(), LINES_MAX);
        assert_eq!(tail.lines.back().map(String::as_str), Some("00:00:00 2499"));
    }

    #[test]
    fn a_line_without_an_end_takes_bounded_memory_and_the_next_one_is_shown() {
        let (_state, places, mut file) = log("");
        let mut tail = LogTail::open(&places, "1-aaaaaaa").expect("open");
        for _ in 0..20 {
            file.write_all(&vec![b'x'; 200 * 1024]).expect("written");
            tail.grow().expect("read");
            assert!(tail.partial.len() <= LINE_MAX);
        }
        file.write_all(format!("\n{}", line("next")).as_bytes()).expect("written");
        tail.grow().expect("read");
        assert_eq!(tail.lines, ["00:00:00 next"]);
    }

    #[test]
    fn a_runner_without_a_log_is_an_error_with_advice() {
        let state = tempfile::tempdir().expect("a folder");
        let failure = LogTail::open(&Places::for_tests(state.path()), "1-aaaaaaa").expect_err("no log");
        assert!(failure.what_to_do().is_some(), "{failure}");
    }
}

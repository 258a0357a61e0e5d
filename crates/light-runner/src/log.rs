//! The log of a job: masked lines with their times. A step's log is a part of it.

use std::ops::Range;

/// Most bytes of one job's log. This runner keeps the log in memory.
const LOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Shortest text that is masked. Shorter text occurs everywhere.
const MASK_BYTES_MIN: usize = 3;
/// Most texts that are masked, because each is searched for in every line.
const MASKS_MAX: usize = 1000;

/// The log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    text: String,
    step_start: usize,
    step_lines: u64,
    masks: Vec<String>,
    cut: bool,
}

impl Log {
    pub(crate) fn new(masked: Vec<String>) -> Self {
        let mut log = Self::default();
        masked.into_iter().for_each(|text| log.mask(text));
        log
    }

    /// Masks a text in the lines from now on.
    pub(crate) fn mask(&mut self, text: String) {
        let text = text.trim();
        if text.len() >= MASK_BYTES_MIN
            && self.masks.len() < MASKS_MAX
            && !self.masks.iter().any(|it| it == text)
        {
            self.masks.push(text.to_owned());
            // The longest first, because masking a part of a text first would leave the rest of it.
            self.masks.sort_by_key(|text| std::cmp::Reverse(text.len()));
        }
    }

    /// Returns a text with its secrets replaced.
    pub(crate) fn masked(&self, text: &str) -> String {
        self.masks.iter().fold(text.to_owned(), |text, mask| text.replace(mask, "***"))
    }

    /// Adds a line. A log that is full gets one last line that says so.
    pub(crate) fn line(&mut self, line: &str) {
        if self.cut {
            return;
        }
        let mut line = self.masked(line);
        if self.text.len() + line.len() > LOG_BYTES_MAX {
            self.cut = true;
            line = format!("log cut after {LOG_BYTES_MAX} bytes");
        }
        self.text.push_str(&format!("{:.7} {line}\n", jiff::Timestamp::now()));
        self.step_lines += 1;
    }

    /// Begins the log of a step.
    pub(crate) fn begin_step(&mut self) {
        self.step_start = self.text.len();
        self.step_lines = 0;
    }

    /// Returns the number of lines in the step's log.
    pub(crate) fn step_lines(&self) -> u64 {
        self.step_lines
    }

    /// Returns the part that is the step's log so far.
    pub(crate) fn step(&self) -> Range<usize> {
        self.step_start..self.text.len()
    }

    /// Returns a part of the log as it is uploaded: actions/runner 2.336.0 begins each log with a byte order mark.
    pub(crate) fn upload(&self, part: Range<usize>) -> String {
        format!("\u{feff}{}", &self.text[part])
    }

    /// Returns the whole log as it is uploaded.
    pub(crate) fn upload_whole(&self) -> String {
        self.upload(0..self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_masked_stamped_and_belong_to_their_step() {
        let mut log = Log::new(vec!["hunter2".to_owned(), "hunter".to_owned(), "a".to_owned()]);
        log.line("set up");
        log.begin_step();
        log.line("a hunter2, a hunter");
        log.mask("late".to_owned());
        log.line("latest");
        let step = log.upload(log.step());
        let lines: Vec<&str> = step.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
        assert_eq!((lines.as_slice(), log.step_lines()), (["a ***, a ***", "***st"].as_slice(), 2));
        assert_eq!(log.upload_whole().lines().count(), 3);
    }

    #[test]
    fn a_log_without_end_is_cut_and_says_so() {
        let mut log = Log::default();
        let line = "x".repeat(1024 * 1024);
        (0..20).for_each(|_| log.line(&line));
        assert!(log.text.len() <= LOG_BYTES_MAX + 100, "{}", log.text.len());
        assert!(log.text.ends_with("log cut after 16777216 bytes\n"));
    }
}

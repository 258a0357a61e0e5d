//! Lines of job logs. They come from the live feed and are completed from the runner's uploads, so that each line is
//! published once.
//!
//! A runner numbers the lines of each step. Lines of the live feed are published as they arrive, as long as no line
//! before them is missing. The step's uploaded log then brings the rest. Lines that neither brought are taken from the
//! log of the whole job when the job ends.

use std::collections::HashMap;

use super::step::COMPLETION;
use super::{Hold, Job, LabState};
use crate::event::LabEventKind;
use crate::log_file::StoredLine;
use crate::signing::Blob;

/// Longest line, in bytes. A longer line is cut and ends with [`LINE_CUT`].
const LINE_BYTES_MAX: usize = 64 * 1024;
const LINE_CUT: &str = " [longer than 64 KiB, cut here]";
/// Longest time stamp before a line of an uploaded log, with room to spare.
const TIME_BYTES_MAX: usize = 64;
/// Most bytes of an upload that are buffered without an end of line. Above it, the bytes are taken as a line.
const PIECE_BYTES_MAX: usize = 4 * 1024 * 1024;
const FEEDS_MAX: usize = 4000;
/// The line with which github-act-runner 0.13.0 begins to end a job. It writes it and all later lines into the log of the
/// last step.
const COMPLETION_BEGINS: &str = "\u{2b50} Run Complete job";

/// The progress of one step's log.
#[derive(Default)]
pub(super) struct StepFeed {
    /// Number of lines published so far.
    told: u64,
    /// Number of lines of the uploaded log read so far.
    uploaded: u64,
    /// The end of the last uploaded piece, if it was not a whole line.
    rest: Vec<u8>,
}

/// The number of bytes of a job's log that were stored.
#[derive(Default)]
pub(super) struct Meter {
    told_bytes: u64,
    uploaded_bytes: u64,
    /// The end of the last piece of the job's uploaded log, if it was not a whole line.
    rest: Vec<u8>,
}

impl Job {
    /// Returns a line of the log without secrets. Returns `None` for all lines after the job has added more secrets than can
    /// be masked; the first such line is a remark.
    fn masked_line(&mut self, line: &str) -> Option<String> {
        if self.is_unmaskable {
            return None;
        }
        let (line, secret) = self.mask.as_ref()?.line(line);
        let Some(secret) = secret else { return Some(line) };
        match self.mask.as_mut()?.add(secret.clone()) {
            Ok(()) => {
                self.record.masks.push(secret);
                Some(line)
            }
            Err(error) => {
                self.is_unmaskable = true;
                Some(error.to_string())
            }
        }
    }

    /// Returns true if a line belongs to the runner app's own last step, which github-act-runner has no step for.
    fn completes(&mut self, step: &str, line: &str) -> bool {
        if self.record.completes_in_last_step && line == COMPLETION_BEGINS {
            self.completing = Some(step.to_owned());
        }
        self.completing.as_deref() == Some(step)
    }
}

impl LabState {
    /// Handles lines of the live feed. `start` is the number of the first line within its step, from 1.
    pub(crate) fn feed(&mut self, job: u64, step: &str, start: Option<u64>, lines: Vec<String>) {
        let Some(feed) = self.step_feed(job, step) else { return };
        let first = start.map_or(feed.told, |start| start.saturating_sub(1));
        // Lines before these are missing, so the uploaded log will bring all of them in order.
        if first > feed.told {
            return;
        }
        let known = usize::try_from(feed.told - first).unwrap_or(usize::MAX);
        let news: Vec<String> = lines.into_iter().skip(known).collect();
        feed.told += news.len() as u64;
        let time = super::run::timestamp(self.now_ms()).to_string();
        self.tell_lines(
            job,
            news.into_iter().map(|line| StoredLine {
                time: time.clone(),
                step: step.to_owned(),
                line,
                completes: false,
            }),
        );
    }

    fn step_feed(&mut self, job: u64, step: &str) -> Option<&mut StepFeed> {
        let entry =
            self.jobs.get_mut(&job).filter(|entry| matches!(entry.record.hold, Hold::Acquired { .. }))?;
        if entry.feeds.len() >= FEEDS_MAX && !entry.feeds.contains_key(step) {
            return None;
        }
        Some(entry.feeds.entry(step.to_owned()).or_default())
    }

    /// Handles a piece of an uploaded log, or a whole summary.
    pub(crate) fn upload(&mut self, job: u64, blob: &Blob, piece: &[u8]) {
        match blob {
            Blob::StepLog(step) => self.upload_step(job, step, piece),
            Blob::JobLog => self.upload_job(job, piece),
            Blob::StepSummary(step) => self.upload_summary(job, step, piece),
            Blob::Ignored => {}
        }
    }

    fn upload_step(&mut self, job: u64, step: &str, piece: &[u8]) {
        let Some(feed) = self.step_feed(job, step) else { return };
        let mut news = Vec::new();
        for line in whole_lines(&mut feed.rest, piece) {
            feed.uploaded += 1;
            if feed.uploaded > feed.told {
                feed.told = feed.uploaded;
                let (time, line) = split_time(&line);
                news.push(StoredLine {
                    time: time.unwrap_or_default().to_owned(),
                    step: step.to_owned(),
                    line: line.to_owned(),
                    completes: false,
                });
            }
        }
        self.tell_lines(job, news.into_iter());
    }

    fn upload_job(&mut self, job: u64, piece: &[u8]) {
        self.prepare_mask(job);
        let max = self.limits.log_bytes_per_job_max;
        let Some(entry) =
            self.jobs.get_mut(&job).filter(|entry| matches!(entry.record.hold, Hold::Acquired { .. }))
        else {
            return;
        };
        let mut text = String::new();
        for line in whole_lines(&mut entry.meter.rest, piece) {
            let (time, rest) = split_time(&line);
            let time = time.map(|time| format!("{time} ")).unwrap_or_default();
            let Some(rest) = entry.masked_line(rest) else { break };
            let line = cut_line(format!("{time}{rest}"), LINE_BYTES_MAX + TIME_BYTES_MAX);
            keep(&mut entry.meter.uploaded_bytes, max, line, |line| {
                text.push_str(&line);
                text.push('\n');
            });
        }
        if !text.is_empty()
            && let Err(error) = self.logs.append_uploaded(job, &text)
        {
            tracing::error!(%error, job, "a log cannot be written");
        }
    }

    /// Masks, bounds, stores and publishes lines, in that order.
    fn tell_lines(&mut self, job: u64, lines: impl Iterator<Item = StoredLine>) {
        self.prepare_mask(job);
        let max = self.limits.log_bytes_per_job_max;
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        let masks = entry.record.masks.len();
        let mut kept = Vec::new();
        for stored in lines {
            let Some(line) = entry.masked_line(&stored.line) else { break };
            let line = cut_line(line, LINE_BYTES_MAX);
            let completes = stored.completes || entry.completes(&stored.step, &line);
            keep(&mut entry.meter.told_bytes, max, line, |line| {
                kept.push(StoredLine { line, completes, ..stored })
            });
        }
        let has_masks = entry.record.masks.len() > masks;
        if has_masks {
            self.record_job(job);
        }
        if !kept.is_empty() {
            self.publish_lines(job, kept);
        }
    }

    /// Stores and publishes lines of one step.
    fn publish_lines(&mut self, job: u64, mut lines: Vec<StoredLine>) {
        if let Err(error) = self.logs.append_told(job, &lines) {
            tracing::error!(%error, job, "a log cannot be written");
        }
        if let Some(place) = lines.iter().position(|line| line.completes) {
            let behind = lines.split_off(place);
            self.publish_stored(job, lines);
            self.start_completion(job, &behind[0].time);
            lines = behind;
        }
        self.publish_stored(job, lines);
    }

    fn publish_stored(&mut self, job: u64, lines: Vec<StoredLine>) {
        let Some(entry) = self.jobs.get(&job) else { return };
        let run = entry.record.run;
        let numbers: HashMap<String, (u32, String)> = entry
            .record
            .steps
            .iter()
            .enumerate()
            .map(|(place, step)| {
                (step.guid.clone(), (u32::try_from(place + 1).unwrap_or(u32::MAX), step.name.clone()))
            })
            .collect();
        for StoredLine { time, step, line, completes } in lines {
            let step = if completes { COMPLETION } else { &step };
            let (number, step) =
                numbers.get(step).map_or((None, String::new()), |(n, name)| (Some(*n), name.clone()));
            self.publish(run, LabEventKind::LogLine { job, number, step, time, line });
        }
    }

    /// Publishes the lines that only the log of the whole job has.
    pub(super) fn finish_log(&mut self, job: u64) {
        let Some(uploaded) = self.logs.read_uploaded(job) else { return };
        self.prepare_mask(job);
        let Some(mask) = self.jobs.get(&job).and_then(|entry| entry.mask.as_ref()) else { return };
        let mut told: HashMap<String, u64> = HashMap::new();
        for stored in self.logs.read_told(job) {
            // A text that the job has masked later is masked in the uploaded log.
            *told.entry(mask.apply(&stored.line)).or_default() += 1;
        }
        let mut missing = Vec::new();
        for line in uploaded.lines() {
            let (time, line) = split_time(line);
            let line = cut_line(line.to_owned(), LINE_BYTES_MAX);
            match told.get_mut(&line) {
                Some(count) if *count > 0 => *count -= 1,
                _ => missing.push(StoredLine {
                    time: time.unwrap_or_default().to_owned(),
                    step: String::new(),
                    line,
                    completes: false,
                }),
            }
        }
        if !missing.is_empty() {
            self.tell_lines(job, missing.into_iter());
        }
    }

    /// Restores the counters of a job's log after a restart.
    pub(super) fn recall_log(&mut self, job: u64) {
        let told = self.logs.read_told(job);
        let uploaded_bytes = self.logs.read_uploaded(job).map_or(0, |text| text.len() as u64);
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        entry.meter.uploaded_bytes = uploaded_bytes;
        for stored in told {
            entry.meter.told_bytes += stored.line.len() as u64 + 1;
            if stored.completes {
                entry.completing = Some(stored.step.clone());
            }
            entry.feeds.entry(stored.step).or_default().told += 1;
        }
    }
}

/// Counts a line and passes it to `take` unless the limit was exceeded before. The first line that exceeds the limit is
/// replaced by a remark.
fn keep(bytes: &mut u64, max: u64, mut line: String, take: impl FnOnce(String)) {
    if *bytes > max {
        return;
    }
    *bytes += line.len() as u64 + 1;
    if *bytes > max {
        line = format!("log cut after {max} bytes");
    }
    take(line);
}

/// Cuts a line that is too long. A line that was cut together with the time before it may be cut again without the time.
/// The result is the same as for the line alone, so that lines from the feed and from uploads compare equal.
fn cut_line(line: String, bytes_max: usize) -> String {
    if line.len() <= bytes_max {
        return line;
    }
    cut(line, bytes_max - LINE_CUT.len()) + LINE_CUT
}

/// Shortens a text to a number of bytes, or to a few less so that no character is cut.
pub(super) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Returns the whole lines of `rest` and `piece` together. The remaining bytes stay in `rest`.
fn whole_lines(rest: &mut Vec<u8>, piece: &[u8]) -> Vec<String> {
    rest.extend_from_slice(piece);
    // If no end of line comes, the bytes are taken as a line when they get too long.
    let whole = match rest.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => rest.drain(..=end).collect::<Vec<u8>>(),
        None if rest.len() > PIECE_BYTES_MAX => std::mem::take(rest),
        None => return Vec::new(),
    };
    let whole = whole.strip_suffix(b"\n").unwrap_or(&whole);
    let text = |line: &[u8]| String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
    whole.split(|byte| *byte == b'\n').map(text).collect()
}

/// Splits a time such as `2026-11-23T16:47:01.2816991Z ` from the beginning of a line.
fn split_time(line: &str) -> (Option<&str>, &str) {
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    match line.split_once(' ').or(Some((line, ""))) {
        Some((time, rest)) if is_time(time) => (Some(time), rest),
        _ => (None, line),
    }
}

fn is_time(text: &str) -> bool {
    let shape = |(place, byte): (usize, u8)| match place {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        19 => byte == b'.',
        place if place + 1 == text.len() => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    (22..=30).contains(&text.len()) && text.bytes().enumerate().all(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_before_a_line_is_told_from_its_text() {
        let (time, line) = split_time("2026-11-23T16:47:01.2816991Z hello  world");
        assert_eq!((time, line), (Some("2026-11-23T16:47:01.2816991Z"), "hello  world"));
        assert_eq!(split_time("2026-11-23T16:47:01.2816991Z"), (Some("2026-11-23T16:47:01.2816991Z"), ""));
        assert_eq!(split_time("hello world"), (None, "hello world"));
        assert_eq!(split_time(""), (None, ""));
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let mut rest = Vec::new();
        assert_eq!(whole_lines(&mut rest, b"one\r\ntw"), ["one"]);
        assert_eq!(whole_lines(&mut rest, b"o\n\nthree"), ["two", ""]);
        assert!(whole_lines(&mut rest, b"").is_empty());
        assert_eq!(whole_lines(&mut rest, b"\n"), ["three"]);
    }

    #[test]
    fn a_long_line_is_cut_to_the_same_text_with_and_without_its_time() {
        for length in LINE_BYTES_MAX - 40..LINE_BYTES_MAX + 120 {
            let line =
                format!("{}\u{e9}{}", "x".repeat(LINE_BYTES_MAX - LINE_CUT.len() - 1), "y".repeat(length));
            let line = &line[..length.max(LINE_BYTES_MAX - LINE_CUT.len() + 1)];
            let told = cut_line(line.to_owned(), LINE_BYTES_MAX);
            assert_eq!(told.ends_with(LINE_CUT), line.len() > LINE_BYTES_MAX);
            assert!(told.len() <= LINE_BYTES_MAX);
            let stamped = format!("2026-11-23T16:47:01.2816991Z {line}");
            let stored = cut_line(stamped, LINE_BYTES_MAX + TIME_BYTES_MAX);
            assert_eq!(cut_line(split_time(&stored).1.to_owned(), LINE_BYTES_MAX), told, "{length}");
        }
    }

    #[test]
    fn a_log_is_cut_once_and_says_so() {
        let (mut bytes, mut lines) = (0, Vec::new());
        for text in ["12345", "12345", "12345", "12345"] {
            keep(&mut bytes, 12, text.to_owned(), |line| lines.push(line));
        }
        assert_eq!(lines, ["12345", "12345", "log cut after 12 bytes"]);
    }
}

//! Relays the ends of the official app's own log files after a failure, because they say why a job never began.
//!
//! The app writes them to `_diag` in its folder: `Runner_<time>-utc.log` of each listener, `Worker_<time>-utc.log` of each
//! job (2.336.0, seen). The folder belongs to the user of jobs, so that everything in it may be a job's work: links and
//! files that are not regular are left out, and files, lines and bytes are bounded.

use super::log::Log;
use super::mask::Mask;
use crate::folder::{Folder, FolderError};
use crate::lines::cut;
use dayfly_guest::runner_app::APP_LOG;
use std::path::Path;

/// Folder of the log files, in the app's folder.
const FOLDER: &str = "_diag";

/// The beginnings of the files' names.
const KINDS: [&str; 2] = ["Runner_", "Worker_"];

/// Longest name of a file that counts. The app's have some 35 characters.
const NAME_LENGTH_MAX: usize = 100;

/// Most lines of a file that are relayed.
const LINES_MAX: usize = 200;

/// Longest relayed line, in bytes.
const LINE_LENGTH_MAX: usize = 1024;

/// Most bytes of a file that are read. Two files have room in the queue to the host, beside the app's last lines.
const LENGTH_MAX: usize = 128 * 1024;

/// Relays the end of the newest file of each kind. If a file cannot be read, this is logged as a detail.
pub(super) fn relay(app_folder: &Path, mask: &Mask, log: &Log) {
    for kind in KINDS {
        match end_of(app_folder, kind) {
            Ok(Some((name, content))) => {
                let masked = mask.apply(&content);
                let lines = last_lines(&masked);
                log.relay(APP_LOG, &format!("the last {} lines of {FOLDER}/{name}:", lines.len()));
                lines.iter().for_each(|line| log.relay(APP_LOG, line));
            }
            Ok(None) => log.detail(&format!("there is no {FOLDER}/{kind}*.log")),
            Err(error) => log.detail(&format!("the app's own log is not shown: {error}")),
        }
    }
}

/// Returns the name and the end of the newest file of a kind; `None` if there is none.
fn end_of(app_folder: &Path, kind: &str) -> Result<Option<(String, String)>, FolderError> {
    let folder = match Folder::open(app_folder)?.inner(FOLDER) {
        Err(error) if error.is_absent() => return Ok(None),
        folder => folder?,
    };
    let Some(name) = folder.newest(|name| is_log(name, kind))? else { return Ok(None) };
    let (content, is_whole) = folder.read_end(&name, LENGTH_MAX)?;
    // A line whose beginning was not read may hold a part of a secret, which no mask would find.
    let start =
        if is_whole { 0 } else { content.iter().position(|byte| *byte == b'\n').unwrap_or(content.len()) };
    Ok(Some((name, String::from_utf8_lossy(&content[start..]).into_owned())))
}

fn is_log(name: &str, kind: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.starts_with(kind)
        && name.ends_with(".log")
        && name.len() <= NAME_LENGTH_MAX
        && name.bytes().all(is_plain)
}

/// Returns the last lines that are not empty, each cut to its longest length.
fn last_lines(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let mut lines: Vec<&str> = lines.rev().take(LINES_MAX).collect();
    lines.reverse();
    lines.into_iter().map(|line| cut(line, LINE_LENGTH_MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_apps_own_names_count() {
        assert!(is_log("Worker_20260102-030405-utc.log", "Worker_"));
        for name in ["Runner_20260102-030405-utc.log", "Worker_a.txt", "Worker_\u{1b}.log", "xWorker_.log"] {
            assert!(!is_log(name, "Worker_"), "{name}");
        }
        assert!(!is_log(&format!("Worker_{}.log", "a".repeat(NAME_LENGTH_MAX)), "Worker_"));
    }

    #[test]
    fn lines_are_the_last_ones_and_bounded() {
        let text: String = (0..LINES_MAX + 50).map(|number| format!("line {number}\r\n\n")).collect();
        let lines = last_lines(&text);
        assert_eq!((lines.len(), lines[0], lines[LINES_MAX - 1]), (LINES_MAX, "line 50", "line 249"));
        let long = "\u{20ac}".repeat(LINE_LENGTH_MAX);
        assert_eq!(last_lines(&long)[0].len(), LINE_LENGTH_MAX / 3 * 3, "no character is cut");
    }

    #[test]
    fn a_file_that_is_read_in_part_begins_with_a_whole_line() {
        let app = tempfile::tempdir().expect("folder");
        std::fs::create_dir(app.path().join(FOLDER)).expect("folder");
        let write = |name: &str, text: String| {
            std::fs::write(app.path().join(FOLDER).join(name), text).expect("file");
        };
        write("Runner_1.log", format!("{}\nlast\n", "x".repeat(LENGTH_MAX)));
        let (name, end) = end_of(app.path(), "Runner_").expect("a folder").expect("a file");
        assert_eq!((name.as_str(), last_lines(&end)), ("Runner_1.log", vec!["last"]));
        write("Worker_1.log", "x".repeat(LENGTH_MAX + 1));
        let (_, end) = end_of(app.path(), "Worker_").expect("a folder").expect("a file");
        assert_eq!(last_lines(&end), Vec::<&str>::new());
    }
}

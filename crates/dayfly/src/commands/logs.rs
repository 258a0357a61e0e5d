//! `dayfly logs`: what a runner has said and done, also after its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_fleet::{RunnerId, run_log};
use serde_json::Value;

use crate::cli::LogsArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::settings::Places;
use crate::signals::Signals;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) async fn run(places: &Places, args: &LogsArgs) -> Result<Outcome> {
    let path = find(&places.state.join(run_log::FOLDER), &args.id)?;
    let mut signals = Signals::take_over()?;
    let file = File::open(&path)
        .map_err(|error| Failure::cannot(format!("cannot read the log {}: {error}", path.display())))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        let read = reader.read_until(b'\n', &mut line).map_err(Failure::cannot)?;
        if line.ends_with(b"\n") {
            let ended = show(&line, args.json);
            line.clear();
            if ended && args.follow {
                return Ok(Outcome::Success);
            }
        } else if read == 0 && !args.follow {
            return Ok(Outcome::Success);
        } else if read == 0 {
            tokio::select! {
                signal = signals.next() => return Ok(Outcome::StoppedBy(signal)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// The log of a runner, by its id or by its name, which ends in the id.
pub(super) fn find(folder: &Path, wanted: &str) -> Result<PathBuf> {
    let id = match wanted.parse::<RunnerId>() {
        Ok(id) => id,
        Err(error) => {
            let mut parts = wanted.rsplitn(3, '-');
            let (random, index) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{index}-{random}").parse().map_err(|_| Failure::usage(error))?
        }
    };
    let path = run_log::path_of(folder, id.as_str());
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::cannot(format!("there is no log of a runner {id} in {}", folder.display()))
        .hint("`dayfly ps` lists the runners of now; only the newest logs are kept"))
}

/// Shows a line of the log; whether it was the runner's end.
fn show(line: &[u8], json: bool) -> bool {
    let Ok(event) = serde_json::from_slice::<Value>(line) else { return false };
    if json {
        printer::json(&event);
    } else {
        printer::line(text(&event));
    }
    event["event"] == "ended"
}

/// A line for people: the time, then what was printed, or what happened.
fn text(event: &Value) -> String {
    let at = event["at_ms"].as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let at = at.map(|at| at.strftime("%H:%M:%S").to_string()).unwrap_or_default();
    let kind = event["event"].as_str().unwrap_or_default();
    if kind == "line" {
        return format!("{} {}", paint(style::DIM, at), plain(event["text"].as_str().unwrap_or_default()));
    }
    let details: Vec<String> = event
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !["at_ms", "at_us", "event", "loop", "runner", "name"].contains(&key.as_str()))
        .map(|(key, value)| format!("{key}={}", plain(value.as_str().unwrap_or(&value.to_string()))))
        .collect();
    let what = format!("{} {}", kind.replace('_', " "), details.join(" "));
    format!("{} {}", paint(style::DIM, at), paint(style::NAME, format_args!("-- {}", what.trim_end())))
}

/// What a guest prints must not steer a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_found_by_id_and_by_name() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("2-k3V9x0q.jsonl"), "").expect("log");
        for wanted in ["2-k3V9x0q", "GH-runner-2-k3V9x0q", "a-b-2-k3V9x0q"] {
            assert!(find(folder.path(), wanted).is_ok(), "{wanted}");
        }
        assert_eq!(find(folder.path(), "2-aaaaaaa").expect_err("none").code(), 3);
        assert_eq!(find(folder.path(), "../../etc/passwd").expect_err("none").code(), 2);
    }

    #[test]
    fn lines_and_events_are_told_without_control_characters() {
        let line = serde_json::json!({"at_ms": 0, "event": "line", "source": "agent", "text": "a\u{1b}[2Jb"});
        assert!(text(&line).ends_with("a[2Jb"));
        let event = serde_json::json!({"at_ms": 0, "event": "vm_gone", "loop": 1, "exit": "powered off"});
        assert!(text(&event).contains("-- vm gone exit=powered off"));
    }
}

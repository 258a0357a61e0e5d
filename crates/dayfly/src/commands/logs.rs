//! `dayfly logs`: shows the facts and the output of a runner, also after its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_fleet::{RunnerId, run_log};
use serde_json::Value;

use crate::cli::LogsArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::settings::Places;
use crate::signals::Signals;

/// Interval between two reads of a log that is followed.
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

/// Finds the log of a runner by its id, or by its name, which ends in the id.
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
        .hint("`dayfly ps` lists the current runners; only the newest logs are kept"))
}

/// Shows a line of the log. Returns true if it was the runner's last one. Skips a line that is no fact of this version.
fn show(line: &[u8], json: bool) -> bool {
    let Ok(record) = serde_json::from_slice::<FactRecord>(line) else { return false };
    if json {
        printer::json(&record);
    } else {
        printer::line(text(&record));
    }
    record.fact == Fact::Ended
}

/// Returns a line for people: the time, then the guest's output or the fact.
fn text(record: &FactRecord) -> String {
    let at = i64::try_from(record.at.ms()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let at = at.map(|at| at.strftime("%H:%M:%S").to_string()).unwrap_or_default();
    let at = paint(style::DIM, at);
    match &record.fact {
        Fact::Line { text, .. } => format!("{at} {}", plain(text)),
        fact => format!("{at} {}", paint(style::NAME, format_args!("-- {}", in_words(fact)))),
    }
}

/// Returns the name of a fact, and its fields in the form `key=value`.
fn in_words(fact: &Fact) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(fact) else { return String::new() };
    let name = fields.remove("event").unwrap_or_default();
    let mut words = vec![name.as_str().unwrap_or_default().replace('_', " ")];
    words.extend(
        fields
            .iter()
            .map(|(key, value)| format!("{key}={}", plain(value.as_str().unwrap_or(&value.to_string())))),
    );
    words.join(" ")
}

/// Removes control characters, because the output of a guest must not steer a terminal.
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
    fn lines_and_facts_are_shown_without_control_characters() {
        let of = |fact: serde_json::Value| {
            let mut record = serde_json::json!({"at_ms": 0, "loop": 1, "runner": "1-aaaaaaa", "name": "n"});
            record.as_object_mut().expect("an object").extend(fact.as_object().expect("an object").clone());
            text(&serde_json::from_value(record).expect("a fact"))
        };
        assert!(
            of(serde_json::json!({"event": "line", "source": "agent", "text": "a\u{1b}[2Jb"}))
                .ends_with("a[2Jb")
        );
        let gone = of(serde_json::json!({"event": "vm_gone", "exit": "powered\u{7} off"}));
        assert!(gone.contains("-- vm gone exit=powered off"), "{gone}");
        let ended = of(serde_json::json!({"event": "ended"}));
        assert!(ended.contains("-- ended"), "{ended}");
    }
}

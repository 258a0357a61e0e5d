//! `dayfly logs`: shows the facts and the output of a runner, also after its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_fleet::job_end::JobConclusion;
use dayfly_fleet::{RunnerId, run_log};
use dayfly_guest::runner_app::JobResult;
use serde_json::Value;

use super::annotation;
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
    let mut outcome = JobOutcome::default();
    loop {
        let read = reader.read_until(b'\n', &mut line).map_err(Failure::cannot)?;
        if line.ends_with(b"\n") {
            let ended = show(&line, args.json, &mut outcome);
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
fn show(line: &[u8], json: bool, outcome: &mut JobOutcome) -> bool {
    let Ok(record) = serde_json::from_slice::<FactRecord>(line) else { return false };
    if json {
        printer::json(&record);
    } else {
        text(&record, outcome).iter().for_each(printer::line);
    }
    record.fact == Fact::Ended
}

/// The reports about the runner's job so far, by the runner app and by the forge.
#[derive(Debug, Default)]
struct JobOutcome {
    /// Name of the last job that the app has started.
    started: Option<String>,
    app: Option<JobResult>,
    /// The conclusion, with the name of its job.
    forge: Option<(String, JobConclusion)>,
}

impl JobOutcome {
    /// Takes in a fact. Returns both reports if the fact is the second one about the same job and they differ.
    fn take(&mut self, fact: &Fact) -> Option<(JobResult, JobConclusion)> {
        match fact {
            Fact::JobStarted { job } => *self = Self { started: Some(job.clone()), ..Self::default() },
            Fact::JobFinished { result } => self.app = Some(*result),
            Fact::JobConcluded { job, conclusion, .. } => self.forge = Some((job.clone(), *conclusion)),
            _ => {}
        }
        let is_report = matches!(fact, Fact::JobFinished { .. } | Fact::JobConcluded { .. });
        let (app, (job, forge)) = (self.app.filter(|_| is_report)?, self.forge.as_ref()?);
        let is_same_job = self.started.as_ref().is_none_or(|started| started == job);
        (is_same_job && !forge.agrees_with(app)).then_some((app, *forge))
    }
}

/// Returns lines for people: the time, then the guest's output or the fact.
fn text(record: &FactRecord, outcome: &mut JobOutcome) -> Vec<String> {
    let at = i64::try_from(record.at.ms()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let at = at.map(|at| at.strftime("%H:%M:%S").to_string()).unwrap_or_default();
    let at = paint(style::DIM, at);
    let conflict = outcome.take(&record.fact);
    let fact_line = |words: &str| format!("{at} {}", paint(style::NAME, format_args!("-- {words}")));
    match &record.fact {
        Fact::Line { text, .. } => vec![format!("{at} {}", plain(text))],
        Fact::JobConcluded { job, conclusion, annotations, annotations_left_out } => {
            let mut words = format!("the forge says: job {} ended: {}", plain(job), conclusion.as_str());
            if let Some((app, _)) = conflict {
                words += &format!(", which counts; the runner app says {app:?}");
            }
            let notes = annotations.iter().flat_map(annotation::lines);
            let mut lines = vec![fact_line(&words)];
            lines.extend(notes.map(|note| format!("{at}    {note}")));
            if *annotations_left_out > 0 {
                lines.push(format!("{at}    ({annotations_left_out} more annotations)"));
            }
            lines
        }
        fact => {
            let mut words = in_words(fact);
            if let Some((_, forge)) = conflict {
                words += &format!("; the forge says {}, which counts", forge.as_str());
            }
            vec![fact_line(&words)]
        }
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
            let record = serde_json::from_value(record).expect("a fact");
            text(&record, &mut JobOutcome::default()).remove(0)
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

    fn shown(facts: &[serde_json::Value]) -> String {
        let mut outcome = JobOutcome::default();
        let line = |fact: &serde_json::Value| {
            let mut record = serde_json::json!({"at_ms": 0, "loop": 1, "runner": "1-aaaaaaa", "name": "n"});
            record.as_object_mut().expect("an object").extend(fact.as_object().expect("an object").clone());
            text(&serde_json::from_value(record).expect("a fact"), &mut outcome)
        };
        let lines: Vec<String> = facts.iter().flat_map(line).collect();
        anstream::adapter::strip_str(&lines.join("\n")).to_string()
    }

    #[test]
    fn the_forges_report_counts_and_is_shown_with_annotations_whenever_it_comes() {
        let started = serde_json::json!({"event": "job_started", "job": "build"});
        let finished = serde_json::json!({"event": "job_finished", "result": "Succeeded"});
        let ended = serde_json::json!({"event": "ended"});
        let concluded = |conclusion: &str| serde_json::json!({"event": "job_concluded", "job": "build", "conclusion": conclusion});
        let mut annotated = concluded("failure");
        annotated["annotations"] = serde_json::json!([
            {"level": "failure", "message": "no memory\nat A", "path": "a.c", "line": 3},
            {"level": "warning", "message": "careful"},
        ]);
        annotated["annotations_left_out"] = 4.into();
        let other_job = serde_json::json!({"event": "job_started", "job": "test"});
        insta::assert_snapshot!(
            [
                shown(&[started.clone(), concluded("success"), finished.clone(), ended.clone()]),
                shown(&[started.clone(), finished.clone(), annotated.clone(), ended.clone()]),
                shown(&[started.clone(), annotated, finished.clone(), ended.clone()]),
                shown(&[started.clone(), finished.clone(), ended, concluded("cancelled")]),
                shown(&[started.clone(), other_job, finished.clone(), concluded("failure")]),
                shown(&[started.clone(), concluded("failure"), started, finished]),
            ]
            .join("\n\n")
        );
    }
}

//! `dayfly logs`: shows the facts and the output of a runner, also after its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use dayfly_fleet::fact::{Fact, FactRecord};
use dayfly_fleet::history::History;
use dayfly_fleet::job_end::JobConclusion;
use dayfly_fleet::{RunnerId, run_log};
use dayfly_guest::runner_app::JobResult;
use dayfly_host::quantity::quantity;
use serde_json::Value;

use super::annotation;
use crate::cli::LogsArgs;
use crate::exit::{Failure, Outcome, Result};
use crate::printer::{self, paint, style};
use crate::settings::Places;
use crate::signals::Signals;
use crate::units::plain;

/// Interval between two reads of a log that is followed.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) async fn run(places: &Places, args: &LogsArgs) -> Result<Outcome> {
    let mut outcome = JobOutcome::default();
    let path = match find(places, &args.id)? {
        RunLog::File(path) => path,
        RunLog::Facts(records) => {
            printer::note("its log is not kept any more; this is what the history has of it");
            records.iter().for_each(|record| show_record(record, args.json, &mut outcome));
            return Ok(Outcome::Success);
        }
    };
    let mut signals = Signals::take_over()?;
    let file = File::open(&path)
        .map_err(|error| Failure::cannot(format!("cannot read the log {}: {error}", path.display())))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
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

/// The log of a runner.
#[derive(Debug)]
pub(super) enum RunLog {
    /// Its file.
    File(PathBuf),
    /// The facts that the history has of it, because the file is gone.
    Facts(Vec<FactRecord>),
}

/// Finds the log of a runner by its id, or by its name, which ends in the id.
pub(super) fn find(places: &Places, wanted: &str) -> Result<RunLog> {
    let id = runner_id(wanted)?;
    let folder = places.state.join(run_log::FOLDER);
    let path = run_log::path_of(&folder, id.as_str());
    if path.is_file() {
        return Ok(RunLog::File(path));
    }
    let records = History::of(&places.state).facts_of(id.as_str()).map_err(|error| {
        Failure::cannot(format!("cannot read the history below {}: {error}", places.state.display()))
    })?;
    if !records.is_empty() {
        return Ok(RunLog::Facts(records));
    }
    Err(Failure::cannot(format!("there is no log of a runner {id} in {}", folder.display()))
        .hint("`dayfly ps` lists the current runners, and `dayfly runs` those that have ended"))
}

/// Returns the id of a runner, from the id itself or from the runner's name, which ends in it.
///
/// # Errors
/// The text is neither.
pub(super) fn runner_id(wanted: &str) -> Result<RunnerId> {
    wanted.parse::<RunnerId>().or_else(|error| {
        let mut parts = wanted.rsplitn(3, '-');
        let (random, index) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        format!("{index}-{random}").parse().map_err(|_| Failure::usage(error))
    })
}

/// Shows a line of the log. Returns true if it was the runner's last one. Skips a line that is no fact of this version.
fn show(line: &[u8], json: bool, outcome: &mut JobOutcome) -> bool {
    let Ok(record) = serde_json::from_slice::<FactRecord>(line) else { return false };
    show_record(&record, json, outcome);
    record.fact == Fact::Ended
}

fn show_record(record: &FactRecord, json: bool, outcome: &mut JobOutcome) {
    if json {
        printer::json(record);
    } else {
        text(record, outcome).iter().for_each(printer::line);
    }
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

/// Turns the facts of a log into lines for people, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct LogWords(JobOutcome);

impl LogWords {
    /// Returns the lines of the next fact, with styles.
    pub(super) fn of(&mut self, record: &FactRecord) -> Vec<String> {
        text(record, &mut self.0)
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
                let more = quantity(*annotations_left_out, "more annotation", "more annotations");
                lines.push(format!("{at}    ({more})"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_found_by_id_and_by_name_and_without_its_file_in_the_history() {
        let state = tempfile::tempdir().expect("folder");
        let places = Places::for_tests(state.path());
        let file = state.path().join(run_log::FOLDER).join("2-k3V9x0q.jsonl");
        std::fs::create_dir(file.parent().expect("a folder")).expect("folder");
        std::fs::write(&file, "").expect("log");
        let names = ["2-k3V9x0q", "GH-runner-2-k3V9x0q", "a-b-2-k3V9x0q"];
        for wanted in names {
            assert!(matches!(find(&places, wanted), Ok(RunLog::File(path)) if path == file), "{wanted}");
        }
        assert_eq!(find(&places, "2-aaaaaaa").expect_err("none").code(), 3);
        assert_eq!(find(&places, "../../etc/passwd").expect_err("none").code(), 2);
        std::fs::remove_file(&file).expect("removed");
        let fact = serde_json::json!({"at_ms": 7, "at_us": 7000, "loop": 2, "runner": "2-k3V9x0q",
            "name": "GH-runner-2-k3V9x0q", "event": "registering"});
        let record: FactRecord = serde_json::from_value(fact).expect("a fact");
        History::of(state.path()).keep(std::slice::from_ref(&record)).expect("kept");
        for wanted in names {
            let Ok(RunLog::Facts(found)) = find(&places, wanted) else { panic!("{wanted}") };
            assert_eq!(found, std::slice::from_ref(&record));
        }
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

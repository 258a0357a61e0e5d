//! Prints the progress of a demo: text for the terminal, or one JSON object per line.

use std::time::Duration;
use std::time::Instant;

use dayfly_fleet::fact::{Fact, FactRecord, StartKind};
use dayfly_guest::protocol::Milestone;
use dayfly_lab::{LabEvent, LabEventKind};
use serde_json::json;

use super::notes::{ShownMarks, annotation_of, summary};
use super::phases::{JobReport, Progress};
use crate::commands::annotation;
use crate::commands::sentence::{disk_failed, out_of_memory, vmm_out_of_memory};
use crate::printer::{self, paint, style};

/// Widest column of job names. A longer name moves its line to the right.
const JOB_COLUMN_MAX: usize = 28;

/// The machines, registrations and files that exist after a demo's end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Remains {
    pub(super) machines: Vec<String>,
    pub(super) registrations: Vec<String>,
    pub(super) files: Vec<String>,
    pub(super) kept: Vec<KeptMachine>,
}

/// A machine that was left running, as requested.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct KeptMachine {
    /// Name of the machine.
    pub(super) machine: String,
    /// Process id of its VMM.
    pub(super) process: u32,
    /// The socket of its console, which offers a shell.
    pub(super) console: std::path::PathBuf,
}

/// The format of the output.
pub(super) enum View {
    Text { began: Instant, job_column: usize, marks: ShownMarks },
    Json,
}

impl View {
    pub(super) fn new(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        Self::Text { began: Instant::now(), job_column: 8, marks: ShownMarks::default() }
    }

    pub(super) fn is_json(&self) -> bool {
        matches!(self, Self::Json)
    }

    /// Prints a fact about the demo's set-up.
    pub(super) fn fact(&self, name: &str, text: &str, details: serde_json::Value) {
        match self {
            Self::Text { .. } => {
                printer::line(format_args!("{:9} {text}", paint(style::HEAD, format_args!("{name:9}"))))
            }
            Self::Json => {
                let mut object = json!({ "event": name });
                if let (Some(object), Some(details)) = (object.as_object_mut(), details.as_object()) {
                    object.extend(details.clone());
                }
                printer::json(&object);
            }
        }
    }

    /// Prints a warning; the demo goes on.
    pub(super) fn warning(&self, message: &str) {
        match self {
            Self::Text { .. } => printer::warning(message),
            Self::Json => printer::json(&json!({ "event": "warning", "message": message })),
        }
    }

    pub(super) fn lab(&mut self, event: &LabEvent, progress: &Progress) {
        match self {
            Self::Text { .. } => self.lab_text(event, progress),
            Self::Json => lab_json(event, progress),
        }
    }

    pub(super) fn fleet(&mut self, record: &FactRecord, wanted_by: Option<&str>, progress: &Progress) {
        let job = progress.job_of(record.name()).or(wanted_by);
        match self {
            Self::Text { .. } => self.fleet_text(record, job),
            Self::Json => fleet_json(record, job),
        }
    }

    fn lab_text(&mut self, event: &LabEvent, progress: &Progress) {
        if let Self::Text { marks, .. } = self {
            marks.take(&event.kind);
        }
        match &event.kind {
            LabEventKind::RunCreated { title, number, .. } => {
                self.say("", format_args!("run {number}: {}", paint(style::HEAD, title)));
            }
            LabEventKind::Notice { text } => {
                self.say("", format_args!("{}: {text}", paint(style::WARN, "notice")))
            }
            LabEventKind::JobQueued { job, labels, group, .. } => {
                let labels = if labels.is_empty() { "any runner".to_owned() } else { labels.join(", ") };
                let group = group.as_ref().map(|group| format!(" in group {group}")).unwrap_or_default();
                self.say(&progress.job_name(*job), format_args!("queued for {labels}{group}"));
            }
            LabEventKind::JobAcquired { job, runner_name, .. } => {
                self.say(
                    &progress.job_name(*job),
                    format_args!("taken by {}", paint(style::NAME, runner_name)),
                );
            }
            LabEventKind::StepStarted { job, name, .. } => {
                self.say(&progress.job_name(*job), paint(style::HEAD, format_args!("> {name}")));
            }
            LabEventKind::StepCompleted { job, name, conclusion, .. } if conclusion != "success" => {
                self.say(&progress.job_name(*job), format_args!("> {name}: {}", coloured(conclusion)));
            }
            LabEventKind::LogLine { job, line, .. } => {
                self.say(&progress.job_name(*job), format_args!("{} {line}", paint(style::DIM, "|")));
            }
            LabEventKind::Annotation { .. } => self.annotation(&event.kind, progress),
            LabEventKind::JobSummary { job, .. } => {
                self.say_lines(&progress.job_name(*job), summary(&event.kind));
            }
            LabEventKind::JobCompleted { job, conclusion, remark, .. } => {
                let remark = remark.as_ref().map(|remark| format!(": {remark}")).unwrap_or_default();
                self.say(
                    &progress.job_name(*job),
                    format_args!("{}{remark}", coloured(&conclusion.to_string())),
                );
            }
            LabEventKind::JobSkipped { name, .. } => self.say(name, paint(style::DIM, "skipped")),
            LabEventKind::RunCompleted { conclusion } => {
                self.say("", format_args!("run {}", coloured(&conclusion.to_string())));
            }
            LabEventKind::JobAssigned { .. }
            | LabEventKind::StepCompleted { .. }
            | LabEventKind::FaultInjected { .. } => {}
        }
    }

    fn fleet_text(&mut self, record: &FactRecord, job: Option<&str>) {
        let text = match &record.fact {
            Fact::Registered { registration } => {
                format!("registered as {} (id {registration})", record.name())
            }
            Fact::TemplateBuilding { .. } => {
                "building the template that machines are forked from (once, some 20 s)".to_owned()
            }
            Fact::TemplateWaiting { .. } => "waiting for the template".to_owned(),
            Fact::TemplateLine { text } => format!("in the template: {text}"),
            Fact::TemplateBuilt { took_ms, .. } => {
                format!("template built in {:.1} s", Duration::from_millis(*took_ms).as_secs_f32())
            }
            Fact::TemplateFailed { reason, .. } => {
                format!("no template, so machines are booted: {reason}")
            }
            Fact::Cold { reason } => format!("machine is booted: {reason}"),
            Fact::VmmStarted { from: StartKind::Boot, .. } => "machine started".to_owned(),
            Fact::VmmStarted { from: StartKind::Spare, .. } => "spare machine taken".to_owned(),
            Fact::VmmStarted { from: StartKind::Fork, .. } => "machine forked".to_owned(),
            Fact::VmRestarted { reason } => format!("machine started once again: {reason}"),
            Fact::AgentHello => "machine is up".to_owned(),
            Fact::Milestone { milestone: Milestone::DockerReady, .. } => "Docker answers".to_owned(),
            Fact::RunnerUp => "runner starts".to_owned(),
            Fact::Stopping { reason } => format!("runner is being stopped: {reason}"),
            Fact::VmGone { .. } => "machine is gone".to_owned(),
            Fact::OutOfMemory { process, used_mib, memory_mib } => {
                return self.warn(job, &out_of_memory(process, *used_mib, *memory_mib));
            }
            Fact::VmmOutOfMemory { whose, limit_mib } => {
                return self.warn(job, &vmm_out_of_memory(*whose, *limit_mib));
            }
            Fact::DiskFailed { reason } => return self.warn(job, &disk_failed(reason)),
            Fact::Warning { message } => return self.warn(job, message),
            _ => return,
        };
        self.say(job.unwrap_or(record.name()), paint(style::DIM, text));
    }

    fn warn(&mut self, job: Option<&str>, message: &str) {
        self.say(job.unwrap_or_default(), format_args!("{}: {message}", paint(style::WARN, "warning")));
    }

    /// Prints an annotation unless the log has shown all that it says.
    fn annotation(&mut self, event: &LabEventKind, progress: &Progress) {
        let (Self::Text { marks, .. }, Some((job, annotation))) = (&*self, annotation_of(event)) else {
            return;
        };
        if !marks.contains(job, &annotation) {
            self.say_lines(&progress.job_name(job), annotation::lines(&annotation));
        }
    }

    fn say_lines(&mut self, job: &str, lines: Vec<String>) {
        lines.into_iter().for_each(|line| self.say(job, line));
    }

    fn say(&mut self, job: &str, text: impl std::fmt::Display) {
        let Self::Text { began, job_column, .. } = self else { return };
        *job_column = (*job_column).max(job.chars().count().min(JOB_COLUMN_MAX));
        let seconds = began.elapsed().as_secs_f64();
        let width = *job_column;
        printer::line(format_args!(
            "{} {} {text}",
            paint(style::DIM, format_args!("{seconds:6.1}s")),
            paint(style::NAME, format_args!("{job:width$}")),
        ));
    }

    /// Prints the table of phases, the remains of the machines, and the conclusion.
    pub(super) fn end(&self, conclusion: &str, reports: &[JobReport], remains: &Remains) {
        match self {
            Self::Text { .. } => {
                printer::line("");
                for line in table(reports, printer::columns()) {
                    printer::line(line);
                }
                printer::line("");
                for line in proof(remains) {
                    printer::line(line);
                }
                printer::line(coloured(conclusion));
            }
            Self::Json => {
                printer::json(&json!({
                    "event": "left", "machines": remains.machines, "registrations": remains.registrations,
                    "files": remains.files, "kept": remains.kept,
                }));
                printer::json(&json!({ "event": "done", "conclusion": conclusion, "runs": reports }));
            }
        }
    }
}

fn coloured(conclusion: &str) -> String {
    let style = match conclusion {
        "success" => style::GOOD,
        "failure" => style::BAD,
        "cancelled" => style::WARN,
        _ => style::DIM,
    };
    paint(style, conclusion)
}

fn lab_json(event: &LabEvent, progress: &Progress) {
    if let LabEventKind::LogLine { job, step, line, .. } = &event.kind {
        printer::json(&json!({ "event": "log", "job": progress.job_name(*job), "step": step, "line": line }));
    } else if let Ok(mut value) = serde_json::to_value(event) {
        if let Some(object) = value.as_object_mut()
            && let Some(job) = object.get("job").and_then(serde_json::Value::as_u64)
        {
            object.insert("job_id".to_owned(), job.into());
            object.insert("job".to_owned(), progress.job_name(job).into());
        }
        printer::json(&value);
    }
}

fn fleet_json(record: &FactRecord, job: Option<&str>) {
    // The lab's own events have told this already.
    if matches!(record.fact, Fact::JobConcluded { .. }) {
        return;
    }
    if let Ok(serde_json::Value::Object(mut what)) = serde_json::to_value(&record.fact) {
        let kind = what.remove("event").unwrap_or_default();
        printer::json(&json!({
            "event": "runner", "at_ms": record.at.ms(), "runner": record.name(), "job": job, "what": kind, "details": what,
        }));
    }
}

/// Formats the table of phases in seconds. If the terminal is too narrow for all columns, each job is a block of lines.
fn table(reports: &[JobReport], columns: Option<usize>) -> Vec<String> {
    let Some(first) = reports.first() else { return vec!["no job was run".to_owned()] };
    let heads: Vec<String> = first.phases.named().iter().map(|(name, _)| name.replace('_', " ")).collect();
    let jobs = reports.iter().map(|report| report.job.chars().count()).max().unwrap_or(3).max("job".len());
    let width = jobs + heads.iter().map(|head| head.len() + 2).sum::<usize>() + "  conclusion".len();
    let mut lines = vec![paint(style::HEAD, "phases, in seconds since the job was queued")];
    if columns.is_none_or(|columns| width <= columns) {
        let head: String = heads.iter().map(|head| format!("  {head}")).collect();
        lines.push(format!("{:jobs$}{head}  conclusion", "job"));
        for report in reports {
            let cells: String = heads
                .iter()
                .zip(report.phases.named())
                .map(|(head, (_, at))| format!("  {:>width$}", seconds(at), width = head.len()))
                .collect();
            lines.push(format!("{:jobs$}{cells}  {}", report.job, coloured(conclusion_of(report))));
        }
    } else {
        for report in reports {
            let runner = report.runner.as_deref().unwrap_or("no runner");
            lines.push(format!(
                "{} on {runner}: {}",
                paint(style::NAME, &report.job),
                coloured(conclusion_of(report))
            ));
            for group in report.phases.named().chunks(3) {
                let cells: String = group
                    .iter()
                    .map(|(name, at)| format!("  {:15}{:>8}", name.replace('_', " "), seconds(*at)))
                    .collect();
                lines.push(cells);
            }
        }
    }
    lines
}

fn conclusion_of(report: &JobReport) -> &str {
    report.conclusion.as_deref().unwrap_or("not run")
}

fn seconds(milliseconds: Option<i64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a time for people, rounded to hundredths")]
    milliseconds.map_or_else(|| "-".to_owned(), |at| format!("{:.2}", at as f64 / 1000.0))
}

fn proof(remains: &Remains) -> Vec<String> {
    let mut lines = Vec::new();
    let all = [
        ("machines", &remains.machines),
        ("registrations", &remains.registrations),
        ("files", &remains.files),
    ];
    let counts: Vec<String> = all.iter().map(|(what, left)| format!("{} {what}", left.len())).collect();
    let nothing = all.iter().all(|(_, left)| left.is_empty());
    let verdict =
        if nothing { paint(style::GOOD, "nothing is left") } else { paint(style::BAD, "something is left") };
    lines.push(format!("{verdict}: {}", counts.join(", ")));
    for (what, left) in all {
        lines.extend(left.iter().map(|left| format!("  {what}: {left}")));
    }
    for kept in &remains.kept {
        lines.push(format!(
            "  kept, as asked: {} (process {}), until the next demo",
            kept.machine, kept.process
        ));
        lines.push(format!(
            "    a look inside: socat -,rawer,escape=0x1d UNIX-CONNECT:{} (Ctrl-] leaves)",
            kept.console.display()
        ));
        lines.push(format!("    its end:       kill {}", kept.process));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::phases::Phases;
    use super::*;

    fn plain(lines: &[String]) -> String {
        anstream::adapter::strip_str(&lines.join("\n")).to_string()
    }

    fn reports() -> Vec<JobReport> {
        let phases = Phases {
            vmm_started: Some(40),
            agent_hello: Some(3_210),
            docker_ready: Some(15_900),
            registered: Some(21),
            runner_up: Some(16_100),
            job_acquired: Some(17_450),
            first_log_line: Some(17_900),
            job_done: Some(25_000),
            vm_gone: Some(25_200),
        };
        vec![
            JobReport {
                job: "build (plain)".into(),
                runner: Some("demo-0-k3V9x0q".into()),
                start: Some("cold"),
                conclusion: Some("success".into()),
                phases,
            },
            JobReport {
                job: "late".into(),
                runner: None,
                start: None,
                conclusion: Some("skipped".into()),
                phases: Phases::default(),
            },
        ]
    }

    #[test]
    fn a_wide_terminal_shows_one_line_for_each_job() {
        insta::assert_snapshot!(plain(&table(&reports(), Some(200))));
    }

    #[test]
    fn a_narrow_terminal_shows_a_block_for_each_job() {
        insta::assert_snapshot!(plain(&table(&reports(), Some(80))));
    }

    #[test]
    fn what_is_left_is_named() {
        let remains = Remains { machines: vec!["demo-0-k3V9x0q (process 12)".into()], ..Remains::default() };
        insta::assert_snapshot!(plain(&proof(&remains)));
        insta::assert_snapshot!(plain(&proof(&Remains::default())));
    }
}

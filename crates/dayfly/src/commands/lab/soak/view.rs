//! Shows a soak: its progress, its kills and faults, and the verdict, as text or as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use dayfly_host::quantity::quantity;
use dayfly_lab::fault::Fault;
use dayfly_lab::{LabEvent, LabEventKind};
use serde_json::json;

use super::judge::Verdict;
use super::plan::PlannedTrouble;
use crate::cli::{KillWord, LabSoakArgs};
use crate::printer::{self, Task, paint, style};

/// The numbers of a soak that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Jobs that have ended.
    pub(super) over: usize,
    /// Jobs that have a runner.
    pub(super) running: usize,
    pub(super) kills: u32,
    pub(super) faults: u64,
    pub(super) troubles: u32,
}

/// The end of a soak.
pub(super) struct Ending<'a> {
    pub(super) verdict: &'a Verdict,
    pub(super) kills: &'a BTreeMap<&'static str, u32>,
    pub(super) faults: &'a BTreeMap<Fault, u64>,
    pub(super) troubles: &'a BTreeMap<&'static str, u32>,
    /// Number of processes that ended because the forge has refused them, and were started again.
    pub(super) refusals: u32,
    /// The folder of the soak if it stays.
    pub(super) folder: Option<&'a Path>,
}

/// The view.
pub(super) struct View {
    jobs: u32,
    json: bool,
    task: Task,
    shown: Option<Progress>,
}

impl View {
    /// Shows the beginning of a soak.
    pub(super) fn begin(args: &LabSoakArgs, seed: u64, folder: &Path) -> Self {
        if args.json {
            printer::json(&json!({ "event": "soak", "jobs": args.jobs, "seed": seed, "folder": folder }));
        } else {
            let seed = paint(style::NAME, seed);
            printer::line(format_args!(
                "soak of {} with the seed {seed}, in {}",
                quantity(args.jobs, "job", "jobs"),
                folder.display()
            ));
        }
        Self { jobs: args.jobs, json: args.json, task: Task::begin("soak", args.json), shown: None }
    }

    /// Shows the numbers if they have changed.
    pub(super) fn progress(&mut self, progress: &Progress) {
        if self.shown.replace(*progress) != Some(*progress) {
            let Progress { over, running, kills, faults, troubles } = progress;
            let jobs = quantity(self.jobs, "job", "jobs");
            let (kills, faults) = (quantity(*kills, "kill", "kills"), quantity(*faults, "fault", "faults"));
            let troubles = quantity(*troubles, "trouble", "troubles");
            let text = format!("{over} of {jobs} ended, {running} under way; {kills}, {faults}, {troubles}");
            self.task.at(&text);
        }
    }

    /// Shows an event of the lab that is about a whole job, or a fault.
    pub(super) fn lab(&self, event: &LabEvent) {
        let is_shown = matches!(
            event.kind,
            LabEventKind::JobAcquired { .. }
                | LabEventKind::JobCompleted { .. }
                | LabEventKind::FaultInjected { .. }
        );
        if self.json && is_shown {
            printer::json(event);
        }
    }

    /// Shows a kill. `runner` is the one whose machine was killed.
    pub(super) fn kill(&self, word: KillWord, pid: u32, runner: Option<&str>) {
        if self.json {
            printer::json(&json!({ "event": "kill", "victim": word.name(), "pid": pid, "runner": runner }));
        }
    }

    /// Shows a trouble of the host. `process` is the one that it is about, if it is about one.
    pub(super) fn trouble(&self, planned: &PlannedTrouble, process: &str) {
        if self.json {
            let process = (!planned.trouble.needs_mounts()).then_some(process);
            let (name, ms) = (planned.trouble.name(), planned.lasts.as_millis());
            printer::json(&json!({ "event": "trouble", "trouble": name, "process": process, "ms": ms }));
        }
    }

    /// Shows a warning; the soak goes on.
    pub(super) fn warning(&self, text: &str) {
        if self.json {
            printer::json(&json!({ "event": "warning", "message": text }));
        } else {
            printer::warning(text);
        }
    }

    /// Shows the verdict. With JSON it is the last line.
    pub(super) fn end(self, ending: &Ending<'_>) {
        if self.json {
            let faults: BTreeMap<_, _> =
                ending.faults.iter().map(|(fault, count)| (fault.name(), count)).collect();
            let Ending { kills, troubles, refusals, .. } = ending;
            printer::json(&json!({
                "event": "played", "kills": kills, "faults": faults, "troubles": troubles, "refusals": refusals
            }));
            for problem in &ending.verdict.problems {
                printer::json(&json!({ "event": "problem", "message": problem }));
            }
            if let Some(folder) = ending.folder {
                printer::json(&json!({ "event": "kept", "folder": folder }));
            }
            printer::json(ending.verdict);
            return;
        }
        self.task.done("has ended");
        lines(ending).into_iter().for_each(printer::line);
    }
}

/// Returns the verdict as text.
fn lines(ending: &Ending<'_>) -> Vec<String> {
    let Verdict { done, failed_by_fault, lost, doubled, killed_busy, left, pickup_ms, .. } = ending.verdict;
    let Verdict { disagreed, crashed, problems, .. } = ending.verdict;
    let count = |counts: Vec<(&str, u64)>| {
        let words: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    };
    let of_words = |counts: &BTreeMap<&'static str, u32>| {
        count(counts.iter().map(|(name, count)| (*name, u64::from(*count))).collect())
    };
    let faults = ending.faults.iter().map(|(fault, count)| (fault.name(), *count)).collect();
    let ms = |time: Option<i64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time} ms"));
    let mut all = vec![
        format!("kills       {}", of_words(ending.kills)),
        format!("faults      {}", count(faults)),
        format!("host        {}", of_words(ending.troubles)),
        format!("jobs        {done} done, {failed_by_fault} ended by a fault or a kill of the soak"),
        format!("            {lost} lost, {doubled} doubled, {killed_busy} killed busy"),
        format!(
            "left        {}, {}, {}, {}",
            quantity(left.registrations, "registration", "registrations"),
            quantity(left.vms, "vm", "vms"),
            quantity(left.files, "file", "files"),
            quantity(left.processes, "process", "processes")
        ),
        format!("dayfly      {disagreed} ends of jobs told otherwise than the lab, {crashed} crashes"),
        format!(
            "pick-up     {} (median), {} (95 %), {} (99 %)",
            ms(pickup_ms.p50),
            ms(pickup_ms.p95),
            ms(pickup_ms.p99)
        ),
    ];
    all.extend(problems.iter().map(|problem| format!("{} {problem}", paint(style::BAD, "problem:"))));
    all.extend(ending.folder.map(|folder| format!("lab and logs are in {}", folder.display())));
    all.push(match ending.verdict.is_well() {
        true => paint(style::GOOD, "all is well"),
        false => paint(style::BAD, "not all is well"),
    });
    all
}

#[cfg(test)]
mod tests {
    use super::super::judge::{Evidence, judge};
    use super::*;

    fn shown(ending: &Ending<'_>) -> String {
        anstream::adapter::strip_str(&lines(ending).join("\n")).to_string()
    }

    #[test]
    fn a_verdict_is_shown_with_its_problems_and_the_place_of_the_logs() {
        let well = judge(&Evidence::default());
        let kills = BTreeMap::from([("orchestrator", 3), ("vm", 1)]);
        let faults = BTreeMap::from([(Fault::DropReply, 2)]);
        let troubles = BTreeMap::from([("disk", 1), ("stop", 2)]);
        let ending = Ending {
            verdict: &well,
            kills: &kills,
            faults: &faults,
            troubles: &troubles,
            refusals: 0,
            folder: None,
        };
        insta::assert_snapshot!(shown(&ending));
        let crashes = vec!["loop 1 has ended by itself (exit status: 101)".to_owned()];
        let bad = judge(&Evidence { jobs: 2, crashes, ..Evidence::default() });
        let (kills, faults) = (BTreeMap::new(), BTreeMap::new());
        let folder = Some(Path::new("/var/lib/dayfly/soak/7-12"));
        insta::assert_snapshot!(shown(&Ending {
            verdict: &bad,
            kills: &kills,
            faults: &faults,
            troubles: &kills,
            refusals: 0,
            folder
        }));
    }
}

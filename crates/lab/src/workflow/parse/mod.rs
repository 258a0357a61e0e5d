//! Parses the text of a file into a [`Workflow`].
//!
//! A [`Reader`] walks the tree and collects remarks instead of stopping at the first one, so that several mistakes are
//! shown at once. A function that returns `None` has left a remark.

mod fields;
mod graph;
mod job;
mod place;
mod step;
mod strategy;
mod trigger;
mod values;

use indexmap::IndexMap;

use super::diagnostic::{Diagnostic, Diagnostics, Position};
use super::model::{Defaults, Job, Workflow};
use super::yaml::{self, Entry, Node, NodeKind};
use fields::{Key, Support};
use place::Availability;

/// The top-level keys of a workflow file.
const WORKFLOW_KEYS: &[Key] = &[
    Key::new("name", Support::Shown),
    Key::new("run-name", Support::Shown),
    Key::new("description", Support::Read),
    Key::new("on", Support::Read),
    Key::new("env", Support::Read),
    Key::new("defaults", Support::Read),
    Key::new("jobs", Support::Read),
    Key::new("permissions", Support::Ignored),
    Key::new("concurrency", Support::Ignored),
];
const DEFAULTS_KEYS: &[Key] = &[Key::new("run", Support::Read)];
const DEFAULTS_RUN_KEYS: &[Key] =
    &[Key::new("shell", Support::Read), Key::new("working-directory", Support::Read)];

/// Most jobs of one workflow file.
const JOBS_MAX: usize = 1000;

/// Parses a workflow file and checks all of it. The remarks name it as `file`.
///
/// # Errors
/// Returns every error in the file, each with its position.
pub fn parse(file: &str, text: &str) -> Result<Workflow, Diagnostics> {
    let mut reader = Reader::new(file);
    let workflow = match yaml::load(text) {
        Ok(Some(root)) => reader.workflow(&root),
        Ok(None) => {
            reader.remark(None, "", "the file is empty; a workflow has the keys \"on\" and \"jobs\"");
            None
        }
        Err(error) => {
            reader.remark(error.at, "", error.message);
            None
        }
    };
    match (Diagnostics::new(reader.remarks), workflow) {
        (Some(diagnostics), _) => Err(diagnostics),
        (None, Some(workflow)) => Ok(workflow),
        (None, None) => unreachable!("nothing was read and nothing was remarked"),
    }
}

/// The walk over one workflow file.
struct Reader {
    file: String,
    remarks: Vec<Diagnostic>,
    /// Paths and positions of the keys that are accepted for display only, and of the keys without any effect.
    shown: Vec<(String, Position)>,
    ignored: Vec<(String, Position)>,
    /// Remarks about parts of a valid workflow that probably do something else than they were meant to.
    notices: Vec<Diagnostic>,
}

impl Reader {
    fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            remarks: Vec::new(),
            shown: Vec::new(),
            ignored: Vec::new(),
            notices: Vec::new(),
        }
    }

    fn remark(&mut self, at: impl Into<Option<Position>>, path: &str, message: impl Into<String>) {
        let diagnostic = self.diagnostic(at, path, message);
        self.remarks.push(diagnostic);
    }

    fn diagnostic(
        &self,
        at: impl Into<Option<Position>>,
        path: &str,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic {
            file: self.file.clone(),
            position: at.into(),
            path: path.to_owned(),
            message: message.into(),
        }
    }

    fn workflow(&mut self, root: &Node) -> Option<Workflow> {
        if !self.looks_like_workflow(root) {
            return None;
        }
        let fields = self.fields(root, "", WORKFLOW_KEYS)?;
        let name = fields.get("name").and_then(|node| self.text(node, "name"));
        // GitHub shows it beside a reusable workflow only.
        let _ = fields.get("description").map(|node| self.text(node, "description"));
        let run_name =
            fields.get("run-name").and_then(|node| self.template(node, "run-name", &place::RUN_NAME));
        let triggers = self.triggers(fields.get("on")?);
        let env = fields.get("env").and_then(|node| self.text_mapping(node, "env", &place::WORKFLOW_ENV));
        let defaults = fields.get("defaults").map(|node| self.defaults(node, "defaults", &place::LITERAL));
        let jobs = self.jobs(fields.get("jobs")?);
        let (triggers, jobs) = (triggers?, jobs?);
        Some(Workflow {
            file: self.file.clone(),
            name: name.filter(|name| !name.is_empty()),
            run_name,
            triggers,
            env,
            defaults: defaults.unwrap_or_default(),
            jobs,
            notices: self.notice().into_iter().chain(self.notices.drain(..)).collect(),
        })
    }

    /// Returns false if the file is not a workflow, after one clear remark instead of one for each of its keys.
    fn looks_like_workflow(&mut self, root: &Node) -> bool {
        let NodeKind::Mapping(entries) = &root.kind else {
            let message = format!(
                "this is not a workflow: it is {}, not a mapping with the keys \"on\" and \"jobs\"",
                root.describe()
            );
            self.remark(root.at, "", message);
            return false;
        };
        let has = |key: &str| entries.iter().any(|entry| entry.key == key);
        if !has("jobs") && !has("on") {
            let message = "this is not a workflow: it has neither the key \"on\" nor the key \"jobs\"";
            self.remark(root.at, "", message);
            return false;
        }
        for key in ["on", "jobs"] {
            if !has(key) {
                self.remark(root.at, "", format!("the key \"{key}\" is missing"));
            }
        }
        true
    }

    fn defaults(&mut self, node: &Node, path: &str, place: &Availability) -> Defaults {
        let run_path = format!("{path}.run");
        let fields = self.fields(node, path, DEFAULTS_KEYS);
        let Some(run) = fields.and_then(|fields| fields.get("run")) else { return Defaults::default() };
        let Some(fields) = self.fields(run, &run_path, DEFAULTS_RUN_KEYS) else { return Defaults::default() };
        let shell =
            fields.get("shell").and_then(|node| self.shell(node, &format!("{run_path}.shell"), place));
        let directory = fields.get("working-directory");
        let working_directory = directory
            .and_then(|node| self.filled_template(node, &format!("{run_path}.working-directory"), place));
        Defaults { shell, working_directory }
    }

    fn jobs(&mut self, node: &Node) -> Option<IndexMap<String, Job>> {
        let entries: &[Entry] = match &node.kind {
            NodeKind::Mapping(entries) if !entries.is_empty() => entries,
            NodeKind::Mapping(_) => {
                self.remark(node.at, "jobs", "a workflow needs at least one job");
                return None;
            }
            _ => {
                self.remark(
                    node.at,
                    "jobs",
                    format!("must be a mapping of jobs, but is {}", node.describe()),
                );
                return None;
            }
        };
        if entries.len() > JOBS_MAX {
            self.remark(
                node.at,
                "jobs",
                format!("has {} jobs; a workflow may have at most {JOBS_MAX}", entries.len()),
            );
            return None;
        }
        let ids: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let mut jobs = IndexMap::new();
        for entry in entries {
            if let Some(job) = self.job(entry, &ids) {
                jobs.insert(entry.key.clone(), job);
            }
        }
        self.check_needs(&jobs);
        (jobs.len() == entries.len()).then_some(jobs)
    }

    /// Returns one notice about all keys that have no effect or are only displayed.
    fn notice(&self) -> Option<Diagnostic> {
        let list = |keys: &[(String, Position)]| {
            keys.iter().map(|(path, at)| format!("{path} (line {})", at.line)).collect::<Vec<_>>().join(", ")
        };
        let mut parts = Vec::new();
        if !self.ignored.is_empty() {
            parts.push(format!("accepted without effect: {}", list(&self.ignored)));
        }
        if !self.shown.is_empty() {
            parts.push(format!("accepted for display only: {}", list(&self.shown)));
        }
        let position = self.ignored.iter().chain(&self.shown).map(|(_, at)| *at).min()?;
        let message = parts.join("; ");
        Some(Diagnostic { file: self.file.clone(), position: Some(position), path: String::new(), message })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

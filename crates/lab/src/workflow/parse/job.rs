//! Parses one job.

use super::super::diagnostic::Position;
use super::super::model::{Defaults, Job, RunsOnTemplate};
use super::super::token::{Token, TokenKind};
use super::super::yaml::{Entry, Node, NodeKind, Scalar};
use super::fields::{Fields, Key, Support};
use super::{Reader, place};
use crate::nearest::nearest;

const JOB_KEYS: &[Key] = &[
    Key::new("name", Support::Read),
    Key::new("needs", Support::Read),
    Key::new("if", Support::Read),
    Key::new("runs-on", Support::Read),
    Key::new("strategy", Support::Read),
    Key::new("env", Support::Read),
    Key::new("defaults", Support::Read),
    Key::new("outputs", Support::Read),
    Key::new("timeout-minutes", Support::Read),
    Key::new("continue-on-error", Support::Read),
    Key::new("steps", Support::Read),
    Key::new("permissions", Support::Ignored),
    Key::new("concurrency", Support::Ignored),
    Key::new("environment", Support::Ignored),
    Key::new("uses", Support::NotYet),
    Key::new("with", Support::NotYet),
    Key::new("secrets", Support::NotYet),
    Key::new("container", Support::NotYet),
    Key::new("services", Support::NotYet),
    Key::new("snapshot", Support::NotYet),
    Key::new("cancel-timeout-minutes", Support::NotYet),
];
const RUNS_ON_KEYS: &[Key] = &[Key::new("group", Support::Read), Key::new("labels", Support::Read)];

impl Reader {
    pub(super) fn job(&mut self, entry: &Entry, ids: &[&str]) -> Option<Job> {
        let (id, at) = (entry.key.as_str(), entry.key_at);
        let path = format!("jobs.{id}");
        if !self.check_id(id, at, "jobs") {
            return None;
        }
        let remarks_before = self.remarks.len();
        let fields = self.fields(&entry.value, &path, JOB_KEYS)?;
        let inner = |key: &str| format!("{path}.{key}");

        let name = fields.get("name").and_then(|node| self.template(node, &inner("name"), &place::JOB));
        let needs =
            fields.get("needs").map_or_else(Vec::new, |node| self.needs(node, id, ids, &inner("needs")));
        let condition = self.condition(fields.get("if"), at, &inner("if"), &place::JOB_IF);
        let strategy = fields.get("strategy").and_then(|node| self.strategy(node, &inner("strategy")));
        let env = fields.get("env").and_then(|node| self.text_mapping(node, &inner("env"), &place::JOB_ENV));
        let defaults =
            fields.get("defaults").map(|node| self.defaults(node, &inner("defaults"), &place::JOB_DEFAULTS));
        let outputs = fields
            .get("outputs")
            .and_then(|node| self.text_mapping(node, &inner("outputs"), &place::JOB_OUTPUTS));
        let timeout = fields.get("timeout-minutes");
        let timeout_minutes =
            timeout.and_then(|node| self.positive(node, &inner("timeout-minutes"), &place::JOB));
        let tolerated = fields.get("continue-on-error");
        let continue_on_error =
            tolerated.and_then(|node| self.boolean(node, &inner("continue-on-error"), &place::JOB));
        let environment = fields.get("environment");
        let environment =
            environment.and_then(|node| self.any_template(node, &inner("environment"), &place::STEP));

        // A job that calls a workflow has no steps, and `fields` has already left a remark on its `uses`.
        let calls = matches!(&entry.value.kind, NodeKind::Mapping(entries) if entries.iter().any(|e| e.key == "uses"));
        if calls {
            return None;
        }
        let runs_on = self.job_runs_on(&fields, at, &path);
        let steps = self.job_steps(&fields, at, &path);
        let (runs_on, steps, condition) = (runs_on?, steps?, condition?);
        (self.remarks.len() == remarks_before).then(|| Job {
            id: id.to_owned(),
            at,
            name,
            needs,
            condition,
            runs_on,
            strategy,
            env,
            defaults: defaults.unwrap_or_else(Defaults::default),
            outputs,
            timeout_minutes,
            continue_on_error,
            environment,
            steps,
        })
    }

    fn job_runs_on(&mut self, fields: &Fields<'_>, at: Position, path: &str) -> Option<RunsOnTemplate> {
        match fields.get("runs-on") {
            Some(node) => self.runs_on(node, &format!("{path}.runs-on")),
            None => {
                self.remark(at, path, "\"runs-on\" is missing");
                None
            }
        }
    }

    fn job_steps(
        &mut self,
        fields: &Fields<'_>,
        at: Position,
        path: &str,
    ) -> Option<Vec<super::super::model::Step>> {
        match fields.get("steps") {
            Some(node) => self.steps(node, &format!("{path}.steps")),
            None => {
                self.remark(at, path, "\"steps\" is missing");
                None
            }
        }
    }

    fn needs(&mut self, node: &Node, id: &str, ids: &[&str], path: &str) -> Vec<String> {
        let names: Vec<(String, Position)> = match &node.kind {
            NodeKind::Sequence(items) => {
                items.iter().filter_map(|item| self.text(item, path).map(|name| (name, item.at))).collect()
            }
            NodeKind::Scalar(Scalar::Null) => Vec::new(),
            NodeKind::Scalar(scalar) => vec![(scalar.to_text(), node.at)],
            NodeKind::Mapping(_) => {
                self.remark(node.at, path, "must be the id of a job or a list of them, but is a mapping");
                Vec::new()
            }
        };
        let mut needs: Vec<String> = Vec::new();
        for (name, at) in names {
            // The lookup of ids ignores case, as on GitHub.
            let Some(known) = ids.iter().find(|known| known.eq_ignore_ascii_case(&name)) else {
                let hint = nearest(&name, ids.iter().copied());
                let hint = hint.map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default();
                self.remark(at, path, format!("there is no job {name:?}{hint}"));
                continue;
            };
            if *known == id {
                self.remark(at, path, "a job cannot need itself");
            } else if !needs.iter().any(|need| need == known) {
                needs.push((*known).to_owned());
            }
        }
        needs
    }

    fn runs_on(&mut self, node: &Node, path: &str) -> Option<RunsOnTemplate> {
        if !matches!(&node.kind, NodeKind::Mapping(_)) {
            return Some(RunsOnTemplate::Labels(self.labels(node, path)?));
        }
        let fields = self.fields(node, path, RUNS_ON_KEYS)?;
        if !fields.has("group") && !fields.has("labels") {
            self.remark(node.at, path, "must name a \"group\" or \"labels\"");
            return None;
        }
        let group = match fields.get("group") {
            Some(node) => Some(self.filled_template(node, &format!("{path}.group"), &place::JOB)?),
            None => None,
        };
        let labels = match fields.get("labels") {
            Some(node) => Some(self.labels(node, &format!("{path}.labels"))?),
            None => None,
        };
        Some(RunsOnTemplate::Group { group, labels })
    }

    fn labels(&mut self, node: &Node, path: &str) -> Option<Token> {
        match &node.kind {
            NodeKind::Sequence(items) if items.is_empty() => {
                self.remark(node.at, path, "must name at least one label");
                None
            }
            NodeKind::Sequence(items) => {
                let tokens: Vec<_> =
                    items.iter().map(|item| self.filled_template(item, path, &place::JOB)).collect();
                Some(Token {
                    at: node.at,
                    kind: TokenKind::Sequence(tokens.into_iter().collect::<Option<_>>()?),
                })
            }
            NodeKind::Mapping(_) => {
                self.remark(node.at, path, "must be a label or a list of labels, but is a mapping");
                None
            }
            NodeKind::Scalar(_) => self.filled_template(node, path, &place::JOB),
        }
    }
}

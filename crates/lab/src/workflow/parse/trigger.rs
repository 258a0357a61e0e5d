//! Parses `on:`.

use indexmap::IndexMap;

use super::super::diagnostic::Position;
use super::super::model::{Input, InputKind, Trigger};
use super::super::yaml::{Entry, Node, NodeKind, Scalar};
use super::Reader;
use super::fields::{Key, Support};
use crate::nearest::nearest;

/// The events that GitHub starts workflows for (actions/languageservices, `workflow-v1.0.json`, "on-strict").
const EVENTS: [&str; 37] = [
    "branch_protection_rule",
    "check_run",
    "check_suite",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "discussion",
    "discussion_comment",
    "fork",
    "gollum",
    "image_version",
    "issue_comment",
    "issues",
    "label",
    "merge_group",
    "milestone",
    "page_build",
    "project",
    "project_card",
    "project_column",
    "public",
    "pull_request",
    "pull_request_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_target",
    "push",
    "registry_package",
    "release",
    "repository_dispatch",
    "schedule",
    "status",
    "watch",
    "workflow_call",
    "workflow_dispatch",
    "workflow_run",
];

/// The filters of events. Only their names are checked, because the lab starts a run only on request.
const FILTER_KEYS: &[Key] = &[
    Key::new("types", Support::Read),
    Key::new("branches", Support::Read),
    Key::new("branches-ignore", Support::Read),
    Key::new("tags", Support::Read),
    Key::new("tags-ignore", Support::Read),
    Key::new("paths", Support::Read),
    Key::new("paths-ignore", Support::Read),
    Key::new("workflows", Support::Read),
    Key::new("names", Support::Read),
    Key::new("versions", Support::Read),
];
const DISPATCH_KEYS: &[Key] = &[Key::new("inputs", Support::Read)];
const CALL_KEYS: &[Key] = &[
    Key::new("inputs", Support::Read),
    Key::new("outputs", Support::Read),
    Key::new("secrets", Support::Read),
];
const INPUT_KEYS: &[Key] = &[
    Key::new("description", Support::Read),
    Key::new("deprecationMessage", Support::Read),
    Key::new("required", Support::Read),
    Key::new("default", Support::Read),
    Key::new("type", Support::Read),
    Key::new("options", Support::Read),
];
/// Most inputs of `workflow_dispatch`; GitHub's limit since December 2025.
const INPUTS_MAX: usize = 25;
const INPUT_TYPES: [&str; 5] = ["string", "boolean", "number", "choice", "environment"];

impl Reader {
    pub(super) fn triggers(&mut self, node: &Node) -> Option<Vec<Trigger>> {
        let triggers: Vec<Option<Trigger>> = match &node.kind {
            NodeKind::Scalar(Scalar::String(event)) => vec![self.trigger(event, node.at, None)],
            NodeKind::Sequence(items) => items.iter().map(|item| self.listed_trigger(item)).collect(),
            NodeKind::Mapping(entries) => entries
                .iter()
                .map(|entry| self.trigger(&entry.key, entry.key_at, Some(&entry.value)))
                .collect(),
            NodeKind::Scalar(_) => {
                self.remark(
                    node.at,
                    "on",
                    format!("must name at least one event, but is {}", node.describe()),
                );
                return None;
            }
        };
        if triggers.is_empty() {
            self.remark(node.at, "on", "must name at least one event");
            return None;
        }
        triggers.into_iter().collect()
    }

    fn listed_trigger(&mut self, item: &Node) -> Option<Trigger> {
        if let NodeKind::Scalar(Scalar::String(event)) = &item.kind {
            return self.trigger(event, item.at, None);
        }
        self.remark(item.at, "on", format!("must be the name of an event, but is {}", item.describe()));
        None
    }

    fn trigger(&mut self, event: &str, at: Position, options: Option<&Node>) -> Option<Trigger> {
        let path = format!("on.{event}");
        if !EVENTS.contains(&event) {
            let hint =
                nearest(event, EVENTS).map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default();
            self.remark(at, "on", format!("unknown event {event:?}{hint}"));
            return None;
        }
        let mut trigger = Trigger { event: event.to_owned(), at, inputs: IndexMap::new() };
        let Some(options) = options.filter(|options| !options.is_null()) else { return Some(trigger) };
        match event {
            "workflow_dispatch" | "workflow_call" => {
                let keys = if event == "workflow_call" { CALL_KEYS } else { DISPATCH_KEYS };
                let fields = self.fields(options, &path, keys)?;
                if let Some(inputs) = fields.get("inputs").filter(|inputs| !inputs.is_null()) {
                    trigger.inputs = self.inputs(inputs, &format!("{path}.inputs"))?;
                    if event == "workflow_dispatch" && trigger.inputs.len() > INPUTS_MAX {
                        let count = trigger.inputs.len();
                        let message = format!("has {count} inputs; a workflow may have at most {INPUTS_MAX}");
                        self.remark(inputs.at, &format!("{path}.inputs"), message);
                        return None;
                    }
                }
            }
            // A list of cron lines. They are not checked because the lab starts no runs by time.
            "schedule" => {}
            _ => {
                self.fields(options, &path, FILTER_KEYS)?;
            }
        }
        Some(trigger)
    }

    fn inputs(&mut self, node: &Node, path: &str) -> Option<IndexMap<String, Input>> {
        let NodeKind::Mapping(entries) = &node.kind else {
            self.remark(node.at, path, format!("must be a mapping of inputs, but is {}", node.describe()));
            return None;
        };
        let inputs: Vec<_> = entries.iter().map(|entry| self.input(entry, path)).collect();
        inputs.into_iter().collect()
    }

    fn input(&mut self, entry: &Entry, path: &str) -> Option<(String, Input)> {
        let path = format!("{path}.{}", entry.key);
        if !self.check_id(&entry.key, entry.key_at, &path) {
            return None;
        }
        let mut input = Input { description: None, required: false, default: None, kind: InputKind::String };
        if entry.value.is_null() {
            return Some((entry.key.clone(), input));
        }
        let fields = self.fields(&entry.value, &path, INPUT_KEYS)?;
        input.description =
            fields.get("description").and_then(|node| self.text(node, &format!("{path}.description")));
        input.default = match fields.get("default").filter(|node| !node.is_null()) {
            Some(node) => Some(self.text(node, &format!("{path}.default"))?),
            None => None,
        };
        input.required = match fields.get("required").map(|node| (node, &node.kind)) {
            None => false,
            Some((_, NodeKind::Scalar(Scalar::Bool(flag)))) => *flag,
            Some((node, _)) => {
                self.remark(
                    node.at,
                    &format!("{path}.required"),
                    format!("must be true or false, but is {}", node.describe()),
                );
                return None;
            }
        };
        let options = match fields.get("options") {
            Some(node) => Some((node.at, self.texts(node, &format!("{path}.options"))?)),
            None => None,
        };
        input.kind = self.input_kind(fields.get("type"), options, entry.key_at, &path)?;
        self.check_default(&input, &entry.value, &path)?;
        Some((entry.key.clone(), input))
    }

    fn input_kind(
        &mut self,
        node: Option<&Node>,
        options: Option<(Position, Vec<String>)>,
        at: Position,
        path: &str,
    ) -> Option<InputKind> {
        let word = match node {
            Some(node) => self.text(node, &format!("{path}.type"))?,
            None => "string".to_owned(),
        };
        let kind = match (word.as_str(), options) {
            ("choice", Some((_, options))) if !options.is_empty() => return Some(InputKind::Choice(options)),
            ("choice", _) => {
                self.remark(at, path, "an input of the type choice needs \"options\"");
                return None;
            }
            (_, Some((at, _))) => {
                self.remark(at, path, "\"options\" belong to an input of the type choice");
                return None;
            }
            ("string", None) => InputKind::String,
            ("boolean", None) => InputKind::Boolean,
            ("number", None) => InputKind::Number,
            ("environment", None) => InputKind::Environment,
            (other, None) => {
                let at = node.map_or(at, |node| node.at);
                self.remark(
                    at,
                    path,
                    format!("unknown input type {other:?} (known: {})", INPUT_TYPES.join(", ")),
                );
                return None;
            }
        };
        Some(kind)
    }

    fn check_default(&mut self, input: &Input, node: &Node, path: &str) -> Option<()> {
        let Some(default) = &input.default else { return Some(()) };
        let expected = match &input.kind {
            InputKind::Boolean if default != "true" && default != "false" => "true or false".to_owned(),
            InputKind::Number if crate::expression::Value::from(default.as_str()).to_number().is_nan() => {
                "a number".to_owned()
            }
            InputKind::Choice(options) if !options.contains(default) => {
                format!("one of {}", options.join(", "))
            }
            _ => return Some(()),
        };
        self.remark(node.at, &format!("{path}.default"), format!("is {default:?}, but must be {expected}"));
        None
    }

    /// Reads a list of texts.
    pub(super) fn texts(&mut self, node: &Node, path: &str) -> Option<Vec<String>> {
        let NodeKind::Sequence(items) = &node.kind else {
            self.remark(node.at, path, format!("must be a list, but is {}", node.describe()));
            return None;
        };
        let texts: Vec<_> = items.iter().map(|item| self.text(item, path)).collect();
        texts.into_iter().collect()
    }
}

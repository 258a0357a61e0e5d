//! Parses steps.

use super::super::diagnostic::Position;
use super::super::model::Step;
use super::super::token::{Token, TokenKind};
use super::super::yaml::{Node, NodeKind};
use super::fields::{Key, Support};
use super::{Reader, place};
use crate::expression::{Expr, Template, Use};

const STEP_KEYS: &[Key] = &[
    Key::new("id", Support::Read),
    Key::new("name", Support::Read),
    Key::new("if", Support::Read),
    Key::new("run", Support::Read),
    Key::new("shell", Support::Read),
    Key::new("env", Support::Read),
    Key::new("working-directory", Support::Read),
    Key::new("continue-on-error", Support::Read),
    Key::new("timeout-minutes", Support::Read),
    Key::new("uses", Support::NotYet),
    Key::new("with", Support::NotYet),
    Key::new("background", Support::NotYet),
    Key::new("wait", Support::NotYet),
    Key::new("wait-all", Support::NotYet),
    Key::new("cancel", Support::NotYet),
    Key::new("parallel", Support::NotYet),
];
/// Keys of steps that are not `run` steps.
const OTHER_KINDS: [&str; 5] = ["uses", "wait", "wait-all", "cancel", "parallel"];
/// Most steps of a job; GitHub's limit.
const STEPS_MAX: usize = 1000;

impl Reader {
    pub(super) fn steps(&mut self, node: &Node, path: &str) -> Option<Vec<Step>> {
        let items = match &node.kind {
            NodeKind::Sequence(items) if items.is_empty() => {
                self.remark(node.at, path, "a job needs at least one step");
                return None;
            }
            NodeKind::Sequence(items) if items.len() > STEPS_MAX => {
                self.remark(
                    node.at,
                    path,
                    format!("has {} steps; a job may have at most {STEPS_MAX}", items.len()),
                );
                return None;
            }
            NodeKind::Sequence(items) => items,
            _ => {
                self.remark(node.at, path, format!("must be a list of steps, but is {}", node.describe()));
                return None;
            }
        };
        let steps: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.step(item, &format!("{path}[{index}]")))
            .collect();
        let steps: Vec<Step> = steps.into_iter().collect::<Option<_>>()?;
        self.check_step_ids(&steps, path).then_some(steps)
    }

    fn step(&mut self, node: &Node, path: &str) -> Option<Step> {
        let remarks_before = self.remarks.len();
        let fields = self.fields(node, path, STEP_KEYS)?;
        let inner = |key: &str| format!("{path}.{key}");
        let id = fields.get("id").and_then(|node| self.step_id(node, &inner("id")));
        let name = fields.get("name").and_then(|node| self.template(node, &inner("name"), &place::STEP));
        let condition = self.condition(fields.get("if"), node.at, &inner("if"), &place::STEP_IF);
        let shell = fields.get("shell").and_then(|node| self.shell(node, &inner("shell"), &place::LITERAL));
        let env = fields.get("env").and_then(|node| self.text_mapping(node, &inner("env"), &place::STEP));
        let directory = fields.get("working-directory");
        let working_directory =
            directory.and_then(|node| self.filled_template(node, &inner("working-directory"), &place::STEP));
        let tolerated = fields.get("continue-on-error");
        let continue_on_error =
            tolerated.and_then(|node| self.boolean(node, &inner("continue-on-error"), &place::STEP));
        let timeout = fields.get("timeout-minutes");
        let timeout_minutes =
            timeout.and_then(|node| self.positive(node, &inner("timeout-minutes"), &place::STEP));
        let run = match fields.get("run") {
            Some(run) => {
                self.filled_template(run, &inner("run"), &place::STEP).map(|token| (token, label(run)))
            }
            None => {
                self.missing_run(node, path);
                None
            }
        };
        let (condition, (run, label)) = (condition?, run?);
        (self.remarks.len() == remarks_before).then_some(Step {
            at: node.at,
            id,
            name,
            condition,
            run,
            label,
            shell,
            working_directory,
            env,
            continue_on_error,
            timeout_minutes,
        })
    }

    /// Leaves a remark on a step without `run`, unless the step has a key of another kind, which is refused already.
    fn missing_run(&mut self, node: &Node, path: &str) {
        let NodeKind::Mapping(entries) = &node.kind else { return };
        if !entries.iter().any(|entry| OTHER_KINDS.contains(&entry.key.as_str())) {
            self.remark(node.at, path, "\"run\" is missing");
        }
    }

    fn step_id(&mut self, node: &Node, path: &str) -> Option<String> {
        let id = self.text(node, path)?;
        if id.starts_with("__") {
            self.remark(node.at, path, format!("bad id {id:?}: ids that begin with __ are reserved"));
            return None;
        }
        self.check_id(&id, node.at, path).then_some(id)
    }

    fn check_step_ids(&mut self, steps: &[Step], path: &str) -> bool {
        let mut seen: Vec<(String, Position)> = Vec::new();
        let mut unique = true;
        for (index, step) in steps.iter().enumerate() {
            let Some(id) = &step.id else { continue };
            let folded = id.to_ascii_lowercase();
            if let Some((_, first)) = seen.iter().find(|(known, _)| *known == folded) {
                let message = format!("the id {id:?} is taken (by the step at {first})");
                self.remark(step.at, &format!("{path}[{index}].id"), message);
                unique = false;
            } else {
                seen.push((folded, step.at));
            }
        }
        unique
    }
}

/// Returns the label of a step: `Run ` and the first line of its valid script. The label ends before the line's first
/// expression if an expression continues in the next line, or if one uses secrets because runner apps do not mask names.
fn label(run: &Node) -> Token {
    let NodeKind::Scalar(scalar) = &run.kind else { return Token { at: run.at, kind: TokenKind::Null } };
    let script = scalar.to_text();
    let line = format!("Run {}", script.trim().lines().next().unwrap_or_default());
    let expr = Template::parse(&line).and_then(|template| template.to_expression());
    let kind = match expr {
        _ if !line.contains("${{") => TokenKind::String(line),
        Ok(expr) if !uses_secrets(&expr) => TokenKind::Expression(expr),
        _ => TokenKind::String(line.split("${{").next().unwrap_or_default().trim_end().to_owned()),
    };
    Token { at: run.at, kind }
}

fn uses_secrets(expr: &Expr) -> bool {
    expr.uses()
        .iter()
        .any(|used| matches!(used, Use::Context(name, _) if name.eq_ignore_ascii_case("secrets")))
}

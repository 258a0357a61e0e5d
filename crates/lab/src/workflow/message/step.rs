//! Builds the steps of a job message.

use serde_json::{Value as Json, json};

use super::super::model::{Job, Step, Workflow};
use super::super::token::{Token, TokenKind};
use super::template::{mapping, template_token};
use super::{Service, present};
use crate::expression::Scope;

/// The parts of a workflow that a job's steps are built from.
pub(super) struct StepSource<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) job: &'a Job,
    /// The contexts that are known before a runner has the job.
    pub(super) known: Scope<'a>,
}

pub(super) fn steps(source: &StepSource<'_>, service: &Service) -> Vec<Json> {
    let mut unnamed = 0;
    let steps = source.job.steps.iter().enumerate().map(|(index, step)| {
        let id = service.step_ids.get(index).map_or("", String::as_str);
        step_message(source, step, id, &context_name(step, &mut unnamed))
    });
    steps.collect()
}

fn step_message(source: &StepSource<'_>, step: &Step, id: &str, name: &str) -> Json {
    let mut message = json!({
        "type": "action",
        "id": id,
        "name": name,
        "contextName": name,
        "enabled": true,
        "condition": step.condition.expr.source(),
        "reference": { "type": "script" },
        "displayNameToken": template_token(step.name.as_ref().unwrap_or(&step.label)),
        "inputs": inputs(source, step),
    });
    if let Some(env) = &step.env {
        message["environment"] = template_token(env);
    }
    if let Some(tolerated) = &step.continue_on_error {
        message["continueOnError"] = template_token(tolerated);
    }
    if let Some(timeout) = &step.timeout_minutes {
        message["timeoutInMinutes"] = whole_minutes(timeout);
    }
    message
}

/// Writes the defaults into each step as well, because github-act-runner 0.13.0 reads the shell from `defaults`, but
/// not the working directory. The official runner finds the same values in both places.
fn inputs(StepSource { workflow, job, known }: &StepSource<'_>, step: &Step) -> Json {
    let shell = [&step.shell, &job.defaults.shell, &workflow.defaults.shell].into_iter().flatten().next();
    let shell = shell.map(|shell| without_expression(shell, known));
    let directories =
        [&step.working_directory, &job.defaults.working_directory, &workflow.defaults.working_directory];
    let directory = directories.into_iter().find(|directory| directory.is_some());
    let script = [("script", template_token(&step.run))];
    let options = present([("shell", &shell), ("workingDirectory", directory.unwrap_or(&None))]);
    mapping(script.into_iter().chain(options))
}

/// Returns a shell as text if the lab knows its contexts, because only a known shell can be adapted to github-act-runner.
fn without_expression(shell: &Token, known: &Scope<'_>) -> Token {
    let text = match (&shell.kind, shell.evaluate(known)) {
        (TokenKind::Expression(_), Ok(value)) if value.is_primitive() => value.to_text(),
        _ => return shell.clone(),
    };
    Token { at: shell.at, kind: TokenKind::String(text) }
}

/// Rounds a timeout up to whole minutes, because runners take only these: actions/runner cuts a fraction off, so that 0.5
/// would mean no timeout, and github-act-runner 0.13.0 ignores the timeout altogether.
fn whole_minutes(timeout: &Token) -> Json {
    match timeout.kind {
        TokenKind::Number(number) => crate::expression::Value::Number(number.ceil()).to_json(),
        _ => template_token(timeout),
    }
}

/// Returns the id of a step or, if it has none, the name that GitHub gives it: `__run`, `__run_2`, ... Ids never begin with
/// `__`.
fn context_name(step: &Step, unnamed: &mut usize) -> String {
    if let Some(id) = &step.id {
        return id.clone();
    }
    *unnamed += 1;
    if *unnamed == 1 { "__run".to_owned() } else { format!("__run_{unnamed}") }
}

//! Builds the steps of a job message.

use serde_json::{Value as Json, json};

use super::super::model::{Job, Step, Workflow};
use super::super::token::{Token, TokenKind};
use super::template::{mapping, template_token};
use super::{Service, present};

pub(super) fn steps(workflow: &Workflow, job: &Job, service: &Service) -> Vec<Json> {
    let mut unnamed = 0;
    let steps = job.steps.iter().enumerate().map(|(index, step)| {
        let id = service.step_ids.get(index).map_or("", String::as_str);
        step_message(workflow, job, step, id, &context_name(step, &mut unnamed))
    });
    steps.collect()
}

fn step_message(workflow: &Workflow, job: &Job, step: &Step, id: &str, name: &str) -> Json {
    let mut message = json!({
        "type": "action",
        "id": id,
        "name": name,
        "contextName": name,
        "enabled": true,
        "condition": step.condition.expr.source(),
        "reference": { "type": "script" },
        "displayNameToken": template_token(step.name.as_ref().unwrap_or(&step.label)),
        "inputs": inputs(workflow, job, step),
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
fn inputs(workflow: &Workflow, job: &Job, step: &Step) -> Json {
    let shell = [&step.shell, &job.defaults.shell, &workflow.defaults.shell]
        .into_iter()
        .find(|shell| shell.is_some());
    let directories =
        [&step.working_directory, &job.defaults.working_directory, &workflow.defaults.working_directory];
    let directory = directories.into_iter().find(|directory| directory.is_some());
    let script = [("script", template_token(&step.run))];
    let options =
        present([("shell", shell.unwrap_or(&None)), ("workingDirectory", directory.unwrap_or(&None))]);
    mapping(script.into_iter().chain(options))
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

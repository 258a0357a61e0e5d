//! The model of a valid workflow file.

use indexmap::IndexMap;
use thiserror::Error;

use super::diagnostic::{Diagnostic, Position};
use super::token::Token;
use crate::expression::{Expr, Object, Value};

/// A checked workflow: its names are known, its needs form no cycle, and its expressions parse and use only what their place
/// allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    /// The file as the caller of [`parse`](super::parse) named it, such as `.github/workflows/ci.yml`.
    pub file: String,
    /// `name:`, if there is one.
    pub name: Option<String>,
    /// `run-name:`, evaluated by [`plan::run_name`](super::plan::run_name).
    pub run_name: Option<Token>,
    /// `on:`, in the order of the file; never empty.
    pub triggers: Vec<Trigger>,
    /// `env:`, a mapping.
    pub env: Option<Token>,
    /// `defaults.run`.
    pub defaults: Defaults,
    /// The jobs by id, in the order of the file; never empty.
    pub jobs: IndexMap<String, Job>,
    /// Remarks about keys that are accepted but have no effect, for the person who starts a run.
    pub notices: Vec<Diagnostic>,
}

impl Workflow {
    /// Returns the name that GitHub shows for the workflow: `name:`, or the file if it has none.
    pub fn display_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.file)
    }

    /// Returns the trigger for a run without an explicit event: `workflow_dispatch` if it is listed, else the first one.
    pub fn default_trigger(&self) -> &Trigger {
        self.trigger("workflow_dispatch").unwrap_or(&self.triggers[0])
    }

    /// Returns the trigger for an event, if the workflow lists the event.
    pub fn trigger(&self, event: &str) -> Option<&Trigger> {
        self.triggers.iter().find(|trigger| trigger.event == event)
    }
}

/// One event of `on:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Trigger {
    /// The event, such as `push`.
    pub event: String,
    /// Its position in the file.
    pub at: Position,
    /// `inputs:` of `workflow_dispatch`, in the order of the file.
    pub inputs: IndexMap<String, Input>,
}

impl Trigger {
    /// Converts the given inputs (`--input k=v`, or the `inputs` of a dispatch call) into the `inputs` context: fills in
    /// defaults, converts booleans and numbers, and checks choices.
    ///
    /// # Errors
    /// Returns the first input that is unknown, missing or of the wrong type.
    pub fn resolve_inputs(&self, given: &IndexMap<String, String>) -> Result<Value, InputError> {
        if let Some(name) =
            given.keys().find(|name| !self.inputs.keys().any(|known| known.eq_ignore_ascii_case(name)))
        {
            let known = self.inputs.keys().cloned().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            return Err(InputError::Unknown { name: name.clone(), known });
        }
        let mut inputs = Object::new();
        for (name, input) in &self.inputs {
            let typed =
                given.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
            inputs.insert(name.clone(), input.resolve(name, typed)?);
        }
        Ok(Value::Object(inputs))
    }

    /// Returns the inputs as the event's payload has them (`github.event.inputs`): all of them, each as text.
    pub fn event_inputs(&self, given: &IndexMap<String, String>) -> IndexMap<String, String> {
        let text = |(name, input): (&String, &Input)| {
            let given = given.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            let text = given.or(input.default.as_ref()).cloned().unwrap_or_else(|| input.unset().to_owned());
            (name.clone(), text)
        };
        self.inputs.iter().map(text).collect()
    }
}

/// One input of `workflow_dispatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// `description:`.
    pub description: Option<String>,
    /// `required:`.
    pub required: bool,
    /// `default:`, as text.
    pub default: Option<String>,
    /// `type:`; `string` if absent.
    pub kind: InputKind,
}

/// The type of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputKind {
    /// Any text.
    String,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// One of `options:`.
    Choice(Vec<String>),
    /// The name of an environment; the lab accepts any text.
    Environment,
}

/// An input that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InputError {
    /// The workflow has no such input.
    #[error("the workflow has no input \"{name}\" (its inputs: {known})")]
    Unknown {
        /// The given name.
        name: String,
        /// The names of the workflow's inputs, or `none`.
        known: String,
    },
    /// A required input without a default was not given.
    #[error("the workflow requires the input \"{name}\": give it with a value")]
    Missing {
        /// The input.
        name: String,
    },
    /// The value does not fit the type.
    #[error("the input \"{name}\" is \"{value}\", but must be {expected}")]
    Invalid {
        /// The input.
        name: String,
        /// The given value.
        value: String,
        /// A description of the allowed values.
        expected: String,
    },
}

impl Input {
    /// Returns the text of the input if it has no default and no value is given.
    fn unset(&self) -> &str {
        match &self.kind {
            InputKind::Boolean => "false",
            InputKind::Choice(options) => options.first().map_or("", String::as_str),
            InputKind::String | InputKind::Number | InputKind::Environment => "",
        }
    }

    fn resolve(&self, name: &str, typed: Option<&str>) -> Result<Value, InputError> {
        let text = typed.or(self.default.as_deref());
        if self.required && text.is_none_or(str::is_empty) {
            return Err(InputError::Missing { name: name.to_owned() });
        }
        let invalid = |value: &str, expected: String| InputError::Invalid {
            name: name.to_owned(),
            value: value.to_owned(),
            expected,
        };
        match (&self.kind, text) {
            (InputKind::Boolean, None | Some("" | "false")) => Ok(Value::Bool(false)),
            (InputKind::Boolean, Some("true")) => Ok(Value::Bool(true)),
            (InputKind::Boolean, Some(other)) => Err(invalid(other, "true or false".to_owned())),
            (InputKind::Number, None | Some("")) => Ok(Value::Number(0.0)),
            (InputKind::Number, Some(text)) => {
                let number = Value::String(text.to_owned()).to_number();
                if number.is_nan() {
                    Err(invalid(text, "a number".to_owned()))
                } else {
                    Ok(Value::Number(number))
                }
            }
            (InputKind::Choice(options), Some(text))
                if !text.is_empty() && !options.iter().any(|option| option == text) =>
            {
                Err(invalid(text, format!("one of {}", options.join(", "))))
            }
            (InputKind::Choice(options), None) => {
                Ok(Value::String(options.first().cloned().unwrap_or_default()))
            }
            (_, text) => Ok(Value::String(text.unwrap_or_default().to_owned())),
        }
    }
}

/// `defaults.run` of a workflow or of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defaults {
    /// `shell:`.
    pub shell: Option<Token>,
    /// `working-directory:`.
    pub working_directory: Option<Token>,
}

impl Defaults {
    /// Returns true if nothing is set.
    pub fn is_empty(&self) -> bool {
        self.shell.is_none() && self.working_directory.is_none()
    }
}

/// An `if:`; the `${{ }}` around it is optional.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Its position in the file.
    pub at: Position,
    /// The expression as GitHub completes it: a condition without a status function becomes `success() && (...)`.
    pub expr: Expr,
}

/// One job of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The key under `jobs:`.
    pub id: String,
    /// Its position in the file.
    pub at: Position,
    /// `name:`.
    pub name: Option<Token>,
    /// `needs:`, each the id of another job.
    pub needs: Vec<String>,
    /// `if:`, completed; `success()` if absent.
    pub condition: Condition,
    /// `runs-on:`.
    pub runs_on: RunsOnTemplate,
    /// `strategy:`.
    pub strategy: Option<Strategy>,
    /// `env:`, a mapping that the runner evaluates.
    pub env: Option<Token>,
    /// `defaults.run`, which the runner evaluates.
    pub defaults: Defaults,
    /// `outputs:`, a mapping that the runner evaluates.
    pub outputs: Option<Token>,
    /// `timeout-minutes:`.
    pub timeout_minutes: Option<Token>,
    /// `continue-on-error:`.
    pub continue_on_error: Option<Token>,
    /// `environment:`, which has no effect.
    pub environment: Option<Token>,
    /// The steps; never empty.
    pub steps: Vec<Step>,
}

/// `runs-on:` before its expressions are evaluated.
#[derive(Debug, Clone, PartialEq)]
pub enum RunsOnTemplate {
    /// A string, a list, or an expression that evaluates to either.
    Labels(Token),
    /// `{group: ..., labels: ...}`.
    Group {
        /// The runner group.
        group: Option<Token>,
        /// A string, a list, or an expression that evaluates to either.
        labels: Option<Token>,
    },
}

/// `strategy:` before its expressions are evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Strategy {
    /// `matrix:`, a mapping or an expression that evaluates to one.
    pub matrix: Option<Token>,
    /// `fail-fast:`; true if absent.
    pub fail_fast: Option<Token>,
    /// `max-parallel:`; no limit if absent.
    pub max_parallel: Option<Token>,
}

/// One `run` step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its position in the file.
    pub at: Position,
    /// `id:`.
    pub id: Option<String>,
    /// `name:`.
    pub name: Option<Token>,
    /// `if:`, completed; `success()` if absent.
    pub condition: Condition,
    /// `run:`.
    pub run: Token,
    /// The name that is shown if there is no `name:`, as on GitHub: `Run ` and the first line of the script.
    pub label: Token,
    /// `shell:`.
    pub shell: Option<Token>,
    /// `working-directory:`.
    pub working_directory: Option<Token>,
    /// `env:`, a mapping.
    pub env: Option<Token>,
    /// `continue-on-error:`.
    pub continue_on_error: Option<Token>,
    /// `timeout-minutes:`.
    pub timeout_minutes: Option<Token>,
}

//! Workflow files: parses them, decides which job runs when, and builds the job messages for runners.
//!
//! ```text
//! file text --parse--> Workflow --Run::start--> Run --Action::QueueJob--> message::job_message --> runner
//!                                                ^                                                   |
//!                                                +------------- RunEvent (time passed in) -----------+
//! ```
//!
//! This module is pure: it uses no I/O and no clock. The lab's server owns a [`Run`], passes it events ([`RunEvent`])
//! and carries out the actions that it returns ([`Action`]).
//!
//! Expressions are evaluated where GitHub evaluates them. The lab evaluates `if` of jobs, `strategy`, `runs-on`, job names
//! and job timeouts ([`plan`]). The runner evaluates all others, which it receives as template tokens ([`message`]).

mod diagnostic;
mod model;
mod parse;
mod token;
mod yaml;

pub mod matrix;
pub mod message;
pub mod plan;
pub mod run;

pub use diagnostic::{Diagnostic, Diagnostics, Position};
pub use model::{
    Condition, Defaults, Input, InputError, InputKind, Job, RunsOnTemplate, Step, Strategy, Trigger, Workflow,
};
pub use parse::parse;
pub use run::{
    Action, CancelReason, Conclusion, GithubContext, JobIndex, JobRun, JobState, Run, RunEvent, RunRequest,
    RunsOn,
};
pub use token::{Token, TokenKind};

//! Workflow files: reading them, deciding what runs when, and saying it to a runner.
//!
//! ```text
//! file text --parse--> Workflow --Run::start--> Run --Action::QueueJob--> message::job_message --> runner
//!                                                ^                                                   |
//!                                                +------------- RunEvent (time passed in) -----------+
//! ```
//!
//! Everything here is pure: no I/O and no clock. The lab's server owns a [`Run`], tells it what happened
//! ([`RunEvent`]) and does what it is told ([`Action`]).
//!
//! Expressions are evaluated where GitHub evaluates them: `if` of jobs, `strategy`, `runs-on`, job names and job
//! timeouts here ([`plan`]), everything else in the runner, to which it is sent as template tokens ([`message`]).

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

//! One run of a workflow, as a state machine without I/O and without a clock.
//!
//! ```text
//!            needs done, if true        runner acquires           runner completes
//! (pending) ---------------------> Queued -----------> Running ----------------------> Completed
//!     |        ^                     |                    | cancel, timeout, fail-fast    ^  ^
//!     |        | max-parallel        | cancel             v                               |  |
//!     |      Waiting                 |                Cancelling -------------------------+  |
//!     +------------------------------+-------------------------------------------------------+
//!        if false: skipped; cancelled before it ran: cancelled
//! ```

mod github;
mod group;
mod job;
mod state;

pub use github::GithubContext;
pub use job::{CancelReason, Conclusion, GROUP_CHARACTERS_MAX, JobIndex, JobRun, JobState, RunsOn};
pub use state::{Action, CANCEL_GRACE, Run, RunEvent, RunRequest};

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(in crate::workflow) mod tests;

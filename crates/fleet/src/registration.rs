//! Ends a runner's registration, for a live runner and for a start that removes the remains of a dead process.

use std::time::Duration;

use dayfly_forge::{Deletion, Forge, ForgeError, RunnerScope};
use tokio::time::Instant;

use crate::fact::RegistrationEnd;
use crate::state::RegistrationState;

/// Pause between two attempts to delete a registration that is busy.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// The answer to a forge that calls the runner busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenBusy {
    /// Leave the registration: a job may run in the machine.
    Leave,
    /// Delete it, because its machine is gone and its job is lost: report the loss to a forge that takes such reports, and
    /// try again until this time.
    Insist {
        /// Time of the last attempt.
        until: Instant,
    },
}

/// The end of a registration.
#[derive(Debug)]
pub(crate) struct RegistrationOutcome {
    /// The way in which it ended.
    pub(crate) how: RegistrationEnd,
    /// Error of the report that the job is lost. The forge finds out later by the runner's silence.
    pub(crate) unreported: Option<ForgeError>,
}

/// Deletes a runner's registration. If its id is not known, the registration is looked up by its name, because the answer
/// with the id may have been lost. A 404 alone proves nothing, because a token that has lost its rights gets one too: as long as
/// the machine exists, a registration is gone only if the list of runners lacks it as well.
///
/// # Errors
/// The forge does not answer, or refuses.
pub(crate) async fn end(
    forge: &Forge,
    scope: &RunnerScope,
    name: &str,
    state: RegistrationState,
    when_busy: WhenBusy,
) -> Result<RegistrationOutcome, ForgeError> {
    let gone = RegistrationOutcome { how: RegistrationEnd::Gone, unreported: None };
    let id = match state {
        RegistrationState::None => return Ok(gone),
        RegistrationState::Exists(id) => id,
        RegistrationState::Requested => match forge.find_runner_by_name(scope, name).await? {
            Some(runner) => runner.id,
            None => return Ok(gone),
        },
    };
    let mut unreported = None;
    let mut is_first = true;
    let how = loop {
        match (forge.delete_runner(scope, id).await?, when_busy) {
            (Deletion::Deleted, _) => break RegistrationEnd::Deleted,
            (Deletion::Gone, WhenBusy::Insist { .. }) => break RegistrationEnd::Gone,
            (Deletion::Gone, WhenBusy::Leave) => match forge.find_runner_by_name(scope, name).await? {
                None => break RegistrationEnd::Gone,
                // It may have a job.
                Some(_) => break RegistrationEnd::Busy,
            },
            (Deletion::Busy, WhenBusy::Leave) => break RegistrationEnd::Busy,
            (Deletion::Busy, WhenBusy::Insist { .. }) if std::mem::take(&mut is_first) => {
                unreported = forge.tell_lost(id).await.err();
            }
            (Deletion::Busy, WhenBusy::Insist { until }) if Instant::now() < until => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            (Deletion::Busy, WhenBusy::Insist { .. }) => break RegistrationEnd::Busy,
        }
    };
    Ok(RegistrationOutcome { how, unreported })
}

#[cfg(test)]
pub(crate) mod tests;

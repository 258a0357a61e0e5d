//! The values that a listener returns, with the texts that an admin reads.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::demand::ScaleSetDemand;
use super::fault::ServiceFault;
use super::remedy::Remedy;
use super::wire::ScaleSet;
use crate::ForgeError;

/// One value of a listener.
#[derive(Debug)]
pub enum ScaleSetUpdate {
    /// The scale set is ready, at the start or because it was created again.
    Ready(ReadyScaleSet),
    /// The demand, after each poll and each new or refreshed session.
    Demand(ScaleSetDemand),
    /// A step failed. The listener goes on by itself after the pause.
    Trouble(ListenerTrouble),
}

/// The scale set of a listener. Its text (`Display`) says how it became ready.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyScaleSet {
    /// The scale set as the service has it.
    pub scale_set: ScaleSet,
    /// True if the listener has created it just now.
    pub is_new: bool,
    /// The id of the scale set that was here before and was deleted by another program.
    pub replaces: Option<u64>,
    /// Wanted labels that the forge has not kept.
    pub missing_labels: Vec<String>,
}

impl fmt::Display for ReadyScaleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scale_set: ScaleSet { id, name, .. }, .. } = self;
        match (self.is_new, self.replaces) {
            (true, Some(old)) => write!(
                f,
                "the scale set \"{name}\" ({old}) was deleted by another program; created it again ({id})"
            )?,
            (true, None) => write!(f, "created the scale set \"{name}\" ({id})")?,
            (false, _) => write!(f, "found the scale set \"{name}\" ({id})")?,
        }
        if self.missing_labels.is_empty() {
            return Ok(());
        }
        write!(
            f,
            ", but the forge does not keep its labels {}: jobs that ask for them get no runner of it; GHES before 3.21 keeps \
             one label, so give each label a scale set of its own",
            self.missing_labels.join(", ")
        )
    }
}

/// A failed step of a listener. Its text (`Display`) contains the error and says what the listener does about it.
#[derive(Debug)]
pub struct ListenerTrouble {
    /// The name of the scale set.
    pub scale_set: String,
    /// The error.
    pub error: ForgeError,
    /// Failures in a row, including this one. A successful poll ends the row.
    pub failures: u32,
    /// Time since the first failure of the row. The listener never gives up by itself.
    pub since: Duration,
    /// Pause before the next attempt.
    pub pause: Duration,
    pub(super) remedy: Remedy,
}

impl ListenerTrouble {
    fn advice(&self) -> &'static str {
        match (self.error.cause(), self.remedy) {
            (ForgeError::Service { fault: ServiceFault::SessionTaken, .. }, _) => {
                "if another program serves this scale set, give one of them a scale set with another name; if a program was \
                 killed that served it, the forge ends its session within some minutes"
            }
            (_, Remedy::Again) => "dayfly tries again",
            (_, Remedy::RenewToken | Remedy::Refresh) => "dayfly refreshes its session and polls again",
            (_, Remedy::NewSession) => "dayfly opens a new session",
            (_, Remedy::NewScaleSet) => {
                "the scale set was deleted by another program, so dayfly looks for it and creates it if it is not there"
            }
            (_, Remedy::GoOn) => "dayfly goes on; the counts of the next message are right nevertheless",
        }
    }
}

impl fmt::Display for ListenerTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scale set \"{}\": {}; {}", self.scale_set, self.error, self.advice())?;
        if !self.pause.is_zero() {
            write!(f, "; next attempt in {} s", self.pause.as_secs_f64().ceil())?;
        }
        if self.failures > 1 {
            write!(f, " (failure {} in {} s)", self.failures, self.since.as_secs())?;
        }
        Ok(())
    }
}

impl Error for ListenerTrouble {
    /// Returns the cause of the error, because the text contains the error itself.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

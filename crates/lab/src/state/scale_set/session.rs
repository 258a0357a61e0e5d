//! Sessions of listeners. A scale set has one at most; it is stored, so that it survives a restart of the lab.

use serde::{Deserialize, Serialize};

use super::{ScaleSet, scale_set_not_found};
use crate::fault::{Call, Fault};
use crate::refusal::Refusal;
use crate::state::LabState;
use crate::state::runner::millis;
use crate::state::scope::Scope;

/// Lifetime of the token for the message queue.
const TOKEN_SECONDS: i64 = 3600;

/// A session, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerSession {
    pub(crate) id: String,
    pub(crate) owner: String,
}

impl LabState {
    /// Opens a session and returns its id. Returns an error if the scale set has one, also of the same owner. The session of
    /// a listener that died ends after [`crate::Limits::listener_idle`].
    pub(crate) fn open_listener_session(
        &mut self,
        scope: &Scope,
        id: u64,
        owner: String,
    ) -> Result<ListenerSession, Refusal> {
        let record = &self.scale_set(scope, id)?.record;
        let (name, is_taken) = (record.name.clone(), record.session.is_some());
        let subject = || format!("scale set {name}");
        if is_taken || self.fault(Fault::SessionConflict, Call::SESSION, subject).is_some() {
            let message = format!("The actions runner scaleset {name} already has an active session.");
            return Err(Refusal::named(409, "RunnerScaleSetSessionConflictException", message));
        }
        let now_ms = self.now_ms();
        let session = ListenerSession { id: uuid::Uuid::new_v4().to_string(), owner };
        if let Some(set) = self.scale_sets.get_mut(&id) {
            set.record.session = Some(session.clone());
            set.seen_ms = now_ms;
            set.queue.begin_session();
        }
        self.record_scale_set(id);
        Ok(session)
    }

    /// Returns the session with this id.
    pub(crate) fn listener_session(
        &mut self,
        scope: &Scope,
        id: u64,
        session: &str,
    ) -> Result<ListenerSession, Refusal> {
        self.scale_set(scope, id)?;
        let set = self.listened(id, session)?;
        Ok(set.record.session.clone().expect("it was found"))
    }

    /// Ends a session. A poll that is open ends with it.
    pub(crate) fn close_listener_session(
        &mut self,
        scope: &Scope,
        id: u64,
        session: &str,
    ) -> Result<(), Refusal> {
        self.listener_session(scope, id, session)?;
        self.end_listener_session(id);
        Ok(())
    }

    /// Returns the lifetime of a new token for the queue of a session. Its listener renews the token after a 401.
    pub(crate) fn queue_token_seconds(&mut self, call: Call, session: &str) -> i64 {
        let short = self.fault(Fault::QueueTokenExpiry, call, || format!("session {session}"));
        short.map_or(TOKEN_SECONDS, |seconds| i64::try_from(seconds).unwrap_or(TOKEN_SECONDS))
    }

    fn end_listener_session(&mut self, id: u64) {
        if let Some(set) = self.scale_sets.get_mut(&id) {
            set.record.session = None;
            set.queue.end_poll();
        }
        self.record_scale_set(id);
    }

    /// Returns the scale set of a session that calls, and notes the call.
    pub(crate) fn listened(&mut self, id: u64, session: &str) -> Result<&mut ScaleSet, Refusal> {
        let now_ms = self.now_ms();
        let set = self.scale_sets.get_mut(&id).ok_or_else(|| scale_set_not_found(id))?;
        if !set.record.session.as_ref().is_some_and(|own| own.id.eq_ignore_ascii_case(session)) {
            let message = format!("The session is not one of the runner scale set {}.", set.record.name);
            return Err(Refusal::named(404, "RunnerScaleSetSessionExpiredException", message));
        }
        set.seen_ms = now_ms;
        Ok(set)
    }

    /// Ends the sessions that have called nothing for too long.
    pub(in crate::state) fn tick_listeners(&mut self) {
        let (now_ms, idle_ms) = (self.now_ms(), millis(self.limits.listener_idle));
        let dead = |set: &&ScaleSet| {
            set.record.session.is_some() && !set.queue.is_polled() && now_ms - set.seen_ms > idle_ms
        };
        let dead: Vec<u64> = self.scale_sets.values().filter(dead).map(|set| set.record.id).collect();
        dead.into_iter().for_each(|id| self.end_listener_session(id));
    }
}

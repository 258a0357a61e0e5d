//! Sessions of a scale set, and their queue of messages.

use std::fmt;
use std::time::Duration;

use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::address::trusted;
use super::client::{ACCEPT, PATH, ScaleSetClient, ServiceCall, deletion, service_url};
use super::demand::ScaleSetStatistics;
use super::message::ScaleSetMessage;
use super::wire::{List, if_readable};
use crate::address::part;
use crate::request::{ApiAnswer, Call};
use crate::{Deletion, ForgeError};

/// Longest poll. The service answers after about 50 s; a proxy between may add some time.
const POLL_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest message that is read. A real one has at most 50 jobs, about 1 kB each.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Header with the most jobs that the scale set may have, running ones included.
const CAPACITY_HEADER: &str = "x-scalesetmaxcapacity";

/// The place of a session at the forge. It is no secret, because only the owner of the scale set has a token for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionId {
    scale_set: u64,
    session: String,
}

/// A session: the right to read the messages of a scale set. A scale set has only one.
#[derive(Clone)]
pub struct ScaleSetSession {
    scale_set: u64,
    id: String,
    /// The service that has opened the session. Jobs are acquired there.
    service: Url,
    /// The address of the messages. It is opaque and may be on another host than the service.
    queue: Url,
    token: SecretString,
    statistics: Option<ScaleSetStatistics>,
}

impl fmt::Debug for ScaleSetSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address of the queue may hold a signature.
        let (scale_set, queue_host) = (self.scale_set, self.queue.host_str());
        f.debug_struct("ScaleSetSession")
            .field("scale_set", &scale_set)
            .field("queue_host", &queue_host)
            .finish_non_exhaustive()
    }
}

impl ScaleSetSession {
    /// Returns its place, by which a later process can end it.
    pub fn id(&self) -> SessionId {
        SessionId { scale_set: self.scale_set, session: self.id.clone() }
    }

    /// Returns the id of the scale set.
    pub fn scale_set(&self) -> u64 {
        self.scale_set
    }

    /// Returns the counts at the time when the session was opened or refreshed. `None` if the service has sent none.
    pub fn statistics(&self) -> Option<ScaleSetStatistics> {
        self.statistics
    }

    fn read(answer: &ApiAnswer, scale_set: u64, service: Url) -> Result<Self, ForgeError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Opened {
            session_id: String,
            message_queue_url: String,
            message_queue_access_token: SecretString,
            #[serde(default)]
            statistics: Option<Value>,
        }
        let opened: Opened = answer.json()?;
        if !opened.session_id.chars().any(|c| c.is_ascii_hexdigit() && c != '0') {
            return Err(answer.bad("the session has no id"));
        }
        if opened.message_queue_access_token.expose_secret().is_empty() {
            return Err(answer.bad("the session has no token"));
        }
        Ok(Self {
            scale_set,
            id: opened.session_id,
            queue: trusted(&opened.message_queue_url, &service).map_err(|why| answer.bad(why))?,
            service,
            token: opened.message_queue_access_token,
            statistics: if_readable(opened.statistics),
        })
    }

    /// Returns a call to the queue.
    fn queue_call(&self, what: String, method: Method, url: Url) -> Call {
        Call::new(what, method, url).service_token("Bearer", &self.token, &self.queue).accept(ACCEPT)
    }
}

impl ScaleSetClient {
    /// Opens a session. `owner` names this program to other people, for example by its host. The call is never repeated; if
    /// its answer is lost, the session ends after some minutes.
    ///
    /// # Errors
    /// [`ForgeError::Service`] with [`SessionTaken`](super::ServiceFault::SessionTaken) if the scale set has a session, or
    /// with [`ScaleSetNotFound`](super::ServiceFault::ScaleSetNotFound). For the rest see [`ForgeError`].
    pub async fn open_session(&self, scale_set: u64, owner: &str) -> Result<ScaleSetSession, ForgeError> {
        let what = self.what("open a session of", scale_set);
        let call = ServiceCall::new(what, Method::POST, format!("{PATH}/{scale_set}/sessions"));
        let answer = self.send(call.body(json!({"ownerName": owner}))).await?;
        ScaleSetSession::read(&answer, scale_set, self.admin().await?.service)
    }

    /// Renews the token of a session's queue. The answer has new counts too.
    ///
    /// # Errors
    /// [`ForgeError::NotFound`] if the session has ended. For the rest see [`ForgeError`].
    pub async fn refresh_session(&self, session: &ScaleSetSession) -> Result<ScaleSetSession, ForgeError> {
        let what = self.what("refresh the session of", session.scale_set);
        let answer = self.send(ServiceCall::new(what, Method::PATCH, session_path(&session.id()))).await?;
        ScaleSetSession::read(&answer, session.scale_set, self.admin().await?.service)
    }

    /// Ends a session, so that the next one can be opened at once.
    ///
    /// # Errors
    /// See [`ForgeError`]. An answer other than 204 and 404 is an error.
    pub async fn close_session(&self, session: &SessionId) -> Result<Deletion, ForgeError> {
        let what = self.what("end the session of", session.scale_set);
        deletion(self.send(ServiceCall::new(what, Method::DELETE, session_path(session))).await)
    }

    /// Waits for the next message, about 50 s at GitHub. Returns `None` if there is none. A message comes again until it is
    /// deleted. `last_message` is the id of the last message that was read in this session, or 0. `capacity` is the most jobs
    /// that the scale set may have at once, running ones included. The call is never repeated.
    ///
    /// # Errors
    /// [`ForgeError::ServiceToken`] if the token of the queue has ended: refresh the session. For the rest see
    /// [`ForgeError`].
    pub async fn next_message(
        &self,
        session: &ScaleSetSession,
        last_message: u64,
        capacity: u32,
    ) -> Result<Option<ScaleSetMessage>, ForgeError> {
        let mut url = session.queue.clone();
        if last_message > 0 {
            url.query_pairs_mut().append_pair("lastMessageId", &last_message.to_string());
        }
        let what = self.what("wait for messages of", session.scale_set);
        let call = session
            .queue_call(what, Method::GET, url)
            .header(CAPACITY_HEADER, capacity.to_string())
            .answer_bytes_max(MESSAGE_BYTES_MAX)
            .timeout(POLL_TIMEOUT)
            .once();
        let answer = self.forge.send(call).await?;
        match answer.status {
            202 | 204 => Ok(None),
            _ if answer.body.is_empty() => {
                Err(answer.bad("it is empty; a proxy on the way may cut answers that take a minute"))
            }
            _ => ScaleSetMessage::read(answer.json_bytes()).map(Some).map_err(|why| answer.bad(why)),
        }
    }

    /// Deletes a message that was acted on.
    ///
    /// # Errors
    /// [`ForgeError::ServiceToken`] if the token of the queue has ended. For the rest see [`ForgeError`]. An answer other
    /// than 204 and 404 is an error.
    pub async fn delete_message(
        &self,
        session: &ScaleSetSession,
        message: u64,
    ) -> Result<Deletion, ForgeError> {
        let mut url = session.queue.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(&message.to_string());
        }
        let what = self.what(&format!("delete the message {message} of"), session.scale_set);
        deletion(self.forge.send(session.queue_call(what, Method::DELETE, url)).await)
    }

    /// Acquires offered jobs by the ids of their requests. Returns those that were acquired; the others are gone. The call
    /// may be repeated, because an acquired job is not given twice.
    ///
    /// # Errors
    /// [`ForgeError::ServiceToken`] if the token of the queue has ended. For the rest see [`ForgeError`].
    pub async fn acquire_jobs(
        &self,
        session: &ScaleSetSession,
        requests: &[i64],
    ) -> Result<Vec<i64>, ForgeError> {
        let path = format!("{PATH}/{}/acquirejobs", session.scale_set);
        let what = self.what("acquire offered jobs for", session.scale_set);
        // The service expects the queue's token here (github.com/actions/scaleset 0.4.0).
        let call = Call::new(what, Method::POST, service_url(&session.service, &path, &[])?)
            .service_token("Bearer", &session.token, &session.service)
            .accept(ACCEPT)
            .body(json!(requests))
            .repeatable();
        let acquired: List<i64> = self.forge.send(call).await?.json()?;
        Ok(acquired.value)
    }

    /// Returns the ids of the jobs that are offered and not acquired. A forge without this call offers none.
    ///
    /// # Errors
    /// See [`ForgeError`].
    pub async fn acquirable_jobs(&self, scale_set: u64) -> Result<Vec<i64>, ForgeError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Offer {
            runner_request_id: i64,
        }
        let what = self.what("list the jobs offered to", scale_set);
        let call = ServiceCall::new(what, Method::GET, format!("{PATH}/{scale_set}/acquirablejobs"));
        match self.send(call).await {
            Ok(answer) if answer.body.is_empty() => Ok(Vec::new()),
            Ok(answer) => {
                let offers: List<Offer> = answer.json()?;
                Ok(offers.value.into_iter().map(|offer| offer.runner_request_id).collect())
            }
            Err(ForgeError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn session_path(session: &SessionId) -> String {
    format!("{PATH}/{}/sessions/{}", session.scale_set, part(&session.session))
}

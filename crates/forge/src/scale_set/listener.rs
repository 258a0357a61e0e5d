//! [`ScaleSetListener`]: serves one scale set for as long as the caller asks it to.

use std::pin::pin;
use std::time::Duration;

use dayfly_host::retry::SHORT_POLL;
use tokio::time::Instant;

use super::client::{NewScaleSet, ScaleSetClient};
use super::demand::{ScaleSetDemand, ScaleSetStatistics};
use super::message::ScaleSetMessage;
use super::offers::Offers;
use super::remedy::{Remedy, Step, pause, remedy};
use super::session::{ScaleSetSession, SessionId};
use super::update::{ListenerTrouble, ReadyScaleSet, ScaleSetUpdate};
use crate::ForgeError;

/// Longest time that the end of a session may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(15);
/// A poll that brings nothing new in less time than this counts as one of a server that does not hold polls.
const HELD_POLL_MIN: Duration = Duration::from_secs(1);

/// The scale set that a listener serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleSetSpec {
    /// Its name, unique in its group. Two listeners must not have the same one.
    pub name: String,
    /// The name of its runner group.
    pub group: String,
    /// Its labels; the name alone if this is empty.
    pub labels: Vec<String>,
    /// The owner of the session, as other people see it: for example the host's name. Keep it over restarts.
    pub owner: String,
}

/// Serves a scale set: creates it if it is not there, holds its session, acquires offered jobs, and returns the demand.
///
/// ```no_run
/// # async fn serve(client: dayfly_forge::scale_set::ScaleSetClient, spec: dayfly_forge::scale_set::ScaleSetSpec) {
/// # let (max, stop) = (8, std::future::pending());
/// # let (scale_to, say) = (|_: u32| {}, |_: String| {});
/// use dayfly_forge::scale_set::{ScaleSetListener, ScaleSetUpdate};
///
/// let mut stop = std::pin::pin!(stop);
/// let mut listener = ScaleSetListener::new(client, spec);
/// while let Some(update) = listener.next(max, &mut stop).await {
///     match update {
///         ScaleSetUpdate::Demand(demand) => scale_to(demand.statistics.runners_wanted(0, max)),
///         ScaleSetUpdate::Ready(ready) => say(ready.to_string()),
///         ScaleSetUpdate::Trouble(trouble) => say(trouble.to_string()),
///     }
/// }
/// if let Err(error) = listener.close().await { say(error.to_string()) }
/// # }
/// ```
#[derive(Debug)]
pub struct ScaleSetListener {
    client: ScaleSetClient,
    spec: ScaleSetSpec,
    phase: Phase,
    /// The id of the scale set that was served last.
    last_scale_set: Option<u64>,
    /// A session of this listener, or of a process that died, that may still exist. It is ended before another one is opened.
    abandoned: Option<SessionId>,
    /// The last message that was read in this session, or 0.
    last_message: u64,
    /// The message that the caller acts on, until it is deleted.
    unconfirmed: Option<u64>,
    offers: Offers,
    pace: Pace,
}

#[derive(Debug, Clone)]
enum Phase {
    NoScaleSet,
    /// The scale set with this id has no session of this listener.
    NoSession(u64),
    /// The session must be refreshed before it is used.
    Stale(ScaleSetSession),
    Live(ScaleSetSession, ScaleSetStatistics),
}

/// The row of failures, and the time before which nothing is sent.
#[derive(Debug)]
struct Pace {
    failures: u32,
    since: Instant,
    /// Polls in a row that brought nothing new, and that the server did not hold.
    short_polls: u32,
    /// True if the queue's token was renewed after the last successful poll.
    token_is_new: bool,
    resume_at: Instant,
}

/// The outcome of a step.
enum Next {
    Return(ScaleSetUpdate),
    /// A session of this scale set must be opened, which is not interrupted.
    Open(u64),
}

struct Failure(Step, ForgeError);

impl ScaleSetListener {
    /// Creates a listener. It sends nothing yet.
    pub fn new(client: ScaleSetClient, spec: ScaleSetSpec) -> Self {
        let now = Instant::now();
        let pace = Pace { failures: 0, since: now, short_polls: 0, token_is_new: false, resume_at: now };
        Self {
            client,
            spec,
            phase: Phase::NoScaleSet,
            last_scale_set: None,
            abandoned: None,
            last_message: 0,
            unconfirmed: None,
            offers: Offers::default(),
            pace,
        }
    }

    /// Ends a session of a process that died before the first one of this listener is opened. Without that, the forge refuses
    /// the new session until the old one has expired, which takes minutes. Only this session is ended: if another listener has
    /// opened one since, it has another id.
    pub fn end_first(&mut self, abandoned: SessionId) {
        self.abandoned = Some(abandoned);
    }

    /// Returns the session that exists at the forge because of this listener, or that it still has to end.
    pub fn session(&self) -> Option<SessionId> {
        match &self.phase {
            Phase::Stale(session) | Phase::Live(session, _) => Some(session.id()),
            Phase::NoScaleSet | Phase::NoSession(_) => self.abandoned.clone(),
        }
    }

    /// Takes the next step and returns its outcome. A call says that the caller has acted on the update before: only then
    /// is the update's message deleted. If the process dies earlier, the forge sends the message again.
    ///
    /// `capacity` is the most jobs that the scale set may have at once: those of the runners that exist, and of the runners
    /// that could be started. The forge assigns no more, and the listener acquires no more. It counts as
    /// [`total_assigned_jobs`](ScaleSetStatistics::total_assigned_jobs) does, with the jobs that run.
    ///
    /// `interrupt` ends polls and pauses at once, for a stop order or a new capacity; the outcome then is `None`, and the
    /// caller calls either this method again or [`Self::close`]. Only the opening of a session is not interrupted, which
    /// takes as long as one call: a session whose answer is lost blocks the scale set for minutes. Dropping the future is
    /// safe except for that.
    pub async fn next(
        &mut self,
        capacity: u32,
        interrupt: impl Future<Output = ()>,
    ) -> Option<ScaleSetUpdate> {
        let mut interrupt = pin!(interrupt);
        loop {
            tokio::select! {
                biased;
                () = &mut interrupt => return None,
                () = tokio::time::sleep_until(self.pace.resume_at) => {}
            }
            let stepped = tokio::select! {
                biased;
                () = &mut interrupt => return None,
                outcome = self.step(capacity) => outcome,
            };
            let outcome = match stepped {
                Ok(Next::Open(scale_set)) => self.open(scale_set).await,
                Ok(Next::Return(update)) => Ok(update),
                Err(failure) => Err(failure),
            };
            match outcome {
                Ok(update) => return Some(update),
                Err(failure) => {
                    if let Some(trouble) = self.recover(failure) {
                        return Some(ScaleSetUpdate::Trouble(trouble));
                    }
                }
            }
        }
    }

    /// Ends the session, so that the next process can open one at once. The message of the last update is not deleted and
    /// comes again, because only [`Self::next`] says that the caller has acted on it. The scale set stays.
    ///
    /// # Errors
    /// [`ForgeError::TooLate`] after 15 s. For the rest see [`ForgeError`]. The forge ends the session after some minutes.
    pub async fn close(&mut self) -> Result<(), ForgeError> {
        let Some(session) = self.session() else { return Ok(()) };
        (self.phase, self.abandoned) = (Phase::NoScaleSet, None);
        let what = format!("end the session of the scale set \"{}\"", self.spec.name);
        match tokio::time::timeout(CLOSE_LIMIT, self.client.close_session(&session)).await {
            Ok(outcome) => outcome.map(drop),
            Err(_) => Err(ForgeError::TooLate { what, limit: CLOSE_LIMIT }),
        }
    }

    /// Takes the step of the current phase, or all of it that may be interrupted.
    async fn step(&mut self, capacity: u32) -> Result<Next, Failure> {
        let update = match self.phase.clone() {
            Phase::NoScaleSet => self.find().await.map_err(|error| Failure(Step::Find, error))?,
            Phase::NoSession(scale_set) => {
                self.prepare_to_open().await.map_err(|error| Failure(Step::Open, error))?;
                return Ok(Next::Open(scale_set));
            }
            Phase::Stale(session) => {
                let refreshed = self.client.refresh_session(&session).await;
                self.enter(refreshed.map_err(|error| Failure(Step::Refresh, error))?)?
            }
            Phase::Live(session, statistics) => {
                let acquired = self.acquire(&session, &statistics, capacity).await;
                acquired.map_err(|error| Failure(Step::Acquire, error))?;
                let confirmed = self.confirm(&session).await;
                confirmed.map_err(|error| Failure(Step::Confirm, error))?;
                let polled = self.poll(&session, statistics, capacity).await;
                polled.map_err(|error| Failure(Step::Poll, error))?
            }
        };
        Ok(Next::Return(update))
    }

    /// Finds or creates the scale set, and gives it its labels.
    async fn find(&mut self) -> Result<ScaleSetUpdate, ForgeError> {
        let group_id = self.client.group_id(&self.spec.group).await?;
        let found = self.client.find_scale_set(group_id, &self.spec.name).await?;
        let is_new = found.is_none();
        let own = vec![self.spec.name.clone()];
        let labels = if self.spec.labels.is_empty() { own } else { self.spec.labels.clone() };
        let scale_set = match found {
            Some(scale_set) if scale_set.has_exactly(&labels) => scale_set,
            Some(scale_set) => self.client.set_labels(&scale_set, &labels).await?,
            None => {
                let new = NewScaleSet { name: self.spec.name.clone(), group_id, labels: labels.clone() };
                self.client.create_scale_set(&new).await?
            }
        };
        let replaces = self.last_scale_set.filter(|last| *last != scale_set.id);
        self.last_scale_set = Some(scale_set.id);
        self.phase = Phase::NoSession(scale_set.id);
        let missing_labels = scale_set.missing_labels(&labels);
        Ok(ScaleSetUpdate::Ready(ReadyScaleSet { scale_set, is_new, replaces, missing_labels }))
    }

    /// Does what precedes the opening of a session and may be interrupted: gets a token, and ends the session before.
    async fn prepare_to_open(&mut self) -> Result<(), ForgeError> {
        self.client.admin().await?;
        if let Some(old) = self.abandoned.clone() {
            match self.client.close_session(&old).await {
                Err(error) if error.is_temporary() => return Err(error),
                // If the old session still exists, the service refuses the new one, and the admin reads why.
                Err(error) => tracing::debug!(%error, "an abandoned session of a scale set cannot be ended"),
                Ok(_) => {}
            }
            self.abandoned = None;
        }
        Ok(())
    }

    /// Opens a session. Must not be interrupted: see [`Self::next`].
    async fn open(&mut self, scale_set: u64) -> Result<ScaleSetUpdate, Failure> {
        let opened = self.client.open_session(scale_set, &self.spec.owner).await;
        let session = opened.map_err(|error| Failure(Step::Open, error))?;
        // The queue of a new session starts with all messages that were not deleted.
        (self.last_message, self.unconfirmed, self.offers) = (0, None, Offers::default());
        self.enter(session)
    }

    /// Begins to use a session that was opened or refreshed.
    fn enter(&mut self, session: ScaleSetSession) -> Result<ScaleSetUpdate, Failure> {
        let Some(statistics) = session.statistics() else {
            self.phase = Phase::Stale(session);
            let what = format!("use the session of the scale set \"{}\"", self.spec.name);
            let why = "it has no statistics, which tell how many runners are needed".to_owned();
            return Err(Failure(Step::Refresh, ForgeError::BadAnswer { what, why }));
        };
        self.offers.begin(&statistics);
        self.phase = Phase::Live(session, statistics);
        Ok(unchanged(statistics))
    }

    /// Acquires offered jobs as far as there is room for them.
    async fn acquire(
        &mut self,
        session: &ScaleSetSession,
        statistics: &ScaleSetStatistics,
        capacity: u32,
    ) -> Result<(), ForgeError> {
        if self.offers.must_be_asked_for() {
            let offered = self.client.acquirable_jobs(session.scale_set()).await;
            self.offers.asked_for();
            self.offers.add(offered?);
        }
        let requests = self.offers.to_acquire(capacity, statistics);
        if requests.is_empty() {
            return Ok(());
        }
        match self.client.acquire_jobs(session, &requests).await {
            Ok(acquired) => {
                self.offers.settle(&requests, acquired.len());
                Ok(())
            }
            Err(error) => {
                // Offers are kept after a temporary failure, and if the token has ended.
                if !error.is_temporary() && !matches!(error, ForgeError::ServiceToken { .. }) {
                    self.offers.settle(&requests, 0);
                }
                Err(error)
            }
        }
    }

    /// Deletes the message that the caller has acted on.
    async fn confirm(&mut self, session: &ScaleSetSession) -> Result<(), ForgeError> {
        if let Some(message) = self.unconfirmed {
            self.client.delete_message(session, message).await?;
            self.unconfirmed = None;
        }
        Ok(())
    }

    async fn poll(
        &mut self,
        session: &ScaleSetSession,
        statistics: ScaleSetStatistics,
        capacity: u32,
    ) -> Result<ScaleSetUpdate, ForgeError> {
        let started_at = Instant::now();
        let message = self.client.next_message(session, self.last_message, capacity).await?;
        self.offers.polled();
        let is_news = message.as_ref().is_some_and(|message| message.id > self.last_message);
        self.pace.polled(is_news || started_at.elapsed() >= HELD_POLL_MIN);
        let Some(ScaleSetMessage { id, statistics: counted, events, unread }) = message else {
            return Ok(unchanged(statistics));
        };
        self.last_message = self.last_message.max(id);
        self.unconfirmed = Some(id);
        self.offers.note(&events);
        if counted.is_some() {
            self.offers.counted();
        }
        let statistics = counted.unwrap_or(statistics);
        self.phase = Phase::Live(session.clone(), statistics);
        Ok(ScaleSetUpdate::Demand(ScaleSetDemand { statistics, events, unread }))
    }

    /// Enters the phase that remedies a failure. Returns `None` if there is nothing to say or to wait for.
    fn recover(&mut self, Failure(step, error): Failure) -> Option<ListenerTrouble> {
        let remedy = remedy(step, &error, self.pace.token_is_new);
        let session = match &self.phase {
            Phase::Stale(session) | Phase::Live(session, _) => Some(session.clone()),
            Phase::NoScaleSet | Phase::NoSession(_) => None,
        };
        match (remedy, session) {
            (Remedy::Again, _) => {}
            (Remedy::GoOn, _) => self.leave_out(step),
            (Remedy::RenewToken | Remedy::Refresh, Some(session)) => self.phase = Phase::Stale(session),
            (Remedy::NewSession, Some(session)) => {
                self.phase = Phase::NoSession(session.scale_set());
                self.abandoned = Some(session.id());
            }
            (Remedy::NewScaleSet | Remedy::RenewToken | Remedy::Refresh | Remedy::NewSession, _) => {
                self.phase = Phase::NoScaleSet;
            }
        }
        if remedy == Remedy::RenewToken {
            self.pace.token_is_new = true;
            return None;
        }
        Some(self.pace.failed(&self.spec.name, error, remedy))
    }

    /// Leaves out a step that failed, so that the poll is not blocked by it.
    fn leave_out(&mut self, step: Step) {
        match step {
            // The message comes again in the next session.
            Step::Confirm => self.unconfirmed = None,
            Step::Acquire => self.offers.rest(),
            Step::Find | Step::Open | Step::Refresh | Step::Poll => {}
        }
    }
}

impl Pace {
    /// Notes a successful poll. If the server does not hold polls, the next one waits.
    fn polled(&mut self, is_held: bool) {
        (self.failures, self.token_is_new) = (0, false);
        self.short_polls = if is_held { 0 } else { self.short_polls.saturating_add(1) };
        let pause = SHORT_POLL.pause_after(self.short_polls).filter(|_| !is_held);
        self.resume_at = Instant::now() + pause.unwrap_or_default();
    }

    /// Notes a failure, and returns what there is to say.
    fn failed(&mut self, name: &str, error: ForgeError, remedy: Remedy) -> ListenerTrouble {
        let now = Instant::now();
        if self.failures == 0 {
            self.since = now;
        }
        self.failures = self.failures.saturating_add(1);
        let chance = f64::from(rand::random::<u16>()) / f64::from(u16::MAX);
        let pause = match remedy {
            Remedy::GoOn => Duration::ZERO,
            _ => pause(&error, self.failures, chance),
        };
        self.resume_at = now + pause;
        let since = now - self.since;
        ListenerTrouble { scale_set: name.to_owned(), error, failures: self.failures, since, pause, remedy }
    }
}

/// Returns the demand if there is no message.
fn unchanged(statistics: ScaleSetStatistics) -> ScaleSetUpdate {
    ScaleSetUpdate::Demand(ScaleSetDemand { statistics, events: Vec::new(), unread: Vec::new() })
}

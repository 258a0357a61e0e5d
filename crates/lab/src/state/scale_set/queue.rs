//! The queue of a scale set: which jobs it can acquire, which it has, and the messages about them.
//!
//! Messages are delivered at least once: a message is sent again until the listener deletes it. The listener names the last
//! message that it has seen and gets the oldest one after that.

use std::collections::{BTreeSet, VecDeque};

use tokio::sync::oneshot;

use super::message::{Notice, NoticeKind};
use super::statistics::Statistics;
use super::{JobOfScaleSet, ScaleSet};
use crate::journal::Record;
use crate::refusal::Refusal;
use crate::state::scope::Scope;
use crate::state::{Hold, LabState};

/// Most jobs that one message is about, as at GitHub.
const NOTICES_PER_MESSAGE: usize = 50;
/// Most messages that are sent and not deleted. A listener with so many gets no new one until it deletes some.
const SENT_MAX: usize = 100;

/// The jobs and messages of a scale set.
#[derive(Default)]
pub(super) struct JobQueue {
    /// The jobs that the scale set can acquire.
    available: BTreeSet<u64>,
    /// Those of them that no message of this session was about.
    unoffered: BTreeSet<u64>,
    /// The jobs that the scale set has acquired and that are not over.
    assigned: BTreeSet<u64>,
    /// The events that the next messages contain, oldest first.
    notices: VecDeque<Notice>,
    /// The messages that were sent and not deleted, oldest first.
    sent: VecDeque<Sent>,
    poll: Option<OpenPoll>,
}

struct Sent {
    id: u64,
    body: String,
    notices: Vec<Notice>,
}

struct OpenPoll {
    poll: ListenerPoll,
    reply: oneshot::Sender<QueueMessage>,
}

/// The parameters of a listener's poll.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListenerPoll {
    /// The last message that it has seen; 0 for none.
    pub(crate) last: u64,
    /// The number of jobs that it takes at one time. `None` if it takes any number.
    pub(crate) capacity: Option<usize>,
    /// The address at which it can acquire jobs.
    pub(crate) acquire_url: String,
}

/// A message for a listener.
#[derive(Debug)]
pub(crate) struct QueueMessage {
    pub(crate) id: u64,
    /// A JSON array.
    pub(crate) body: String,
    pub(crate) statistics: Statistics,
}

impl JobQueue {
    pub(super) fn available(&self) -> &BTreeSet<u64> {
        &self.available
    }

    pub(super) fn assigned(&self) -> &BTreeSet<u64> {
        &self.assigned
    }

    /// Starts over for a new listener: all messages that were not deleted are sent again, and all jobs that wait are offered
    /// again.
    pub(super) fn begin_session(&mut self) {
        let unread = self.sent.drain(..).flat_map(|sent| sent.notices);
        let mut notices: VecDeque<Notice> =
            unread.filter(|notice| notice.kind != NoticeKind::Available).collect();
        notices.append(&mut self.notices);
        self.notices = notices;
        self.unoffered = self.available.clone();
        self.poll = None;
    }

    pub(super) fn end_poll(&mut self) {
        self.poll = None;
    }

    pub(super) fn is_polled(&self) -> bool {
        self.poll.as_ref().is_some_and(|open| !open.reply.is_closed())
    }

    fn withdraw(&mut self, job: u64) {
        self.available.remove(&job);
        self.unoffered.remove(&job);
    }

    /// Adds a message. If too many wait, because no listener reads them, the oldest is dropped: listeners scale by the
    /// statistics.
    fn push(&mut self, notice: Notice, notices_max: usize) {
        while self.notices.len() >= notices_max.max(1) {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }

    /// Returns the number of jobs that may be offered to a listener with this capacity.
    fn room(&self, capacity: Option<usize>) -> usize {
        let taken = self.assigned.len() + self.available.len() - self.unoffered.len();
        capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(taken))
    }

    /// Returns true if a listener polls and there is something to tell.
    fn has_answer(&self) -> bool {
        let Some(open) = self.poll.as_ref().filter(|open| !open.reply.is_closed()) else { return false };
        let is_new =
            !self.notices.is_empty() || (!self.unoffered.is_empty() && self.room(open.poll.capacity) > 0);
        self.sent.iter().any(|sent| sent.id > open.poll.last) || (is_new && self.sent.len() < SENT_MAX)
    }

    /// Takes what the next message is about.
    fn take_notices(&mut self, capacity: Option<usize>) -> Vec<Notice> {
        let told = self.notices.len().min(NOTICES_PER_MESSAGE);
        let mut notices: Vec<Notice> = self.notices.drain(..told).collect();
        let room = self.room(capacity).min(NOTICES_PER_MESSAGE - told);
        for _ in 0..room {
            let Some(job) = self.unoffered.pop_first() else { break };
            notices.push(Notice { job, kind: NoticeKind::Available });
        }
        notices
    }
}

impl LabState {
    /// Makes a waiting job available to each scale set that fits it.
    pub(in crate::state) fn offer_to_scale_sets(&mut self, job: u64) {
        let Some(wanted) = self.wanted(job).filter(|wanted| wanted.scale_set.is_none()) else { return };
        for set in self.scale_sets.values_mut().filter(|set| set.fits(&wanted)) {
            set.queue.available.insert(job);
            set.queue.unoffered.insert(job);
        }
    }

    /// Finds the waiting jobs that fit a scale set which is new or has changed.
    pub(super) fn offer_jobs_to_scale_set(&mut self, id: u64) {
        let Some(set) = self.scale_sets.get(&id) else { return };
        let fits = |job: &u64| {
            self.wanted(*job).is_some_and(|wanted| wanted.scale_set.is_none() && set.fits(&wanted))
        };
        let available: BTreeSet<u64> = self.offered.iter().copied().filter(fits).collect();
        let Some(set) = self.scale_sets.get_mut(&id) else { return };
        let known = std::mem::replace(&mut set.queue.available, available);
        set.queue.unoffered.extend(set.queue.available.difference(&known));
        set.queue.unoffered = &set.queue.unoffered & &set.queue.available;
    }

    /// Removes a job from the jobs that scale sets can acquire.
    pub(in crate::state) fn withdraw_from_scale_sets(&mut self, job: u64) {
        self.scale_sets.values_mut().for_each(|set| set.queue.withdraw(job));
    }

    /// Notes for the listener of a job's scale set what has become of the job. Does nothing if no scale set has the job.
    pub(in crate::state) fn note(&mut self, job: u64, kind: NoticeKind) {
        let of_set = self.jobs.get(&job).and_then(|job| job.record.scale_set);
        let Some(set) = of_set.and_then(|it| self.scale_sets.get_mut(&it.scale_set)) else { return };
        set.queue.push(Notice { job, kind }, self.limits.listener_notices_max);
        if matches!(kind, NoticeKind::Completed | NoticeKind::Requeued) {
            set.queue.assigned.remove(&job);
        }
    }

    /// Gives waiting jobs to a scale set. Returns those that it got; others may be gone or belong to another one.
    pub(crate) fn acquire_jobs(&mut self, id: u64, session: &str, jobs: &[u64]) -> Result<Vec<u64>, Refusal> {
        let set = self.listened(id, session)?;
        let mut acquired: Vec<u64> = jobs.to_vec();
        acquired.sort_unstable();
        acquired.dedup();
        acquired.retain(|job| set.queue.available.contains(job));
        let acquired_ms = self.now_ms();
        for job in &acquired {
            self.withdraw_from_scale_sets(*job);
            if let Some(entry) = self.jobs.get_mut(job) {
                entry.record.scale_set = Some(JobOfScaleSet { scale_set: id, acquired_ms, told: None });
            }
            if let Some(set) = self.scale_sets.get_mut(&id) {
                set.queue.assigned.insert(*job);
            }
            self.note(*job, NoticeKind::Assigned);
            self.record_job(*job);
            self.offer_to_runners(*job);
        }
        Ok(acquired)
    }

    /// Returns the jobs that a scale set can acquire, oldest first.
    pub(crate) fn acquirable_jobs(&self, scope: &Scope, id: u64) -> Result<Vec<u64>, Refusal> {
        Ok(self.scale_set(scope, id)?.queue.available.iter().copied().collect())
    }

    /// Opens a poll. Returns a channel on which a message may come; the caller limits the wait. An older poll ends.
    pub(crate) fn poll_queue(
        &mut self,
        id: u64,
        session: &str,
        poll: ListenerPoll,
    ) -> Result<oneshot::Receiver<QueueMessage>, Refusal> {
        let set = self.listened(id, session)?;
        let (reply, answer) = oneshot::channel();
        set.queue.poll = Some(OpenPoll { poll, reply });
        Ok(answer)
    }

    /// Deletes a message, which acknowledges it. Does nothing if it is unknown, so that the call can be repeated.
    pub(crate) fn delete_message(&mut self, id: u64, session: &str, message: u64) -> Result<(), Refusal> {
        let sent = &mut self.listened(id, session)?.queue.sent;
        let Some(place) = sent.iter().position(|sent| sent.id == message) else { return Ok(()) };
        let mut notices = sent.remove(place).map(|sent| sent.notices).unwrap_or_default();
        notices.retain(|notice| notice.kind != NoticeKind::Available);
        for Notice { job, kind } in &notices {
            if let Some(of_set) = self.jobs.get_mut(job).and_then(|job| job.record.scale_set.as_mut()) {
                of_set.mark_told(*kind);
            }
        }
        self.record(&Record::Told(notices));
        Ok(())
    }

    /// Prepares the answers to the polls of listeners for which there is something to tell. All changes of one piece of work
    /// go into one message. The answers are sent by [`LabState::send_answers`], after the journal is written.
    pub(crate) fn prepare_answers(&mut self) {
        let answered = self.scale_sets.values().filter(|set| set.queue.has_answer());
        let answered: Vec<u64> = answered.map(|set| set.record.id).collect();
        for id in answered {
            let Some(open) = self.scale_sets.get_mut(&id).and_then(|set| set.queue.poll.take()) else {
                continue;
            };
            let Some(message) = self.message_after(id, &open.poll) else {
                if let Some(set) = self.scale_sets.get_mut(&id) {
                    set.queue.poll = Some(open);
                }
                continue;
            };
            self.answers.push((open.reply, message));
        }
    }

    /// Sends the prepared answers. One whose poll has ended meanwhile stays undeleted and is sent on the next poll.
    pub(crate) fn send_answers(&mut self) {
        for (reply, message) in self.answers.drain(..) {
            let _ = reply.send(message);
        }
    }

    fn message_after(&mut self, id: u64, poll: &ListenerPoll) -> Option<QueueMessage> {
        let set = self.scale_sets.get_mut(&id)?;
        let known = set.queue.sent.iter().find(|sent| sent.id > poll.last);
        let (message, body) = match known.map(|sent| (sent.id, sent.body.clone())) {
            Some(known) => known,
            None => {
                let notices = set.queue.take_notices(poll.capacity);
                self.new_message(id, notices, &poll.acquire_url)?
            }
        };
        let statistics = self.statistics(self.scale_sets.get(&id)?);
        Some(QueueMessage { id: message, body, statistics })
    }

    fn new_message(&mut self, id: u64, notices: Vec<Notice>, acquire_url: &str) -> Option<(u64, String)> {
        let shown: Vec<_> =
            notices.iter().filter_map(|notice| self.job_message_of(*notice, acquire_url)).collect();
        if shown.is_empty() {
            return None;
        }
        let body = serde_json::to_string(&shown).expect("messages are plain data");
        let message = self.new_id();
        // A listener ignores messages whose number is not higher than that of the last one, so a lab that was killed must
        // not use a number again.
        self.record(&Record::LastId(message));
        let sent = Sent { id: message, body: body.clone(), notices };
        self.scale_sets.get_mut(&id)?.queue.sent.push_back(sent);
        Some((message, body))
    }

    /// Builds the queues from the jobs that were read back.
    pub(in crate::state) fn resume_scale_sets(&mut self) {
        let now_ms = self.now_ms();
        self.scale_sets.values_mut().for_each(|set| set.seen_ms = now_ms);
        let waiting: Vec<u64> = self.offered.iter().copied().collect();
        waiting.into_iter().for_each(|job| self.offer_to_scale_sets(job));
        for job in self.jobs.values() {
            let Some(of_set) = job.record.scale_set else { continue };
            let Some(set) = self.scale_sets.get_mut(&of_set.scale_set) else { continue };
            resume_job(set, job.record.id, job.record.hold, job.record.started_ms.is_some(), of_set);
            while set.queue.notices.len() > self.limits.listener_notices_max {
                set.queue.notices.pop_front();
            }
        }
    }
}

/// Adds a job that was read back to the queue of its scale set, with the messages that were not acknowledged.
fn resume_job(set: &mut ScaleSet, job: u64, hold: Hold, has_started: bool, of_set: JobOfScaleSet) {
    if hold != Hold::Over {
        set.queue.assigned.insert(job);
    }
    let due = [
        (NoticeKind::Assigned, true),
        (NoticeKind::Started, has_started),
        (NoticeKind::Completed, hold == Hold::Over),
    ];
    for (kind, is_due) in due {
        if is_due && of_set.told < Some(kind) {
            set.queue.notices.push_back(Notice { job, kind });
        }
    }
}

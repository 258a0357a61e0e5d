//! Webhooks of repositories and organisations, and their deliveries.
//!
//! A delivery is written when its event happens. It waits until the earlier ones of its hook have their answers, is sent once
//! by [`crate::hook_sender`], and stays in a list of bounded length. Deliveries do not outlive the process, hooks do.

use std::collections::VecDeque;
use std::sync::Arc;

use dayfly_forge::webhook::WebhookSecret;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::LabState;
use super::run::ACTOR;
use super::scope::Scope;
use crate::fault::{Call, Fault};
use crate::journal::Record;
use crate::refusal::Refusal;

/// The event about jobs.
const JOB_EVENT: &str = "workflow_job";

/// Longest time that a delivery waits for the next one, which it is sent after.
const HELD_MS: i64 = 5000;

/// The form of a delivery's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ContentType {
    Json,
    /// The JSON is the field `payload` of a form.
    Form,
}

/// The values of a new hook.
#[derive(Debug)]
pub(crate) struct NewHook {
    pub(crate) url: String,
    pub(crate) content_type: ContentType,
    pub(crate) secret: Option<SecretString>,
    pub(crate) events: Vec<String>,
    pub(crate) active: bool,
}

/// A hook, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HookRecord {
    pub(crate) id: u64,
    pub(crate) scope: Scope,
    pub(crate) url: String,
    pub(crate) content_type: ContentType,
    #[serde(default, serialize_with = "exposed", skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<SecretString>,
    pub(crate) events: Vec<String>,
    pub(crate) active: bool,
    pub(crate) created_ms: i64,
}

/// Writes the secret into the journal, which is a private file.
fn exposed<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default())
}

impl HookRecord {
    fn wants(&self, event: &str) -> bool {
        self.active && self.events.iter().any(|wanted| wanted == "*" || wanted == event)
    }
}

/// A hook.
pub(crate) struct Hook {
    pub(crate) record: HookRecord,
    /// The last deliveries, oldest first.
    pub(crate) deliveries: VecDeque<Delivery>,
    /// The ids of the deliveries that are not sent yet, oldest first.
    waiting: VecDeque<u64>,
    is_sending: bool,
    /// A delivery that waits for the next one, so that it is sent after it, and the end of that wait.
    held: Option<(u64, i64)>,
}

/// A delivery.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) id: u64,
    /// The same for a delivery that is sent again.
    pub(crate) guid: String,
    pub(crate) event: &'static str,
    pub(crate) action: Option<&'static str>,
    pub(crate) repository_id: Option<u64>,
    pub(crate) payload: Arc<str>,
    pub(crate) is_again: bool,
    pub(crate) at_ms: i64,
    /// The receiver's answer; none until there is one.
    pub(crate) answer: Option<Answer>,
}

/// The end of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status of the answer; 0 if there was none.
    pub(crate) status_code: u16,
    /// `OK`, or the reason why the delivery failed.
    pub(crate) status: String,
    pub(crate) duration_ms: u64,
}

/// A delivery that is to be sent now.
#[derive(Debug)]
pub(crate) struct HookSend {
    pub(crate) hook: HookRecord,
    /// The id of the repository, if the hook is one of a repository.
    pub(crate) target_id: u64,
    pub(crate) delivery: Delivery,
    pub(crate) signer: Option<WebhookSecret>,
}

impl Hook {
    pub(super) fn new(record: HookRecord) -> Self {
        Self { record, deliveries: VecDeque::new(), waiting: VecDeque::new(), is_sending: false, held: None }
    }
}

impl LabState {
    /// Creates a hook and pings it.
    pub(crate) fn make_hook(&mut self, scope: &Scope, new: NewHook) -> Result<HookRecord, Refusal> {
        let NewHook { url, content_type, secret, events, active } = new;
        if self.hooks.len() >= self.limits.hooks_max {
            return Err(Refusal::new(
                422,
                format!("The lab holds {} webhooks at most", self.limits.hooks_max),
            ));
        }
        if self.hooks.values().any(|hook| hook.record.scope.same(scope) && hook.record.url == url) {
            return Err(Refusal::invalid(["Hook already exists on this scope"]));
        }
        if let Scope::Repository(name) = scope {
            self.repository(name)?;
        }
        let (id, created_ms, scope) = (self.new_id(), self.now_ms(), scope.clone());
        let record = HookRecord { id, scope, url, content_type, secret, events, active, created_ms };
        self.record(&Record::Hook(record.clone()));
        self.hooks.insert(id, Hook::new(record.clone()));
        self.ping_hook(id);
        Ok(record)
    }

    /// Returns a hook of that scope.
    pub(crate) fn hook(&self, scope: &Scope, id: u64) -> Result<&Hook, Refusal> {
        self.hooks.get(&id).filter(|hook| hook.record.scope.same(scope)).ok_or_else(Refusal::not_found)
    }

    /// Removes a hook. A delivery that is being sent is not stopped.
    pub(crate) fn delete_hook(&mut self, scope: &Scope, id: u64) -> Result<(), Refusal> {
        self.hook(scope, id)?;
        self.hooks.remove(&id);
        self.record(&Record::HookGone(id));
        Ok(())
    }

    /// Sends a hook the event `ping`.
    pub(crate) fn ping_hook(&mut self, id: u64) {
        let Some(HookRecord { scope, url, events, active, .. }) =
            self.hooks.get(&id).map(|hook| &hook.record)
        else {
            return;
        };
        let kind = if matches!(scope, Scope::Repository(_)) { "Repository" } else { "Organization" };
        let config = json!({"content_type": "json", "insecure_ssl": "0", "url": url});
        let payload = json!({
            "zen": "Anything added dilutes everything else.",
            "hook_id": id,
            "hook": {"type": kind, "id": id, "name": "web", "active": active, "events": events, "config": config},
            "sender": {"login": ACTOR, "id": 1},
        });
        self.deliver(id, ("ping", None), None, &payload);
    }

    /// Tells the hooks of a job's repository and of its owner that the job has changed.
    pub(super) fn tell_hooks(&mut self, job: u64, action: &'static str) {
        if self.hooks.is_empty() {
            return;
        }
        let Some(entry) = self.jobs.get(&job) else { return };
        let Some(run) = self.runs.get(&entry.record.run).map(|run| &run.record) else { return };
        let Some(shown) = self.show_job(entry, &self.runner_url) else { return };
        let payload = json!({
            "action": action,
            "workflow_job": shown,
            "repository": run.show_repository(),
            "organization": {"login": run.repository.owner, "id": run.repository_id},
            "sender": {"login": ACTOR, "id": 1},
        });
        let (repository, repository_id) = (run.repository.clone(), run.repository_id);
        let hooks = self.hooks.values().map(|hook| &hook.record);
        let told = hooks.filter(|hook| hook.wants(JOB_EVENT) && hook.scope.serves(&repository));
        let told: Vec<u64> = told.map(|hook| hook.id).collect();
        told.into_iter()
            .for_each(|hook| self.deliver(hook, (JOB_EVENT, Some(action)), Some(repository_id), &payload));
    }

    fn deliver(
        &mut self,
        hook: u64,
        (event, action): (&'static str, Option<&'static str>),
        repository_id: Option<u64>,
        payload: &Value,
    ) {
        let guid = uuid::Uuid::new_v4().to_string();
        let payload: Arc<str> = payload.to_string().into();
        let (id, at_ms) = (self.new_id(), self.now_ms());
        let delivery = Delivery {
            id,
            guid,
            event,
            action,
            repository_id,
            payload,
            is_again: false,
            at_ms,
            answer: None,
        };
        if event == JOB_EVENT {
            self.deliver_job(hook, delivery);
        } else {
            self.enqueue(hook, delivery);
        }
    }

    /// Puts a delivery about a job into the queue of its hook, unless the fault desk has other plans.
    fn deliver_job(&mut self, hook: u64, mut delivery: Delivery) {
        let subject = format!("delivery {} to hook {hook}", delivery.guid);
        let holds_one = self.hooks.get(&hook).is_some_and(|hook| hook.held.is_some());
        let mut happens = |fault| self.fault(fault, Call::WEBHOOK, || subject.clone()).is_some();
        if happens(Fault::WebhookLoss) {
            let status = "lost by the fault desk".to_owned();
            delivery.answer = Some(Answer { status_code: 0, status, duration_ms: 0 });
        } else if !holds_one && happens(Fault::WebhookReorder) {
            return self.hold(hook, delivery);
        } else if happens(Fault::WebhookDuplicate) {
            let id = self.new_id();
            self.enqueue(hook, Delivery { id, ..delivery.clone() });
        }
        self.enqueue(hook, delivery);
        self.release(hook);
    }

    /// Holds a delivery back until the next one of its hook is in the queue.
    fn hold(&mut self, hook: u64, delivery: Delivery) {
        let until_ms = self.now_ms() + HELD_MS;
        if let Some(hook) = self.hooks.get_mut(&hook) {
            hook.held = Some((delivery.id, until_ms));
            hook.deliveries.push_back(delivery);
        }
    }

    /// Puts the delivery that is held back into the queue.
    fn release(&mut self, hook: u64) {
        let Some(hook) = self.hooks.get_mut(&hook) else { return };
        let held = hook.held.take().map(|(held, _)| held);
        if let Some(held) = held.filter(|held| hook.deliveries.iter().any(|known| known.id == *held)) {
            hook.waiting.push_back(held);
            self.hook_work.notify_one();
        }
    }

    /// Sends deliveries that were held back for too long.
    pub(super) fn tick_hooks(&mut self) {
        let now_ms = self.now_ms();
        let is_due = |hook: &&Hook| hook.held.is_some_and(|(_, until_ms)| until_ms <= now_ms);
        let due: Vec<u64> = self.hooks.values().filter(is_due).map(|hook| hook.record.id).collect();
        due.into_iter().for_each(|hook| self.release(hook));
    }

    /// Puts a delivery into the queue of its hook. It fails at once if the queue is full.
    fn enqueue(&mut self, hook: u64, mut delivery: Delivery) {
        let (waiting_max, kept_max) =
            (self.limits.hook_deliveries_waiting_max, self.limits.hook_deliveries_kept_max.max(1));
        let Some(hook) = self.hooks.get_mut(&hook) else { return };
        if delivery.answer.is_some() {
            // It is lost, so that the list alone has it.
        } else if hook.waiting.len() >= waiting_max {
            let status = "not sent: too many earlier deliveries wait for their answers".to_owned();
            delivery.answer = Some(Answer { status_code: 0, status, duration_ms: 0 });
        } else {
            hook.waiting.push_back(delivery.id);
        }
        hook.deliveries.push_back(delivery);
        while hook.deliveries.len() > kept_max {
            let gone = hook.deliveries.pop_front().map(|delivery| delivery.id);
            hook.waiting.retain(|id| Some(*id) != gone);
        }
        self.hook_work.notify_one();
    }

    /// Sends a delivery again, with the same GUID and payload.
    pub(crate) fn redeliver(&mut self, scope: &Scope, hook: u64, delivery: u64) -> Result<(), Refusal> {
        let known = self.hook(scope, hook)?.deliveries.iter().find(|known| known.id == delivery);
        let known = known.ok_or_else(Refusal::not_found)?.clone();
        let (id, at_ms) = (self.new_id(), self.now_ms());
        self.enqueue(hook, Delivery { id, at_ms, is_again: true, answer: None, ..known });
        Ok(())
    }

    /// Forgets which deliveries are being sent, because a new task sends them.
    pub(crate) fn reset_hooks(&mut self) {
        self.hooks.values_mut().for_each(|hook| hook.is_sending = false);
    }

    /// Returns the deliveries that are to be sent now: the oldest one of each hook that is not sending.
    pub(crate) fn take_hook_sends(&mut self) -> Vec<HookSend> {
        let repositories = &self.repositories;
        let ready = self.hooks.values_mut().filter(|hook| !hook.is_sending);
        let sends = ready.filter_map(|hook| {
            let id = *hook.waiting.front()?;
            let delivery = hook.deliveries.iter().find(|delivery| delivery.id == id)?.clone();
            hook.waiting.pop_front();
            hook.is_sending = true;
            let target_id = match &hook.record.scope {
                Scope::Repository(name) => {
                    repositories.get(&name.key()).map_or(0, |repository| repository.id)
                }
                // The lab has no ids of organisations.
                Scope::Organization(_) | Scope::Enterprise(_) => 1,
            };
            let signer = hook.record.secret.clone().and_then(WebhookSecret::new);
            Some(HookSend { hook: hook.record.clone(), target_id, delivery, signer })
        });
        sends.collect()
    }

    /// Notes the end of a delivery, so that the next one of its hook can be sent.
    pub(crate) fn hook_answered(&mut self, hook: u64, delivery: u64, answer: Answer) {
        let Some(hook) = self.hooks.get_mut(&hook) else { return };
        hook.is_sending = false;
        if let Some(delivery) = hook.deliveries.iter_mut().find(|known| known.id == delivery) {
            delivery.answer = Some(answer);
        }
        self.hook_work.notify_one();
    }
}

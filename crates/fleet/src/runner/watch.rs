//! A runner whose machine runs: what happens to it, and when that is its end.

use std::collections::VecDeque;

use dayfly_guest::environment::{self, Suffix};
use dayfly_guest::protocol::Source;
use dayfly_guest::runner_app::{self, Ending, JobResult, Observation};
use dayfly_vm::{StartedFrom, Vm, VmEvent};
use tokio::time::Instant;

use super::{Run, RunnerEnd, RunnerError};
use crate::event::EventKind;
use crate::stop::StopOrder;

/// What `watch` has seen so far.
#[derive(Debug, Default)]
struct Seen {
    hello: bool,
    job: bool,
    result: Option<JobResult>,
    /// The last lines of the machine, for an error.
    lines: VecDeque<String>,
}

/// How many of the machine's last lines an error shows.
const LINES_SHOWN: usize = 15;

impl Seen {
    fn remember(&mut self, line: &str) {
        if self.lines.len() >= LINES_SHOWN {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// What happened, named before anybody decides about it.
enum Happening {
    Vm(Option<VmEvent>),
    EnvironmentChanged,
    Ordered(StopOrder),
    LifetimeOver,
    DeadlinePassed,
}

/// How far the runner has come. Each phase but the middle one has its end.
enum Phase {
    /// Until the agent's hello (whose limit is the VM's own), then until `.tkn`.
    ComingUp { deadline: Option<Instant> },
    /// The runner app waits for a job, or has one.
    Up,
    /// It was asked to end.
    Ending { end: RunnerEnd, order: StopOrder, deadline: Instant },
}

impl Phase {
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::ComingUp { deadline } => *deadline,
            Self::Up => None,
            Self::Ending { deadline, .. } => Some(*deadline),
        }
    }

    /// The order that is being carried out.
    fn order(&self) -> StopOrder {
        match self {
            Self::ComingUp { .. } | Self::Up => StopOrder::None,
            Self::Ending { order, .. } => *order,
        }
    }
}

impl Run<'_> {
    /// Passes on what happens until the runner ends.
    pub(super) async fn watch(&mut self) -> Result<RunnerEnd, RunnerError> {
        let mut seen = Seen::default();
        let mut phase = Phase::ComingUp { deadline: None };
        loop {
            match self.next_happening(&phase).await {
                Happening::Vm(None) => {
                    return Ok(RunnerEnd::MachineLost { exit: "its events ended".to_owned() });
                }
                Happening::Vm(Some(event)) => {
                    if matches!(event, VmEvent::Hello) && !seen.hello {
                        seen.hello = true;
                        if let Phase::ComingUp { deadline } = &mut phase {
                            *deadline = Some(Instant::now() + self.settings.limits.runner_up);
                        }
                    }
                    match (self.take_vm_event(event, &mut seen).await, phase) {
                        (Some(_), Phase::Ending { end, .. }) => return Ok(end),
                        (Some(end), _) => return end,
                        (None, unchanged) => phase = unchanged,
                    }
                }
                Happening::EnvironmentChanged => {
                    if !self.up && self.look_for_tkn().await? && matches!(phase, Phase::ComingUp { .. }) {
                        phase = Phase::Up;
                    }
                }
                Happening::Ordered(StopOrder::AtOnce) => return Ok(RunnerEnd::Stopped),
                Happening::Ordered(order) => {
                    phase = self.ask_to_end(RunnerEnd::Stopped, order, "the loop was stopped").await?;
                }
                Happening::LifetimeOver => {
                    self.lifetime_ends = None;
                    let seconds = self.settings.lifetime.unwrap_or_default().as_secs();
                    let reason = format!("it has lived for {seconds} s");
                    let order = phase.order();
                    phase = match phase {
                        Phase::Ending { .. } => phase,
                        _ => self.ask_to_end(RunnerEnd::LifetimeOver, order, &reason).await?,
                    };
                }
                Happening::DeadlinePassed => return self.pass_deadline(phase).await,
            }
            // Before the runner app is up there is nobody to end gently.
            if let Phase::Ending { end, .. } = &phase
                && !self.up
            {
                return Ok(end.clone());
            }
        }
    }

    async fn next_happening(&mut self, phase: &Phase) -> Happening {
        let Some(vm) = self.vm.as_mut() else { return Happening::Vm(None) };
        tokio::select! {
            event = vm.next_event() => Happening::Vm(event),
            () = self.environment.changed() => Happening::EnvironmentChanged,
            order = self.stop.above(phase.order()) => Happening::Ordered(order),
            () = until(self.lifetime_ends) => Happening::LifetimeOver,
            () = until(phase.deadline()) => Happening::DeadlinePassed,
        }
    }

    /// Whether the entrypoint's note that the runner app is about to start is there. Once seen it is remembered:
    /// whoever waits for it may remove it at any time.
    async fn look_for_tkn(&mut self) -> Result<bool, RunnerError> {
        let note = match self.settings.leave_tkn {
            true => self.environment.read(Suffix::Tkn)?,
            false => self.environment.take(Suffix::Tkn)?,
        };
        self.up = note.is_some();
        if self.up {
            self.events.tell(EventKind::RunnerUp).await;
            if self.registration.is_none() {
                self.find_registration().await?;
            }
        }
        Ok(self.up)
    }

    /// Writes `.trm`: the entrypoint stops the runner app when it sees the loop's secret in it.
    async fn ask_to_end(
        &mut self,
        end: RunnerEnd,
        order: StopOrder,
        reason: &str,
    ) -> Result<Phase, RunnerError> {
        if self.up {
            self.events.tell(EventKind::Stopping { reason: reason.to_owned() }).await;
            self.environment.write(Suffix::Trm, &self.secret)?;
        }
        Ok(Phase::Ending { end, order, deadline: Instant::now() + self.settings.limits.gentle_stop })
    }

    async fn pass_deadline(&mut self, phase: Phase) -> Result<RunnerEnd, RunnerError> {
        let Phase::Ending { end, .. } = phase else {
            return Err(RunnerError::NotUp {
                name: self.name.clone(),
                limit: self.settings.limits.runner_up,
                console: self.vm.as_ref().map(Vm::console_tail).unwrap_or_default(),
            });
        };
        let limit = self.settings.limits.gentle_stop.as_secs();
        let message = format!("{} did not end within {limit} s of .trm: killing its machine", self.name);
        self.events.tell(EventKind::Warning { message }).await;
        Ok(end)
    }

    /// Passes an event on, and says how the runner ended where this was its last.
    async fn take_vm_event(
        &mut self,
        event: VmEvent,
        seen: &mut Seen,
    ) -> Option<Result<RunnerEnd, RunnerError>> {
        let kind = match event {
            VmEvent::VmmStarted { pid, from } => {
                let (from, template) = match from {
                    StartedFrom::Boot => ("boot", None),
                    StartedFrom::Fork(template) => ("fork", Some(template)),
                    StartedFrom::Spare(template) => ("spare", Some(template)),
                };
                EventKind::VmmStarted { pid, from, template }
            }
            VmEvent::Cold { reason } => EventKind::Cold { reason },
            VmEvent::Restarted { reason } => EventKind::VmRestarted { reason },
            VmEvent::Hello => EventKind::AgentHello,
            VmEvent::Milestone { milestone, uptime_ms } => EventKind::Milestone { milestone, uptime_ms },
            VmEvent::Fault { message } => EventKind::Warning { message },
            VmEvent::Line { source, text } => {
                self.observe(&text, seen).await;
                // Docker's own lines say nothing about a runner app.
                if source != Source::Docker {
                    seen.remember(&text);
                }
                EventKind::Line { source, text }
            }
            VmEvent::EntrypointExited { code, signal } => {
                self.exited = true;
                self.events.tell(EventKind::EntrypointExited { code, signal }).await;
                return Some(self.end_of(code, seen).await);
            }
            VmEvent::Gone { exit, .. } if seen.hello => {
                return Some(Ok(RunnerEnd::MachineLost { exit: exit.to_string() }));
            }
            VmEvent::Gone { exit, console_tail } => {
                let (name, exit) = (self.name.clone(), exit.to_string());
                return Some(Err(RunnerError::NoHello { name, exit, console: console_tail }));
            }
        };
        self.events.tell(kind).await;
        None
    }

    /// The runner app's milestones, from the lines that the entrypoint relays. Hints: a job can print such lines too.
    async fn observe(&mut self, text: &str, seen: &mut Seen) {
        let Some(relayed) = runner_app::parse_relayed(text) else { return };
        if relayed.source != "runner" || relayed.runner_id != self.id.as_str() {
            return;
        }
        let kind = match runner_app::observe(relayed.text) {
            Some(Observation::Listening) => EventKind::Listening,
            Some(Observation::JobStarted { name }) => {
                seen.job = true;
                EventKind::JobStarted { job: name }
            }
            Some(Observation::JobFinished { result }) => {
                seen.result = Some(result);
                EventKind::JobFinished { result: format!("{result:?}") }
            }
            Some(Observation::Retrying | Observation::Unregistered) | None => return,
        };
        self.events.tell(kind).await;
    }

    /// What the entrypoint's end means. Its status is a hint of a hostile guest: it decides only what is told.
    async fn end_of(&mut self, code: Option<i32>, seen: &Seen) -> Result<RunnerEnd, RunnerError> {
        if let Ok(Some(note)) = self.environment.read(Suffix::Brk) {
            if environment::is_secret(&note, &self.secret) {
                return Ok(RunnerEnd::Broken);
            }
            let message = format!("{}.brk is ignored: it does not hold the loop's secret", self.id);
            self.events.tell(EventKind::Warning { message }).await;
        }
        let failed = |what| RunnerError::App { name: self.name.clone(), what, lines: seen.text() };
        match code.and_then(Ending::from_code) {
            Some(Ending::JobDone) => Ok(RunnerEnd::JobDone { result: seen.result }),
            _ if seen.job || seen.result.is_some() => Ok(RunnerEnd::JobDone { result: seen.result }),
            Some(Ending::NotStarted) => Err(failed("could not be started")),
            Some(Ending::NoJob | Ending::StoppedByLoop | Ending::StoppedBySignal) => Ok(RunnerEnd::NoJob),
            Some(Ending::Failed) | None => Err(failed("ended before it had a job")),
        }
    }
}

/// Waits until then; for ever without a time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! A runner whose machine runs: what happens to it, and when that is its end.

use std::collections::VecDeque;

use dayfly_guest::environment::{self, Suffix};
use dayfly_guest::protocol::Source;
use dayfly_guest::runner_app::{self, Ending, JobResult, Observation};
use dayfly_vm::{Vm, VmEvent};
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
    DeadlinePassed,
}

impl Run<'_> {
    /// Passes on what happens until the runner ends.
    pub(super) async fn watch(&mut self) -> Result<RunnerEnd, RunnerError> {
        let mut seen = Seen::default();
        let mut ordered = StopOrder::None;
        let mut deadline: Option<Instant> = None;
        loop {
            match self.next_happening(ordered, deadline).await {
                Happening::Vm(None) => {
                    return Ok(RunnerEnd::MachineLost { exit: "its events ended".to_owned() });
                }
                Happening::Vm(Some(event)) => {
                    if matches!(event, VmEvent::Hello) && !seen.hello {
                        seen.hello = true;
                        deadline = deadline.or(Some(Instant::now() + self.settings.limits.runner_up));
                    }
                    match self.take_vm_event(event, &mut seen).await {
                        Some(_) if ordered != StopOrder::None => return Ok(RunnerEnd::Stopped),
                        Some(end) => return end,
                        None => {}
                    }
                }
                Happening::EnvironmentChanged => {
                    if self.environment.take(Suffix::Tkn)?.is_some() && !self.up {
                        self.up = true;
                        deadline = deadline.filter(|_| ordered != StopOrder::None);
                        self.events.tell(EventKind::RunnerUp).await;
                    }
                }
                // Before the runner app is up there is nobody to end gently.
                Happening::Ordered(order) if order == StopOrder::AtOnce || !self.up => {
                    return Ok(RunnerEnd::Stopped);
                }
                Happening::Ordered(order) => {
                    ordered = order;
                    deadline = Some(Instant::now() + self.settings.limits.gentle_stop);
                    self.ask_to_end("the loop was stopped").await?;
                }
                Happening::DeadlinePassed if ordered == StopOrder::None => {
                    return Err(RunnerError::NotUp {
                        name: self.name.clone(),
                        limit: self.settings.limits.runner_up,
                        console: self.vm.as_ref().map(Vm::console_tail).unwrap_or_default(),
                    });
                }
                Happening::DeadlinePassed => {
                    let limit = self.settings.limits.gentle_stop.as_secs();
                    let message =
                        format!("{} did not end within {limit} s of .trm: killing its machine", self.name);
                    self.events.tell(EventKind::Warning { message }).await;
                    return Ok(RunnerEnd::Stopped);
                }
            }
        }
    }

    async fn next_happening(&mut self, ordered: StopOrder, deadline: Option<Instant>) -> Happening {
        let Some(vm) = self.vm.as_mut() else { return Happening::Vm(None) };
        let passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = vm.next_event() => Happening::Vm(event),
            () = self.environment.changed() => Happening::EnvironmentChanged,
            order = self.stop.above(ordered) => Happening::Ordered(order),
            () = passed => Happening::DeadlinePassed,
        }
    }

    /// Passes an event on, and says how the runner ended where this was its last.
    async fn take_vm_event(
        &mut self,
        event: VmEvent,
        seen: &mut Seen,
    ) -> Option<Result<RunnerEnd, RunnerError>> {
        let kind = match event {
            VmEvent::VmmStarted { pid } => EventKind::VmmStarted { pid },
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
                self.events.tell(EventKind::EntrypointExited { code, signal }).await;
                return Some(self.end_of(code, seen));
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
        if relayed.runner_id != self.id.as_str() {
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
    fn end_of(&self, code: Option<i32>, seen: &Seen) -> Result<RunnerEnd, RunnerError> {
        if let Ok(Some(note)) = self.environment.read(Suffix::Brk)
            && environment::is_secret(&note, &self.secret)
        {
            return Ok(RunnerEnd::Broken);
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

    /// Writes `.trm`: the entrypoint stops the runner app when it sees the loop's secret in it.
    async fn ask_to_end(&mut self, reason: &str) -> Result<(), RunnerError> {
        self.events.tell(EventKind::Stopping { reason: reason.to_owned() }).await;
        self.environment.write(Suffix::Trm, &self.secret)?;
        Ok(())
    }
}

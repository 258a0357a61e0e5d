//! Watches a runner whose machine runs, until the runner ends.

use std::collections::VecDeque;
use std::time::Duration;

use dayfly_guest::environment::{self, Suffix};
use dayfly_guest::protocol::Source;
use dayfly_guest::runner_app::{self, APP_LOG, DIAGNOSTICS, Ending, Observation};
use dayfly_vm::walls::Walls;
use dayfly_vm::{Exit, MachineLimits, MemoryKill, StartedFrom, Vm, VmEvent};
use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::liveness::{Liveness, LivenessRule, RegistrationAnswer, Verdict};
use super::retire::{Retirement, RetirementAnswer, RetirementStep};
use super::{Run, RunnerEnd, RunnerError};
use crate::fact::{Fact, MemoryOwner, OverHow, RegistrationEnd, StartKind};
use crate::pool::Registration;
use crate::state::JobState;
use crate::stop::StopOrder;

/// The last lines of a machine, for an error.
#[derive(Debug, Default)]
struct LastLines(VecDeque<String>);

/// Number of the machine's last lines that an error shows.
const LINES_SHOWN: usize = 15;

impl LastLines {
    fn push(&mut self, line: &str) {
        if self.0.len() >= LINES_SHOWN {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        self.0.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// Most characters of a job's name that are told. GitHub's own have a few hundred at most.
const JOB_NAME_MAX: usize = 500;
/// Number of reports of the runner app about its jobs that are told at once. A job makes three.
const OBSERVED_BURST: u32 = 30;
/// Time after which one more report is logged: a runner that has job after job may report without end.
const OBSERVED_PAUSE: Duration = Duration::from_secs(1);

/// The limit of the facts that lines of the guest cause, because each of them goes to the log and to every reader. The lines
/// themselves have limits of their own.
#[derive(Debug)]
pub(super) struct Observed {
    paid_until: Instant,
}

impl Observed {
    pub(super) fn new(now: Instant) -> Self {
        Self { paid_until: now }
    }

    /// Returns true if one more report is logged.
    fn allows(&mut self, now: Instant) -> bool {
        let next = self.paid_until.max(now) + OBSERVED_PAUSE;
        let allowed = next <= now + OBSERVED_PAUSE * OBSERVED_BURST;
        if allowed {
            self.paid_until = next;
        }
        allowed
    }
}

/// The next thing that a runner has to react to.
enum RunInput {
    Vm(Option<VmEvent>),
    EnvironmentChanged,
    Ordered(StopOrder),
    LifetimeOver,
    DeadlinePassed,
    QuestionDue,
    Answered(RegistrationAnswer),
    JobLimitPassed,
    RetirementDue,
    Retired(RetirementAnswer),
    IdleTooLong,
    Unregistered(RetirementAnswer),
}

/// The questions to the forge that have no answer yet, at most one of each kind. They are given up when this is dropped.
#[derive(Default)]
struct Questions {
    registration: JoinSet<RegistrationAnswer>,
    retirement: JoinSet<RetirementAnswer>,
    idle: JoinSet<RetirementAnswer>,
}

/// The times of the checks of a runner that is up; none if a check is not due.
#[derive(Default)]
struct Checks {
    /// Of the next question about the registration.
    question: Option<Instant>,
    /// Of the end of a job that is too long.
    job_ends: Option<Instant>,
    /// Of the end of a wait for a job that is too long.
    idle_ends: Option<Instant>,
}

/// The stage of a watched runner. Each stage but `Up` has a deadline.
pub(super) enum Stage {
    /// The agent has not said hello. The VM's supervisor has the deadline.
    Booting,
    /// The agent has said hello; the entrypoint's note `.tkn` is awaited.
    Starting { deadline: Instant },
    /// The runner app waits for a job, or has one.
    Up(Box<Liveness>),
    /// The runner was told to stop.
    Ending { end: RunnerEnd, order: StopOrder, deadline: Instant },
}

impl Stage {
    /// Returns the stage of a runner that is taken over while its app is up. The forge is asked at once, because the runner may
    /// have got a job, or may be gone, while no process watched it.
    pub(super) fn up_already(rule: LivenessRule, has_job: bool) -> Self {
        let now = Instant::now();
        let mut liveness = Liveness::new(rule, 0.0, now);
        liveness.look_now(now);
        if has_job {
            liveness.job_started(now);
        }
        Self::Up(Box::new(liveness))
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Booting | Self::Up(_) => None,
            Self::Starting { deadline } | Self::Ending { deadline, .. } => Some(*deadline),
        }
    }

    /// Returns the order that is being carried out.
    fn order(&self) -> StopOrder {
        match self {
            Self::Booting | Self::Starting { .. } | Self::Up(_) => StopOrder::None,
            Self::Ending { order, .. } => *order,
        }
    }

    fn checks(&self) -> Checks {
        match self {
            Self::Up(liveness) => Checks {
                question: Some(liveness.next_question()),
                job_ends: liveness.job_ends(),
                idle_ends: liveness.idle_ends(),
            },
            Self::Booting | Self::Starting { .. } | Self::Ending { .. } => Checks::default(),
        }
    }

    /// Passes on what the runner app reports about its job.
    fn note(&mut self, observation: &Observation) {
        let Self::Up(liveness) = self else { return };
        match observation {
            Observation::JobStarted { .. } => liveness.job_started(Instant::now()),
            Observation::JobFinished { .. } => liveness.job_finished(Instant::now()),
            Observation::Listening | Observation::Retrying | Observation::Unregistered => {}
        }
    }
}

impl Run<'_> {
    /// Passes on the events of the machine until the runner ends.
    pub(super) async fn watch(&mut self, mut stage: Stage) -> Result<RunnerEnd, RunnerError> {
        let mut lines = LastLines::default();
        let mut questions = Questions::default();
        let mut retirement = Retirement::default();
        loop {
            match self.next_input(&stage, &retirement, &mut questions).await {
                RunInput::Vm(None) => {
                    return Ok(RunnerEnd::MachineLost { exit: "its events ended".to_owned() });
                }
                RunInput::Vm(Some(event)) => {
                    if let (VmEvent::Hello, Stage::Booting) = (&event, &stage) {
                        stage = Stage::Starting { deadline: Instant::now() + self.pool.limits.runner_up };
                    }
                    let ended = self.take_vm_event(event, &mut stage, &mut lines).await.transpose();
                    match (ended, stage) {
                        (Some(_), Stage::Ending { end, .. }) => return Ok(end),
                        (Some(end), _) => return end,
                        (None, unchanged) => stage = unchanged,
                    }
                }
                RunInput::EnvironmentChanged => {
                    if !self.state.was_up() && self.look_for_tkn()? {
                        stage = self.is_up(stage).await?;
                    }
                }
                RunInput::Ordered(StopOrder::AtOnce | StopOrder::HandOver) => return Ok(RunnerEnd::Stopped),
                RunInput::Ordered(StopOrder::WhenIdle) => retirement.order(Instant::now()),
                RunInput::RetirementDue => {
                    self.try_to_retire(&mut retirement, &mut questions.retirement);
                }
                RunInput::Retired(answer) => {
                    stage = self.take_retirement(&answer, &mut retirement, stage).await?;
                }
                RunInput::IdleTooLong => {
                    if let Stage::Up(liveness) = &mut stage {
                        liveness.idle_ended(Instant::now());
                        self.try_to_unregister(&mut questions.idle);
                    }
                }
                RunInput::Unregistered(answer) => stage = self.take_end_of_idleness(&answer, stage).await?,
                RunInput::Ordered(order) => {
                    stage = self.ask_to_end(RunnerEnd::Stopped, order, "the loop was stopped").await?;
                }
                RunInput::LifetimeOver => stage = self.end_lifetime(stage).await?,
                RunInput::DeadlinePassed => return self.pass_deadline(stage).await,
                RunInput::QuestionDue => {
                    if let Stage::Up(liveness) = &mut stage {
                        liveness.asked(Instant::now());
                        questions.registration.spawn(self.question());
                    }
                }
                RunInput::Answered(answer) => {
                    let verdict = match &mut stage {
                        Stage::Up(liveness) => liveness.take(answer, Instant::now()),
                        _ => None,
                    };
                    stage = self.carry_out(verdict, stage).await?;
                }
                RunInput::JobLimitPassed => {
                    let verdict = match &stage {
                        Stage::Up(liveness) => liveness.judge_job(Instant::now()),
                        _ => None,
                    };
                    stage = self.carry_out(verdict, stage).await?;
                }
            }
            // Before the runner app is up, there is no app that could stop gently.
            if let Stage::Ending { end, .. } = &stage
                && !self.state.was_up()
            {
                return Ok(end.clone());
            }
        }
    }

    async fn next_input(
        &mut self,
        stage: &Stage,
        retirement: &Retirement,
        questions: &mut Questions,
    ) -> RunInput {
        let Some(vm) = self.vm.as_mut() else { return RunInput::Vm(None) };
        let Checks { question, job_ends, idle_ends } = stage.checks();
        let is_asked = !questions.registration.is_empty();
        let known = if retirement.is_ordered() { StopOrder::WhenIdle } else { StopOrder::None };
        tokio::select! {
            event = vm.next_event() => RunInput::Vm(event),
            () = self.environment.changed() => RunInput::EnvironmentChanged,
            order = self.stop.above(known.max(stage.order())) => RunInput::Ordered(order),
            () = until(self.lifetime_ends) => RunInput::LifetimeOver,
            () = until(stage.deadline()) => RunInput::DeadlinePassed,
            () = until(question), if !is_asked => RunInput::QuestionDue,
            Some(answer) = questions.registration.join_next() => {
                RunInput::Answered(answer.unwrap_or(RegistrationAnswer::Unknown))
            }
            () = until(job_ends) => RunInput::JobLimitPassed,
            () = until(retirement.next()) => RunInput::RetirementDue,
            Some(Ok(answer)) = questions.retirement.join_next() => RunInput::Retired(answer),
            () = until(idle_ends) => RunInput::IdleTooLong,
            Some(Ok(answer)) = questions.idle.join_next() => RunInput::Unregistered(answer),
        }
    }

    pub(super) fn liveness_rule(&self) -> LivenessRule {
        let limits = &self.pool.limits;
        LivenessRule {
            pace: limits.registration_pace,
            after_job: limits.registration_after_job,
            gone: limits.registration_gone,
            job: limits.job,
            idle: limits.idle,
        }
    }

    /// Asks the forge whether the registration exists. A 404 alone proves nothing, because a token that has lost its rights
    /// gets one too: only a list without the runner does.
    fn question(&self) -> impl Future<Output = RegistrationAnswer> + Send + use<> {
        let (forge, scope) = (self.pool.forge.clone(), self.pool.spec.scope.clone());
        let (name, id) = (self.name.clone(), self.state.registration.id());
        async move {
            if let Some(id) = id
                && let Ok(Some(runner)) = forge.get_runner(&scope, id).await
            {
                return RegistrationAnswer::Exists { busy: runner.busy };
            }
            match forge.find_runner_by_name(&scope, &name).await {
                Ok(Some(runner)) => RegistrationAnswer::Exists { busy: runner.busy },
                Ok(None) => RegistrationAnswer::Gone,
                Err(_) => RegistrationAnswer::Unknown,
            }
        }
    }

    async fn take_retirement(
        &mut self,
        answer: &RetirementAnswer,
        retirement: &mut Retirement,
        mut stage: Stage,
    ) -> Result<Stage, RunnerError> {
        let now = Instant::now();
        let has_one_job = self.pool.spec.registration != Registration::Token { ephemeral: false };
        match retirement.take(answer, has_one_job, self.pool.limits.cleanup, now) {
            RetirementStep::End => {
                self.tell(Fact::RegistrationEnded { how: RegistrationEnd::Deleted }).await?;
                self.ask_to_end(RunnerEnd::Stopped, StopOrder::WhenIdle, "no job needs it").await
            }
            RetirementStep::LookCloser => {
                if let Stage::Up(liveness) = &mut stage {
                    liveness.look_now(now);
                }
                Ok(stage)
            }
            RetirementStep::GoOn => Ok(stage),
        }
    }

    /// Takes in the forge's answer about a runner that seems to have waited too long.
    async fn take_end_of_idleness(
        &mut self,
        answer: &RetirementAnswer,
        mut stage: Stage,
    ) -> Result<Stage, RunnerError> {
        match (answer.as_ref().map(|outcome| outcome.how), &mut stage) {
            (Ok(RegistrationEnd::Deleted), _) => {
                self.tell(Fact::RegistrationEnded { how: RegistrationEnd::Deleted }).await?;
                let seconds = self.pool.limits.idle.unwrap_or_default().as_secs();
                let reason = format!("it has waited for a job for {seconds} s");
                self.ask_to_end(RunnerEnd::Idle, stage.order(), &reason).await
            }
            (Ok(RegistrationEnd::Gone), Stage::Up(liveness)) => {
                liveness.look_now(Instant::now());
                Ok(stage)
            }
            // It has a job, or is asked about again.
            _ => Ok(stage),
        }
    }

    /// Tells a runner to stop because of a verdict.
    async fn carry_out(&mut self, verdict: Option<Verdict>, stage: Stage) -> Result<Stage, RunnerError> {
        let Some(verdict) = verdict else { return Ok(stage) };
        let reason = verdict.to_string();
        self.judged = Some(match verdict {
            Verdict::Unregistered(_) => OverHow::Unregistered,
            Verdict::JobTooLong(_) => OverHow::JobTooLong,
        });
        self.tell(Fact::Warning { message: format!("{} is ended: {reason}", self.name) }).await?;
        let end = match self.state.job {
            JobState::None => RunnerEnd::MachineLost { exit: reason.clone() },
            _ => RunnerEnd::JobDone { result: self.state.job.result() },
        };
        self.ask_to_end(end, stage.order(), &reason).await
    }

    /// Returns true if the entrypoint's note that the runner app is about to start exists. The state remembers it, because
    /// another process may wait for the note and remove it at any time.
    fn look_for_tkn(&mut self) -> Result<bool, RunnerError> {
        let note = match self.slot.leaves_tkn {
            true => self.environment.read(Suffix::Tkn)?,
            false => self.environment.take(Suffix::Tkn)?,
        };
        Ok(note.is_some())
    }

    /// Notes that the runner app is up.
    async fn is_up(&mut self, stage: Stage) -> Result<Stage, RunnerError> {
        self.up_since = Some(Instant::now());
        self.tell(Fact::RunnerUp).await?;
        if self.state.registration.id().is_none() {
            self.find_registration().await?;
        }
        Ok(match stage {
            Stage::Booting | Stage::Starting { .. } => {
                Stage::Up(Box::new(Liveness::new(self.liveness_rule(), rand::random(), Instant::now())))
            }
            Stage::Up(_) | Stage::Ending { .. } => stage,
        })
    }

    async fn end_lifetime(&mut self, stage: Stage) -> Result<Stage, RunnerError> {
        self.lifetime_ends = None;
        if let Stage::Ending { .. } = stage {
            return Ok(stage);
        }
        let seconds = self.pool.spec.lifetime.unwrap_or_default().as_secs();
        let reason = format!("it has lived for {seconds} s");
        self.ask_to_end(RunnerEnd::LifetimeOver, stage.order(), &reason).await
    }

    /// Writes `.trm`: the entrypoint stops the runner app when it sees the loop's secret in it.
    async fn ask_to_end(
        &mut self,
        end: RunnerEnd,
        order: StopOrder,
        reason: &str,
    ) -> Result<Stage, RunnerError> {
        if self.state.was_up() {
            self.tell(Fact::Stopping { reason: reason.to_owned() }).await?;
            self.environment.write(Suffix::Trm, self.secret.expose_secret())?;
        }
        Ok(Stage::Ending { end, order, deadline: Instant::now() + self.pool.limits.gentle_stop })
    }

    async fn pass_deadline(&mut self, stage: Stage) -> Result<RunnerEnd, RunnerError> {
        let Stage::Ending { end, .. } = stage else {
            return Err(RunnerError::NotUp {
                name: self.name.clone(),
                limit: self.pool.limits.runner_up,
                console: self.vm.as_ref().map(Vm::console_tail).unwrap_or_default(),
            });
        };
        let limit = self.pool.limits.gentle_stop.as_secs();
        let message = format!("{} did not stop within {limit} s of .trm: killing its machine", self.name);
        self.tell(Fact::Warning { message }).await?;
        Ok(end)
    }

    /// Returns the end of a runner whose machine has ended before its entrypoint.
    async fn lose_machine(
        &mut self,
        exit: Exit,
        console: String,
        stage: &Stage,
    ) -> Result<RunnerEnd, RunnerError> {
        let kill = match exit {
            Exit::OutOfMemory(kill) => Some(kill),
            _ => None,
        };
        if let Some(kill) = kill {
            let (whose, limit_mib) = match kill {
                MemoryKill::Limit(limit_mib) => (MemoryOwner::Machine, limit_mib),
                MemoryKill::Host => (MemoryOwner::Host, None),
            };
            self.tell(Fact::VmmOutOfMemory { whose, limit_mib }).await?;
        }
        let (name, exit) = (self.name.clone(), exit.to_string());
        match (stage, kill) {
            (Stage::Booting, None) => Err(RunnerError::NoHello { name, exit, console }),
            (Stage::Booting, Some(_)) => Err(RunnerError::KilledForMemory { name, exit }),
            _ => Ok(RunnerEnd::MachineLost { exit }),
        }
    }

    /// Passes an event on. Returns the runner's end if this was the machine's last event.
    async fn take_vm_event(
        &mut self,
        event: VmEvent,
        stage: &mut Stage,
        lines: &mut LastLines,
    ) -> Result<Option<RunnerEnd>, RunnerError> {
        let fact = match event {
            VmEvent::VmmStarted { pid, from } => {
                let (from, template) = match from {
                    StartedFrom::Boot => (StartKind::Boot, None),
                    StartedFrom::Fork(template) => (StartKind::Fork, Some(template)),
                    StartedFrom::Spare(template) => (StartKind::Spare, Some(template)),
                };
                Fact::VmmStarted { pid, from, template }
            }
            VmEvent::Limited(MachineLimits { enforced, missing }) => Fact::VmLimited { enforced, missing },
            VmEvent::Jailed(Walls { up, missing }) => {
                let walls = up.into_iter().map(|wall| wall.as_str().to_owned()).collect();
                Fact::VmJailed { walls, missing }
            }
            VmEvent::TakenOver { pid } => Fact::VmTakenOver {
                pid,
                phase: self.state.phase,
                registration: self.state.registration.id(),
                job: self.state.job.running().map(str::to_owned),
            },
            VmEvent::Cold { reason } => Fact::Cold { reason },
            VmEvent::Restarted { reason } => Fact::VmRestarted { reason },
            VmEvent::Hello => Fact::AgentHello,
            VmEvent::Milestone { milestone, uptime_ms } => Fact::Milestone { milestone, uptime_ms },
            VmEvent::DockerFailed { reason: message } | VmEvent::Fault { message } => {
                Fact::Warning { message }
            }
            VmEvent::DiskFailed { reason } => Fact::DiskFailed { reason },
            VmEvent::OutOfMemory { process, used_mib, memory_mib } => {
                Fact::OutOfMemory { process, used_mib, memory_mib }
            }
            VmEvent::SessionOpened { session, uid, user, command, has_terminal: terminal } => {
                Fact::SessionOpened { session, uid, user, command, terminal }
            }
            VmEvent::SessionEnded { session, how } => Fact::SessionEnded { session, how },
            VmEvent::Line { number, source, text } => {
                self.observe(&text, stage).await?;
                if counts(source, &text) {
                    lines.push(&text);
                }
                Fact::Line { number, source, text }
            }
            VmEvent::EntrypointExited { code, signal } => {
                self.tell(Fact::EntrypointExited { code, signal }).await?;
                return self.end_of(code, lines).await.map(Some);
            }
            VmEvent::Gone { exit, console_tail } => {
                return self.lose_machine(exit, console_tail, stage).await.map(Some);
            }
        };
        self.tell(fact).await?;
        Ok(None)
    }

    /// Reports the runner app's milestones that a line of its output announces. They are hints, because a job can print such
    /// lines too, and not more than [`Observed`] allows.
    async fn observe(&mut self, text: &str, stage: &mut Stage) -> Result<(), RunnerError> {
        let Some(relayed) = runner_app::parse_relayed(text) else { return Ok(()) };
        if relayed.source != "runner" || relayed.runner_id != self.id.as_str() {
            return Ok(());
        }
        let Some(observation) = runner_app::observe(relayed.text) else { return Ok(()) };
        let is_up = matches!(observation, Observation::Listening | Observation::JobStarted { .. });
        if is_up && !self.state.was_up() {
            // The note that says so may still be unread, or another process may have removed it already.
            self.look_for_tkn()?;
            let earlier = std::mem::replace(stage, Stage::Booting);
            *stage = self.is_up(earlier).await?;
        }
        stage.note(&observation);
        let fact = match observation {
            Observation::Listening => Fact::Listening,
            Observation::JobStarted { name } => {
                Fact::JobStarted { job: name.chars().take(JOB_NAME_MAX).collect() }
            }
            Observation::JobFinished { result } => Fact::JobFinished { result },
            Observation::Retrying | Observation::Unregistered => return Ok(()),
        };
        if self.observed.allows(Instant::now()) { self.tell(fact).await } else { Ok(()) }
    }

    /// Returns the runner's end after its entrypoint has exited. The exit status comes from a guest that may be hostile, so
    /// it only decides which message people see.
    async fn end_of(&mut self, code: Option<i32>, lines: &LastLines) -> Result<RunnerEnd, RunnerError> {
        if let Ok(Some(note)) = self.environment.read(Suffix::Brk) {
            if environment::is_secret(&note, self.secret.expose_secret()) {
                return Ok(RunnerEnd::Broken);
            }
            let message = format!("{}.brk is ignored: it does not hold the loop's secret", self.id);
            self.tell(Fact::Warning { message }).await?;
        }
        let failed = |what| RunnerError::App { name: self.name.clone(), what, lines: lines.text() };
        match code.and_then(Ending::from_code) {
            Some(Ending::JobDone) => Ok(RunnerEnd::JobDone { result: self.state.job.result() }),
            _ if self.state.job != JobState::None => {
                Ok(RunnerEnd::JobDone { result: self.state.job.result() })
            }
            Some(Ending::NotStarted) => Err(failed("could not be started")),
            Some(Ending::NoJob | Ending::StoppedByLoop | Ending::StoppedBySignal) => Ok(RunnerEnd::NoJob),
            Some(Ending::Failed) | None => Err(failed("ended before it had a job")),
        }
    }
}

/// Returns true if a line may say why a runner ended. Docker's own lines say nothing about a runner app, and the app's
/// diagnostics would displace the line in which the app gives the reason.
fn counts(source: Source, text: &str) -> bool {
    let is_chatter = |relayed: runner_app::Relayed<'_>| [DIAGNOSTICS, APP_LOG].contains(&relayed.source);
    source != Source::Docker && !runner_app::parse_relayed(text).is_some_and(is_chatter)
}

/// Waits until the time; for ever if there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_quotes_the_apps_lines_and_not_its_diagnostics() {
        let line = |source| runner_app::relay(source, "0-aaaaaaa", "x");
        assert!(counts(Source::Entrypoint, &line("runner")) && counts(Source::Agent, "x"));
        for source in [DIAGNOSTICS, APP_LOG] {
            assert!(!counts(Source::Entrypoint, &line(source)), "{source}");
        }
        assert!(!counts(Source::Docker, "x"));
    }

    #[tokio::test(start_paused = true)]
    async fn reports_that_a_guest_forges_without_end_are_told_at_a_slow_pace() {
        let begin = Instant::now();
        let mut observed = Observed::new(begin);
        let told = (0..10_000).filter(|_| observed.allows(Instant::now())).count();
        assert_eq!(told, 30);
        let mut told = 0;
        while begin.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            told += u32::from(observed.allows(Instant::now()));
        }
        assert_eq!(told, 60);
    }
}

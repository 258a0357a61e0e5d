//! Facts: the one vocabulary for the events of a runner, for all writers and readers.
//!
//! ```text
//!   runner ──> Fact ──> journal (the durable ones, flushed first)      ──> RunnerState after a crash
//!                  └──> stream ──> terminal, JSON lines, log of a runner, status ──> `logs`, `trace`, `ps`
//! ```
//!
//! The readers of the journal and of the status share one fold, [`crate::state::RunnerState`]. Every reader folds facts;
//! none of them parses the text of another. A test freezes the names, because logs and journals outlive the version that
//! wrote them.

use std::path::PathBuf;

use dayfly_forge::RunnerScope;
use dayfly_guest::protocol::{Milestone, Source};
use dayfly_guest::runner_app::JobResult;
use dayfly_vm::NetworkUse;
use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::job_end::{Annotation, JobConclusion};
use crate::orchestrator::Wait;
use crate::runner_id::RunnerId;
use crate::scratch::ScratchSummary;
use crate::state::Phase;

/// Version of the vocabulary; every journal begins with it. A reader refuses a journal of another version.
pub const VERSION: u32 = 1;

/// A fact with its time, its loop and its runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactRecord {
    /// Time of the event.
    #[serde(flatten)]
    pub at: Moment,
    /// Name of the pool; none for a pool that has no name because it comes from a command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Number of the loop.
    #[serde(rename = "loop")]
    pub loop_index: u32,
    /// The runner; none if the fact concerns the loop as a whole.
    #[serde(flatten)]
    pub runner: Option<RunnerRef>,
    /// The event.
    #[serde(flatten)]
    pub fact: Fact,
}

/// A time of the wall clock. It is written in milliseconds, and in microseconds for measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "WrittenMoment")]
pub struct Moment {
    us: u64,
}

/// Logs of the first versions have milliseconds only.
#[derive(Deserialize)]
struct WrittenMoment {
    at_ms: u64,
    at_us: Option<u64>,
}

impl From<WrittenMoment> for Moment {
    fn from(WrittenMoment { at_ms, at_us }: WrittenMoment) -> Self {
        at_us.map_or_else(|| Self::of_ms(at_ms), |us| Self { us })
    }
}

impl Moment {
    /// Returns the current time; 1970 if the clock is set before that.
    pub fn now() -> Self {
        Self { us: u64::try_from(dayfly_host::clock::since_epoch().as_micros()).unwrap_or(u64::MAX) }
    }

    /// Returns the time so many milliseconds after 1970-01-01 UTC.
    pub fn of_ms(ms: u64) -> Self {
        Self { us: ms.saturating_mul(1000) }
    }

    /// Returns the time so many microseconds after 1970-01-01 UTC.
    pub fn of_us(us: u64) -> Self {
        Self { us }
    }

    /// Returns the milliseconds since 1970-01-01 UTC.
    pub fn ms(self) -> u64 {
        self.us / 1000
    }

    /// Returns the microseconds since 1970-01-01 UTC.
    pub fn us(self) -> u64 {
        self.us
    }
}

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("Moment", 2)?;
        fields.serialize_field("at_ms", &self.ms())?;
        fields.serialize_field("at_us", &self.us)?;
        fields.end()
    }
}

/// A runner, as facts name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerRef {
    /// Its id.
    #[serde(rename = "runner")]
    pub id: RunnerId,
    /// Name of its VM and registration.
    pub name: String,
}

impl FactRecord {
    /// Returns true if the fact concerns a pool as a whole, and no loop of it.
    pub fn is_of_pool(&self) -> bool {
        self.runner.is_none() && self.fact.is_of_pool()
    }

    /// Returns the name of the runner's VM and registration; empty if the fact concerns a loop as a whole.
    pub fn name(&self) -> &str {
        self.runner.as_ref().map_or("", |runner| &runner.name)
    }
}

/// An event in the life of a runner or of a loop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Fact {
    /// A runner begins. Intent: it is in the journal only.
    Begun {
        /// [`VERSION`] of the facts that follow.
        version: u32,
        /// The environment directory of the runner, which may hold its files: its loop's, or its own if its machine shares it.
        environment: PathBuf,
        /// Base URL of the forge's API.
        forge: String,
        /// The scope of the registration.
        scope: RunnerScope,
    },
    /// This process takes the runner over from one that died. Intent: it is in the journal only.
    Resuming {
        /// The environment directory of the runner from here on.
        environment: PathBuf,
    },
    /// The loop starts.
    LoopStarted {
        /// Id of the job that its runner is for; none if the demand is static.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_job: Option<u64>,
    },
    /// The loop has ended and is not replaced.
    LoopEnded {
        /// The reason in words: its number of runners is reached, its lifetime is over, a signal.
        how: String,
    },
    /// The loop has failed, and is replaced.
    LoopReplaced {
        /// The reason.
        why: String,
        /// Number of times in a row.
        count: u32,
        /// Time until the next start, milliseconds.
        pause_ms: u64,
    },
    /// A source of the pool's demand is ready. The number of the loop is the pool's first one, which no slot has.
    SourceReady {
        /// The kind of the source, e.g. "scale set".
        source: String,
        /// The text for people.
        message: String,
    },
    /// A source of the pool's demand is in trouble, and goes on by itself.
    SourceTrouble {
        /// The kind of the source.
        source: String,
        /// The problem, and the step that follows.
        message: String,
    },
    /// A source of the pool's demand cannot use the forge. It is repeated with each attempt that fails.
    ForgeLost {
        /// The kind of the source.
        source: String,
        /// The kind of the cause.
        cause: Cause,
        /// The problem in words.
        message: String,
    },
    /// The source can use the forge again.
    ForgeBack {
        /// The kind of the source.
        source: String,
    },
    /// The reason why jobs of the pool wait; none if none waits. Each change is reported.
    PoolWaits {
        /// The reason.
        why: Option<Wait>,
    },
    /// The scratch space in use on this host, of an orchestrator with a limit of it; none if the limit was removed.
    /// Changes by a twentieth of the limit are reported.
    ScratchInUse {
        /// The sum.
        scratch: Option<ScratchSummary>,
    },
    /// A reload has added the pool.
    PoolAdded,
    /// A reload or an administrator has changed numbers of the pool, which count from now on.
    PoolAdjusted,
    /// An administrator has paused the pool: no runner starts, and those that run end with their job. Jobs are counted.
    PoolPaused,
    /// The pause of the pool has ended.
    PoolResumed,
    /// A reload has removed the pool or replaced it by another one, or an administrator drains it: no runner starts, and those
    /// that run end with their job.
    PoolDraining,
    /// The last runner of a pool that drained has ended. The numbers of its loops are free for another pool.
    PoolDrained,
    /// The pool could not be started when its forge answered at last, and is not tried again until a reload.
    PoolGivenUp {
        /// The reason.
        why: String,
    },
    /// So many jobs of the pool wait for a runner. Each change of the number is reported.
    JobsWaiting {
        /// The number.
        count: u32,
    },
    /// A source of the pool's demand has told of a job that waits for a runner.
    JobSeen {
        /// The job. Its key is not `name`, because that is the runner's.
        #[serde(rename = "seen_job")]
        job: Box<SeenJob>,
    },
    /// The job does not wait any more, and no runner that this process knows has it.
    JobLeft {
        /// Id of the job at the forge.
        #[serde(rename = "job_id")]
        id: u64,
    },
    /// A source of the pool's demand says that the runner has this job.
    JobTaken {
        /// The job.
        #[serde(rename = "seen_job")]
        job: Box<SeenJob>,
    },
    /// No further runner is created for a job, or for a slot.
    GaveUp {
        /// The reason.
        why: String,
    },
    /// A runner could not be created or brought up; the loop tries again.
    Retrying {
        /// The reason.
        why: String,
        /// Number of times in a row.
        count: u32,
        /// Time until the next start, milliseconds.
        pause_ms: u64,
    },
    /// A new step in building or importing the machine's image.
    ImagePhase {
        /// The step in words.
        phase: String,
    },
    /// The image's name resolves to another image than before. New machines use that one.
    ImageChanged {
        /// The name. Its key is not `name`, because that is the runner's.
        #[serde(rename = "image_name")]
        name: String,
        /// Id of the image.
        image: String,
    },
    /// The image is in the store. The runner's lifetime counts from here.
    Pulled,
    /// A registration under the runner's name is requested, and may exist from here on.
    Registering,
    /// The forge has registered the runner under this id.
    Registered {
        /// Its id at the forge.
        registration: u64,
    },
    /// A template is being built; machines are forked from it later.
    TemplateBuilding {
        /// Its id.
        template: String,
    },
    /// The runner waits for a template that another runner or process builds.
    TemplateWaiting {
        /// Its id.
        template: String,
    },
    /// A line of the template's warm-up, or the reason why no runner app waits in it.
    TemplateLine {
        /// The text.
        text: String,
    },
    /// The template is ready.
    TemplateBuilt {
        /// Its id.
        template: String,
        /// Time that the build took, milliseconds.
        took_ms: u64,
        /// Size on disk, bytes.
        bytes: u64,
    },
    /// The template could not be built, so machines are booted.
    TemplateFailed {
        /// Its id.
        template: String,
        /// The reason.
        reason: String,
    },
    /// A machine is booted although it could be forked, or all machines like it are.
    Cold {
        /// The reason.
        reason: String,
    },
    /// A VM is being started, and may run from here on. Intent: it is in the journal only.
    StartingVm,
    /// The VMM runs.
    VmmStarted {
        /// Its process id.
        pid: u32,
        /// The source of the machine.
        from: StartKind,
        /// The template; none for a boot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template: Option<String>,
    },
    /// The limits that the kernel of this host enforces for the VMM.
    VmLimited {
        /// The limits, in words for people.
        enforced: Vec<String>,
        /// The limits that this host cannot enforce, each with the reason.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
    },
    /// The walls between the VMM and this host.
    VmJailed {
        /// Those that are up, by their words in a configuration file.
        walls: Vec<String>,
        /// Those that this host cannot put up, each with the reason.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
    },
    /// The machine of a process that died is taken over. The fields are what that process knew of the runner.
    VmTakenOver {
        /// Id of the VMM's process.
        pid: u32,
        /// The runner's progress.
        phase: Phase,
        /// The registration's id at the forge, if it was known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        registration: Option<u64>,
        /// Name of its job, if it had one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<String>,
    },
    /// The agent never said hello, so the VM was killed and started again.
    VmRestarted {
        /// The reason.
        reason: String,
    },
    /// The agent in the guest sent its hello.
    AgentHello,
    /// The guest has reached a step of its start.
    Milestone {
        /// The step.
        milestone: Milestone,
        /// Milliseconds since the guest's kernel started.
        uptime_ms: u64,
    },
    /// The runner app has its registration and is about to start (`.tkn`).
    RunnerUp,
    /// The runner app reports that it waits for a job.
    Listening,
    /// The runner app reports a job.
    JobStarted {
        /// The name that the runner app prints.
        job: String,
    },
    /// The job has ended.
    JobFinished {
        /// The result that the runner app prints.
        result: JobResult,
    },
    /// The forge reports the end of the job. It comes before or after [`Fact::JobFinished`], or after [`Fact::Ended`], and
    /// only if a source of demand tells it. If both disagree, this one counts, because a job can print the other one.
    JobConcluded {
        /// The name that the forge shows.
        job: String,
        /// The outcome.
        conclusion: JobConclusion,
        /// Its annotations.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        annotations: Vec<Annotation>,
        /// Number of further annotations.
        #[serde(default, skip_serializing_if = "is_zero")]
        annotations_left_out: u64,
    },
    /// The machine's memory was used up, and its kernel has killed a process.
    OutOfMemory {
        /// Name of the process, as the guest reports it.
        process: String,
        /// The memory that it used, MiB.
        used_mib: u64,
        /// The memory of the machine, MiB.
        memory_mib: u64,
    },
    /// The kernel of this host has killed the VMM for memory, and the machine with it.
    VmmOutOfMemory {
        /// The memory that was used up.
        whose: MemoryOwner,
        /// The limit of the machine, MiB, if that is known and was used up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit_mib: Option<u64>,
    },
    /// This host could not write to the machine's disk, so its job gets I/O errors.
    DiskFailed {
        /// The reason, as the VMM reports it.
        reason: String,
    },
    /// A person on this host has asked for a session: a program in the machine beside its job. It starts now.
    SessionOpened {
        /// Its number.
        session: u64,
        /// Id of the user on this host.
        uid: u32,
        /// Name of the user in the machine.
        user: String,
        /// The command, cut if it is long.
        command: String,
        /// True if it has a terminal.
        terminal: bool,
    },
    /// The session is over.
    SessionEnded {
        /// Its number.
        session: u64,
        /// The end in words.
        how: String,
    },
    /// A line of the guest's output.
    Line {
        /// Its number, by which a later process finds the lines that this one has not written; 0 if lines have none.
        #[serde(default, skip_serializing_if = "is_zero")]
        number: u64,
        /// The program that printed it.
        source: Source,
        /// The text.
        text: String,
    },
    /// Lines were dropped because the readers were too slow.
    LinesDropped {
        /// The number of lines.
        count: u64,
    },
    /// The log of the runner has its full length; later lines are not in it.
    Cut {
        /// The reason.
        why: String,
    },
    /// The loop stops the runner.
    Stopping {
        /// The reason.
        reason: String,
    },
    /// The entrypoint exited.
    EntrypointExited {
        /// Exit status.
        code: Option<i32>,
        /// Signal.
        signal: Option<i32>,
    },
    /// The VM is being destroyed. Intent: it is in the journal only.
    DestroyingVm,
    /// The use that the machine has made of this host, as the kernel has counted it, and its size.
    VmUsed {
        /// Its virtual CPUs.
        cpus: u32,
        /// Its memory, MiB.
        memory_mib: u32,
        /// Processor time of the VMM and its servers of files, milliseconds, if the kernel counts it for groups.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_ms: Option<u64>,
        /// Most memory of this host at once, MiB, if the kernel counts it for groups.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory_peak_mib: Option<u64>,
    },
    /// The destinations that the machine has reached, and those that it was denied, as its gate and the kernel have counted them.
    NetworkUsed {
        /// The record.
        network: Box<NetworkUse>,
    },
    /// The VM and its disk are gone.
    VmGone {
        /// The way in which the VMM ended.
        exit: String,
    },
    /// The VM goes on without this process, which ends. The next start takes it over.
    VmHandedOver,
    /// The VM was left running, as requested.
    VmKept {
        /// The folder of its run.
        folder: PathBuf,
    },
    /// The VM was frozen to disk, because its job has failed. `dayfly thaw` brings it back.
    VmFrozen {
        /// Time until which it is kept, milliseconds since 1970-01-01 UTC.
        until_ms: u64,
        /// The space that it takes, bytes.
        bytes: u64,
    },
    /// The registration is being deleted. Intent: it is in the journal only.
    DeletingRegistration,
    /// The registration is gone, or is left to the forge.
    RegistrationEnded {
        /// The way in which it ended.
        how: RegistrationEnd,
    },
    /// A message for people; the runner goes on.
    Warning {
        /// The problem, its place, and the remedy.
        message: String,
    },
    /// The runner's life is over, and its machine and its registration are removed as far as possible.
    Over {
        /// The way in which it ended.
        how: OverHow,
        /// The reason in words, if there is more to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// The kind of the cause, of a runner that could not be created or brought up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<Cause>,
    },
    /// All processes, files and registrations of the runner are removed, or the journal lists the rest.
    Ended,
}

/// A job, as far as the sources of a pool's demand have told of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeenJob {
    /// Its id at the forge.
    pub id: u64,
    /// Its name, as the forge shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its repository, as owner/name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Its workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The labels that its runner needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Time at which the forge queued it, milliseconds since 1970-01-01 UTC, by the forge's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_ms: Option<u64>,
    /// Time at which this process was told that it waits; none if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_ms: Option<u64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The memory whose end made the kernel of this host kill a VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryOwner {
    /// The memory that the machine may take from this host: its control group's.
    Machine,
    /// The memory of this host.
    Host,
}

/// The source of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// A cold boot.
    Boot,
    /// A template, forked for this runner.
    Fork,
    /// A fork that was created before it was needed.
    Spare,
}

impl StartKind {
    /// Returns the word in written facts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Fork => "fork",
            Self::Spare => "spare",
        }
    }
}

/// The way in which a runner's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverHow {
    /// Its runner app had a job, and has exited.
    JobDone,
    /// Its runner app has exited without a job.
    NoJob,
    /// Its machine ended before its entrypoint.
    MachineLost,
    /// Its registration was gone from the forge while its machine went on.
    Unregistered,
    /// Its job ran for longer than a job may.
    JobTooLong,
    /// This host stopped it: a signal, an order, or a demand that went away.
    Stopped,
    /// Its lifetime was over.
    LifetimeOver,
    /// It waited too long for a job.
    Idle,
    /// A program in the machine ended its loop.
    Broken,
    /// It could not be created or brought up.
    NotUp,
    /// The process of dayfly that ran it has died, and nothing could be taken over.
    ProcessDied,
}

/// The end of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationEnd {
    /// dayfly deleted it.
    Deleted,
    /// The forge had removed it already, as it does after the job of an ephemeral runner.
    Gone,
    /// The forge says that it runs a job and deletes it later.
    Busy,
}

impl RegistrationEnd {
    /// Returns the word in written facts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Gone => "gone",
            Self::Busy => "busy",
        }
    }
}

impl Fact {
    /// Returns true for the facts that a later start needs if this process dies. They are in the journal, on the disk,
    /// before the runner goes on.
    pub fn is_durable(&self) -> bool {
        self.is_intent()
            || matches!(
                self,
                Self::Registering
                    | Self::Registered { .. }
                    | Self::VmGone { .. }
                    | Self::RegistrationEnded { .. }
            )
    }

    /// Returns true for the facts that only announce a step. Readers of the stream get the step itself instead.
    pub fn is_intent(&self) -> bool {
        matches!(
            self,
            Self::Begun { .. }
                | Self::Resuming { .. }
                | Self::StartingVm
                | Self::DestroyingVm
                | Self::DeletingRegistration
        )
    }

    /// Returns true for the facts that a process which takes the runner over wants to know, and those that the history keeps
    /// beside them. They are in the journal, but are not flushed: only if this host goes on running, there is a machine to be
    /// taken over, and the end of a run is flushed with its record in the history.
    pub(crate) fn is_noted(&self) -> bool {
        matches!(
            self,
            Self::VmmStarted { .. }
                | Self::AgentHello
                | Self::RunnerUp
                | Self::Listening
                | Self::JobStarted { .. }
                | Self::JobFinished { .. }
                | Self::OutOfMemory { .. }
                | Self::VmmOutOfMemory { .. }
                | Self::DiskFailed { .. }
                | Self::VmUsed { .. }
                | Self::VmFrozen { .. }
                | Self::NetworkUsed { .. }
                | Self::SessionOpened { .. }
                | Self::SessionEnded { .. }
                | Self::Over { .. }
        )
    }

    /// Returns true for the facts that concern a pool as a whole if they have no runner. The number of their loop is the
    /// pool's first one, which no slot has.
    fn is_of_pool(&self) -> bool {
        matches!(
            self,
            Self::SourceReady { .. }
                | Self::SourceTrouble { .. }
                | Self::PoolAdded
                | Self::PoolAdjusted
                | Self::PoolPaused
                | Self::PoolResumed
                | Self::PoolDraining
                | Self::PoolDrained
                | Self::PoolGivenUp { .. }
                | Self::JobsWaiting { .. }
                | Self::ForgeLost { .. }
                | Self::ForgeBack { .. }
                | Self::PoolWaits { .. }
                | Self::ScratchInUse { .. }
                | Self::JobSeen { .. }
                | Self::JobLeft { .. }
                | Self::TemplateBuilding { .. }
                | Self::TemplateWaiting { .. }
                | Self::TemplateLine { .. }
                | Self::TemplateBuilt { .. }
                | Self::TemplateFailed { .. }
                | Self::Cold { .. }
        )
    }

    /// Returns true for the facts that an orchestrator decides by: a runner has its name, its app is about to start, or it has
    /// ended.
    pub(crate) fn is_decisive(&self) -> bool {
        matches!(self, Self::Registering | Self::RunnerUp | Self::Ended)
    }
}

impl Serialize for RunnerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RunnerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::job_end::AnnotationLevel;

    fn annotation(level: AnnotationLevel) -> Annotation {
        let place = (level == AnnotationLevel::Warning).then(|| "a.c".to_owned());
        let line = place.is_some().then_some(3);
        Annotation { level, message: "x".to_owned(), title: place.clone(), path: place, line }
    }

    fn seen() -> SeenJob {
        let text = || Some("x".to_owned());
        SeenJob {
            id: 6,
            name: text(),
            repository: text(),
            workflow: text(),
            labels: vec!["x".to_owned()],
            queued_ms: Some(1),
            seen_ms: Some(2),
        }
    }

    pub(crate) fn one_of_each() -> Vec<Fact> {
        let text = || "x".to_owned();
        let scope = RunnerScope::Repository { owner: "o".to_owned(), name: "r".to_owned() };
        let (why, reason, template) = (text(), text(), text());
        vec![
            Fact::Begun { version: VERSION, environment: "/e".into(), forge: "http://f/".to_owned(), scope },
            Fact::Resuming { environment: "/f".into() },
            Fact::LoopStarted { for_job: None },
            Fact::LoopStarted { for_job: Some(6) },
            Fact::LoopEnded { how: text() },
            Fact::LoopReplaced { why: why.clone(), count: 1, pause_ms: 1000 },
            Fact::SourceReady { source: text(), message: text() },
            Fact::SourceTrouble { source: text(), message: text() },
            Fact::ForgeLost { source: text(), cause: Cause::RateLimit { until_ms: 9 }, message: text() },
            Fact::ForgeLost { source: text(), cause: Cause::Unreachable, message: text() },
            Fact::ForgeBack { source: text() },
            Fact::PoolWaits { why: Some(Wait::Full { max: 8 }) },
            Fact::PoolWaits { why: None },
            Fact::ScratchInUse {
                scratch: Some(ScratchSummary { used_mib: 5, limit_mib: Some(9), is_whole: true }),
            },
            Fact::ScratchInUse { scratch: None },
            Fact::PoolAdded,
            Fact::PoolAdjusted,
            Fact::PoolPaused,
            Fact::PoolResumed,
            Fact::PoolDraining,
            Fact::PoolDrained,
            Fact::PoolGivenUp { why: why.clone() },
            Fact::JobsWaiting { count: 8 },
            Fact::JobSeen { job: Box::new(seen()) },
            Fact::JobLeft { id: 6 },
            Fact::JobTaken { job: Box::new(SeenJob { id: 6, ..SeenJob::default() }) },
            Fact::GaveUp { why: why.clone() },
            Fact::Retrying { why: why.clone(), count: 1, pause_ms: 1000 },
            Fact::ImagePhase { phase: text() },
            Fact::ImageChanged { name: text(), image: text() },
            Fact::Pulled,
            Fact::Registering,
            Fact::Registered { registration: 7 },
            Fact::TemplateBuilding { template: template.clone() },
            Fact::TemplateWaiting { template: template.clone() },
            Fact::TemplateLine { text: text() },
            Fact::TemplateBuilt { template: template.clone(), took_ms: 1, bytes: 2 },
            Fact::TemplateFailed { template: template.clone(), reason: reason.clone() },
            Fact::Cold { reason: reason.clone() },
            Fact::StartingVm,
            Fact::VmTakenOver { pid: 3, phase: Phase::Busy, registration: Some(7), job: Some(text()) },
            Fact::VmmStarted { pid: 3, from: StartKind::Boot, template: None },
            Fact::VmmStarted { pid: 3, from: StartKind::Fork, template: Some(template.clone()) },
            Fact::VmmStarted { pid: 3, from: StartKind::Spare, template: Some(template) },
            Fact::VmRestarted { reason: reason.clone() },
            Fact::VmLimited { enforced: vec![text()], missing: vec![text()] },
            Fact::VmJailed { walls: vec![text()], missing: vec![text()] },
            Fact::AgentHello,
            Fact::Milestone { milestone: Milestone::DockerReady, uptime_ms: 4 },
            Fact::RunnerUp,
            Fact::Listening,
            Fact::JobStarted { job: text() },
            Fact::JobFinished { result: JobResult::Succeeded },
            Fact::JobConcluded {
                job: text(),
                conclusion: JobConclusion::Success,
                annotations: Vec::new(),
                annotations_left_out: 0,
            },
            Fact::JobConcluded {
                job: text(),
                conclusion: JobConclusion::Failure,
                annotations: [AnnotationLevel::Failure, AnnotationLevel::Warning, AnnotationLevel::Notice]
                    .map(annotation)
                    .to_vec(),
                annotations_left_out: 2,
            },
            Fact::OutOfMemory { process: text(), used_mib: 800, memory_mib: 1024 },
            Fact::VmmOutOfMemory { whose: MemoryOwner::Machine, limit_mib: Some(1344) },
            Fact::VmmOutOfMemory { whose: MemoryOwner::Host, limit_mib: None },
            Fact::DiskFailed { reason: text() },
            Fact::SessionOpened { session: 8, uid: 0, user: text(), command: text(), terminal: true },
            Fact::SessionEnded { session: 8, how: text() },
            Fact::Line { number: 4, source: Source::Entrypoint, text: text() },
            Fact::LinesDropped { count: 5 },
            Fact::Cut { why },
            Fact::Stopping { reason },
            Fact::EntrypointExited { code: Some(0), signal: None },
            Fact::DestroyingVm,
            Fact::VmUsed { cpus: 2, memory_mib: 1024, cpu_ms: Some(5), memory_peak_mib: Some(6) },
            Fact::NetworkUsed { network: Box::new(network_use()) },
            Fact::VmGone { exit: text() },
            Fact::VmHandedOver,
            Fact::VmKept { folder: "/k".into() },
            Fact::VmFrozen { until_ms: 9, bytes: 10 },
            Fact::DeletingRegistration,
            Fact::RegistrationEnded { how: RegistrationEnd::Deleted },
            Fact::RegistrationEnded { how: RegistrationEnd::Gone },
            Fact::RegistrationEnded { how: RegistrationEnd::Busy },
            Fact::Warning { message: text() },
            Fact::Over { how: OverHow::NotUp, why: Some(text()), kind: Some(Cause::Image) },
            Fact::Over { how: OverHow::JobDone, why: None, kind: None },
            Fact::Ended,
        ]
    }

    fn network_use() -> NetworkUse {
        let reached = dayfly_vm::Destination {
            names: vec!["a.example".to_owned()],
            address: Some([192, 0, 2, 7].into()),
            protocol: Some(dayfly_vm::Protocol::Tcp),
            port: Some(443),
            decision: dayfly_vm::Decision::Allowed,
            reason: None,
            times: 1,
            sent: 2,
            received: 3,
        };
        let asked = dayfly_vm::Destination {
            address: None,
            protocol: None,
            port: None,
            decision: dayfly_vm::Decision::Denied,
            reason: Some(dayfly_vm::Reason::Unlisted),
            ..reached.clone()
        };
        let policy = "allow".to_owned();
        NetworkUse { policy, destinations: vec![asked, reached], left_out: 4, gate_killed: true }
    }

    /// Returns the record of a fact about the runner `0-aaaaaaa`.
    pub(crate) fn record(fact: Fact) -> FactRecord {
        let id: RunnerId = "0-aaaaaaa".parse().expect("an id");
        let runner = Some(RunnerRef { name: id.name("p"), id });
        FactRecord { at: Moment { us: 1_000_500 }, pool: None, loop_index: 0, runner, fact }
    }

    #[test]
    fn the_names_of_facts_are_frozen_and_what_is_written_is_read_back() {
        let lines: Vec<String> = one_of_each()
            .into_iter()
            .map(|fact| {
                let written = record(fact);
                let line = serde_json::to_string(&written).expect("json");
                assert_eq!(serde_json::from_str::<FactRecord>(&line).expect("a fact"), written);
                line
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_fact_of_a_loop_has_no_runner_and_an_old_one_has_milliseconds_only() {
        let line = r#"{"at_ms":7,"loop":2,"event":"loop_started"}"#;
        let read: FactRecord = serde_json::from_str(line).expect("a fact");
        assert_eq!((read.at.us(), read.runner, read.loop_index), (7000, None, 2));
    }

    #[test]
    fn every_intent_is_durable() {
        assert!(one_of_each().iter().all(|fact| !fact.is_intent() || fact.is_durable()));
    }
}

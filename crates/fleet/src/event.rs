//! What happens to runners, as one stream with many readers: terminal, JSON lines, journal, status.

use dayfly_guest::protocol::{Milestone, Source};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::runner_id::RunnerId;

/// How many events may wait for their reader. Lines beyond it are counted and dropped; all else waits.
const QUEUE_LENGTH: usize = 4096;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When.
    #[serde(flatten)]
    pub at: Moment,
    /// The loop it happened in.
    #[serde(rename = "loop")]
    pub loop_index: u32,
    /// The runner it happened to; none where it concerns the loop as a whole.
    #[serde(flatten)]
    pub runner: Option<RunnerRef>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// A moment of the wall clock, told in milliseconds, and in microseconds for those who measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    us: u64,
}

impl Moment {
    /// Now; 1970 where the clock stands before that.
    pub fn now() -> Self {
        Self { us: u64::try_from(dayfly_host::clock::since_epoch().as_micros()).unwrap_or(u64::MAX) }
    }

    /// So many milliseconds since 1970-01-01 UTC.
    pub fn of_ms(ms: u64) -> Self {
        Self { us: ms.saturating_mul(1000) }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn ms(self) -> u64 {
        self.us / 1000
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

/// A runner, as events name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunnerRef {
    /// Its id.
    #[serde(rename = "runner")]
    pub id: RunnerId,
    /// Name of its VM and registration.
    pub name: String,
}

impl Event {
    /// Name of the runner's VM and registration; empty where the event concerns a loop as a whole.
    pub fn name(&self) -> &str {
        self.runner.as_ref().map_or("", |runner| &runner.name)
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The loop begins.
    LoopStarted,
    /// The loop has ended and is not replaced.
    LoopEnded {
        /// Why, in words: how many runners it was to make, its lifetime, a signal.
        how: String,
    },
    /// The loop died, or was ended from inside a VM: another one takes its place.
    LoopReplaced {
        /// Why.
        why: String,
        /// How often in a row.
        count: u32,
        /// Milliseconds until then.
        pause_ms: u64,
    },
    /// A runner could not be made; the loop tries again.
    Retrying {
        /// Why.
        why: String,
        /// How often in a row.
        count: u32,
        /// Milliseconds until then.
        pause_ms: u64,
    },
    /// The image of the machine is being made: a new step of it.
    ImagePhase {
        /// Which, in words.
        phase: String,
    },
    /// The image's name leads to another image than before: machines are made of that one from now on.
    ImageChanged {
        /// The name.
        name: String,
        /// Id of the image.
        image: String,
    },
    /// The image is at hand; the runner's lifetime counts from here.
    Pulled,
    /// A registration is being asked for.
    Registering,
    /// The forge has registered the runner under this id.
    Registered {
        /// Its id at the forge.
        registration: u64,
    },
    /// A template is built, from which machines are forked then.
    TemplateBuilding {
        /// Its id.
        template: String,
    },
    /// Somebody else builds the template.
    TemplateWaiting {
        /// Its id.
        template: String,
    },
    /// A line of the template's warm-up.
    TemplateLine {
        /// The text.
        text: String,
    },
    /// The template is there.
    TemplateBuilt {
        /// Its id.
        template: String,
        /// How long that took, milliseconds.
        took_ms: u64,
        /// What it takes on the disk, bytes.
        bytes: u64,
    },
    /// The template could not be built: machines are booted.
    TemplateFailed {
        /// Its id.
        template: String,
        /// Why.
        reason: String,
    },
    /// A machine is booted that could have been forked, or all of this kind are.
    Cold {
        /// Why.
        reason: String,
    },
    /// The VMM runs.
    VmmStarted {
        /// Its process id.
        pid: u32,
        /// What it was started from: `boot`, `fork` or `spare`.
        from: &'static str,
        /// The template.
        #[serde(skip_serializing_if = "Option::is_none")]
        template: Option<String>,
    },
    /// The VM did not come up and was started once again.
    VmRestarted {
        /// Why.
        reason: String,
    },
    /// The agent in the guest has said hello.
    AgentHello,
    /// The guest has come this far.
    Milestone {
        /// Which step.
        milestone: Milestone,
        /// Milliseconds since the guest's kernel started.
        uptime_ms: u64,
    },
    /// The runner app has its registration and is about to start (`.tkn`).
    RunnerUp,
    /// The runner app waits for a job, as it says itself.
    Listening,
    /// A job was seen.
    JobStarted {
        /// Name of the job, as the runner app says it.
        job: String,
    },
    /// The job has ended.
    JobFinished {
        /// Result, as the runner app says it.
        result: String,
    },
    /// A line of the guest's output.
    Line {
        /// Who printed it.
        source: Source,
        /// The text.
        text: String,
    },
    /// Lines that no reader had room for.
    LinesDropped {
        /// How many.
        count: u64,
    },
    /// The runner is being ended from the outside.
    Stopping {
        /// Why.
        reason: String,
    },
    /// The entrypoint has ended.
    EntrypointExited {
        /// Exit status.
        code: Option<i32>,
        /// Signal.
        signal: Option<i32>,
    },
    /// The VM and its disk are gone.
    VmGone {
        /// How the VMM ended.
        exit: String,
    },
    /// The VM was left running, as asked.
    VmKept {
        /// Its run's folder.
        folder: std::path::PathBuf,
    },
    /// The registration is gone, or why it is not.
    RegistrationEnded {
        /// `deleted`, `gone` (the forge had removed it), or `busy` (left to the forge).
        how: &'static str,
    },
    /// Something that a person should read; the runner goes on.
    Warning {
        /// What, where, and what to do.
        message: String,
    },
    /// Nothing of this runner is left.
    Ended,
}

/// Where the events of one runner go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    sink: EventSink,
    loop_index: u32,
    runner: Option<RunnerRef>,
    dropped: u64,
}

/// The stream that all loops of a process share.
#[derive(Debug, Clone)]
pub struct EventSink {
    sender: mpsc::Sender<Event>,
    up: Option<mpsc::UnboundedSender<u32>>,
}

/// Makes the stream.
pub fn channel() -> (EventSink, mpsc::Receiver<Event>) {
    let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
    (EventSink { sender, up: None }, receiver)
}

impl EventSink {
    /// The same stream, where the loop's number is told beside it when a runner is up. One number a runner: as many as
    /// an orchestrator has loops that start.
    pub(crate) fn telling_who_is_up(&self, up: mpsc::UnboundedSender<u32>) -> Self {
        Self { sender: self.sender.clone(), up: Some(up) }
    }

    /// The part of the stream that one loop writes about itself.
    pub fn of_loop(&self, loop_index: u32) -> Events {
        Events { sink: self.clone(), loop_index, runner: None, dropped: 0 }
    }

    /// The part of the stream that one runner writes.
    pub fn of(&self, loop_index: u32, runner: &RunnerId, name: &str) -> Events {
        let runner = RunnerRef { id: runner.clone(), name: name.to_owned() };
        Events { sink: self.clone(), loop_index, runner: Some(runner), dropped: 0 }
    }
}

impl Events {
    /// Tells what happened. Lines never wait for a slow reader; all else does, so that no state is lost.
    /// A reader that is gone is no error: the journal has what matters.
    pub async fn tell(&mut self, kind: EventKind) {
        if matches!(kind, EventKind::Line { .. }) {
            if self.sink.sender.try_send(self.event(kind)).is_err() {
                self.dropped += 1;
            }
            return;
        }
        if self.dropped > 0 {
            let count = std::mem::take(&mut self.dropped);
            let _ = self.sink.sender.send(self.event(EventKind::LinesDropped { count })).await;
        }
        let is_up = kind == EventKind::RunnerUp;
        let _ = self.sink.sender.send(self.event(kind)).await;
        // After the event: what follows from it comes after it in the stream.
        if let Some(up) = self.sink.up.as_ref().filter(|_| is_up) {
            let _ = up.send(self.loop_index);
        }
    }

    fn event(&self, kind: EventKind) -> Event {
        Event { at: Moment::now(), loop_index: self.loop_index, runner: self.runner.clone(), kind }
    }
}

/// The wall clock, milliseconds since 1970-01-01 UTC; 0 where it stands before that.
pub fn unix_ms() -> u64 {
    Moment::now().ms()
}

impl Serialize for RunnerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_that_nobody_reads_are_counted_not_kept() {
        let (sink, mut receiver) = channel();
        let id = RunnerId::random(0);
        let mut events = sink.of(0, &id, "x");
        for _ in 0..QUEUE_LENGTH + 10 {
            events.tell(EventKind::Line { source: Source::Agent, text: "flood".to_owned() }).await;
        }
        for _ in 0..QUEUE_LENGTH {
            receiver.recv().await.expect("a line");
        }
        events.tell(EventKind::AgentHello).await;
        assert_eq!(receiver.recv().await.expect("count").kind, EventKind::LinesDropped { count: 10 });
        assert_eq!(receiver.recv().await.expect("hello").kind, EventKind::AgentHello);
    }
}

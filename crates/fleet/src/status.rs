//! What an instance's loops do, as a published snapshot: `status.json` in its folder, read by `dayfly ps`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use dayfly_host::file;
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind};

/// Name of the file in an instance's folder.
pub const FILE_NAME: &str = "status.json";

/// How far a loop's current runner has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The image is fetched, the registration asked for.
    #[default]
    Preparing,
    /// Its VM comes up.
    Booting,
    /// The runner app starts.
    Starting,
    /// It waits for a job.
    Idle,
    /// It has one.
    Busy,
    /// It is being ended, or has ended.
    Ending,
    /// The loop waits before it tries again.
    Pausing,
    /// The loop has ended for good.
    Ended,
}

impl Phase {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Booting => "booting",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Ending => "ending",
            Self::Pausing => "pausing",
            Self::Ended => "ended",
        }
    }
}

/// One loop.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoopStatus {
    /// How far it has come.
    pub phase: Phase,
    /// Since when, milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// Its current runner's id.
    pub runner: Option<String>,
    /// Name of that runner's VM and registration.
    pub name: Option<String>,
    /// Its id at the forge.
    pub registration: Option<u64>,
    /// Process of its VMM.
    pub vmm: Option<u32>,
    /// The job that it has, as the runner app names it.
    pub job: Option<String>,
    /// Jobs that ended in this loop.
    pub jobs: u64,
    /// How often the loop was replaced, or a runner of it could not be made.
    pub failures: u64,
    /// The last thing that went wrong.
    pub trouble: Option<String>,
}

/// All loops of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub pid: u32,
    /// When it began, milliseconds since 1970-01-01 UTC.
    pub began_ms: u64,
    /// Its loops by their number.
    pub loops: BTreeMap<u32, LoopStatus>,
}

impl Status {
    /// Of this process, without any loop yet.
    pub fn begin() -> Self {
        Self { pid: std::process::id(), began_ms: crate::event::unix_ms(), loops: BTreeMap::new() }
    }

    /// Takes an event in. Returns whether anything has changed by it.
    pub fn take(&mut self, event: &Event) -> bool {
        let status = self.loops.entry(event.loop_index).or_default();
        let before = status.clone();
        status.take(event);
        *status != before
    }

    /// Writes it into an instance's folder, whole or not at all.
    ///
    /// # Errors
    /// No space, no rights.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        file::replace(&folder.join(FILE_NAME), &serde_json::to_vec(self)?)
    }

    /// Reads that of an instance; none where there is none yet.
    ///
    /// # Errors
    /// It is there and cannot be read or understood.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(FILE_NAME)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl LoopStatus {
    fn take(&mut self, event: &Event) {
        if let Some(runner) = &event.runner
            && self.runner.as_deref() != Some(runner.id.as_str())
        {
            *self = Self {
                runner: Some(runner.id.to_string()),
                name: Some(runner.name.clone()),
                jobs: self.jobs,
                failures: self.failures,
                trouble: self.trouble.take(),
                ..Self::default()
            };
            self.since_ms = event.at.ms();
        }
        match &event.kind {
            EventKind::Registered { registration } => self.registration = Some(*registration),
            EventKind::VmmStarted { pid, .. } => self.vmm = Some(*pid),
            EventKind::JobStarted { job } => self.job = Some(job.clone()),
            EventKind::JobFinished { .. } => {
                self.job = None;
                self.jobs += 1;
            }
            EventKind::VmGone { .. } => self.vmm = None,
            EventKind::RegistrationEnded { how } if *how != "busy" => self.registration = None,
            EventKind::LoopReplaced { why, .. } | EventKind::Retrying { why, .. } => {
                self.failures += 1;
                self.trouble = Some(why.clone());
            }
            _ => {}
        }
        if let Some(phase) = phase_after(&event.kind)
            && phase != self.phase
        {
            (self.phase, self.since_ms) = (phase, event.at.ms());
        }
    }
}

/// What an event says about how far things have come.
fn phase_after(kind: &EventKind) -> Option<Phase> {
    Some(match kind {
        EventKind::LoopStarted
        | EventKind::ImagePhase { .. }
        | EventKind::Pulled
        | EventKind::TemplateBuilding { .. }
        | EventKind::Registering => Phase::Preparing,
        EventKind::VmmStarted { .. } | EventKind::VmRestarted { .. } => Phase::Booting,
        EventKind::RunnerUp => Phase::Starting,
        EventKind::Listening => Phase::Idle,
        EventKind::JobStarted { .. } => Phase::Busy,
        EventKind::Stopping { .. } | EventKind::EntrypointExited { .. } | EventKind::VmGone { .. } => {
            Phase::Ending
        }
        EventKind::Retrying { .. } | EventKind::LoopReplaced { .. } => Phase::Pausing,
        EventKind::LoopEnded { .. } => Phase::Ended,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunnerId;
    use crate::event::RunnerRef;

    fn event(runner: Option<&RunnerId>, kind: EventKind) -> Event {
        let runner = runner.map(|id| RunnerRef { id: id.clone(), name: format!("p-{id}") });
        Event { at: crate::event::Moment::of_ms(7), loop_index: 1, runner, kind }
    }

    #[test]
    fn a_loop_is_followed_from_runner_to_runner() {
        let (first, second) = (RunnerId::random(1), RunnerId::random(1));
        let mut status = Status::default();
        for kind in [
            EventKind::Registering,
            EventKind::Registered { registration: 9 },
            EventKind::VmmStarted { pid: 4, from: "boot", template: None },
            EventKind::RunnerUp,
            EventKind::Listening,
            EventKind::JobStarted { job: "build".into() },
        ] {
            assert!(status.take(&event(Some(&first), kind)));
        }
        let busy = &status.loops[&1];
        assert_eq!((busy.phase, busy.registration, busy.vmm), (Phase::Busy, Some(9), Some(4)));
        assert_eq!(busy.job.as_deref(), Some("build"));
        status.take(&event(Some(&first), EventKind::JobFinished { result: "Succeeded".into() }));
        status.take(&event(Some(&second), EventKind::Registering));
        let next = &status.loops[&1];
        assert_eq!((next.phase, next.jobs, next.vmm, &next.job), (Phase::Preparing, 1, None, &None));
        assert_eq!(next.runner.as_deref(), Some(second.as_str()));
        assert!(!status.take(&event(Some(&second), EventKind::AgentHello)));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(Status::read(folder.path()).expect("none"), None);
        let mut status = Status::begin();
        status.take(&event(None, EventKind::LoopStarted));
        status.write(folder.path()).expect("write");
        assert_eq!(Status::read(folder.path()).expect("read"), Some(status));
    }
}

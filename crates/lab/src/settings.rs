//! What a lab is made with.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// What [`Lab::open`](super::Lab::open) needs.
#[derive(Debug, Clone)]
pub struct LabSettings {
    /// The folder of everything that outlives the process; made when missing. One lab at a time.
    pub data: PathBuf,
    /// The address that goes into JIT configs, where the caller names none. `None`: `http://10.0.2.2:PORT`, which is the
    /// listening port as the VMs of QEMU's user network see it. Later answers lead to where a runner's request came.
    pub runner_url: Option<String>,
    /// The admin token. `None`: the one in `data`, made there on the first start.
    pub token: Option<String>,
    /// The bounds.
    pub limits: Limits,
    /// The clock; tests take one of their own.
    pub clock: Clock,
}

impl LabSettings {
    /// A lab in a folder, everything else as usual.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            runner_url: None,
            token: None,
            limits: Limits::default(),
            clock: Clock::system(),
        }
    }
}

/// The bounds of a lab: every queue, buffer and wait has one.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A request's body. Log uploads come in pieces of about 2 MiB.
    pub body_bytes_max: usize,
    /// What is kept of one job's log; then a line says that it was cut.
    pub log_bytes_per_job_max: u64,
    /// The runs that are kept; the oldest finished ones go first.
    pub runs_max: usize,
    /// The jobs of all kept runs together; a dispatch beyond it is refused.
    pub jobs_max: usize,
    /// Registrations at one time.
    pub runners_max: usize,
    /// Repositories.
    pub repositories_max: usize,
    /// Workflow files of one repository; also its variables and its secrets.
    pub entries_per_repository_max: usize,
    /// How long an idle message poll is held. Runner apps expect about 50 seconds.
    pub long_poll: Duration,
    /// How long a job stays reserved for a runner without a renewal. Runner apps renew every 60 seconds.
    pub job_lock: Duration,
    /// How long a runner may take from a job's message to acquiring it; then others are offered the job.
    pub assignment: Duration,
    /// A runner whose last poll is older than this is offline.
    pub presence: Duration,
    /// An unused registration for one job is removed after this.
    pub registration_idle: Duration,
    /// The same for a registration for job after job.
    pub persistent_registration_idle: Duration,
    /// Connections at one time.
    pub connections_max: usize,
    /// How long a connection may stand without a request.
    pub connection_idle: Duration,
    /// Requests waiting for the task that owns the state.
    pub requests_waiting_max: usize,
    /// Events that wait for a subscriber that is behind. One upload of a log brings tens of thousands at once.
    pub events_waiting_max: usize,
    /// Events kept for subscribers that come later (`GET /lab/v1/events?since=`).
    pub events_kept_max: usize,
    /// RSA keys made ahead for JIT configs.
    pub keys_ready: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 * 1024 * 1024,
            log_bytes_per_job_max: 64 * 1024 * 1024,
            runs_max: 1000,
            jobs_max: 20_000,
            runners_max: 10_000,
            repositories_max: 1000,
            entries_per_repository_max: 1000,
            long_poll: Duration::from_secs(50),
            job_lock: Duration::from_secs(150),
            assignment: Duration::from_secs(60),
            presence: Duration::from_secs(75),
            registration_idle: Duration::from_secs(24 * 3600),
            persistent_registration_idle: Duration::from_secs(14 * 24 * 3600),
            connections_max: 4096,
            connection_idle: Duration::from_secs(120),
            requests_waiting_max: 1024,
            events_waiting_max: 128 * 1024,
            events_kept_max: 64 * 1024,
            keys_ready: 3,
        }
    }
}

/// The wall clock, which tests can put forward.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The system's.
    pub fn system() -> Self {
        Self::default()
    }

    /// Puts this clock and its clones forward.
    pub fn advance(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4);
        self.ahead_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        i64::try_from(dayfly_host::clock::since_epoch().as_millis()).unwrap_or(i64::MAX / 4)
            + self.ahead_ms.load(Ordering::SeqCst)
    }
}

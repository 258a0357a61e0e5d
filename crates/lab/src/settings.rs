//! Settings and limits of a lab, and its clock.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use secrecy::SecretString;

use crate::fault::FaultSpec;

/// Settings for [`Lab::open`](super::Lab::open).
#[derive(Debug, Clone)]
pub struct LabSettings {
    /// The folder of all data that outlives the process; created if it is missing. Only one lab at a time may use it.
    pub data: PathBuf,
    /// The address in JIT configs if the caller names none. `None` means `http://10.0.2.2:PORT`, which is the listening
    /// port as VMs on QEMU's user network see it. Later answers contain the address that the runner's request used.
    pub runner_url: Option<String>,
    /// The admin token. `None` means the token in `data`, which is created there on the first start.
    pub token: Option<SecretString>,
    /// The limits.
    pub limits: Limits,
    /// The clock. Tests use their own.
    pub clock: Clock,
    /// The seed of the fault desk. `None` means a random one, which the desk reports.
    pub fault_seed: Option<u64>,
    /// The first rules of the fault desk.
    pub faults: Vec<FaultSpec>,
}

impl LabSettings {
    /// Returns settings for a lab in a folder, with defaults for all else.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            runner_url: None,
            token: None,
            limits: Limits::default(),
            clock: Clock::system(),
            fault_seed: None,
            faults: Vec::new(),
        }
    }
}

/// The limits of a lab. Every queue, buffer and wait has one.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest body of a request, in bytes. Runners upload logs in pieces of about 2 MiB.
    pub body_bytes_max: usize,
    /// Most bytes of one job's log that are stored. After that a line says that the log was cut.
    pub log_bytes_per_job_max: u64,
    /// Most runs that are stored; the oldest finished runs are removed first.
    pub runs_max: usize,
    /// Most jobs of all stored runs together. Above it the oldest finished runs are removed, and a dispatch is refused if
    /// no run is finished.
    pub jobs_max: usize,
    /// Most registrations at one time.
    pub runners_max: usize,
    /// Most repositories.
    pub repositories_max: usize,
    /// Most workflow files of one repository; also most variables and most secrets.
    pub entries_per_repository_max: usize,
    /// How long a message poll is held if no message comes. Runner apps expect about 50 seconds.
    pub long_poll: Duration,
    /// How long a job stays reserved for a runner that does not renew it. Runner apps renew every 60 seconds.
    pub job_lock: Duration,
    /// How long a runner may take from receiving a job's message to acquiring the job. After that the job is offered to
    /// others.
    pub assignment: Duration,
    /// Age of a runner's last poll above which the runner is offline.
    pub presence: Duration,
    /// Idle time after which an ephemeral registration (for one job) is removed.
    pub registration_idle: Duration,
    /// Idle time after which a persistent registration (for job after job) is removed.
    pub persistent_registration_idle: Duration,
    /// Most scale sets.
    pub scale_sets_max: usize,
    /// Time after the last call of a scale set's listener after which its session ends. Until then no other listener can
    /// open one.
    pub listener_idle: Duration,
    /// Most messages about jobs that wait for the listener of one scale set; the oldest are dropped first.
    pub listener_notices_max: usize,
    /// Most webhooks.
    pub hooks_max: usize,
    /// Most deliveries of one webhook that wait because earlier ones have no answer yet. Those above it fail.
    pub hook_deliveries_waiting_max: usize,
    /// Most deliveries of one webhook that are stored for its list, and that can be sent again.
    pub hook_deliveries_kept_max: usize,
    /// How long the receiver of a delivery may take to answer. GitHub waits as long.
    pub hook_answer: Duration,
    /// Most connections at one time.
    pub connections_max: usize,
    /// How long a connection may stay open without a request.
    pub connection_idle: Duration,
    /// Most requests that wait for the thread that owns the state.
    pub requests_waiting_max: usize,
    /// Most events that wait for a subscriber that is behind. One upload of a log brings tens of thousands at once.
    pub events_waiting_max: usize,
    /// Most events that are stored for later subscribers (`GET /lab/v1/events?since=`).
    pub events_kept_max: usize,
    /// Number of RSA keys that are generated in advance for JIT configs.
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
            scale_sets_max: 1000,
            listener_idle: Duration::from_secs(240),
            listener_notices_max: 20_000,
            hooks_max: 100,
            hook_deliveries_waiting_max: 250,
            hook_deliveries_kept_max: 500,
            hook_answer: Duration::from_secs(10),
            connections_max: 4096,
            connection_idle: Duration::from_secs(120),
            requests_waiting_max: 1024,
            events_waiting_max: 128 * 1024,
            events_kept_max: 64 * 1024,
            keys_ready: 3,
        }
    }
}

/// The wall clock, which tests can move forward.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// Moves this clock and its clones forward.
    pub fn advance(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX / 4);
        self.ahead_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Returns the milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        i64::try_from(dayfly_host::clock::since_epoch().as_millis()).unwrap_or(i64::MAX / 4)
            + self.ahead_ms.load(Ordering::SeqCst)
    }
}

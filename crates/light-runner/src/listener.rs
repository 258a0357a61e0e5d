//! The listener: holds the session, polls, takes jobs and watches over their workers.
//!
//! ```text
//! sign in -> session -> poll (Online) -> acquire -> renew -> worker -> session closed
//!                         ^                 |  poll (Busy), renewals, signals
//!                         +-----------------+  if the registration is for more than one job
//! ```
//!
//! Lines, waits and exit statuses are those of actions/runner 2.336.0 (read in its sources, and recorded).

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use dayfly_guest::runner_app::JobResult;
use serde_json::Value as Json;
use tokio::sync::watch;

use crate::client::{Client, JobClient, Message, RunnerStatus};
use crate::http::CallError;
use crate::mood::Mood;
use crate::script::Order;
use crate::worker::{Surroundings, WorkerEnd, persist, work};
use crate::{Exit, Say, Settings};

/// Polls that fail in a row before the app exits.
const POLLS_FAILED_MAX: u32 = 10;
/// Attempts to open a session while there is another one, two pauses apart: 4 minutes with the usual pause.
const SESSION_CONFLICTS_MAX: u32 = 9;
/// How long a worker takes to exit once it has completed its job. The poll stays open meanwhile.
const WORKER_EXIT: Duration = Duration::from_millis(20);

/// A listener of one registered runner.
pub(crate) struct Listener<'a> {
    pub(crate) client: Client,
    pub(crate) settings: &'a Settings,
    pub(crate) say: Say<'a>,
    /// True when the app was told to stop.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) polls_failed: u32,
}

/// An event while a job runs.
enum Happened {
    Worked(WorkerEnd),
    Polled(Result<Option<Message>, Exit>),
    RenewalDue,
    Stopped,
}

impl Listener<'_> {
    fn say(&self, line: &str) {
        (self.say)(&format!("{}: {line}", time()));
    }

    /// Runs until the app exits.
    pub(crate) async fn run(mut self) -> Exit {
        match self.connect().await {
            Ok(()) => {}
            Err(exit) => return exit,
        }
        (self.say)("\n√ Connected to GitHub\n");
        (self.say)(&format!("Current runner version: '{}'", crate::VERSION));
        self.say("Listening for Jobs");
        let exit = self.listen().await;
        if exit != Exit::Vanished {
            let closed = self.client.close_session().await;
            if let Err(error) = closed {
                (self.say)(&format!("the session was not closed: {error}"));
            }
        }
        exit
    }

    async fn listen(&mut self) -> Exit {
        let is_ephemeral = self.client.config().runner.ephemeral.eq_ignore_ascii_case("true");
        loop {
            let message = match self.wait_for_message().await {
                Ok(message) => message,
                Err(exit) => return exit,
            };
            // A cancellation of a job that is over already.
            if message.kind != "RunnerJobRequest" {
                continue;
            }
            let Some((job, calls)) = self.acquire(&message.body).await else {
                // The forge may send the same message again at once.
                tokio::time::sleep(self.settings.pause).await;
                continue;
            };
            let name = job["jobDisplayName"].as_str().unwrap_or_default().to_owned();
            self.say(&format!("Running job: {name}"));
            let WorkerEnd::Done(result) = self.watch_over(job, &calls).await else { return Exit::Vanished };
            self.say(&format!("Job {name} completed with result: {result:?}"));
            if self.settings.mood == Some(Mood::HangAfterJob) {
                stopped(&mut self.stop).await;
                return Exit::Success;
            }
            if is_ephemeral || *self.stop.borrow() {
                return Exit::Success;
            }
        }
    }

    /// Signs in and opens the session.
    async fn connect(&mut self) -> Result<(), Exit> {
        let mut failures = 0;
        loop {
            let opened = match self.client.sign_in().await {
                Ok(_) => self.client.open_session().await,
                Err(error) => Err(error),
            };
            let Err(error) = opened else { return Ok(()) };
            failures += 1;
            let pause = self.after_no_session(&error, failures)?;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut self.stop) => return Err(Exit::Success),
            }
        }
    }

    /// Returns the pause before the next attempt to open a session, or the app's exit.
    fn after_no_session(&self, error: &CallError, failures: u32) -> Result<Duration, Exit> {
        let pause = 2 * self.settings.pause;
        match error.status() {
            Some(409) if failures < SESSION_CONFLICTS_MAX => {
                self.say("A session for this runner already exists.");
                Ok(pause)
            }
            Some(409) => {
                let seconds = (failures * pause).as_secs();
                self.say(&format!(
                    "Stop retry on SessionConflictException after retried for {seconds} seconds."
                ));
                Err(Exit::SessionConflict)
            }
            _ if error.is_temporary() && failures < POLLS_FAILED_MAX => {
                self.say(&format!("Runner connect error: {error}. Retrying until reconnected."));
                Ok(pause)
            }
            _ if error.is_temporary() => Err(Exit::Retryable),
            Some(400 | 401) => {
                self.say(
                    "Failed to create a session. The runner registration has been deleted from the server, please \
                     re-configure.",
                );
                Err(Exit::Terminated)
            }
            _ => {
                self.say(&format!("Failed to create session. {error}"));
                Err(Exit::Terminated)
            }
        }
    }

    /// Polls until a message comes.
    async fn wait_for_message(&mut self) -> Result<Message, Exit> {
        let mut stop = self.stop.clone();
        loop {
            let polled = tokio::select! {
                biased;
                () = stopped(&mut stop) => return Err(Exit::Success),
                polled = self.poll(RunnerStatus::Online) => polled?,
            };
            if let Some(message) = polled {
                return Ok(message);
            }
        }
    }

    /// Polls once. A token that is too old is exchanged for a new one.
    async fn poll(&mut self, status: RunnerStatus) -> Result<Option<Message>, Exit> {
        let mut polled = self.client.poll(status).await;
        if polled.as_ref().is_err_and(|error| error.status() == Some(401)) {
            polled = match self.client.sign_in().await {
                Ok(_) => self.client.poll(status).await,
                Err(error) => Err(error),
            };
        }
        self.judge(polled).await
    }

    /// Decides how to go on after a poll, and waits if it failed. An error is the app's exit.
    async fn judge(&mut self, polled: Result<Option<Message>, CallError>) -> Result<Option<Message>, Exit> {
        let error = match polled {
            Ok(message) => {
                self.polls_failed = 0;
                return Ok(message);
            }
            Err(error) => error,
        };
        match error.kind() {
            "RunnerNotFound" => {
                self.say("The runner no longer exists on the server. Cleaning up local configuration.");
                return Err(Exit::Success);
            }
            "RunnerVersionTooOld" => return Err(Exit::VersionDeprecated),
            "RunnerSessionInvalid" => {
                self.connect().await?;
                return Ok(None);
            }
            _ => {}
        }
        self.polls_failed += 1;
        if self.polls_failed >= POLLS_FAILED_MAX {
            self.say(&format!("{POLLS_FAILED_MAX} polls failed in a row: {error}"));
            return Err(Exit::Retryable);
        }
        self.say(&format!("Runner connect error: {error}. Retrying until reconnected."));
        tokio::time::sleep(self.settings.pause).await;
        Ok(None)
    }

    /// Acquires a job and renews it for the first time. A job that cannot be had is skipped.
    async fn acquire(&self, request: &Json) -> Option<(Json, JobClient)> {
        let url = request["run_service_url"].as_str().unwrap_or_default();
        let id = request["runner_request_id"].as_str().unwrap_or_default();
        tokio::time::sleep(self.settings.slowness).await;
        // Other than the refusals 404, 409 and 422, errors may be gone at the next attempt.
        let job = persist(|| self.client.acquire(url, id), "acquirejob", self.say).await?;
        let calls = match self.client.of_job(&job) {
            Ok(calls) => calls,
            Err(error) => {
                self.say(&error.to_string());
                return None;
            }
        };
        persist(|| calls.renew(), "renewjob", self.say).await?;
        Some((job, calls))
    }

    /// Runs a job's worker. Meanwhile polls, renews the job, and passes orders on.
    async fn watch_over(&mut self, job: Json, calls: &JobClient) -> WorkerEnd {
        let (orderer, orders) = watch::channel(Order::GoOn);
        let name = self.client.config().runner.agent_name.clone();
        let around = Surroundings {
            settings: self.settings,
            say: self.say,
            calls,
            runner_name: &name,
            work: self.work_folder(),
        };
        let mut worker = pin!(async {
            let end = work(around, job, orders).await;
            tokio::time::sleep(WORKER_EXIT).await;
            end
        });
        if self.settings.mood == Some(Mood::LoseSession) {
            let _ = self.client.close_session().await;
        }
        let renewal = self.settings.renewal;
        let mut renewals = tokio::time::interval_at(tokio::time::Instant::now() + renewal, renewal);
        let mut stop = self.stop.clone();
        loop {
            let happened = tokio::select! {
                end = &mut worker => Happened::Worked(end),
                polled = self.poll(RunnerStatus::Busy) => Happened::Polled(polled),
                _ = renewals.tick() => Happened::RenewalDue,
                () = stopped(&mut stop), if *orderer.borrow() < Order::ShutDown => Happened::Stopped,
            };
            match happened {
                Happened::Worked(end) => return end,
                Happened::RenewalDue => {
                    if calls.renew().await.is_err_and(|error| error.status() == Some(404)) {
                        order(&orderer, Order::Abandon);
                    }
                }
                Happened::Stopped => {
                    (self.say)("Exiting...");
                    order(&orderer, Order::ShutDown);
                }
                Happened::Polled(Ok(Some(message))) if cancels(&message, calls) => {
                    order(&orderer, Order::Cancel);
                }
                Happened::Polled(Ok(_)) => {}
                // The listener shuts down and cancels the worker, even one that is just about to exit.
                Happened::Polled(Err(_)) => {
                    order(&orderer, Order::Cancel);
                    return match worker.await {
                        WorkerEnd::Done(_) => WorkerEnd::Done(JobResult::Canceled),
                        WorkerEnd::Vanished => WorkerEnd::Vanished,
                    };
                }
            }
        }
    }

    fn work_folder(&self) -> PathBuf {
        let named = &self.client.config().runner.work_folder;
        self.settings.folder.join(if named.is_empty() { "_work" } else { named })
    }
}

/// Gives an order to a worker, unless it has a stronger one.
fn order(orderer: &watch::Sender<Order>, order: Order) {
    orderer.send_if_modified(|given| {
        let is_stronger = order > *given;
        *given = order.max(*given);
        is_stronger
    });
}

/// Waits until the app gets the order to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The sender is gone, and no order to stop can come any more.
        std::future::pending::<()>().await;
    }
}

/// Returns true if a message cancels this job.
fn cancels(message: &Message, calls: &JobClient) -> bool {
    let job = message.body["jobId"].as_str().unwrap_or_default();
    message.kind == "JobCancellation" && job.eq_ignore_ascii_case(calls.job_id())
}

/// Returns the time that begins a listener's line: `2026-01-02 03:04:05Z`.
fn time() -> String {
    format!("{:.0}", jiff::Timestamp::now()).replacen('T', " ", 1)
}

//! dayfly's own clients against the failures of a forge that are known from GitHub, each played by the lab's fault desk. A test
//! asserts what the client does and the text that an admin reads.
//!
//! Registration and names:
//!
//! | failure | test |
//! | --- | --- |
//! | a registration token is too old | [`registration::a_token_of_the_service_that_has_ended_is_replaced_without_a_word`] |
//! | a replica refuses a new token | [`registration::a_token_that_a_replica_does_not_know_yet_is_tried_again`]; 404: forge, `a_registration_token_that_is_not_found_is_replaced_once` |
//! | 409: the reply with a JIT config is lost, or the name is taken | [`registration::a_lost_reply_leaves_a_runner_that_is_found_by_its_name`], [`registration::a_name_that_is_taken_is_said_and_not_tried_again`]; the next name: fleet, `runner_loop::tests` |
//! | `config.sh`: a runner of that name exists | lab, `a_name_that_is_taken_can_be_replaced_while_its_runner_is_idle` |
//! | 422 | [`registration::a_registration_that_cannot_be_is_not_tried_again`] |
//! | 404 for a missing permission | [`registration::a_refusal_names_the_permission_that_may_be_missing`]; at the start: dayfly, `prepare::tests` |
//! | 403 by integration | forge, `a_permission_that_the_owner_has_not_accepted_is_named_for_each_use` |
//! | a JIT config is started twice | [`registration::a_jit_config_that_is_started_twice_is_refused_the_second_time`] |
//! | a runner takes a job while it is removed: 204, 422, 404 | fleet, `registration::tests`, `reaper::tests` |
//! | `config.sh remove` fails, or looks in one group only | [`registration::a_runner_is_deleted_by_its_id_whatever_has_become_of_its_config`] |
//!
//! The listener of a scale set:
//!
//! | failure | test |
//! | --- | --- |
//! | 409: another session | [`listener::a_session_of_another_is_waited_for`]; the end of the wait: forge, `a_session_that_another_program_holds_is_waited_for` |
//! | 404: the scale set is gone | [`listener::a_scale_set_that_is_gone_is_created_again`] |
//! | a poll that is cut, empty or dropped, as by a proxy with a short time limit | [`listener::a_poll_without_a_whole_answer_is_no_message_and_the_counts_come_from_a_refresh`] |
//! | 401 on the queue | [`listener::the_token_of_a_queue_that_has_ended_is_renewed_without_a_word`], [`listener::a_session_that_cannot_be_refreshed_is_replaced`] |
//! | messages come again | [`listener::a_message_that_was_not_deleted_does_not_count_twice`], [`listener::a_deletion_whose_reply_is_lost_does_not_bring_the_message_back`] |
//! | assigned jobs that never come | [`listener::a_stolen_job_leaves_the_counts`]; the cap: fleet, `orchestrator::decide` |
//! | the runner's name exists | [`listener::a_runner_whose_reply_was_lost_is_replaced_by_one_of_the_same_name`], [`listener::a_name_that_stays_taken_is_said`] |
//! | the runner still has a job | [`listener::a_busy_runner_is_kept_and_removed_later`] |
//! | the admin token is near its end | forge, `a_token_is_renewed_a_minute_before_its_end` |
//!
//! Limits and incidents:
//!
//! | failure | test |
//! | --- | --- |
//! | the forge is not there at the start | dayfly, `prepare::tests`; e2e, `a_forge_that_is_not_there_at_the_start_is_waited_for_and_said_and_a_signal_ends_the_wait` |
//! | a small budget of calls | [`limits::looks_are_held_back_before_deletions`]; unchanged lists cost nothing: forge, `an_answer_that_has_not_changed_is_not_sent_again` |
//! | a secondary limit, a burst of registrations | [`limits::a_secondary_limit_is_said_once_and_holds_back_the_next_calls`]; forge, `a_burst_of_registrations_stays_below_the_points_of_a_minute`, `a_reset_that_is_near_is_waited_for_and_the_waiting_calls_are_spread` |
//! | 403 means several things | [`limits::a_secondary_limit_that_names_no_time_is_known_by_its_message`]; a permission: forge, `a_missing_permission_is_no_limit` |
//! | the token is refused from now on | [`limits::a_token_that_is_refused_is_not_tried_again`]; of an App: forge, `a_token_that_the_forge_refuses_in_the_middle_of_its_life_is_replaced_once`, `a_new_token_that_the_forge_refuses_is_not_replaced` |
//! | a burst of 5xx | [`limits::a_look_survives_a_short_burst_of_failures_and_a_registration_is_not_repeated`] |
//! | deliveries get lost, or come twice or late | [`limits::a_job_whose_delivery_was_lost_is_in_the_lists`]; the fold: fleet, `demand::webhook::fold` |
//! | a repository has a new name | forge, `a_redirected_deletion_is_an_error_that_names_the_address` |
//! | members and ids that a newer forge may send | [`limits::answers_of_a_newer_forge_are_read`] |
//!
//! A job that runs again has a new id, so nothing that dayfly remembers is about it; the lab has no such call.

#![expect(clippy::unwrap_used, reason = "tests")]

mod limits;
mod listener;
mod registration;

use std::time::Duration;

use dayfly_forge::scale_set::{NewScaleSet, ScaleSet, ScaleSetClient};
use dayfly_forge::{ApiBase, Credential, Dispatch, Forge, JitRequest, RunnerScope};
use dayfly_lab::fault::FaultSpec;
use dayfly_lab::{Clock, Lab, LabSettings, Limits};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Longest time that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// A job that waits for a runner with the label `set`.
const WORKFLOW: &str =
    "on: workflow_dispatch\njobs:\n  job:\n    runs-on: set\n    steps:\n      - run: echo\n";

/// A lab, its admin, and a client that is held against it. The two have budgets of their own.
struct Stage {
    admin: Forge,
    forge: Forge,
    clock: Clock,
    url: String,
    token: String,
    _folder: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let clock = Clock::system();
        let settings = LabSettings {
            runner_url: Some(url.clone()),
            limits: Limits { long_poll: Duration::from_millis(300), keys_ready: 1, ..Limits::default() },
            clock: clock.clone(),
            fault_seed: Some(1),
            ..LabSettings::new(folder.path())
        };
        let lab = Lab::open(settings).unwrap();
        let client = || {
            let credential = Credential::token(lab.token().clone());
            Forge::new(ApiBase::from_host_or_url(&url).unwrap(), credential).unwrap()
        };
        let (admin, forge) = (client(), client());
        let token = lab.token().expose_secret().to_owned();
        tokio::spawn(async move { lab.serve(listener, std::future::pending()).await.unwrap() });
        Self { admin, forge, clock, url, token, _folder: folder }
    }

    /// Orders a fault.
    async fn order(&self, text: &str) {
        let spec: FaultSpec = text.parse().unwrap();
        self.admin.add_lab_fault(json!(spec)).await.unwrap();
    }

    /// Counts the calls of an operation from now on, by a fault that changes nothing.
    async fn count(&self, operation: &str) {
        self.order(&format!("delay-reply,on={operation},value=0")).await;
    }

    /// Returns the number of calls since [`Self::count`].
    async fn counted(&self) -> u64 {
        self.rules().await.iter().find(|rule| rule["fault"] == "delay-reply").unwrap()["fired"]
            .as_u64()
            .unwrap()
    }

    /// Returns how often a fault has happened.
    async fn happened(&self, fault: &str) -> u64 {
        let rules = self.rules().await;
        rules.iter().filter(|rule| rule["fault"] == fault).map(|rule| rule["fired"].as_u64().unwrap()).sum()
    }

    async fn rules(&self) -> Vec<Value> {
        self.admin.lab_faults().await.unwrap()["rules"].as_array().unwrap().clone()
    }

    /// Returns a text as an admin reads it, without what differs from run to run: the port and times.
    fn shown(&self, text: impl ToString) -> String {
        let text = text.to_string().replace(&self.url, "LAB");
        ["next attempt in ", "try again in ", "(failure 2 in "]
            .iter()
            .fold(text, |text, before| without_number(&text, before))
    }

    async fn dispatch(&self) -> u64 {
        self.admin.put_workflow("o", "r", "w.yml", WORKFLOW).await.unwrap();
        self.admin.dispatch("o", "r", "w.yml", &Dispatch::default()).await.unwrap()
    }

    /// Creates a webhook, whose receiver does not exist: the fault desk loses its deliveries before they are sent.
    async fn make_hook(&self) {
        // Another test may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let hook = json!({
            "name": "web", "active": true, "events": ["workflow_job"],
            "config": {"url": "http://127.0.0.1:9/hook", "content_type": "json", "secret": "s3cret"},
        });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let call = client.post(format!("{}/api/v3/repos/o/r/hooks", self.url)).bearer_auth(&self.token);
        assert_eq!(call.json(&hook).send().await.unwrap().status().as_u16(), 201);
    }

    fn scale_sets(&self) -> ScaleSetClient {
        ScaleSetClient::new(self.forge.clone(), scope())
    }

    /// Creates a scale set "set", by the admin.
    async fn scale_set(&self) -> ScaleSet {
        let new = NewScaleSet { name: "set".to_owned(), group_id: 1, labels: Vec::new() };
        ScaleSetClient::new(self.admin.clone(), scope()).create_scale_set(&new).await.unwrap()
    }
}

/// Replaces the number after `before` by a dash.
fn without_number(text: &str, before: &str) -> String {
    match text.split_once(before) {
        Some((start, end)) => {
            format!("{start}{before}-{}", end.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => text.to_owned(),
    }
}

fn scope() -> RunnerScope {
    RunnerScope::Repository { owner: "o".into(), name: "r".into() }
}

fn request(name: &str) -> JitRequest {
    let labels = vec!["set".to_owned()];
    JitRequest { name: name.into(), group_id: 1, labels, work_folder: "_work".into(), runner_url: None }
}

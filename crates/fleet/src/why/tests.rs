use super::*;
use crate::cause::Cause;
use crate::orchestrator::{Scarce, Wait};
use crate::status::{ForgeTrouble, Phase, PoolState, PoolStatus};

const NOW_MS: u64 = 1_000_000_000;

fn serves(name: &str, labels: &[&str]) -> Serves {
    Serves {
        pool: Some(name.to_owned()),
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
        ..crate::recovery::tests::serves()
    }
}

/// Returns a process with the pool `build`, for which three jobs wait; a change of it is the reason.
fn pool(change: impl FnOnce(&mut PoolStatus, &mut Status)) -> Situation {
    let job = |id: u64, name: &str| SeenJob {
        id,
        name: Some(name.to_owned()),
        repository: Some("acme/app".to_owned()),
        queued_ms: Some(NOW_MS - 600_000),
        seen_ms: Some(NOW_MS - 590_000 + id),
        ..SeenJob::default()
    };
    let jobs = [job(40, "lint"), job(41, "test"), job(42, "deploy")].map(|job| (job.id, job));
    let name = Some("build".to_owned());
    let mut pool = PoolStatus { name: name.clone(), waiting: 3, jobs: jobs.into(), ..PoolStatus::default() };
    let mut status = Status::default();
    for (index, phase) in [(1001, Phase::Busy), (1002, Phase::Idle)] {
        let job = (phase == Phase::Busy).then(|| "release".to_owned());
        let runner = Some(format!("{index}-aaaaaaa"));
        let (pool, since_ms) = (name.clone(), NOW_MS - 300_000);
        status
            .loops
            .insert(index, LoopStatus { pool, phase, job, runner, since_ms, ..LoopStatus::default() });
    }
    change(&mut pool, &mut status);
    status.pools.insert(1000, pool);
    let serves = vec![
        serves("build", &["self-hosted", "Linux", "X64", "build"]),
        serves("gpu", &["self-hosted", "Linux", "X64", "gpu"]),
    ];
    let process = Process { instance: "k3V9x0qA".to_owned(), serves, status };
    Situation { processes: vec![process], now_ms: NOW_MS, ..Situation::default() }
}

fn text(reasons: &[Reason]) -> String {
    let line = |reason: &Reason| {
        let todo = reason.todo.as_ref().map(|todo| format!("\n  -> {todo}")).unwrap_or_default();
        format!("[{}] {}{todo}", reason.reason, reason.text)
    };
    reasons.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn of_pool(change: impl FnOnce(&mut PoolStatus, &mut Status)) -> String {
    text(&explain("build", &pool(change)))
}

fn waits(wait: Wait) -> String {
    of_pool(|pool, _| pool.wait = Some(wait))
}

fn forge(cause: Cause, message: &str) -> String {
    of_pool(|pool, _| {
        let (source, message) = ("poll".to_owned(), message.to_owned());
        pool.forge
            .insert(source.clone(), ForgeTrouble { source, since_ms: NOW_MS - 240_000, cause, message });
    })
}

fn failing(cause: Cause, words: &str) -> String {
    of_pool(|pool, status| {
        pool.wait = Some(Wait::Pausing);
        let last = status.loops.get_mut(&1002).expect("a loop");
        (last.phase, last.cause, last.trouble) = (Phase::Pausing, Some(cause), Some(words.to_owned()));
    })
}

fn run(fields: serde_json::Value) -> String {
    run_with(fields, None)
}

/// Returns the explanation of a run, whose machine is kept until a time if one is given.
fn run_with(fields: serde_json::Value, kept_until_s: Option<i64>) -> String {
    let mut all = serde_json::json!({
        "runner": "1-k3V9x0q", "name": "p-1-k3V9x0q", "loop": 1, "pool": "build", "job": "test", "job_id": 39, "jobs": 1,
        "how": "job_done", "times": {
            "queued_ms": NOW_MS - 900_000, "acquired_ms": NOW_MS - 700_000, "over_ms": NOW_MS - 60_000 },
    });
    all.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    let run = serde_json::from_value(all).expect("a record");
    let kept = kept_until_s.map(|until_s| ("1-k3V9x0q".to_owned(), until_s)).into_iter().collect();
    let situation = Situation { runs: vec![run], kept, ..pool(|_, _| {}) };
    let of_run = explain("1-k3V9x0q", &situation);
    assert_eq!(explain("p-1-k3V9x0q", &situation), of_run);
    text(&of_run)
}

#[test]
fn a_pool_that_is_full_says_how_many_runners_it_may_have() {
    insta::assert_snapshot!(waits(Wait::Full { max: 2 }));
}

#[test]
fn a_host_without_room_says_which_limit_is_used_up() {
    let all = [(Scarce::Machines, 4), (Scarce::Vcpus, 16), (Scarce::MemoryMib, 65_536)];
    insta::assert_snapshot!(all.map(|(scarce, limit)| waits(Wait::Budget { scarce, limit })).join("\n\n"));
}

#[test]
fn scratch_space_that_is_used_up_says_whose_limit_it_is_and_where_the_space_is() {
    let all = [(Scarce::ScratchMib, 200 << 10), (Scarce::PoolScratchMib, 1500)];
    let all = all.map(|(scarce, limit)| waits(Wait::Budget { scarce, limit }));
    insta::assert_snapshot!([all.join("\n\n"), waits(Wait::Measuring)].join("\n\n"));
}

#[test]
fn another_pools_turn_and_runners_that_start_are_no_trouble() {
    insta::assert_snapshot!([waits(Wait::Turn), waits(Wait::Starting)].join("\n\n"));
}

#[test]
fn a_rate_limit_has_an_end() {
    insta::assert_snapshot!(forge(
        Cause::RateLimit { until_ms: NOW_MS + 1_500_000 },
        "cannot list the jobs: used up"
    ));
}

#[test]
fn a_forge_that_does_not_answer_says_since_when() {
    insta::assert_snapshot!(forge(Cause::Unreachable, "cannot list the jobs: https://f does not answer"));
}

#[test]
fn a_credential_that_is_refused_leads_to_the_check_of_permissions() {
    insta::assert_snapshot!(forge(Cause::Refused, "cannot list the jobs: the token may not do that"));
}

#[test]
fn runners_that_fail_say_why_and_what_helps() {
    let all = [
        (Cause::Image, "no image ghcr.io/acme/ci:1: 404"),
        (Cause::AppTooOld, "the runner app of p-2 ended before it had a job; the last lines:\n  x"),
        (Cause::App, "the runner app of p-2 could not be started"),
        (Cause::Machine, "the machine of p-2 never said hello"),
        (Cause::NoSpace, "no space for a machine's disk in /var/lib/dayfly"),
        (Cause::NoMemory, "no memory for a machine: 120 MiB are free, 352 MiB are needed at least"),
        (
            Cause::NoProcesses,
            "cannot start the machine's VMM: cannot start the launcher /proc/self/exe: EAGAIN",
        ),
        (Cause::NoDescriptors, "cannot make the machine's disk /var/lib/dayfly/x/scratch.img: EMFILE"),
        (Cause::Unreachable, "cannot register runner p-2: the forge answered 502"),
        (Cause::Refused, "cannot register runner p-2: 403"),
        (Cause::RateLimit { until_ms: NOW_MS + 60_000 }, "cannot register runner p-2: rate limit"),
        (Cause::Other, "the journal cannot be written"),
    ];
    insta::assert_snapshot!(all.map(|(cause, words)| failing(cause, words)).join("\n\n"));
}

#[test]
fn a_pool_that_an_administrator_has_stopped_says_so_and_how_to_resume_it() {
    let stopped = |state| {
        of_pool(|pool, _| {
            (pool.state, pool.since_ms, pool.wait) = (state, NOW_MS - 7_200_000, Some(Wait::Full { max: 2 }));
        })
    };
    insta::assert_snapshot!([stopped(PoolState::Paused), stopped(PoolState::Draining)].join("\n\n"));
}

#[test]
fn a_pool_that_was_given_up_says_why_and_what_starts_it_again() {
    let given_up = of_pool(|pool, _| {
        (pool.state, pool.since_ms) = (PoolState::GivenUp, NOW_MS - 7_200_000);
        pool.given_up = Some("pools.linux.mounts: the mount /x:/y: /x is not there".to_owned());
    });
    insta::assert_snapshot!(given_up);
}

#[test]
fn one_runner_and_one_job_are_not_told_in_the_plural() {
    let one = of_pool(|pool, status| {
        (pool.waiting, pool.wait) = (1, Some(Wait::Full { max: 1 }));
        status.loops.retain(|&index, _| index == 1001);
    });
    insta::assert_snapshot!(one);
}

#[test]
fn a_job_that_waits_says_how_many_are_ahead_and_what_holds_its_pool_up() {
    let situation = pool(|pool, _| pool.wait = Some(Wait::Full { max: 2 }));
    let of = |subject| text(&explain(subject, &situation));
    assert_eq!(of("deploy"), of("42"));
    insta::assert_snapshot!([of("40"), of("deploy")].join("\n\n"));
}

#[test]
fn a_job_that_runs_and_a_runner_without_one_are_named() {
    let situation = pool(|_, status| {
        let told = SeenJob { id: 39, name: Some("release".to_owned()), ..SeenJob::default() };
        status.loops.get_mut(&1001).expect("a loop").taken = Some(told);
    });
    let of = |subject| text(&explain(subject, &situation));
    assert_eq!(of("39"), of("1001-aaaaaaa"));
    insta::assert_snapshot!([of("release"), of("1002-aaaaaaa")].join("\n"));
}

#[test]
fn labels_that_no_pool_has_lead_to_the_nearest_one_and_others_to_their_pool() {
    let situation = pool(|_, _| {});
    let of = |labels: &[&str]| {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        text(&explain_labels(&labels, &situation))
    };
    insta::assert_snapshot!(
        [
            of(&["self-hosted", "arm64", "gpu"]),
            of(&["self-hosted", "linux", "BUILD"]),
            of(&["gpu"]),
            text(&explain_labels(&["x".to_owned()], &Situation::default())),
        ]
        .join("\n\n")
    );
}

#[test]
fn a_run_that_ended_says_how_and_who_is_to_blame() {
    let all = [
        serde_json::json!({"result": "Succeeded"}),
        serde_json::json!({"result": "Failed"}),
        serde_json::json!({"result": "Failed", "out_of_memory": "cc1plus"}),
        serde_json::json!({"conclusion": "failure", "disk_failed": "No space left on device"}),
        serde_json::json!({"how": "machine_lost", "why": "the VMM was killed by signal 9\nmore"}),
        serde_json::json!({"how": "machine_lost", "vmm_out_of_memory": "machine"}),
        serde_json::json!({"how": "machine_lost", "vmm_out_of_memory": "host"}),
        serde_json::json!({"how": "unregistered", "conclusion": "failure"}),
        serde_json::json!({}),
        serde_json::json!({"how": "job_too_long", "conclusion": "failure"}),
        serde_json::json!({"how": "stopped", "conclusion": "failure"}),
        serde_json::json!({"how": "process_died"}),
        serde_json::json!({"how": "not_up", "why": "cannot register", "job": null, "times": {"over_ms": 1}}),
        serde_json::json!({"how": "idle", "job": null, "times": {"over_ms": NOW_MS}}),
        serde_json::json!({"conclusion": "cancelled"}),
    ];
    insta::assert_snapshot!(all.map(run).join("\n\n"));
}

#[test]
fn a_run_whose_machine_is_kept_says_how_to_get_in() {
    let until_s = i64::try_from(NOW_MS / 1000).expect("a time") + 7200;
    insta::assert_snapshot!(run_with(serde_json::json!({"result": "Failed"}), Some(until_s)));
}

#[test]
fn a_pool_without_runners_and_jobs_is_idle_and_an_unknown_name_has_no_reason() {
    let situation = pool(|_, _| {});
    insta::assert_snapshot!(text(&explain("gpu", &situation)));
    assert!(explain("nothing", &situation).is_empty());
}

//! `dayfly lab serve` and `dayfly runner`, as an admin would run them: a forge here, loops there.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use dayfly_e2e::{Dayfly, OwnState, Running, processes_naming};
use dayfly_forge::client::{ApiBase, Dispatch, Forge, RunnerScope};
use rustix::process::Signal;

const OWNER: &str = "o";
const REPOSITORY: &str = "r";

/// How long a machine may take to come up and do a small job on a loaded host.
const PATIENCE: Duration = Duration::from_secs(300);

/// A lab in a process of its own.
struct LabProcess {
    process: Running,
    url: String,
    token: String,
    forge: Forge,
}

impl LabProcess {
    fn start() -> Self {
        let mut process = Dayfly::new(["lab", "serve", "--data", "lab", "--json"]).start();
        let listening = process.wait_for_event("listening");
        let url = listening["url"].as_str().expect("a url").to_owned();
        let token = listening["token"].as_str().expect("a token").to_owned();
        let base = ApiBase::from_host_or_url(&url).expect("an address");
        let forge = Forge::new(base, &token).expect("a client");
        Self { process, url, token, forge }
    }

    /// A loop for the lab's repository. Its token comes by the environment, as it should.
    fn runner<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> Running {
        let all = ["runner", "--json", "-g", &self.url, "-p", "o/r"];
        Dayfly::new(all.into_iter().chain(arguments)).env("RUNNER_PAT", &self.token).start()
    }

    async fn dispatch(&self, workflow: &str) -> u64 {
        self.forge.put_workflow(OWNER, REPOSITORY, "ci.yml", workflow).await.expect("the lab takes it");
        let dispatch = Dispatch { any_event: true, ..Dispatch::default() };
        self.forge.dispatch(OWNER, REPOSITORY, "ci.yml", &dispatch).await.expect("a run")
    }

    async fn conclusion_of(&self, run: u64) -> String {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let run = self.forge.run(OWNER, REPOSITORY, run).await.expect("the run");
            if let Some(conclusion) = run.conclusion {
                return conclusion;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        panic!("run {run} has not ended");
    }

    async fn registrations(&self) -> Vec<String> {
        let scope = RunnerScope::Repository { owner: OWNER.to_owned(), name: REPOSITORY.to_owned() };
        self.forge
            .list_runners(&scope)
            .await
            .expect("the list")
            .into_iter()
            .map(|runner| runner.name)
            .collect()
    }

    fn stop(self) {
        self.process.signal(Signal::TERM);
        self.process.wait().assert_status(143);
    }
}

#[tokio::test]
async fn three_runners_carry_out_three_jobs_in_three_machines() {
    let lab = LabProcess::start();
    let runners: Vec<Running> = (0..3).map(|_| lab.runner(["-r", "1", "-L", "three"])).collect();
    let workflow = "
on: workflow_dispatch
jobs:
  one:
    strategy: { matrix: { n: [1, 2, 3] } }
    runs-on: [self-hosted, three]
    steps:
      - run: echo \"host $(hostname) boot $(cat /proc/sys/kernel/random/boot_id)\"
";
    let run = lab.dispatch(workflow).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    let mut machines = HashSet::new();
    for job in lab.forge.jobs(OWNER, REPOSITORY, run).await.expect("jobs") {
        let log = lab.forge.job_log(OWNER, REPOSITORY, job.id).await.expect("its log");
        let line = log
            .lines()
            .find(|line| line.contains("boot ") && line.contains("host GH-runner"))
            .expect("its line");
        machines.insert(line.split("boot ").nth(1).expect("a boot id").to_owned());
    }
    assert_eq!(machines.len(), 3, "{machines:?}");
    for runner in runners {
        runner.wait().assert_status(0).assert_nothing_left();
    }
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}

#[tokio::test]
async fn an_idle_runner_is_ended_by_the_handshake_and_a_cancelled_job_ends() {
    let lab = LabProcess::start();
    let mut runner = lab.runner(["-L", "here"]);
    let first = runner.wait_for_event("runner_up")["name"].clone();
    let run = lab
        .dispatch("on: push\njobs: { a: { runs-on: here, steps: [{ run: echo in the middle; sleep 600 }] } }")
        .await;
    runner.wait_for_event("job_started");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(lab.forge.cancel_run(OWNER, REPOSITORY, run).await.expect("cancel"));
    assert_eq!(lab.conclusion_of(run).await, "cancelled");

    // The loop goes on with another runner, which waits for a job when the loop is ended.
    let second =
        runner.wait_for("another runner", |event| event["event"] == "listening" && event["name"] != first);
    let name = second["name"].as_str().expect("a name").to_owned();
    assert_eq!(lab.registrations().await, [name]);
    runner.signal(Signal::TERM);
    let ended = runner.wait();
    ended.assert_status(143).assert_nothing_left();
    let last = ended.events_of("entrypoint_exited").pop().expect("the entrypoint ended by itself");
    assert_eq!(last["code"], 5, "by .trm, not by a kill: {last}");
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}

#[tokio::test]
async fn after_kill_9_the_next_loop_of_the_repository_clears_up() {
    let lab = LabProcess::start();
    let state = OwnState::new();
    let loop_of = |arguments: &[&str]| {
        let all = ["runner", "--json", "-g", &lab.url, "-p", "o/r", "-L", "here"];
        let all = all.into_iter().chain(arguments.iter().copied());
        Dayfly::new(all).env("RUNNER_PAT", &lab.token).env("DAYFLY_STATE", state.path()).start()
    };
    let mut killed = loop_of(&[]);
    let instance = killed.wait_for_event("instance")["folder"].as_str().expect("a folder").to_owned();
    let name = killed.wait_for_event("runner_up")["name"].as_str().expect("a name").to_owned();
    killed.signal(Signal::KILL);
    killed.wait();
    assert_eq!(processes_naming(&name).len(), 1, "the machine survives its loop");
    assert_eq!(lab.registrations().await.as_slice(), std::slice::from_ref(&name));

    let mut next = loop_of(&["-r", "1"]);
    next.wait_for_event("registered");
    assert_eq!(processes_naming(&name), Vec::<u32>::new(), "its machine is gone");
    assert!(!lab.registrations().await.contains(&name), "its registration is gone");
    assert!(!std::path::Path::new(&instance).exists(), "its folder is gone");
    next.signal(Signal::INT);
    next.wait().assert_status(130).assert_nothing_left();
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}

#[test]
fn a_token_that_the_lab_refuses_is_told() {
    let lab = LabProcess::start();
    let ended = Dayfly::new(["runner", "-g", &lab.url, "-p", "o/r"]).env("RUNNER_PAT", "wrong").run();
    ended.assert_status(3);
    assert!(ended.stderr.contains("token"), "{}", ended.stderr);
    lab.stop();
}

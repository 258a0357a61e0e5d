//! The machine of a failed job is kept, and comes back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, Ended, image, prepared};
use rustix::process::Signal;
use serde_json::Value;

use crate::{Config, jobs};

/// The script of a job that leaves a file, and fails.
const SCRIPT: &str = "\"echo evidence-$((40 + 2)) >/tmp/evidence; (setsid sleep 3600 &); exit 3\"";

fn thaw(arguments: &[&str]) -> Ended {
    Dayfly::new(["thaw"].into_iter().chain(arguments.iter().copied())).run()
}

/// Returns the configuration of a pool that keeps the machines of failed jobs.
fn keeping(lab: &LabProcess, keys: &str) -> Config {
    let image = image();
    let pool = format!(
        "[pools.plain]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmax = 1\naccel = 'tcg'\nimage = '{image}'\n\
         prefix = 'plain'\ntimeouts = {{ idle = '1s' }}\nkeep_failed = '1h'\n{keys}\n"
    );
    Config::new(lab, &pool)
}

/// Returns the entry of a runner's machine in the list of those that are kept.
fn listed(runner: &str) -> Option<Value> {
    thaw(&["--json"]).events().into_iter().find(|machine| machine["runner"] == runner)
}

/// Runs one job that fails, in a pool that keeps its machine, until the orchestrator has ended. Returns the id of the runner.
async fn fail(lab: &LabProcess, keys: &str) -> String {
    let config = keeping(lab, keys);
    let mut orchestrator = config.orchestrator();
    let run = lab.dispatch(&jobs("plain", 1, SCRIPT)).await;
    let frozen = orchestrator.wait_for_event("vm_frozen");
    assert_eq!(lab.conclusion_of(run).await, "failure");
    orchestrator.wait_for_event("ended");
    assert_eq!(lab.registrations().await, Vec::<String>::new(), "it has no registration");
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    let facts = ended.events();
    let at = |event: &str| facts.iter().position(|fact| fact["event"] == event).expect(event);
    assert!(at("registration_ended") < at("vm_frozen"), "the registration goes first");
    frozen["runner"].as_str().expect("an id").to_owned()
}

/// Returns the folder of a kept machine, after a look at who can read it.
fn folder_of(runner: &str) -> PathBuf {
    let store = prepared("DAYFLY_STATE").join("kept");
    let mode = |path: &PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let folder = store.join(runner);
    assert_eq!((mode(&store), mode(&folder)), (0o700, 0o700));
    for name in ["state", "disk.img", "root.img", "manifest.json"] {
        assert_eq!(mode(&folder.join(name)) & 0o077, 0, "{name}");
    }
    folder
}

#[tokio::test]
async fn the_machine_of_a_failed_job_is_kept_and_comes_back_as_it_was() {
    let lab = LabProcess::start();
    let runner = fail(&lab, "").await;
    let folder = folder_of(&runner);
    assert!(folder.join("base.img").exists(), "it was a fork");
    let entry = listed(&runner).expect("it is kept");
    assert!(entry["bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{entry}");
    let mut keys: Vec<_> = entry.as_object().expect("a machine").keys().cloned().collect();
    keys.sort();
    let known = ["bytes", "dns", "job", "kept_s", "name", "network", "pool", "runner", "until_s"];
    assert_eq!(keys, known, "nothing of its content is shown");
    let why = Dayfly::new(["why", &runner]).run();
    assert!(why.stdout.contains(&format!("dayfly thaw {runner} opens a shell in it")), "{}", why.stdout);
    for _ in 0..2 {
        // The next thaw does not see the changes of this one.
        let seen = thaw(&[
            &runner,
            "--",
            "sh",
            "-c",
            "cat /tmp/evidence; rm /tmp/evidence; hostname; pgrep -c sleep",
        ]);
        seen.assert_status(0);
        assert_eq!(seen.stdout, format!("evidence-42\nplain-{runner}\n1\n"), "{}", seen.stderr);
        assert!(!folder.join("vm").exists(), "nothing of the thaw is left");
    }
    let cut = thaw(&[&runner, "--rm", "--", "sh", "-c", "cat /sys/class/net/eth0/carrier; exit 4"]);
    cut.assert_status(4);
    assert_eq!(cut.stdout, "0\n", "it is cut off");
    assert_eq!(listed(&runner), None, "it was removed");
    assert!(!folder.exists());
    thaw(&[&runner]).assert_status(3);
    let log = Dayfly::new(["logs", &runner]).run().stdout;
    assert!(log.contains("(thawed) sh -c cat /tmp/evidence"), "{log}");
    lab.stop();
}

#[tokio::test]
async fn a_machine_that_was_booted_comes_back_with_the_network_of_its_pool_and_is_discarded() {
    let lab = LabProcess::start();
    let runner = fail(&lab, "cold = true").await;
    let folder = folder_of(&runner);
    assert!(!folder.join("base.img").exists(), "it was no fork");
    let seen =
        thaw(&[&runner, "--network", "--", "sh", "-c", "cat /tmp/evidence; cat /sys/class/net/eth0/carrier"]);
    seen.assert_status(0);
    assert_eq!(seen.stdout, "evidence-42\n1\n", "{}", seen.stderr);
    thaw(&[&runner, "--discard"]).assert_status(0);
    assert!(!folder.exists());
    lab.stop();
}

#[tokio::test]
async fn a_machine_whose_freeze_is_killed_is_kept_whole_or_not_at_all() {
    let lab = LabProcess::start();
    for delay in [0, 100, 300, 1000].map(Duration::from_millis) {
        let config = keeping(&lab, "");
        let mut killed = config.orchestrator();
        let run = lab.dispatch(&jobs("plain", 1, SCRIPT)).await;
        let ended = killed.wait_for_event("registration_ended");
        let runner = ended["runner"].as_str().expect("an id").to_owned();
        tokio::time::sleep(delay).await;
        killed.signal(Signal::KILL);
        killed.wait();
        assert_eq!(lab.conclusion_of(run).await, "failure");
        let mut next = config.orchestrator();
        next.wait_for_event("source_ready");
        next.signal(Signal::TERM);
        next.wait().assert_status(143).assert_nothing_left();
        assert_eq!(lab.registrations().await, Vec::<String>::new());
        let is_listed = listed(&runner).is_some();
        assert_eq!(prepared("DAYFLY_STATE").join("kept").join(&runner).exists(), is_listed, "{delay:?}");
        if is_listed {
            let seen = thaw(&[&runner, "--rm", "--", "cat", "/tmp/evidence"]);
            seen.assert_status(0);
            assert_eq!(seen.stdout, "evidence-42\n", "{}", seen.stderr);
        }
    }
    lab.stop();
}

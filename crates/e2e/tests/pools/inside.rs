//! A person looks into the machine of a runner while its job runs.

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, Ended, image};
use dayfly_lab::{LabEvent, LabEventKind};
use rustix::process::Signal;

use crate::{Config, jobs, plain_pool};

fn exec(runner: &str, command: &[&str]) -> Ended {
    Dayfly::new(["exec", runner, "--"].into_iter().chain(command.iter().copied())).run()
}

/// Runs programs beside a job that waits for one of them, and copies files in both directions.
async fn look_inside(pool: &str, user: &str) {
    let lab = LabProcess::start();
    let config = Config::new(&lab, pool);
    let mut orchestrator = config.orchestrator();
    let path = |name: &str| config.folder.path().join(name).display().to_string();
    // The folder exists in both worlds: below /tmp.
    let gate = format!("/tmp/{}", config.folder.path().file_name().expect("a name").display()) + ".gate";
    let run = lab.dispatch(&jobs("plain", 1, &format!("until test -e {gate}; do sleep 0.1; done"))).await;
    let started = orchestrator.wait_for_event("job_started");
    let (runner, name) =
        (started["runner"].as_str().expect("an id"), started["name"].as_str().expect("a name"));

    let said = exec(runner, &["sh", "-c", "id -un; echo trouble >&2; exit 7"]);
    said.assert_status(7);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), (format!("{user}\n").as_str(), "trouble\n"));
    let absent = exec(name, &["/nonexistent/program"]);
    absent.assert_status(3);
    assert!(absent.stderr.contains("cannot start /nonexistent/program"), "{}", absent.stderr);
    let unknown = exec("7-aaaaaaa", &["true"]);
    unknown.assert_status(3);
    assert!(
        unknown.stderr.contains("no machine of a runner 7-aaaaaaa is on this host"),
        "{}",
        unknown.stderr
    );

    let (there, bytes) = (format!("{gate}.copy"), vec![0xa5_u8; 300_000]);
    std::fs::write(path("in"), &bytes).expect("written");
    let remote = format!("{runner}:{there}");
    Dayfly::new(["cp", &path("in"), &remote]).run().assert_status(0);
    Dayfly::new(["cp", &remote, &path("out")]).run().assert_status(0);
    assert!(std::fs::read(path("out")).expect("read") == bytes, "the copy of a copy is the same");
    exec(runner, &["rm", &there]).assert_status(0);
    let gone = Dayfly::new(["cp", &remote, &path("none")]).run();
    gone.assert_status(1);
    assert!(!config.folder.path().join("none").exists(), "nothing is left of a copy that failed");

    exec(runner, &["touch", &gate]).assert_status(0);
    assert_eq!(lab.conclusion_of(run).await, "success", "the job has seen the file");
    let _ = std::fs::remove_file(&gate);
    orchestrator.wait_for_event("ended");
    let log = Dayfly::new(["logs", runner]).run().stdout;
    for words in ["session opened", "command=sh -c id -un", "its program has exited with status 7"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    orchestrator.signal(Signal::TERM);
    let ended = orchestrator.wait();
    ended.assert_status(143).assert_nothing_left();
    lab.stop();
}

#[tokio::test]
async fn a_person_runs_programs_beside_a_job_and_each_use_is_in_its_log() {
    let user = std::process::Command::new("id").arg("-un").output().expect("a user").stdout;
    look_inside(&plain_pool("plain", ""), String::from_utf8(user).expect("text").trim()).await;
}

/// Returns a pool of one emulated machine.
pub(super) fn machine_pool() -> String {
    let image = image();
    format!(
        "[pools.plain]\nforge = 'lab'\nprincipal = 'o/r'\ndemand = 'scale-set'\nmax = 1\naccel = 'tcg'\n\
         image = '{image}'\nprefix = 'plain'\ntimeouts = {{ idle = '1s' }}\n"
    )
}

#[tokio::test]
async fn a_person_runs_programs_in_a_machine_beside_its_job() {
    look_inside(&machine_pool(), "root").await;
}

#[tokio::test]
async fn a_job_that_pauses_goes_on_when_a_person_in_its_machine_resumes_it() {
    const GUEST: &str = "/_dayfly/dayfly-guest";
    let lab = LabProcess::start();
    let config = Config::new(&lab, &machine_pool());
    let mut orchestrator = config.orchestrator();
    let run = lab.dispatch(&jobs("plain", 1, &format!("{GUEST} pause --for 10m"))).await;
    let started = orchestrator.wait_for_event("job_started");
    let runner = started["runner"].as_str().expect("an id");
    let way_in = format!("dayfly shell {runner}");
    let mut events = lab.events_of(run).await;
    let said = |event: &LabEvent| matches!(&event.kind, LabEventKind::LogLine { line, .. } if line.contains(&way_in));
    while !said(&events.next().await) {}
    exec(runner, &[GUEST, "resume"]).assert_status(0);
    assert_eq!(lab.conclusion_of(run).await, "success");
    let log = &lab.logs_of(run).await[0].1;
    assert!(log.contains("the job goes on, because it was resumed"), "{log}");
    orchestrator.wait_for_event("ended");
    orchestrator.signal(Signal::TERM);
    orchestrator.wait().assert_status(143).assert_nothing_left();
    lab.stop();
}

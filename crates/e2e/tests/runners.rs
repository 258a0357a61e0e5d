//! Tests of `dayfly lab serve` and `dayfly runner` as an admin would run them, in separate processes.

use std::collections::HashSet;
use std::time::Duration;

use dayfly_e2e::lab::LabProcess;
use dayfly_e2e::{Dayfly, OwnState, Running, name_server, processes_naming};
use dayfly_lab::LabEventKind;
use rustix::process::Signal;

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
    for (_, log) in lab.logs_of(run).await {
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
async fn the_shell_versions_first_example_works_in_real_machines() {
    let lab = LabProcess::for_repository("efrecon/gh-runner-krunvm");
    // `orchestrator.sh -v -n 2 -- -T ghp_XXXX -p efrecon/gh-runner-krunvm`
    let words = ["orchestrator", "-v", "-n", "2", "--parallel-start", "2", "--json", "--"];
    let image = dayfly_e2e::image();
    let more = [
        "-T",
        &lab.token,
        "-p",
        "efrecon/gh-runner-krunvm",
        "-c",
        "1",
        "-m",
        "800",
        "-d",
        "9.9.9.9",
        "-i",
        &image,
    ];
    let mut orchestrator = Dayfly::new(words.into_iter().chain(more)).env("RUNNER_GITHUB", &lab.url).start();
    let mut names = HashSet::new();
    for _ in 0..2 {
        names.insert(orchestrator.wait_for_event("listening")["name"].as_str().expect("a name").to_owned());
    }
    let workflow = "
on: push
jobs:
  one:
    strategy: { matrix: { n: [1, 2] } }
    runs-on: [self-hosted, krun, debian]
    steps:
      - run: echo host $(hostname) cpus $(nproc) $(grep MemTotal /proc/meminfo) $(grep nameserver /etc/resolv.conf)
      - run: sleep 2
";
    let run = lab.dispatch(workflow).await;
    assert_eq!(lab.conclusion_of(run).await, "success");
    for (_, log) in lab.logs_of(run).await {
        let line = log.lines().find(|line| line.contains("cpus 1 MemTotal:")).expect("its line");
        assert!(names.iter().any(|name| line.contains(&format!("host {name} "))), "{names:?}: {line}");
        let memory = line.split("MemTotal: ").nth(1).and_then(|rest| rest.split_ascii_whitespace().next());
        let memory_kib: u64 = memory.and_then(|number| number.parse().ok()).expect("a number");
        assert!((700 * 1024..800 * 1024).contains(&memory_kib), "{line}");
        assert!(line.contains(&format!("nameserver {}", name_server("9.9.9.9"))), "{line}");
    }
    orchestrator.signal(Signal::TERM);
    orchestrator.wait().assert_status(143).assert_nothing_left();
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    lab.stop();
}

#[tokio::test]
async fn a_machine_registers_itself_from_the_hosts_guest_programs_and_its_lifetime_ends_it() {
    let lab = LabProcess::start();
    // `orchestrator.sh -v -- -r 1 -k 70 -p o/r`, with the entrypoint mounted at /local instead of the image's.
    let words = ["orchestrator", "-v", "--json", "--", "-r", "1", "-k", "70", "-p", "o/r"];
    let more = ["-D", "/local", "--registration", "token"];
    let mut orchestrator = Dayfly::new(words.into_iter().chain(more))
        .env("RUNNER_GITHUB", &lab.url)
        .env("RUNNER_PAT", &lab.token)
        .start();
    let name = orchestrator.wait_for_event("listening")["name"].as_str().expect("a name").to_owned();
    assert_eq!(lab.registrations().await, [name]);
    let ended = orchestrator.wait();
    ended.assert_status(0).assert_nothing_left();
    assert_eq!(ended.events_of("stopping")[0]["reason"], "it has lived for 70 s");
    assert_eq!(ended.events_of("entrypoint_exited")[0]["code"], 5, "by .trm");
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
    lab.cancel(run).await;
    assert_eq!(lab.conclusion_of(run).await, "cancelled");

    // The loop continues with another runner, which waits for a job when the loop is stopped.
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
async fn after_kill_9_the_next_loop_of_the_repository_takes_the_runner_over_and_after_a_hand_over_its_job_goes_on()
 {
    let lab = LabProcess::start();
    let state = OwnState::new();
    let loop_of = |arguments: &[&str]| {
        let all = ["runner", "--json", "-g", &lab.url, "-p", "o/r", "-L", "here"];
        let all = all.into_iter().chain(arguments.iter().copied());
        Dayfly::new(all).env("RUNNER_PAT", &lab.token).env("DAYFLY_STATE", state.path()).start()
    };
    let mut killed = loop_of(&[]);
    let instance = killed.wait_for_event("instance")["folder"].as_str().expect("a folder").to_owned();
    let name = killed.wait_for_event("listening")["name"].as_str().expect("a name").to_owned();
    killed.signal(Signal::KILL);
    killed.wait();
    let machine = processes_naming(&name);
    assert_eq!(machine.len(), 1, "the machine survives its loop");
    assert_eq!(lab.registrations().await.as_slice(), std::slice::from_ref(&name));

    // The runner waits for a job.
    let mut second = loop_of(&[]);
    let taken = second.wait_for_event("vm_taken_over");
    assert_eq!((taken["name"].as_str(), taken["phase"].as_str()), (Some(name.as_str()), Some("idle")));
    assert_eq!(processes_naming(&name), machine, "it is the same machine");
    let run = lab
        .dispatch(
            "on: push\njobs: { a: { runs-on: here, steps: [{ run: \"for i in $(seq 12); do echo step $i; sleep 1; \
             done\" }] } }",
        )
        .await;
    second.wait_for_event("job_started");
    // The runner program does not repeat the first requests of a job, and its way to a forge on this host is the process that ends.
    let mut events = lab.events_of(run).await;
    while !matches!(&events.next().await.kind, LabEventKind::LogLine { line, .. } if line == "step 1") {}
    // As an upgrade does it: the process ends, and its runners go on.
    second.signal(Signal::USR2);
    let ended = second.wait();
    ended.assert_status(75);
    assert_eq!(ended.events_of("vm_handed_over").len(), 1);
    tokio::time::sleep(Duration::from_secs(3)).await;

    // The runner has a job.
    let mut third = loop_of(&["-r", "1"]);
    let taken = third.wait_for_event("vm_taken_over");
    assert_eq!((taken["name"].as_str(), taken["phase"].as_str()), (Some(name.as_str()), Some("busy")));
    assert_eq!(processes_naming(&name), machine, "it is the same machine");
    assert_eq!(lab.conclusion_of(run).await, "success");
    let ended = third.wait();
    ended.assert_status(0).assert_nothing_left();
    assert_eq!(ended.events_of("registered").len(), 0, "it has created no other runner");
    assert!(
        !std::path::Path::new(&instance).exists(),
        "the folder of the killed process goes with its last runner"
    );
    assert_eq!(lab.registrations().await, Vec::<String>::new());
    assert_eq!(lines_out_of_order(&state, &name), Vec::<u64>::new(), "lines that are missing or came twice");
    lab.stop();
}

/// Returns the numbers of the lines in the log of a runner that do not follow the line before them.
fn lines_out_of_order(state: &OwnState, name: &str) -> Vec<u64> {
    let ended = Dayfly::new(["logs", name, "--json"]).env("DAYFLY_STATE", state.path()).run();
    let numbers: Vec<u64> =
        ended.events_of("line").iter().filter_map(|line| line["number"].as_u64()).collect();
    assert!(numbers.len() > 3, "{numbers:?}");
    let odd = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    odd.map(|pair| pair[1]).collect()
}

#[test]
fn a_token_that_the_lab_refuses_is_told() {
    let lab = LabProcess::start();
    let ended = Dayfly::new(["runner", "-g", &lab.url, "-p", "o/r"]).env("RUNNER_PAT", "wrong").run();
    ended.assert_status(3);
    assert!(ended.stderr.contains("token"), "{}", ended.stderr);
    lab.stop();
}

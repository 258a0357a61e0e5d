//! Tests of machines whose fork fails: they are booted, and so never worse than cold.

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dayfly_e2e::machines::{Said, script};
use dayfly_e2e::{OwnState, prepared};
use dayfly_vm::template::TemplateStore;
use dayfly_vm::{Preparing, StartedFrom, TemplateSettings, VmEvent};
use rustix::process::{Pid, Signal, kill_process};

use crate::stage;

#[tokio::test]
async fn a_fork_whose_vmm_dies_before_it_answers_is_booted_instead() {
    let mut stage = stage(&prepared("DAYFLY_STATE"), TemplateSettings::default());
    // A machine that boots starts Docker, which this test does not need.
    stage.host.limits.docker = Duration::from_secs(1);
    stage.prepare().await;
    let mut vm =
        stage.start("unlucky", stage.machine.clone(), script("echo works=yes")).await.expect("a machine");
    let Some(VmEvent::VmmStarted { pid, from: StartedFrom::Fork(_) }) = vm.next_event().await else {
        panic!("no fork")
    };
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, Signal::KILL).expect("killed");
    let mut said = Said::default();
    said.hear(vm).await;
    assert_eq!(said.from, [StartedFrom::Boot]);
    assert!(said.cold[0].contains("a fork of template"), "{said:?}");
    assert_eq!(said.value("works"), "yes");
}

/// Starts as many forks as may start at once, so that no free turn is left for the boots.
#[tokio::test]
async fn forks_that_all_die_at_once_are_all_booted_instead() {
    let state = OwnState::with_own_templates();
    let mut stage = stage(state.path(), TemplateSettings::default());
    stage.host.limits.docker = Duration::from_secs(1);
    stage.prepare().await;
    let turns = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut machines, mut pids) = (Vec::new(), Vec::new());
    for number in 0..turns {
        let echo = script("echo works=yes");
        let mut vm =
            stage.start(&format!("unlucky{number}"), stage.machine.clone(), echo).await.expect("one");
        let Some(VmEvent::VmmStarted { pid, .. }) = vm.next_event().await else { panic!("no start") };
        let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
        // No fork answers before the last one has been started.
        kill_process(pid, Signal::STOP).expect("stopped");
        machines.push(vm);
        pids.push(pid);
    }
    for pid in pids {
        kill_process(pid, Signal::KILL).expect("killed");
    }
    for vm in machines {
        let mut said = Said::default();
        said.hear(vm).await;
        assert_eq!((said.value("works"), &said.from[..]), ("yes", &[StartedFrom::Boot][..]), "{said:?}");
    }
}

/// Longest time that a template may take to be built on a loaded host, while machines boot at the same time.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_template_whose_forks_fail_twice_is_told_counted_and_built_again() {
    let state = OwnState::without_templates();
    let told = stage(state.path(), TemplateSettings::default()).prepare().await;
    let Some(Preparing::Built { template, .. }) = told.last() else { panic!("{told:?}") };
    let path = state.path().join("templates").join(template).join("state");
    // The state has the right length, but QEMU cannot load it.
    let length = std::fs::metadata(&path).expect("its state").len();
    std::fs::write(&path, vec![0xa5; usize::try_from(length).expect("a length")]).expect("write");
    // A new stage opens what is on the disk, as another process would.
    let mut stage = stage(state.path(), TemplateSettings::default());
    stage.host.limits.docker = Duration::from_secs(1);
    stage.prepare().await;
    for name in ["first", "second"] {
        let said = stage.say(name, "echo works=yes").await;
        assert_eq!(
            (said.value("works"), &said.from[..]),
            ("yes", &[StartedFrom::Fork(template.clone()), StartedFrom::Boot][..])
        );
        assert!(said.cold[0].contains(&format!("a fork of template {template} failed")), "{said:?}");
    }
    let began = Instant::now();
    while begins_with_damage(&path) && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // If it was not built again, the boot of the next machine gives the reason.
    loop {
        let said = stage.say("later", "echo works=yes").await;
        match &said.from[..] {
            [StartedFrom::Fork(id)] if id == template => break,
            _ => assert!(said.cold[0].contains("is built again"), "{said:?}"),
        }
        assert!(began.elapsed() < PATIENCE, "it was not built again: {said:?}");
    }
    let counts = TemplateStore::new(state.path()).find(template).expect("the template").counts();
    assert_eq!(counts.failures, 2, "{counts:?}");
}

/// Returns true as long as a template's state is the damaged one. Reads only its head, because the builder runs on the same
/// thread as the test, and a state has hundreds of MiB.
fn begins_with_damage(state: &Path) -> bool {
    let mut head = [0; 4096];
    let read = std::fs::File::open(state).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head.iter().all(|&byte| byte == 0xa5)
}

//! Never worse than cold: what a machine is whose fork is of no use.

use std::time::Duration;

use dayfly_e2e::machines::{Said, script};
use dayfly_e2e::prepared;
use dayfly_vm::{StartedFrom, TemplateSettings, VmEvent};
use rustix::process::{Pid, Signal, kill_process};

use crate::stage;

#[tokio::test]
async fn a_fork_whose_vmm_dies_before_it_answers_is_booted_instead() {
    let mut stage = stage(&prepared("DAYFLY_STATE"), TemplateSettings::default());
    // Nothing here needs Docker, which a machine that boots starts.
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

//! Starts more machines at once than a small host has processors. Each waits for its turn, and the host keeps its memory
//! reserve.

use std::sync::Arc;
use std::time::Duration;

use dayfly_e2e::machines::script;
use dayfly_e2e::prepared;
use dayfly_vm::{StartedFrom, TemplateSettings, VmEvent};
use tokio::task::JoinSet;

use crate::{PATIENCE, alone, stage};

/// Memory that a host keeps for itself regardless of what is requested, in MiB (`pace` of the `vm` crate).
const RESERVE_MIB: u64 = 256;

fn available_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("MemAvailable");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[tokio::test]
#[ignore = "kept for make test-full"]
async fn fifty_machines_that_are_asked_for_at_once_all_come_up_and_leave_the_host_its_memory() {
    let _alone = alone().await;
    let stage = Arc::new(stage(&prepared("DAYFLY_STATE"), TemplateSettings::default()).await);
    let mut starts = JoinSet::new();
    for number in 0..50 {
        let stage = Arc::clone(&stage);
        starts.spawn(async move {
            let machine = stage.machine.clone();
            // Machines keep running until all of them have started.
            let entrypoint = script("echo up=yes; exec sleep 3600");
            let mut vm = stage.start(&format!("one-{number}"), machine, entrypoint).await.expect("a machine");
            let up = async {
                loop {
                    match vm.next_event().await.expect("an event") {
                        VmEvent::Line { text, .. } if text.contains("up=yes") => return,
                        VmEvent::VmmStarted { from, .. } => assert!(matches!(from, StartedFrom::Fork(_))),
                        VmEvent::Cold { reason } => panic!("it is booted: {reason}"),
                        VmEvent::Gone { exit, console_tail } => panic!("{exit}\n{console_tail}"),
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(PATIENCE, up).await.expect("the machine starts");
            vm
        });
    }
    let mut least_mib = available_mib();
    let mut machines = Vec::new();
    while machines.len() < 50 {
        tokio::select! {
            up = starts.join_next() => machines.push(up.expect("fifty tasks").expect("no panic")),
            () = tokio::time::sleep(Duration::from_millis(100)) => least_mib = least_mib.min(available_mib()),
        }
    }
    for vm in machines {
        vm.destroy().await.expect("all is removed");
    }
    assert!(least_mib >= RESERVE_MIB, "{least_mib} MiB were left");
}

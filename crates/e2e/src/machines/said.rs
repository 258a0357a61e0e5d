//! Collects the events and the output of a machine.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dayfly_vm::{Exit, StartedFrom, Vm, VmEvent};

/// Longest time that a machine may take to start and exit on a loaded host.
const PATIENCE: Duration = Duration::from_secs(300);

/// The output of a machine, and the events that its owner received.
#[derive(Debug, Default)]
pub struct Said {
    /// The origin of the machine, one entry for each start.
    pub from: Vec<StartedFrom>,
    /// Process ids of the VMMs of these starts.
    pub vmms: Vec<u32>,
    /// Why the machine was booted instead of forked.
    pub cold: Vec<String>,
    /// The values of `name=value` lines, by name.
    pub values: BTreeMap<String, String>,
    /// All lines and fault messages.
    pub all: Vec<String>,
    /// The host's clock when the machine printed its own, in nanoseconds since the epoch.
    pub clock: u128,
    /// How the machine exited, if it did so before its entrypoint.
    pub gone: Option<Exit>,
}

impl Said {
    /// Collects events until the entrypoint or the machine exits, then removes the machine.
    pub async fn hear(&mut self, mut vm: Vm) {
        let listen = async {
            while let Some(event) = vm.next_event().await {
                match event {
                    VmEvent::VmmStarted { pid, from } => {
                        self.from.push(from);
                        self.vmms.push(pid);
                    }
                    VmEvent::Cold { reason } => self.cold.push(reason),
                    VmEvent::Line { text, .. } => self.take(&text),
                    VmEvent::DockerFailed { reason: message } | VmEvent::Fault { message } => {
                        self.all.push(message);
                    }
                    VmEvent::EntrypointExited { .. } => return,
                    VmEvent::Gone { exit, .. } => return self.gone = Some(exit),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, listen).await.expect("the machine ends");
        vm.kill().await;
        vm.destroy().await.expect("all is removed");
    }

    fn take(&mut self, text: &str) {
        let line = text.split_once("] ").map_or(text, |(_, line)| line);
        if let Some((name, value)) = line.split_once('=') {
            if name == "clock" {
                self.clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos();
            }
            self.values.insert(name.to_owned(), value.to_owned());
        }
        self.all.push(text.to_owned());
    }

    /// Returns a value that the machine must have printed.
    #[track_caller]
    pub fn value(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("no {name} in {self:#?}"))
    }
}

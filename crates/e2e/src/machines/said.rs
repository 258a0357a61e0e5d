//! What a machine tells its owner.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dayfly_vm::{Exit, StartedFrom, Vm, VmEvent};

/// How long a machine may take to come up and end on a loaded host.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a machine told, and what was seen of it.
#[derive(Debug, Default)]
pub struct Said {
    /// What it was started from, start by start.
    pub from: Vec<StartedFrom>,
    /// The VMMs of these starts.
    pub vmms: Vec<u32>,
    /// Why it was booted.
    pub cold: Vec<String>,
    /// `name=value` lines.
    pub values: BTreeMap<String, String>,
    /// All lines.
    pub all: Vec<String>,
    /// The host's clock when the machine told its own, nanoseconds.
    pub clock: u128,
    /// How it ended, where it did so before its entrypoint.
    pub gone: Option<Exit>,
}

impl Said {
    /// Listens to the end of the machine's entrypoint, or its own, and removes it.
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
                    VmEvent::Fault { message } => self.all.push(message),
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

    /// A value that it must have told.
    #[track_caller]
    pub fn value(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("no {name} in {self:#?}"))
    }
}

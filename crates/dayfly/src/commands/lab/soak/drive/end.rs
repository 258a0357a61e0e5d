//! The end of a soak: what is left, the verdict, and the removal of everything.

use std::time::Duration;

use tokio::time::Instant;

use super::super::host::{self, Process};
use super::super::judge::{Evidence, Leftovers, judge};
use super::super::stage::{self, Folder};
use super::super::view::Ending;
use super::Soak;
use crate::exit::{Failure, Outcome, Result};

/// Longest time that a process may take to exit after dayfly has ended.
const LAST_EXITS: Duration = Duration::from_secs(5);
/// Interval at which processes are looked for.
const LOOK: Duration = Duration::from_millis(50);

impl Soak {
    /// Clears the fault desk, so that dayfly can remove what it has made.
    pub(super) async fn clear_faults(&mut self) {
        if let Err(error) = self.lab.forge.clear_lab_faults(None).await {
            self.view.warning(&format!("the faults cannot be cleared: {error}"));
        }
    }

    /// Gathers the evidence, removes everything, and tells the verdict.
    pub(super) async fn end(mut self, folder: Folder) -> Result<Outcome> {
        self.clear_faults().await;
        // It is a process too, which is no leftover.
        self.namespace = None;
        let processes = self.last_processes().await;
        let left = self.leftovers(&folder, &processes).await;
        processes.iter().for_each(|process| host::kill(process.pid));
        self.lab.end().await;
        if let Some(failure) = self.failure {
            // The failure counts, not a copy of the logs.
            let _ = folder.keep();
            return Err(failure.hint(format!("the logs are in {}", folder.path().display())));
        }
        if let Some(signal) = self.signal {
            remove(&folder)?;
            return Ok(Outcome::StoppedBy(signal));
        }
        let evidence = Evidence {
            jobs: u32::try_from(self.jobs.len()).unwrap_or(u32::MAX),
            stories: self.stories.jobs().cloned().collect(),
            killed: self.killed,
            executions: self.is_process_driver.then(|| host::executions(&folder.ledger())),
            left,
            told: self.told,
            crashes: self.crashes,
        };
        let verdict = judge(&evidence);
        let stays = self.keep || !verdict.is_well();
        let ending = Ending {
            verdict: &verdict,
            kills: &self.kill_counts,
            troubles: &self.trouble_counts,
            faults: &self.stories.fired,
            refusals: self.children.refusals,
            folder: stays.then(|| folder.path()),
        };
        if stays {
            let path = folder.path().display();
            folder.keep().map_err(|error| Failure::cannot(format!("{path} cannot be kept: {error}")))?;
        } else {
            remove(&folder)?;
        }
        self.view.end(&ending);
        Ok(if verdict.is_well() { Outcome::Success } else { Outcome::NotSucceeded })
    }

    /// Waits until no descendant is left, but not long. Returns those that are.
    async fn last_processes(&self) -> Vec<Process> {
        let until = Instant::now() + LAST_EXITS;
        loop {
            host::reap_orphans(&[]);
            let processes = host::descendants();
            if processes.is_empty() || Instant::now() >= until {
                return processes;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn leftovers(&self, folder: &Folder, processes: &[Process]) -> Leftovers {
        let registrations = match self.lab.forge.list_runners(&stage::scope()).await {
            Ok(runners) => runners.into_iter().map(|runner| runner.name).collect(),
            Err(error) => vec![format!("cannot be listed: {error}")],
        };
        let (vms, others): (Vec<_>, Vec<_>) = processes.iter().partition(|process| process.is_machine());
        let named = |processes: Vec<&Process>| processes.iter().map(ToString::to_string).collect();
        let files = folder.files_left().iter().map(|path| path.display().to_string()).collect();
        Leftovers { registrations, vms: named(vms), files, processes: named(others) }
    }
}

fn remove(folder: &Folder) -> Result<()> {
    let path = folder.path().display();
    folder.remove().map_err(|error| Failure::cannot(format!("{path} cannot be removed: {error}")))
}

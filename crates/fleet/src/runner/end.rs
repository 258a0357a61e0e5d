//! Ends a runner: its machine, its registration, its files.

use dayfly_vm::MachineUse;
use tokio::time::Instant;

use super::{Run, RunnerEnd, RunnerError};
use crate::cause::Cause;
use crate::fact::{Fact, Moment, OverHow, RegistrationEnd};
use crate::history::History;
use crate::instance::{machine_of, reserve_of};
use crate::journal;
use crate::pool::MachineSpec;
use crate::reaper::Leftover;
use crate::registration::{self, WhenBusy};
use crate::state::{AppState, RegistrationState, VmState};
use crate::stop::StopOrder;

/// Longest reason of an end in the history, characters.
const WHY_MAX: usize = 2000;

impl Run<'_> {
    /// Ends the runner, at whatever point it is. Returns the first error, after everything was tried. No step depends on the
    /// journal, and what is left is tried again while the process runs, and by a later start.
    pub(super) async fn end(
        mut self,
        result: Result<RunnerEnd, RunnerError>,
    ) -> Result<RunnerEnd, RunnerError> {
        let keep = self.pool.spec.keep && matches!(result, Ok(RunnerEnd::JobDone { .. }));
        if !keep {
            self.keep_if_failed(&result).await;
        }
        let vm_ended = self.end_vm(keep).await;
        let registration_ended = self.end_registration().await;
        let kind = result.as_ref().err().map(|error| Cause::of_runner(error, Moment::now()));
        let over = Fact::Over { how: over_how(&result, self.judged), why: why(&result), kind };
        let told_over = self.tell(over).await;
        let is_kept = self.keep_record().await;
        let files_ended = self
            .environment
            .clear()
            .map_err(RunnerError::from)
            .and_then(|()| self.end_folder(keep || !is_kept));
        let told = self.tell(Fact::Ended).await;
        let is_removed = is_kept && self.state.is_over();
        if !keep && !is_removed {
            self.pool.leftovers.add(Leftover { run: self.folder.clone(), home: self.home.clone() });
        }
        let end = result?;
        vm_ended?;
        registration_ended?;
        files_ended?;
        told_over?;
        told?;
        Ok(end)
    }

    /// Leaves the runner to the next start of a process. A runner that could not be taken over ends.
    pub(super) async fn hand_over(mut self) -> Result<RunnerEnd, RunnerError> {
        let stopped = Ok(RunnerEnd::Stopped);
        if !self.state.can_be_taken_over() {
            return self.end(stopped).await;
        }
        let Some(vm) = self.vm.take() else { return self.end(stopped).await };
        vm.let_go().await;
        self.tell(Fact::VmHandedOver).await?;
        stopped
    }

    async fn end_vm(&mut self, keep: bool) -> Result<(), RunnerError> {
        let Some(mut vm) = self.vm.take() else { return self.end_vm_that_did_not_start().await };
        if keep {
            vm.detach();
            return self.tell(Fact::VmKept { folder: machine_of(&self.folder) }).await;
        }
        self.tell_end(Fact::DestroyingVm).await;
        // Once the entrypoint has exited, the machine's only possible work is a write to a mount.
        let has_exited = matches!(self.state.app, AppState::Exited { .. });
        let has_more = self.state.was_up() && !(has_exited && self.pool.spec.mounts.is_empty());
        let exit = if self.stop.order() >= StopOrder::AtOnce || !has_more {
            vm.kill().await
        } else {
            vm.stop(self.pool.limits.power_off).await
        };
        self.tell_use().await;
        vm.destroy().await?;
        self.tell_end(Fact::VmGone { exit: exit.to_string() }).await;
        Ok(())
    }

    /// Tells what the machine has used, as long as the kernel's counts are there.
    async fn tell_use(&mut self) {
        let MachineUse { cpu_ms, memory_peak_mib } = dayfly_vm::machine_use(&machine_of(&self.folder));
        let MachineSpec { cpus, memory_mib, .. } = self.pool.spec.machine;
        self.tell_end(Fact::VmUsed { cpus, memory_mib, cpu_ms, memory_peak_mib }).await;
        self.tell_network().await;
    }

    /// Tells what the machine has reached, before its network is removed.
    async fn tell_network(&mut self) {
        let folder = machine_of(&self.folder);
        let used = tokio::task::spawn_blocking(move || dayfly_vm::network_use(&folder)).await;
        let Ok(Some(network)) = used else { return };
        let gate_killed = network.gate_killed;
        self.tell_end(Fact::NetworkUsed { network: Box::new(network) }).await;
        if gate_killed {
            let message = format!(
                "the gate of {}, which resolves names for it, was killed while it ran: its job had no names from then on, and \
                 without root no connections; was this host out of memory (dmesg)?",
                self.name
            );
            self.tell_end(Fact::Warning { message }).await;
        }
    }

    async fn end_vm_that_did_not_start(&mut self) -> Result<(), RunnerError> {
        if self.state.vm != VmState::None {
            dayfly_vm::destroy_leftover(&machine_of(&self.folder)).await?;
            self.record_end(Fact::VmGone { exit: "it did not start".to_owned() }).await;
        }
        Ok(())
    }

    async fn end_registration(&mut self) -> Result<(), RunnerError> {
        let before = self.state.registration;
        if before == RegistrationState::None {
            return Ok(());
        }
        self.tell_end(Fact::DeletingRegistration).await;
        // The machine is gone, so whatever job the runner had is lost.
        let when_busy = WhenBusy::Insist { until: Instant::now() + self.pool.limits.busy_registration };
        let ended =
            registration::end(&self.pool.forge, &self.pool.spec.scope, &self.name, before, when_busy).await;
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let id = before.id().map(|id| format!(" (id {id})")).unwrap_or_default();
                let message = format!(
                    "cannot delete the registration {}{id}: {error}; dayfly tries again while it runs, and at its next start",
                    self.name
                );
                return self.tell(Fact::Warning { message }).await;
            }
        };
        if let Some(error) = ended.unreported {
            let message =
                format!("the forge does not know yet that the machine of {} is gone: {error}", self.name);
            self.tell(Fact::Warning { message }).await?;
        }
        let fact = Fact::RegistrationEnded { how: ended.how };
        match (before, ended.how) {
            // The registration was never seen, so readers of the stream need not learn of its end.
            (RegistrationState::Requested, RegistrationEnd::Gone) => drop(self.record_end(fact).await),
            _ => self.tell_end(fact).await,
        }
        Ok(())
    }

    /// Keeps the journal in the history, before its folder goes. Returns false if that fails; the journal then waits in its folder
    /// for the next attempt to remove the run.
    async fn keep_record(&mut self) -> bool {
        // A journal that cannot be read is no record, and its run is removed.
        let Ok(records) = journal::read(&self.folder) else { return true };
        let history = History::of(&self.host.state);
        let mut kept = history.keep(&records);
        if kept.is_err() && reserve_of(&self.pool.runs).release() {
            kept = history.keep(&records);
        }
        let Err(error) = kept else { return true };
        let message = format!(
            "the record of {} is not in the history yet: {error}; dayfly tries again while it runs, and at its next start",
            self.name
        );
        let warning = self.facts.record(Fact::Warning { message });
        self.facts.send(warning).await;
        false
    }

    /// Removes the run's folder, unless its machine or its registration may still exist.
    fn end_folder(&self, keep: bool) -> Result<(), RunnerError> {
        if keep || !self.state.is_over() {
            return Ok(());
        }
        super::remove_run(&self.folder).map_err(|source| RunnerError::State {
            what: "remove",
            path: self.folder.clone(),
            source,
        })
    }
}

/// Returns the way in which a runner's life ended. `judged` is the verdict of this host, if it has ended the runner.
fn over_how(result: &Result<RunnerEnd, RunnerError>, judged: Option<OverHow>) -> OverHow {
    if let Some(judged) = judged {
        return judged;
    }
    match result {
        Ok(RunnerEnd::JobDone { .. }) => OverHow::JobDone,
        Ok(RunnerEnd::NoJob) => OverHow::NoJob,
        Ok(RunnerEnd::MachineLost { .. }) => OverHow::MachineLost,
        Ok(RunnerEnd::Stopped) => OverHow::Stopped,
        Ok(RunnerEnd::LifetimeOver) => OverHow::LifetimeOver,
        Ok(RunnerEnd::Idle) => OverHow::Idle,
        Ok(RunnerEnd::Broken) => OverHow::Broken,
        Err(_) => OverHow::NotUp,
    }
}

/// Returns the reason in words, if the end has more to say. It is cut, because an error quotes lines of the guest.
fn why(result: &Result<RunnerEnd, RunnerError>) -> Option<String> {
    let text = match result {
        Ok(RunnerEnd::MachineLost { exit }) => exit.clone(),
        Err(error) => error.to_string(),
        Ok(_) => return None,
    };
    Some(text.chars().take(WHY_MAX).collect())
}

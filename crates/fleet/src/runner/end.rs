//! The end of a runner, the only place that clears up: machine, registration, files.

use std::time::Duration;

use dayfly_forge::Deletion;
use tokio::time::Instant;

use super::{Run, RunnerEnd, RunnerError};
use crate::event::EventKind;
use crate::instance::machine_of;
use crate::journal::{self, Step};
use crate::stop::StopOrder;

impl Run<'_> {
    /// Clears up, whatever happened before; the first error is the one that is told.
    pub(super) async fn end(
        mut self,
        result: Result<RunnerEnd, RunnerError>,
    ) -> Result<RunnerEnd, RunnerError> {
        let keep = self.settings.keep && matches!(result, Ok(RunnerEnd::JobDone { .. }));
        let vm_ended = self.end_vm(keep).await;
        let registration_ended = self.end_registration().await;
        let files_ended =
            self.environment.clear().map_err(RunnerError::from).and_then(|()| self.end_folder(keep));
        self.events.tell(EventKind::Ended).await;
        let end = result?;
        vm_ended?;
        registration_ended?;
        files_ended?;
        Ok(end)
    }

    async fn end_vm(&mut self, keep: bool) -> Result<(), RunnerError> {
        let Some(mut vm) = self.vm.take() else { return self.end_vm_that_did_not_start().await };
        if keep {
            vm.detach();
            self.events.tell(EventKind::VmKept { folder: machine_of(&self.folder) }).await;
            return Ok(());
        }
        self.journal.write(Step::DestroyingVm)?;
        // Once the entrypoint has ended, all that a machine could still do is write to a mount.
        let has_more = self.up && !(self.exited && self.settings.mounts.is_empty());
        let exit = if self.stop.order() == StopOrder::AtOnce || !has_more {
            vm.kill().await
        } else {
            vm.stop(self.settings.limits.power_off).await
        };
        vm.destroy().await?;
        self.journal.write(Step::VmGone)?;
        self.events.tell(EventKind::VmGone { exit: exit.to_string() }).await;
        Ok(())
    }

    async fn end_vm_that_did_not_start(&mut self) -> Result<(), RunnerError> {
        if journal::remains(&journal::read(&self.folder)?).vm {
            dayfly_vm::destroy_leftover(&machine_of(&self.folder)).await?;
            self.journal.write(Step::VmGone)?;
        }
        Ok(())
    }

    /// Lets the forge know that nobody works on the job any more, where it is one that listens; the others find out by
    /// the runner's silence.
    async fn tell_lost(&mut self) {
        let Some(registration) = self.registration else { return };
        if let Err(error) = self.forge.tell_lost(registration).await {
            let message =
                format!("the forge does not know yet that the machine of {} is gone: {error}", self.name);
            self.events.tell(EventKind::Warning { message }).await;
        }
    }

    async fn end_registration(&mut self) -> Result<(), RunnerError> {
        let Some(registration) = self.registration else {
            return self.end_registration_by_name().await;
        };
        self.journal.write(Step::DeletingRegistration)?;
        let deadline = Instant::now() + self.settings.limits.busy_registration;
        let mut told = false;
        let how = loop {
            match self.forge.delete_runner(&self.settings.scope, registration).await {
                Ok(Deletion::Deleted) => break "deleted",
                Ok(Deletion::Gone) => break "gone",
                Ok(Deletion::Busy) if !told => {
                    // Its machine is gone, so whatever job it had is lost.
                    told = true;
                    self.tell_lost().await;
                }
                Ok(Deletion::Busy) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_secs(2)).await
                }
                Ok(Deletion::Busy) => break "busy",
                Err(error) => {
                    let message = format!(
                        "cannot delete the registration {} (id {registration}): {error}; the next start tries again",
                        self.name
                    );
                    self.events.tell(EventKind::Warning { message }).await;
                    return Ok(());
                }
            }
        };
        if how != "busy" {
            self.journal.write(Step::RegistrationGone)?;
            self.registration = None;
        }
        self.events.tell(EventKind::RegistrationEnded { how }).await;
        Ok(())
    }

    /// A registration that was asked for, but whose answer was lost, may exist: it is looked up by its name.
    async fn end_registration_by_name(&mut self) -> Result<(), RunnerError> {
        let asked = journal::remains(&journal::read(&self.folder)?).registration.is_some();
        if !asked {
            return Ok(());
        }
        match self.forge.find_runner_by_name(&self.settings.scope, &self.name).await {
            Ok(Some(runner)) => {
                self.registration = Some(runner.id);
                Box::pin(self.end_registration()).await
            }
            Ok(None) => Ok(self.journal.write(Step::RegistrationGone)?),
            // Nothing more can be done now; the journal remembers it.
            Err(_) => Ok(()),
        }
    }

    /// Removes the run's folder, unless something that it tells of is still there.
    fn end_folder(&self, keep: bool) -> Result<(), RunnerError> {
        let left = journal::remains(&journal::read(&self.folder)?);
        if keep || left.vm || left.registration.is_some() {
            return Ok(());
        }
        std::fs::remove_dir_all(&self.folder).map_err(|source| RunnerError::State {
            what: "remove",
            path: self.folder.clone(),
            source,
        })
    }
}

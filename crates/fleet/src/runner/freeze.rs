//! Keeps the machine of a job that has failed: frozen to disk, without a registration and cut off from the network.
//!
//! ```text
//!   registration deleted ──> journal: destroying VM ──> frozen, its VMM ends ──> journal: VM gone
//!       └─ refused: removed as any other machine             └─ failed: nothing is kept
//! ```
//!
//! The order is the opposite of the usual end, because the machine must not get another job. If this process dies in between, the
//! next start finds a runner without a registration and removes its machine; a machine that is kept by then is whole, and no part
//! of the run.

use std::time::Duration;

use dayfly_guest::runner_app::JobResult;
use dayfly_host::clock::now_s;
use dayfly_vm::kept::{self, KeptAbout};

use super::{Run, RunnerEnd, RunnerError};
use crate::fact::{Fact, RegistrationEnd};
use crate::registration::{self, WhenBusy};
use crate::state::RegistrationState;
use crate::stop::StopOrder;

/// Number of times that a forge which calls the runner busy is asked. It needs a moment to notice the end of a job.
const ATTEMPTS: u32 = 5;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_secs(2);

/// Returns true if the job of a runner has failed by its own account.
fn has_failed(result: &Result<RunnerEnd, RunnerError>) -> bool {
    matches!(result, Ok(RunnerEnd::JobDone { result: Some(JobResult::Failed) }))
}

impl Run<'_> {
    /// Freezes the machine of a job that has failed, if the pool keeps such machines. Otherwise, and after a failure, the machine is
    /// left to the usual end.
    pub(super) async fn keep_if_failed(&mut self, result: &Result<RunnerEnd, RunnerError>) {
        let Some(time) = self.pool.spec.keep_failed.filter(|_| has_failed(result)) else { return };
        if self.vm.is_none() || self.stop.order() >= StopOrder::AtOnce {
            return;
        }
        if let Err(why) = self.try_to_keep(time).await {
            let message =
                format!("the machine of {} is not kept, although its job has failed: {why}", self.name);
            self.tell_end(Fact::Warning { message }).await;
        }
    }

    async fn try_to_keep(&mut self, time: Duration) -> Result<(), String> {
        self.unregister().await?;
        let Some(mut vm) = self.vm.take() else { return Ok(()) };
        self.tell_end(Fact::DestroyingVm).await;
        let until_s = now_s().saturating_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        let about = KeptAbout {
            runner: self.id.to_string(),
            name: self.name.clone(),
            pool: self.pool.spec.name.clone(),
            job: self.last_job.clone(),
            require: self.pool.spec.machine.require.clone(),
            network: self.pool.spec.network.clone(),
            dns: self.pool.spec.dns,
            until_s,
        };
        let mut stop = self.stop.clone();
        let kept = tokio::select! {
            kept = kept::keep(&mut vm, &self.host.state, about, self.host.disk_reserve_mib()) => {
                kept.map_err(|error| error.to_string())
            }
            _ = stop.above(StopOrder::Gently) => Err("dayfly was told to stop at once".to_owned()),
        };
        // The usual end removes what is left of the machine.
        self.vm = Some(vm);
        let machine = kept?;
        // How much space a machine takes is known only once it is written.
        let bytes = machine.bytes();
        crate::kept::collect(self.host).await?;
        if !machine.folder().exists() {
            let (mib, limit_mib) = (bytes.div_ceil(1 << 20), self.host.kept_max_mib());
            return Err(format!(
                "there is no room for its {mib} MiB: `kept` allows {limit_mib} MiB, and `disk_reserve` stays free"
            ));
        }
        let until_ms = u64::try_from(until_s).unwrap_or_default().saturating_mul(1000);
        self.tell_end(Fact::VmFrozen { until_ms, bytes }).await;
        Ok(())
    }

    /// Deletes the registration while the machine runs.
    async fn unregister(&mut self) -> Result<(), String> {
        let before = self.state.registration;
        if before == RegistrationState::None {
            return Ok(());
        }
        self.tell_end(Fact::DeletingRegistration).await;
        let (forge, scope) = (&self.pool.forge, &self.pool.spec.scope);
        for attempt in 1..=ATTEMPTS {
            let ended = registration::end(forge, scope, &self.name, before, WhenBusy::Leave).await;
            match ended.map_err(|error| format!("its registration cannot be deleted: {error}"))?.how {
                RegistrationEnd::Busy if attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
                RegistrationEnd::Busy => break,
                how => {
                    self.tell_end(Fact::RegistrationEnded { how }).await;
                    return Ok(());
                }
            }
        }
        Err("the forge says that it still has a job".to_owned())
    }
}

//! Chooses each start of a machine: from a spare or as a fork of its template if there is one, else from its kernel.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::kept::KeptSource;
use super::parts::MachineParts;
use super::template::{Blueprint, Opened, fork_failed};
use crate::machine::spawn::{Outputs, Recipe, Vmm};
use crate::machine::{KeptParts, KeptVmm, StartError, StartSource, Started, StartedFrom};
use crate::pace::Turn;
use crate::vm_host::VmHost;

/// A template that can be forked, and the blueprint that it was built from.
#[derive(Debug, Clone)]
pub(super) struct ForkBase {
    pub(super) blueprint: Blueprint,
    pub(super) template: Arc<Opened>,
}

/// How a machine starts next.
#[derive(Debug)]
pub(super) enum StartPlan {
    /// From a spare, whose VMM exists. Only the first start of a machine can be this.
    Spare { vmm: Box<Vmm>, base: Box<ForkBase> },
    /// As a fork.
    Fork { base: Box<ForkBase> },
    /// From its kernel, with the reason why it is not forked, until the reason was reported. There is none if nothing has to
    /// be reported.
    Boot { reason: Option<String> },
}

/// The origin of a machine that may be forked.
#[derive(Debug)]
pub(super) struct ForkOrigin {
    parts: Arc<MachineParts>,
    host: VmHost,
    plan: StartPlan,
    /// The recipe of a cold boot, once it was needed.
    cold: Option<Arc<Recipe>>,
    /// The last start.
    last: Arc<LastStart>,
}

/// The source of a machine's last start, for the time after the machine.
#[derive(Debug)]
pub(super) struct LastStart {
    source: KeptSource,
    /// The template; none if the machine was booted.
    template: Mutex<Option<Arc<Opened>>>,
}

impl LastStart {
    fn is(&self, template: Option<&Arc<Opened>>) {
        *self.template.lock().unwrap_or_else(PoisonError::into_inner) = template.cloned();
    }
}

impl KeptParts for LastStart {
    fn put_into(&self, folder: &Path) -> Result<KeptVmm, String> {
        let template = self.template.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.source.put_into(folder, template.as_deref())
    }
}

impl StartSource for ForkOrigin {
    async fn turn(&self) -> Result<Option<Turn>, StartError> {
        match self.plan {
            StartPlan::Spare { .. } => Ok(None),
            StartPlan::Fork { .. } | StartPlan::Boot { .. } => {
                Ok(Some(self.host.pace.enter(self.parts.memory_mib).await?))
            }
        }
    }

    async fn spawn(
        &mut self,
        turn: Option<Turn>,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> Result<Started, StartError> {
        let base = match std::mem::replace(&mut self.plan, StartPlan::Boot { reason: None }) {
            StartPlan::Spare { vmm, base } => {
                let from = StartedFrom::Spare(base.template.id().to_string());
                self.last.is(Some(&base.template));
                self.plan = StartPlan::Fork { base };
                return Ok(Started { vmm: *vmm, from, turn: None, cold: None });
            }
            StartPlan::Fork { base } => base,
            StartPlan::Boot { reason } => return self.boot(reason, turn, outputs, detached).await,
        };
        let (of, from) = (Arc::clone(&base.template), StartedFrom::Fork(base.template.id().to_string()));
        self.plan = StartPlan::Fork { base };
        match self.spawn_by(move |parts| parts.fork(&of).map(Arc::new), outputs, detached).await {
            Ok((_, vmm)) => {
                if let StartPlan::Fork { base } = &self.plan {
                    self.last.is(Some(&base.template));
                }
                Ok(Started { vmm, from, turn, cold: None })
            }
            // A boot needs no less, and the template is not the cause.
            Err(error) if error.scarcity().is_some() => Err(error),
            Err(error) => {
                self.fork_failed(&error.to_string());
                let StartPlan::Boot { reason } = &mut self.plan else { return Err(error) };
                let reason = reason.take();
                self.boot(reason, turn, outputs, detached).await
            }
        }
    }

    fn succeeded(&self) {
        if let StartPlan::Fork { base } = &self.plan {
            self.host.templates.succeeded(&base.template);
        }
    }

    /// Counts a failed fork of the template. The next start is a cold boot.
    fn fork_failed(&mut self, reason: &str) {
        if let StartPlan::Fork { base } = &self.plan {
            fork_failed(&self.host, &base.blueprint, &base.template);
            let reason = format!("a fork of template {} failed: {reason}", base.template.id());
            self.plan = StartPlan::Boot { reason: Some(reason) };
        }
    }
}

impl ForkOrigin {
    /// Creates an origin whose first start follows this plan.
    pub(super) fn new(parts: MachineParts, host: VmHost, plan: StartPlan) -> Self {
        let parts = Arc::new(parts);
        // Without the connection, which must go with the machine.
        let source = KeptSource::of(&parts);
        let last = Arc::new(LastStart { source, template: Mutex::default() });
        Self { parts, host, plan, cold: None, last }
    }

    /// Returns the parts with which the machine can be kept, whatever its last start is.
    pub(super) fn last_start(&self) -> Arc<LastStart> {
        Arc::clone(&self.last)
    }

    async fn boot(
        &mut self,
        reason: Option<String>,
        turn: Option<Turn>,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> Result<Started, StartError> {
        let known = self.cold.clone();
        let recipe = move |parts: &MachineParts| known.map_or_else(|| parts.cold().map(Arc::new), Ok);
        let (recipe, vmm) = self.spawn_by(recipe, outputs, detached).await?;
        self.cold = Some(recipe);
        self.last.is(None);
        Ok(Started { vmm, from: StartedFrom::Boot, turn, cold: reason })
    }

    async fn spawn_by(
        &self,
        recipe: impl FnOnce(&MachineParts) -> Result<Arc<Recipe>, StartError> + Send + 'static,
        outputs: &Outputs,
        detached: &Arc<AtomicBool>,
    ) -> Result<(Arc<Recipe>, Vmm), StartError> {
        let recipe = MachineParts::blocking(&self.parts, recipe).await?;
        let vmm = recipe.spawn(outputs, detached).await?;
        Ok((recipe, vmm))
    }
}

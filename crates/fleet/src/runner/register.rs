//! The registration of a runner at its forge.

use dayfly_forge::{JitRequest, NewRunner, RegistrationToken};

use super::reach::Reach;
use super::{Run, RunnerError};
use crate::demand::RegisterError;
use crate::fact::Fact;
use crate::pool::{Registrar, Registration};

/// The secret with which the entrypoint identifies itself at the forge.
pub(super) enum Credentials {
    /// An identity that the host has registered.
    Jit(Box<NewRunner>),
    /// A token with which the VM registers itself.
    Token(RegistrationToken),
}

impl Run<'_> {
    pub(super) async fn register(&mut self, reach: &Reach) -> Result<Credentials, RunnerError> {
        // Also in token mode, because the VM may register itself under this name from here on.
        self.tell(Fact::Registering).await?;
        match self.pool.spec.registration {
            Registration::Jit => self.register_by_jit(reach).await,
            Registration::Token { .. } => {
                let token = self.pool.forge.registration_token(&self.pool.spec.scope).await;
                token.map(Credentials::Token).map_err(|source| self.refused(source.into()))
            }
        }
    }

    async fn register_by_jit(&mut self, reach: &Reach) -> Result<Credentials, RunnerError> {
        // Only a lab needs the address at which its runners reach it.
        let runner_url = self.pool.is_lab.then(|| reach.url.clone());
        let new_runner = match &self.pool.registrar {
            Registrar::Rest => {
                let request = JitRequest {
                    name: self.name.clone(),
                    group_id: self.slot.group.id,
                    labels: self.slot.labels.clone(),
                    work_folder: "_work".to_owned(),
                    runner_url,
                };
                let answer = self.pool.forge.generate_jit_config(&self.pool.spec.scope, &request).await;
                answer.map_err(|source| self.refused(source.into()))?
            }
            Registrar::ScaleSet(registrar) => {
                let answer = registrar.register(&self.name, runner_url.as_deref()).await;
                answer.map_err(|source| self.refused(source))?
            }
        };
        self.registered(new_runner.runner_id).await?;
        Ok(Credentials::Jit(Box::new(new_runner)))
    }

    /// Looks up the id of the runner that the entrypoint has registered, so that the registration can be deleted by its id.
    pub(super) async fn find_registration(&mut self) -> Result<(), RunnerError> {
        match self.pool.forge.find_runner_by_name(&self.pool.spec.scope, &self.name).await {
            Ok(Some(runner)) => {
                // A full disk must not end a runner that may have a job. A later start looks it up again.
                let _ = self.registered(runner.id).await;
                Ok(())
            }
            // The runner may have had its job already, or the forge may be slow. `end` looks it up again.
            Ok(None) => Ok(()),
            Err(error) => {
                let message = format!("the registration of {} was not found yet: {error}", self.name);
                self.tell(Fact::Warning { message }).await
            }
        }
    }

    async fn registered(&mut self, registration: u64) -> Result<(), RunnerError> {
        self.tell(Fact::Registered { registration }).await
    }

    fn refused(&self, source: RegisterError) -> RunnerError {
        RunnerError::Register { name: self.name.clone(), source }
    }
}

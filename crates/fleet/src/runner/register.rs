//! The registration of a runner at its forge.

use dayfly_forge::{ForgeError, JitRequest, NewRunner, RegistrationToken};

use super::reach::Reach;
use super::{Run, RunnerError};
use crate::fact::Fact;
use crate::pool::Registration;

/// What the entrypoint needs to speak to the forge. Secret.
pub(super) enum Credentials {
    /// An identity that the host has registered.
    Jit(Box<NewRunner>),
    /// The right to register one.
    Token(RegistrationToken),
}

impl Run<'_> {
    pub(super) async fn register(&mut self, reach: &Reach) -> Result<Credentials, RunnerError> {
        // In token mode too, although the VM registers itself: from here on a registration of this name may exist.
        self.tell(Fact::Registering).await?;
        match self.pool.spec.registration {
            Registration::Jit => self.register_by_jit(reach).await,
            Registration::Token { .. } => {
                let token = self.pool.forge.registration_token(&self.pool.spec.scope).await;
                token.map(Credentials::Token).map_err(|source| self.refused(source))
            }
        }
    }

    async fn register_by_jit(&mut self, reach: &Reach) -> Result<Credentials, RunnerError> {
        let request = JitRequest {
            name: self.name.clone(),
            group_id: self.slot.group.id,
            labels: self.slot.labels.clone(),
            work_folder: "_work".to_owned(),
            // Only a lab asks how its runners reach it.
            runner_url: self.pool.is_lab.then(|| reach.url.clone()),
        };
        let answer = self.pool.forge.generate_jit_config(&self.pool.spec.scope, &request).await;
        let new_runner = answer.map_err(|source| self.refused(source))?;
        self.registered(new_runner.runner_id).await?;
        Ok(Credentials::Jit(Box::new(new_runner)))
    }

    /// The entrypoint has registered the runner itself: its id is looked up, so that it can be deleted by it.
    pub(super) async fn find_registration(&mut self) -> Result<(), RunnerError> {
        match self.pool.forge.find_runner_by_name(&self.pool.spec.scope, &self.name).await {
            Ok(Some(runner)) => self.registered(runner.id).await,
            // It may have had its job already, or the forge may be slow: the end looks it up again.
            Ok(None) => Ok(()),
            Err(error) => {
                let message = format!("the registration of {} is not found yet: {error}", self.name);
                self.tell(Fact::Warning { message }).await
            }
        }
    }

    async fn registered(&mut self, registration: u64) -> Result<(), RunnerError> {
        self.tell(Fact::Registered { registration }).await
    }

    fn refused(&self, source: ForgeError) -> RunnerError {
        RunnerError::Register { name: self.name.clone(), source }
    }
}

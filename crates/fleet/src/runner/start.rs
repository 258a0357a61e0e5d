//! Starts a runner's VM with its environment, its network and its mounts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dayfly_guest::envfile;
use dayfly_host::name::host_name;
use dayfly_vm::{Network, VmSpec};
use secrecy::ExposeSecret as _;

use super::origin::origin;
use super::prepare::network_of_template;
use super::reach::{NO_PROXY, Reach};
use super::register::Credentials;
use super::{Run, RunnerError, hooks};
use crate::fact::Fact;
use crate::instance::machine_of;
use crate::pool::Registration;

impl Run<'_> {
    pub(super) async fn start(
        &mut self,
        credentials: &Credentials,
        reach: &Reach,
    ) -> Result<(), RunnerError> {
        let hooks = serde_json::to_string(&hooks::read(&self.pool.spec)?).unwrap_or_default();
        let settings = self.settings_for_guest(credentials, reach, &hooks);
        let pairs: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let text = envfile::render(&pairs)
            .map_err(|source| RunnerError::EnvFile { name: self.name.clone(), source })?;
        let spec = VmSpec {
            name: self.name.clone(),
            runner_id: self.id.to_string(),
            machine: self.machine.clone(),
            network: Network {
                forward: reach.forward,
                allow: reach.allow.clone(),
                names: reach.names.clone(),
                ..network_of_template(&self.pool.spec)
            },
            environment: self.environment.path().to_owned(),
            settings: text.into(),
            entrypoint: self.pool.spec.entrypoint.clone(),
            mounts: self.pool.spec.mounts.clone(),
            shell: self.pool.spec.keep,
        };
        self.tell(Fact::StartingVm).await?;
        self.vm = Some(dayfly_vm::start(self.host, spec, &machine_of(&self.folder)).await?);
        Ok(())
    }

    /// Returns the settings in `<id>.env`. The user's own settings come first, and none of them replaces one of the loop's.
    fn settings_for_guest(
        &self,
        credentials: &Credentials,
        reach: &Reach,
        hooks: &str,
    ) -> Vec<(String, String)> {
        let (spec, slot) = (&self.pool.spec, self.slot);
        let flag = |on: bool| if on { "1" } else { "0" };
        let ephemeral = spec.registration != Registration::Token { ephemeral: false };
        let (labels, verbose) = (slot.labels.join(","), spec.verbose.to_string());
        let (scope, principal) = (spec.scope.kind().word().to_owned(), spec.scope.to_string());
        let mut ours = vec![
            ("RUNNER_ID", self.id.as_str()),
            ("RUNNER_NAME", &self.name),
            ("RUNNER_USER", &spec.user),
            ("RUNNER_SECRET", self.secret.expose_secret()),
            ("RUNNER_GITHUB", &reach.url),
            ("RUNNER_SCOPE", &scope),
            ("RUNNER_PRINCIPAL", &principal),
            ("RUNNER_GROUP", &slot.group.name),
            ("RUNNER_LABELS", &labels),
            ("RUNNER_EPHEMERAL", flag(ephemeral)),
            ("RUNNER_UPDATE", flag(spec.update)),
            ("RUNNER_VERBOSE", &verbose),
        ];
        ours.push(match credentials {
            Credentials::Jit(new_runner) => ("RUNNER_JITCONFIG", new_runner.encoded.expose_secret()),
            Credentials::Token(token) => ("RUNNER_TOKEN", token.token.expose_secret()),
        });
        let authorities = spec.authorities.as_ref().map(|pem| BASE64.encode(pem));
        ours.extend(authorities.as_deref().map(|pem| ("RUNNER_CA", pem)));
        let host = spec.shows_host().then(host_name);
        let origin = origin(&self.machine, &self.name, spec.machine.image.as_deref(), host);
        // Texts always are JSON.
        let origin = serde_json::to_string(&origin).unwrap_or_default();
        ours.extend([("RUNNER_ORIGIN", origin.as_str()), ("RUNNER_HOOKS", hooks)]);
        let no_proxy = reach.no_proxy(&spec.guest_settings);
        ours.extend(no_proxy.as_deref().map(|hosts| (NO_PROXY, hosts)));
        let users = spec.guest_settings.iter().filter(|(name, _)| ours.iter().all(|(own, _)| own != name));
        let users: Vec<_> = users.cloned().collect();
        let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        users.into_iter().chain(ours).collect()
    }
}

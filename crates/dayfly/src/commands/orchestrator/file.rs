//! The pools of a configuration file, with the credentials that it names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use dayfly_fleet::demand::ScaleSetFamily;
use dayfly_fleet::orchestrator::Budget;
use dayfly_fleet::pool::Limits;
use dayfly_forge::scale_set::ScaleSetClient;
use dayfly_forge::{Credential, Forge, RunnerScope};
use dayfly_host::quantity::quantity;
use dayfly_vm::KEPT_MAX_MIB;
use secrecy::SecretString;

use super::HostShare;
use super::webhook::WebhookSubscriber;
use crate::commands::runner::credential;
use crate::commands::runner::request::{PoolRequest, ScaleSetRequest, forge_client};
use crate::config::{
    self, Config, CredentialPlace, DemandWord, Finding, ForgeConfig, HostBudget, HostSize, PoolConfig,
    SecretPlace, Surroundings,
};
use crate::exit::{Failure, Result};
use crate::rules;
use crate::settings::Places;

/// Longest file with a secret that is one text, bytes.
const SECRET_FILE_MAX: u64 = 4096;

/// A file that was read and checked.
pub(super) struct FileConfig {
    pub(super) config: Config,
    /// The share of this host.
    pub(super) share: HostShare,
}

/// Reads a file. `show` gets each problem of it.
///
/// # Errors
/// The file has errors.
pub(super) fn read(places: &Places, file: &Path, show: impl FnMut(&Finding)) -> Result<FileConfig> {
    let around = Surroundings::this_host(places);
    let reading = config::read(file, &around)?;
    reading.findings.iter().for_each(show);
    let errors = reading.errors();
    let mut config = reading.config.ok_or_else(|| {
        Failure::usage(format!("{} has {}", file.display(), quantity(errors, "error", "errors")))
            .hint(format!("dayfly validate {}", file.display()))
    })?;
    trust(&mut config)?;
    config.pools = config.pools.iter().flat_map(PoolConfig::by_size).collect();
    let share = share(&config.host, around.size);
    Ok(FileConfig { config, share })
}

fn share(host: &HostBudget, size: Option<HostSize>) -> HostShare {
    let vcpus = size.and_then(|size| host.vcpus(size));
    HostShare {
        budget: Budget {
            machines: host.max_machines,
            vcpus: vcpus.map(|vcpus| u32::try_from(vcpus).unwrap_or(u32::MAX)),
            memory_mib: size.map(|size| host.memory_mib(size)),
            scratch_mib: host.scratch_mib,
        },
        memory_overcommit: host.memory_overcommit.map(|factor| factor.ceil() as u64),
        disk_reserve_mib: host.disk_reserve_mib,
        kept_mib: host.kept_mib.or(kept_by_default(host.scratch_mib)),
        max_starts: host.max_starts.and_then(|count| usize::try_from(count).ok()),
    }
}

/// Returns the space of kept machines if there is a limit of all scratch space and none of theirs: a quarter of it, so that they
/// keep no job from starting.
fn kept_by_default(scratch_mib: Option<u64>) -> Option<u64> {
    scratch_mib.map(|scratch_mib| (scratch_mib / 4).min(KEPT_MAX_MIB))
}

/// A forge's name in the file, and the owner of runners there: an installation of a GitHub App serves one owner.
pub(crate) type Holder = (String, String);

/// The clients of all pools. Pools that can share one do, and with it its connections, its tokens and its budget of calls.
pub(super) struct Clients {
    forges: HashMap<Holder, Forge>,
    scale_sets: HashMap<(Holder, RunnerScope), ScaleSetClient>,
    /// The scale sets of each pool and its sizes, by the forge and the name of the pool.
    families: HashMap<(String, String), ScaleSetFamily>,
    /// None if the file has no server for webhooks.
    webhook: Option<WebhookSubscriber>,
}

/// The clients for a changed file. Pools that go on keep theirs.
pub(super) struct Renewal {
    pub(super) clients: Clients,
    /// The secrets that have changed.
    pub(super) secrets: Vec<NewSecret>,
}

/// A secret that replaces the one of a client in use.
pub(super) struct NewSecret {
    pub(super) used: Credential,
    /// A client with the new secret.
    pub(super) fresh: Forge,
    /// The scopes that it must serve.
    pub(super) scopes: Vec<RunnerScope>,
}

impl Clients {
    /// Creates the client of each forge and owner, with the credential that the file names.
    ///
    /// # Errors
    /// A credential cannot be read.
    pub(super) fn new(config: &Config, webhook: Option<WebhookSubscriber>) -> Result<Self> {
        Self::with(config, &[], webhook)
    }

    /// `earlier` are pools whose runners may still have to be removed with the credentials of the file.
    fn with(config: &Config, earlier: &[&PoolConfig], webhook: Option<WebhookSubscriber>) -> Result<Self> {
        let mut pools: HashMap<Holder, Vec<&PoolConfig>> = HashMap::new();
        config.pools.iter().for_each(|pool| pools.entry(holder(pool)).or_default().push(pool));
        for pool in earlier {
            pools.entry(holder(pool)).and_modify(|pools| pools.push(pool));
        }
        let client = |(holder, pools): (Holder, Vec<&PoolConfig>)| {
            let forge = &config.forges[&holder.0];
            let credential = credential_of(&forge.credential, &pools)
                .map_err(|failure| failure.at(&format!("forges.{}", holder.0)))?;
            // Pools of one forge trust the same ones, and those of the file come first.
            let authorities = pools.first().and_then(|pool| pool.spec.authorities.as_deref());
            Ok((holder, forge_client(forge.url.clone(), credential, authorities)?))
        };
        let forges = pools.into_iter().map(client).collect::<Result<_>>()?;
        Ok(Self { forges, scale_sets: HashMap::new(), families: HashMap::new(), webhook })
    }

    /// Returns the clients for a changed file, of which `running` are the pools that run.
    ///
    /// # Errors
    /// A credential cannot be read.
    pub(super) fn renew(&self, config: &Config, running: &[&PoolConfig]) -> Result<Renewal> {
        let mut clients = Self::with(config, running, self.webhook.clone())?;
        clients.families.clone_from(&self.families);
        let mut secrets = Vec::new();
        for (holder, client) in &mut clients.forges {
            let trusts_the_same =
                trusted(running.iter().copied(), holder) == trusted(config.pools.iter(), holder);
            let same = self.forges.get(holder).filter(|used| used.base() == client.base() && trusts_the_same);
            let Some(used) = same.cloned() else { continue };
            let fresh = std::mem::replace(client, used.clone());
            if !used.credential().covers(fresh.credential()) {
                let pools = config.pools.iter().filter(|pool| self::holder(pool) == *holder);
                let used = used.credential().clone();
                secrets.push(NewSecret { used, fresh, scopes: scopes(pools) });
            }
            let of_holder = self.scale_sets.iter().filter(|((one, _), _)| one == holder);
            clients.scale_sets.extend(of_holder.map(|(key, client)| (key.clone(), client.clone())));
        }
        Ok(Renewal { clients, secrets })
    }

    fn scale_set(&mut self, pool: &PoolConfig) -> Option<ScaleSetRequest> {
        let name = pool.scale_set.clone()?;
        let (holder, scope) = (holder(pool), pool.spec.scope.clone());
        let forge = &self.forges[&holder];
        let client = self.scale_sets.entry((holder, scope.clone()));
        let client = client.or_insert_with(|| ScaleSetClient::new(forge.clone(), scope)).clone();
        let family = pool.spec.size_of.as_ref().unwrap_or(&pool.name).clone();
        let family = self.families.entry((pool.forge.clone(), family)).or_default().clone();
        Some(ScaleSetRequest { client, name, max: pool.max, family })
    }
}

pub(crate) fn holder(pool: &PoolConfig) -> Holder {
    (pool.forge.clone(), pool.spec.scope.owner().to_lowercase())
}

fn polls(pool: &PoolConfig) -> bool {
    pool.sources.contains(&DemandWord::Poll)
}

fn takes_webhooks(pool: &PoolConfig) -> bool {
    pool.sources.contains(&DemandWord::Webhook)
}

/// Reads a secret that is one text. `what` is the word for it.
///
/// # Errors
/// It is not there, or others can read it.
pub(super) fn secret_at(place: &SecretPlace, what: &str) -> Result<SecretString> {
    match place {
        SecretPlace::File(file) => rules::read_secret_file(file, what, SECRET_FILE_MAX),
        SecretPlace::Env(name) => {
            let missing = |_| Failure::usage(format!("the variable {name} holds no {what}"));
            Ok(std::env::var(name).map_err(missing)?.into())
        }
        SecretPlace::Systemd(name) => rules::read_secret_file(&systemd_file(name)?, what, SECRET_FILE_MAX),
    }
}

/// Returns the file of a systemd credential.
fn systemd_file(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        Failure::usage("CREDENTIALS_DIRECTORY is not set, which systemd sets for a service with credentials")
            .hint(format!("add LoadCredential={name}:FILE to the service"))
    })?;
    Ok(Path::new(&folder).join(name))
}

/// Reads a credential for pools of one owner.
pub(crate) fn credential_of(place: &CredentialPlace, pools: &[&PoolConfig]) -> Result<Credential> {
    match place {
        CredentialPlace::TokenFile(file) => credential::token_in(file),
        CredentialPlace::TokenEnv(name) => {
            let missing = |_| Failure::usage(format!("the variable {name} holds no token"));
            credential::token_of(std::env::var(name).map_err(missing)?.into())
        }
        CredentialPlace::Systemd(name) => credential::token_in(&systemd_file(name)?),
        CredentialPlace::App { id, installation, key_file } => {
            let scopes = scopes(pools.iter().copied());
            let app = credential::app_of(&id.to_string(), *installation, key_file, scopes)?;
            let reads_jobs = pools.iter().any(|pool| polls(pool));
            Ok(Credential::app(if reads_jobs { app.reading_jobs() } else { app }))
        }
    }
}

/// Reads the certificate authorities that a forge needs beside those of the system.
pub(crate) fn authorities(forge: &ForgeConfig) -> Result<Option<String>> {
    forge.ca_file.as_deref().map(rules::authorities).transpose()
}

/// Returns the authorities that the pools of a holder trust. Pools of one forge trust the same ones.
fn trusted<'a>(mut pools: impl Iterator<Item = &'a PoolConfig>, holder: &Holder) -> Option<&'a str> {
    pools.find(|pool| self::holder(pool) == *holder)?.spec.authorities.as_deref()
}

/// Gives each pool the authorities of its forge, so that a change of them is a change of the pool.
fn trust(config: &mut Config) -> Result<()> {
    for (name, forge) in &config.forges {
        if config.pools.iter().all(|pool| pool.forge != *name) {
            continue;
        }
        let read = authorities(forge).map_err(|failure| failure.at(&format!("forges.{name}")))?;
        for pool in config.pools.iter_mut().filter(|pool| pool.forge == *name) {
            pool.spec.authorities.clone_from(&read);
        }
    }
    Ok(())
}

fn scopes<'a>(pools: impl Iterator<Item = &'a PoolConfig>) -> Vec<RunnerScope> {
    let mut scopes: Vec<RunnerScope> = Vec::new();
    for scope in pools.map(|pool| &pool.spec.scope) {
        if !scopes.contains(scope) {
            scopes.push(scope.clone());
        }
    }
    scopes
}

/// Returns the request for a pool.
///
/// # Errors
/// A mount is not there.
pub(super) fn request(pool: &PoolConfig, clients: &mut Clients) -> Result<PoolRequest> {
    for mount in &pool.spec.mounts {
        let missing = |why| Failure::usage(why).at(&format!("pools.{}.mounts", pool.name));
        rules::mount_is_there(mount).map_err(missing)?;
    }
    let defaults = Limits::default();
    let is_static = pool.sources == [DemandWord::Static];
    let limits = Limits {
        runner_up: pool.timeouts.registration.unwrap_or(defaults.runner_up),
        job: pool.timeouts.job.unwrap_or(defaults.job),
        idle: pool.timeouts.idle.filter(|_| is_static),
        ..defaults
    };
    // Also without entries, because a reload may bring some, or another minimum.
    let schedule = (!is_static).then(|| (pool.schedule.clone(), pool.min_idle));
    let webhook = clients.webhook.as_ref().filter(|_| takes_webhooks(pool));
    Ok(PoolRequest {
        webhook: webhook.map(WebhookSubscriber::request),
        scale_set: clients.scale_set(pool),
        polls: polls(pool),
        schedule,
        limits,
        ..PoolRequest::new(pool.spec.clone(), clients.forges[&holder(pool)].clone())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Returns a file with two pools of one owner, whose token is in a file.
    fn config(folder: &Path, url: &str, token: &str) -> Config {
        let path = folder.join("token");
        std::fs::write(&path, token).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        let pool = |name: &str| format!("[pools.{name}]\nforge = 'main'\nprincipal = 'o/{name}'\n");
        let text = format!("[forges.main]\nurl = '{url}'\ntoken_file = {path:?}\n{}{}", pool("a"), pool("b"));
        let around = Surroundings { is_this_host: false, size: None, guest_folder: "/".into() };
        config::parse("dayfly.toml", text.as_bytes(), &around).config.expect("good")
    }

    fn only(clients: &Clients) -> &Forge {
        assert_eq!(clients.forges.len(), 1);
        clients.forges.values().next().expect("one")
    }

    #[test]
    fn a_changed_token_replaces_the_one_in_use_and_another_address_gets_a_client_of_its_own() {
        let folder = tempfile::tempdir().expect("folder");
        let (url, other) = ("http://127.0.0.1:1", "http://127.0.0.1:2");
        let before = config(folder.path(), url, "old");
        let clients = Clients::new(&before, None).expect("clients");
        let used = only(&clients).credential().clone();
        let running: Vec<_> = before.pools.iter().collect();

        let same = clients.renew(&config(folder.path(), url, "old"), &running).expect("clients");
        assert!(same.secrets.is_empty());

        let renewal = clients.renew(&config(folder.path(), url, "new"), &running).expect("clients");
        let [secret] = &renewal.secrets[..] else { panic!("{} secrets", renewal.secrets.len()) };
        assert_eq!(secret.scopes.len(), 2);
        assert!(only(&renewal.clients).credential().covers(&used), "the old one until the new one was tried");
        secret.used.adopt(secret.fresh.credential());
        for clients in [&clients, &renewal.clients] {
            assert!(only(clients).credential().covers(secret.fresh.credential()));
        }

        let moved = clients.renew(&config(folder.path(), other, "third"), &running).expect("clients");
        assert!(moved.secrets.is_empty(), "the old address never gets the new token");
        assert!(!only(&moved.clients).credential().covers(&used));
    }
}

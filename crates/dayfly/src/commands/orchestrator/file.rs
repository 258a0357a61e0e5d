//! The pools of a configuration file, with the credentials that it names.

use std::collections::HashMap;
use std::path::Path;

use dayfly_fleet::orchestrator::Budget;
use dayfly_fleet::pool::{Limits, PoolSpec};
use dayfly_forge::scale_set::ScaleSetClient;
use dayfly_forge::{Credential, Forge, RunnerScope};

use super::Plan;
use crate::commands::runner::credential;
use crate::commands::runner::request::{PoolRequest, ScaleSetRequest, forge_client};
use crate::commands::validate;
use crate::config::{
    self, Config, CredentialPlace, DemandWord, ForgeConfig, HostBudget, HostSize, PoolConfig, Surroundings,
};
use crate::exit::{Failure, Result};
use crate::rules;
use crate::settings::Places;

/// Reads the pools of a file.
///
/// # Errors
/// The file has errors, asks for something that this version cannot do, or names a credential that cannot be used. All errors
/// of the file itself are printed.
pub(super) fn read(places: &Places, file: &Path) -> Result<Plan> {
    let around = Surroundings::this_host(places);
    let reading = config::read(file, &around)?;
    reading.findings.iter().for_each(validate::show);
    let errors = reading.errors();
    let config = reading.config.ok_or_else(|| {
        Failure::usage(format!("{} has {errors} errors", file.display()))
            .hint(format!("dayfly validate {}", file.display()))
    })?;
    if let Some(why) = config.not_served().first() {
        return Err(Failure::usage(format!("{}: {why}", file.display())));
    }
    let mut clients = Clients::new(&config)?;
    let pools =
        config.pools.iter().map(|pool| request(pool, &config, &mut clients)).collect::<Result<_>>()?;
    Ok(plan(pools, &config.host, around.size))
}

fn plan(pools: Vec<PoolRequest>, host: &HostBudget, size: Option<HostSize>) -> Plan {
    let vcpus = size.and_then(|size| host.vcpus(size));
    Plan {
        pools,
        budget: Budget {
            machines: host.max_machines,
            vcpus: vcpus.map(|vcpus| u32::try_from(vcpus).unwrap_or(u32::MAX)),
            memory_mib: size.map(|size| host.memory_mib(size)),
        },
        memory_overcommit: host.memory_overcommit.map(|factor| factor.ceil() as u64),
        disk_reserve_mib: host.disk_reserve_mib,
        max_starts: host.max_starts.and_then(|count| usize::try_from(count).ok()),
        environment: None,
    }
}

/// A forge's name in the file, and the owner of runners there: an installation of a GitHub App serves one owner.
pub(crate) type Holder = (String, String);

/// The clients of all pools. Pools that can share one do, and with it its connections, its tokens and its budget of calls.
struct Clients {
    forges: HashMap<Holder, Forge>,
    scale_sets: HashMap<(Holder, RunnerScope), ScaleSetClient>,
}

impl Clients {
    /// Creates the client of each forge and owner, with the credential that the file names.
    fn new(config: &Config) -> Result<Self> {
        let mut pools: HashMap<Holder, Vec<&PoolConfig>> = HashMap::new();
        config.pools.iter().for_each(|pool| pools.entry(holder(pool)).or_default().push(pool));
        let client = |(holder, pools): (Holder, Vec<&PoolConfig>)| {
            let forge = &config.forges[&holder.0];
            let credential = credential_of(&forge.credential, &pools)
                .map_err(|failure| failure.at(&format!("forges.{}", holder.0)))?;
            let authorities = authorities(forge)?;
            Ok((holder, forge_client(forge.url.clone(), credential, authorities.as_deref())?))
        };
        Ok(Self { forges: pools.into_iter().map(client).collect::<Result<_>>()?, scale_sets: HashMap::new() })
    }

    fn scale_set(&mut self, pool: &PoolConfig) -> Option<ScaleSetRequest> {
        let name = pool.scale_set.clone()?;
        let (holder, scope) = (holder(pool), pool.spec.scope.clone());
        let forge = &self.forges[&holder];
        let client = self.scale_sets.entry((holder, scope.clone()));
        let client = client.or_insert_with(|| ScaleSetClient::new(forge.clone(), scope)).clone();
        Some(ScaleSetRequest { client, name, capacity: pool.max })
    }
}

pub(crate) fn holder(pool: &PoolConfig) -> Holder {
    (pool.forge.clone(), pool.spec.scope.owner().to_lowercase())
}

fn polls(pool: &PoolConfig) -> bool {
    pool.sources.contains(&DemandWord::Poll)
}

/// Reads a credential for pools of one owner.
pub(crate) fn credential_of(place: &CredentialPlace, pools: &[&PoolConfig]) -> Result<Credential> {
    match place {
        CredentialPlace::TokenFile(file) => credential::token_in(file),
        CredentialPlace::TokenEnv(name) => {
            let missing = |_| Failure::usage(format!("the variable {name} holds no token"));
            credential::token_of(std::env::var(name).map_err(missing)?.into())
        }
        CredentialPlace::Systemd(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                Failure::usage(
                    "CREDENTIALS_DIRECTORY is not set, which systemd sets for a service with credentials",
                )
                .hint(format!("add LoadCredential={name}:FILE to the service"))
            })?;
            credential::token_in(&Path::new(&folder).join(name))
        }
        CredentialPlace::App { id, installation, key_file } => {
            let mut scopes: Vec<RunnerScope> = Vec::new();
            for scope in pools.iter().map(|pool| &pool.spec.scope) {
                if !scopes.contains(scope) {
                    scopes.push(scope.clone());
                }
            }
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

fn request(pool: &PoolConfig, config: &Config, clients: &mut Clients) -> Result<PoolRequest> {
    for mount in &pool.spec.mounts {
        let missing = |why| Failure::usage(why).at(&format!("pools.{}.mounts", pool.name));
        rules::mount_is_there(mount).map_err(missing)?;
    }
    let defaults = Limits::default();
    let limits = Limits {
        runner_up: pool.timeouts.registration.unwrap_or(defaults.runner_up),
        job: pool.timeouts.job.unwrap_or(defaults.job),
        ..defaults
    };
    let spec = PoolSpec { authorities: authorities(&config.forges[&pool.forge])?, ..pool.spec.clone() };
    let schedule = (!pool.schedule.entries.is_empty()).then(|| (pool.schedule.clone(), pool.min_idle));
    Ok(PoolRequest {
        scale_set: clients.scale_set(pool),
        polls: polls(pool),
        schedule,
        limits,
        ..PoolRequest::new(spec, clients.forges[&holder(pool)].clone())
    })
}

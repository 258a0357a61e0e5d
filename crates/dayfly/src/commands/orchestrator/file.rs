//! The pools of a configuration file, with the credentials that it names.

use std::collections::HashMap;
use std::path::Path;

use dayfly_fleet::orchestrator::Budget;
use dayfly_fleet::pool::Limits;
use dayfly_forge::{Credential, RunnerScope};

use super::Plan;
use crate::commands::runner::credential;
use crate::commands::runner::request::{PoolRequest, ScaleSetRequest};
use crate::commands::validate;
use crate::config::{
    self, Config, CredentialPlace, DemandWord, HostBudget, HostSize, PoolConfig, Surroundings,
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
    let credentials = credentials(&config)?;
    let pools = config.pools.iter().map(|pool| request(pool, &credentials)).collect::<Result<_>>()?;
    Ok(plan(pools, &config.host, around.size))
}

fn plan(pools: Vec<PoolRequest>, host: &HostBudget, size: Option<HostSize>) -> Plan {
    // Sizes of hosts are far from the numbers that a float cannot hold.
    let times = |number: u64, factor: f64| (number as f64 * factor) as u64;
    let vcpus = size.zip(host.vcpu_overcommit).map(|(size, factor)| times(size.cpus.into(), factor));
    let memory_factor = host.memory_overcommit.unwrap_or(dayfly_vm::OVERCOMMIT as f64);
    Plan {
        pools,
        budget: Budget {
            machines: host.max_machines,
            vcpus: vcpus.map(|vcpus| u32::try_from(vcpus).unwrap_or(u32::MAX)),
            memory_mib: size.map(|size| times(size.memory_mib, memory_factor)),
        },
        memory_overcommit: host.memory_overcommit.map(|factor| factor.ceil() as u64),
        max_starts: host.max_starts.and_then(|count| usize::try_from(count).ok()),
        environment: None,
    }
}

/// A forge's name in the file, and the owner of runners there: an installation of a GitHub App serves one owner.
type Holder = (String, String);

/// Reads the credential of each forge and owner once, so that all of its pools share its budget of calls.
fn credentials(config: &Config) -> Result<HashMap<Holder, Credential>> {
    let mut scopes: HashMap<Holder, Vec<RunnerScope>> = HashMap::new();
    for pool in &config.pools {
        let all = scopes.entry(holder(pool)).or_default();
        if !all.contains(&pool.spec.scope) {
            all.push(pool.spec.scope.clone());
        }
    }
    let read = |(holder, scopes): (Holder, Vec<RunnerScope>)| {
        let place = &config.forges[&holder.0].credential;
        let reads_jobs = config.pools.iter().any(|pool| self::holder(pool) == holder && polls(pool));
        let read = credential_of(place, scopes, reads_jobs)
            .map_err(|failure| failure.at(&format!("forges.{}", holder.0)))?;
        Ok((holder, read))
    };
    scopes.into_iter().map(read).collect()
}

fn holder(pool: &PoolConfig) -> Holder {
    (pool.forge.clone(), pool.spec.scope.owner().to_lowercase())
}

fn polls(pool: &PoolConfig) -> bool {
    pool.sources.contains(&DemandWord::Poll)
}

fn credential_of(place: &CredentialPlace, scopes: Vec<RunnerScope>, reads_jobs: bool) -> Result<Credential> {
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
            let app = credential::app_of(&id.to_string(), *installation, key_file, scopes)?;
            Ok(Credential::app(if reads_jobs { app.reading_jobs() } else { app }))
        }
    }
}

fn request(pool: &PoolConfig, credentials: &HashMap<Holder, Credential>) -> Result<PoolRequest> {
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
    let scale_set = pool.scale_set.clone().map(|name| ScaleSetRequest { name, capacity: pool.max });
    let schedule = (!pool.schedule.entries.is_empty()).then(|| (pool.schedule.clone(), pool.min_idle));
    Ok(PoolRequest {
        scale_set,
        polls: polls(pool),
        schedule,
        limits,
        ..PoolRequest::new(pool.spec.clone(), credentials[&holder(pool)].clone())
    })
}

//! Reads a pool from a loop's options, and checks them before anything is created and before any request to the forge.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use dayfly_fleet::demand::ScaleSetFamily;
use dayfly_fleet::pool::{Limits, MachineSpec, PoolSpec};
use dayfly_forge::scale_set::ScaleSetClient;
use dayfly_forge::webhook::WebhookQueue;
use dayfly_forge::{ApiBase, Credential, Forge, ForgeOptions, RunnerScope};
use dayfly_guest::variables;
use dayfly_vm::{DriverKind, Mount, NetworkPolicy};
use secrecy::SecretString;

use super::credential::{CredentialOptions, credential};
use crate::cli::LoopOptions;
use crate::cli::runner::GuestArgs;
use crate::config::Schedule;
use crate::exit::{Failure, Result};
use crate::settings::Places;
use crate::{proxy, rules};

/// Longest secret of the handshake; the file that carries it back holds 4 KiB.
const SECRET_LENGTH_MAX: usize = 1024;

/// The checked options of a loop: a pool, and the secrets and warnings that are not part of its description.
#[derive(Debug)]
pub(crate) struct PoolRequest {
    pub(crate) spec: PoolSpec,
    /// The client of its forge. Pools with one credential have clones of one client, which share connections.
    pub(crate) forge: Forge,
    /// The secret of the handshake; none: a random one for each runner.
    pub(crate) secret: Option<SecretString>,
    /// Warnings about allowed but unwise options.
    pub(crate) warnings: Vec<String>,
    /// The scale set that feeds the pool.
    pub(crate) scale_set: Option<ScaleSetRequest>,
    /// True if the lists of the repository's jobs feed the pool.
    pub(crate) polls: bool,
    /// The deliveries of webhooks that feed the pool.
    pub(crate) webhook: Option<WebhookRequest>,
    /// The schedule of the minimum of idle runners, and the minimum at other times.
    pub(crate) schedule: Option<(Schedule, u32)>,
    /// Limits of the waits for the forge, the registry and the VMs.
    pub(crate) limits: Limits,
}

/// A scale set that feeds a pool.
#[derive(Debug, Clone)]
pub(crate) struct ScaleSetRequest {
    /// The client. All scale sets of a scope share it, and with it one token of the service.
    pub(crate) client: ScaleSetClient,
    /// Its name.
    pub(crate) name: String,
    /// The most jobs that it may have at once, with those of its family.
    pub(crate) max: u32,
    /// The scale sets of the pool and its sizes.
    pub(crate) family: ScaleSetFamily,
}

/// The deliveries of webhooks that feed a pool.
#[derive(Debug)]
pub(crate) struct WebhookRequest {
    /// The queue, which a server fills from the start, so that no delivery is lost while the pool is prepared.
    pub(crate) queue: WebhookQueue,
    /// Address of the server.
    pub(crate) url: String,
}

impl PoolRequest {
    /// Returns a request for a pool that no source feeds.
    pub(crate) fn new(spec: PoolSpec, forge: Forge) -> Self {
        Self {
            spec,
            forge,
            secret: None,
            warnings: Vec::new(),
            scale_set: None,
            polls: false,
            webhook: None,
            schedule: None,
            limits: Limits::default(),
        }
    }

    /// Checks options.
    ///
    /// # Errors
    /// The first problem that was found.
    pub(crate) fn read(options: &LoopOptions, places: &Places) -> Result<Self> {
        let args = &options.args;
        let access = &args.forge.access;
        let forge = ApiBase::from_host_or_url(&args.forge.forge).map_err(Failure::usage)?;
        let mut warnings = Vec::new();
        let ephemeral = args.forge.ephemeral;
        let registration = rules::registration(args.forge.registration, ephemeral)
            .map_err(|why| Failure::usage(format!("RUNNER_EPHEMERAL=0: {why}")))?;
        if !ephemeral {
            warnings.push(
                "RUNNER_EPHEMERAL=0: one job after another runs in the same machine, and finds the files of earlier jobs"
                    .to_owned(),
            );
        }
        let scope = scope(&access.scope, access.principal.as_deref())?;
        let (dir, guest_dir) = (args.guest.dir.as_deref(), args.guest.guest_dir.as_deref());
        let mut mounts = mounts(&args.guest.mounts)?;
        let entrypoint = rules::entrypoint(args.guest.entrypoint.clone(), dir, Vec::new());
        mounts.extend(dir.map(|dir| guest_programs(dir, guest_dir, places)).transpose()?);
        let named = args.runtime.as_deref().filter(|word| !["", "auto"].contains(word));
        let driver = named.map(str::parse).transpose().map_err(Failure::usage)?;
        let network = network(&args.guest, driver, &forge)?;
        let guest_settings = std::env::vars().filter(|(name, value)| variables::is_for_guest(name, value));
        let machine = MachineSpec { driver, max_age: args.max_age.0, ..args.machine.spec() };
        let spec = PoolSpec {
            group: access.group.clone(),
            allow_public: args.forge.allow_public,
            labels: rules::labels(&args.forge.labels).map_err(Failure::usage)?,
            registration,
            prefix: args.looping.prefix.clone(),
            repeat: u32::try_from(args.looping.repeat).ok().and_then(NonZeroU32::new),
            lifetime: args.looping.terminate.filter(|&seconds| seconds > 0).map(Duration::from_secs),
            dns: args.guest.dns,
            network,
            mounts,
            entrypoint,
            user: args.guest.user.clone(),
            update: args.guest.update,
            verbose: options.verbosity(),
            authorities: args.forge.access.ca_file.as_deref().map(rules::authorities).transpose()?,
            guest_settings: guest_settings.collect(),
            allow_forks: args.forge.allow_forks,
            show_host: args.forge.show_host,
            ..PoolSpec::new(forge, scope, machine)
        };
        let credential = credential(
            &CredentialOptions::of(access, |id| options.is_argument(id)),
            &spec.scope,
            &mut warnings,
        )?;
        let secret = args.looping.secret.as_deref().map(secret).transpose()?;
        let forge = forge_client(spec.forge.clone(), credential, spec.authorities.as_deref())?;
        Ok(Self { secret, warnings, ..Self::new(spec, forge) })
    }
}

/// Creates the client of a forge, with the proxy of the environment. It sends nothing yet. `authorities` are trusted beside the
/// system's.
///
/// # Errors
/// The proxy's address is invalid, or an https address has no certificate authorities.
pub(crate) fn forge_client(
    base: ApiBase,
    credential: Credential,
    authorities: Option<&str>,
) -> Result<Forge> {
    let options = ForgeOptions {
        proxy: proxy::of(base.url())?,
        extra_authorities: authorities.map(|pem| pem.as_bytes().to_vec()),
    };
    Forge::with_options(base, credential, &options).map_err(Failure::cannot)
}

impl LoopOptions {
    /// Returns the verbosity: that of `-v` if it was given, else the number.
    pub(crate) fn verbosity(&self) -> u8 {
        if self.verbose > 0 { self.verbose } else { self.args.looping.verbosity }
    }
}

pub(crate) fn scope(word: &str, principal: Option<&str>) -> Result<RunnerScope> {
    let Some(principal) = principal.filter(|principal| !principal.is_empty()) else {
        return Err(Failure::usage(format!("the scope {word} needs a principal"))
            .hint("give -p OWNER/REPO for a repository, else -p NAME with -s org or -s enterprise"));
    };
    RunnerScope::parse(word, principal).map_err(Failure::usage)
}

fn secret(text: &str) -> Result<SecretString> {
    if text.len() > SECRET_LENGTH_MAX || text.chars().any(|c| c.is_control()) {
        return Err(Failure::usage(format!(
            "the secret must be one line of {SECRET_LENGTH_MAX} bytes at most"
        )));
    }
    Ok(text.into())
}

fn mounts(texts: &[String]) -> Result<Vec<Mount>> {
    let given = texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    given
        .map(|text| {
            let mount: Mount = text.parse().map_err(Failure::usage)?;
            rules::mount_is_there(&mount).map_err(Failure::usage)?;
            Ok(mount)
        })
        .collect()
}

/// Returns the mount for `-D`: this host's folder of guest programs, at that path.
fn guest_programs(dir: &Path, guest_dir: Option<&Path>, places: &Places) -> Result<Mount> {
    let host = match guest_dir {
        Some(folder) => std::path::absolute(folder).map_err(Failure::usage)?,
        None => places.guest_binary_path()?.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    rules::guest_programs_are_there(&host).map_err(Failure::usage)?;
    rules::guest_programs(dir, host).map_err(|why| Failure::usage(format!("-D {why}")))
}

/// Returns the network policy of the options, with its list.
fn network(args: &GuestArgs, driver: Option<DriverKind>, forge: &ApiBase) -> Result<NetworkPolicy> {
    let policy = rules::policy(args.network, &args.allow).map_err(Failure::usage)?;
    rules::network(&policy, driver, forge).map_err(Failure::usage)?;
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_needs_a_principal() {
        assert_eq!(scope("repo", None).expect_err("refused").code(), 2);
        assert_eq!(scope("ORGANISATION", Some("acme")).expect("good").to_string(), "acme");
        assert_eq!(scope("repo", Some("acme")).expect_err("refused").code(), 2);
        assert_eq!(scope("team", Some("acme")).expect_err("refused").code(), 2);
    }

    #[test]
    fn lines_without_a_mount_are_skipped() {
        assert_eq!(mounts(&["/:/y:ro".to_owned(), "  ".to_owned()]).expect("good").len(), 1);
        assert_eq!(mounts(&["/nonexistent/x:/y".to_owned()]).expect_err("refused").code(), 2);
    }
}

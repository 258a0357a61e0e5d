//! The credentials that a configuration file or options name, each with the uses that pools make of it.

use dayfly_fleet::pool::GROUP_DEFAULT;
use dayfly_fleet::recovery::Clearer;
use dayfly_forge::{ApiBase, Forge, RunnerScope};
use dayfly_host::quantity::quantity;

use crate::cli::{AccessArgs, DeletesArgs};
use crate::commands::orchestrator::file::{Holder, authorities, credential_of, holder};
use crate::commands::runner::credential::{CredentialOptions, credential};
use crate::commands::runner::request::{self, forge_client};
use crate::commands::validate;
use crate::config::{self, Config, DemandWord, PoolConfig, Surroundings};
use crate::exit::{Failure, Result};
use crate::printer;
use crate::settings::Places;
use crate::{defaults, rules};
use std::path::Path;

/// A credential at a forge.
pub(in crate::commands) struct Subject {
    /// Begins the name of each check: the forge's name in the file, a colon and a blank; empty without a file.
    pub(in crate::commands) prefix: String,
    /// The client, or the reason why the credential cannot be read.
    pub(in crate::commands) forge: Result<Forge>,
    /// The owners of runners.
    pub(in crate::commands) owners: Vec<Owner>,
}

/// An owner of runners, and the uses that all pools together make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct Owner {
    pub(in crate::commands) scope: RunnerScope,
    /// The groups of its runners, without the default one.
    pub(in crate::commands) groups: Vec<String>,
    /// The scale sets of all pools and their sizes, each as its group and its name.
    pub(in crate::commands) scale_sets: Vec<(String, String)>,
    /// True if a pool reads its jobs, or gets events about them.
    pub(in crate::commands) jobs: bool,
}

impl Owner {
    pub(in crate::commands) fn new(scope: RunnerScope) -> Self {
        Self { scope, groups: Vec::new(), scale_sets: Vec::new(), jobs: false }
    }

    fn add_group(&mut self, group: &str) {
        if !group.eq_ignore_ascii_case(GROUP_DEFAULT) && !self.groups.iter().any(|known| known == group) {
            self.groups.push(group.to_owned());
        }
    }
}

/// The forges that a command's options name.
pub(in crate::commands) struct Named<'a> {
    /// The configuration file.
    pub(in crate::commands) config: Option<&'a Path>,
    /// The forge, if there is no file.
    pub(in crate::commands) address: &'a str,
    /// The owner of runners and the credential, if there is no file.
    pub(in crate::commands) access: &'a AccessArgs,
}

impl<'a> Named<'a> {
    /// Returns the forges at which something is to be deleted.
    pub(in crate::commands) fn of(args: &'a DeletesArgs) -> Self {
        Self { config: args.config.as_deref(), address: &args.address, access: &args.access }
    }
}

impl Named<'_> {
    /// Returns the configuration file: the one that is named, or else the usual one, unless an owner of runners is named.
    fn file(&self) -> Option<&Path> {
        let usual = Path::new(defaults::CONFIG_FILE);
        self.config.or((!self.access.names_owner() && usual.exists()).then_some(usual))
    }
}

/// Returns the subjects of the configuration file; without a file, the one of the options.
///
/// # Errors
/// The file has errors, which are printed, or the options are wrong.
pub(in crate::commands) fn read(
    places: &Places,
    named: &Named<'_>,
    is_argument: impl Fn(&str) -> bool,
) -> Result<Vec<Subject>> {
    match named.file() {
        Some(file) => of_file(places, file),
        None => of_options(named, is_argument).map(|subject| vec![subject]),
    }
}

/// Does the same as [`read`], but returns nothing if there is no file and the options name no owner of runners.
///
/// # Errors
/// As for [`read`].
pub(in crate::commands) fn read_if_named(
    places: &Places,
    named: &Named<'_>,
    is_argument: impl Fn(&str) -> bool,
) -> Result<Vec<Subject>> {
    match named.file().is_some() || named.access.names_owner() {
        true => read(places, named, is_argument),
        false => Ok(Vec::new()),
    }
}

/// Returns the clients that delete registrations. A forge without one is a warning, because registrations elsewhere can still be
/// deleted.
pub(in crate::commands) fn clearers(subjects: &[Subject]) -> Vec<Clearer> {
    let of = |subject: &Subject| match &subject.forge {
        Ok(forge) => {
            let of = |owner: &Owner| Clearer { forge: forge.clone(), scope: owner.scope.clone() };
            subject.owners.iter().map(of).collect()
        }
        Err(failure) => {
            printer::warning(format_args!("{}{failure}", subject.prefix));
            Vec::new()
        }
    };
    subjects.iter().flat_map(of).collect()
}

fn of_options(args: &Named<'_>, is_argument: impl Fn(&str) -> bool) -> Result<Subject> {
    let base = ApiBase::from_host_or_url(args.address).map_err(Failure::usage)?;
    let mut owner = Owner::new(request::scope(&args.access.scope, args.access.principal.as_deref())?);
    owner.add_group(&args.access.group);
    let mut warnings = Vec::new();
    let options = CredentialOptions::of(args.access, is_argument);
    let credential = credential(&options, &owner.scope, &mut warnings)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let authorities = args.access.ca_file.as_deref().map(rules::authorities).transpose()?;
    let forge = forge_client(base, credential, authorities.as_deref());
    Ok(Subject { prefix: String::new(), forge, owners: vec![owner] })
}

fn of_file(places: &Places, file: &Path) -> Result<Vec<Subject>> {
    let reading = config::read(file, &Surroundings::this_host(places))?;
    reading.findings.iter().for_each(validate::show);
    let errors = reading.errors();
    let config = reading.config.ok_or_else(|| {
        Failure::usage(format!("{} has {}", file.display(), quantity(errors, "error", "errors")))
    })?;
    Ok(of_config(&config))
}

/// Returns a subject for each forge and owner, because an installation of a GitHub App serves one owner.
pub(in crate::commands) fn of_config(config: &Config) -> Vec<Subject> {
    let mut holders: Vec<(Holder, Vec<&PoolConfig>)> = Vec::new();
    for pool in &config.pools {
        let holder = holder(pool);
        match holders.iter_mut().find(|(known, _)| *known == holder) {
            Some((_, pools)) => pools.push(pool),
            None => holders.push((holder, vec![pool])),
        }
    }
    let subject = |((name, _), pools): (Holder, Vec<&PoolConfig>)| {
        let forge = &config.forges[&name];
        let client = credential_of(&forge.credential, &pools).and_then(|credential| {
            let authorities = authorities(forge)?;
            forge_client(forge.url.clone(), credential, authorities.as_deref())
        });
        Subject { prefix: format!("{name}: "), forge: client, owners: owners(&pools) }
    };
    holders.into_iter().map(subject).collect()
}

fn owners(pools: &[&PoolConfig]) -> Vec<Owner> {
    let mut owners: Vec<Owner> = Vec::new();
    for pool in pools {
        let scope = &pool.spec.scope;
        let at = owners.iter().position(|owner| owner.scope == *scope).unwrap_or_else(|| {
            owners.push(Owner::new(scope.clone()));
            owners.len() - 1
        });
        let owner = &mut owners[at];
        owner.add_group(&pool.spec.group);
        let names = pool.by_size().into_iter().filter_map(|sized| sized.scale_set);
        owner.scale_sets.extend(names.map(|name| (pool.spec.group.clone(), name)));
        owner.jobs |= pool.sources.contains(&DemandWord::Poll);
    }
    owners
}

//! The checks of what a pool's machines see: mounts, the folder of guest programs, settings.

use std::path::Path;

use dayfly_fleet::pool::HookFiles;
use dayfly_guest::variables;
use dayfly_vm::{AllowEntry, Entrypoint, Mount, NetworkPolicy};

use super::Table;
use crate::config::pool_file::PoolFile;
use crate::config::reader::did_you_mean;
use crate::config::resolved::ForgeConfig;
use crate::config::schema::nearest;
use crate::config::{reader, secret};
use crate::exit::Failure;
use crate::rules;

/// Returns all mounts, that of the folder of guest programs among them.
pub(super) fn mounts(table: &mut Table<'_, '_>) -> Option<Vec<Mount>> {
    let mut mounts = Vec::new();
    for (index, text) in table.pool.mounts.iter().enumerate() {
        let name = format!("mounts[{index}]");
        let Some(mount) = table.take(&name, text.parse::<Mount>()) else { continue };
        let key = table.key(&name);
        table.findings.on_this_host(&key, || rules::mount_is_there(&mount).map_err(Failure::usage));
        mounts.push(mount);
    }
    if let Some(dir) = table.pool.dir.clone() {
        mounts.push(guest_programs(table, &dir)?);
    } else if table.has("guest_dir") && table.are_read(&["dir"]) {
        table.error("guest_dir", "guest_dir has a meaning only with dir", None);
    }
    Some(mounts)
}

fn guest_programs(table: &mut Table<'_, '_>, dir: &Path) -> Option<Mount> {
    let key = table.key("guest_dir");
    let folder = match table.findings.absolute(&key, table.pool.guest_dir.as_ref()) {
        Some(folder) => folder,
        None if table.has("guest_dir") => return None,
        None => table.findings.around.guest_folder.clone(),
    };
    let key = if table.has("guest_dir") { key } else { table.key("dir") };
    table.findings.on_this_host(&key, || rules::guest_programs_are_there(&folder).map_err(Failure::usage));
    table.take("dir", rules::guest_programs(dir, folder))
}

/// Returns the network policy, with its list.
pub(super) fn network(table: &mut Table<'_, '_>, forge: Option<&ForgeConfig>) -> Option<NetworkPolicy> {
    let pool = table.pool;
    let mut list = Vec::new();
    for (index, text) in pool.allow.iter().enumerate() {
        let entry = text.parse::<AllowEntry>();
        let preset = nearest(text, [AllowEntry::GITHUB]).filter(|_| entry.is_err()).map(did_you_mean);
        match entry {
            Ok(entry) => list.push(entry),
            Err(why) => table.error(&format!("allow[{index}]"), why, preset),
        }
    }
    if let Err((key, why)) = rules::allow(pool.network, pool.allow.len()) {
        table.error(key, why, None);
    }
    let policy = pool.network.policy(list);
    let forge = forge?;
    table.take("network", rules::network(&policy, pool.driver, &forge.url))?;
    if let NetworkPolicy::Allow(list) = &policy
        && forge.url.is_github()
        && !list.is_empty()
        && !list.iter().any(AllowEntry::is_github)
    {
        let message = "the preset github is not in the list, and a runner of GitHub needs most of its names";
        let key = table.key("allow");
        table.findings.warning(&key, message.to_owned(), Some("add \"github\"".to_owned()));
    }
    Some(policy)
}

/// Returns the entrypoint as the machine sees it.
pub(super) fn entrypoint(pool: &PoolFile) -> Entrypoint {
    rules::entrypoint(pool.entrypoint.clone(), pool.dir.as_deref(), pool.entrypoint_args.clone())
}

/// Returns the hooks of jobs, whose scripts must be on this host.
pub(super) fn hooks(table: &mut Table<'_, '_>) -> Option<HookFiles> {
    let hooks = table.pool.hooks.clone();
    for (name, script) in [("job_started", &hooks.job_started), ("job_completed", &hooks.job_completed)] {
        let Some(script) = script else { continue };
        let key = reader::join(&table.key("hooks"), name);
        table.findings.absolute(&key, Some(script))?;
        table.findings.on_this_host(&key, || match script.is_file() {
            true => Ok(()),
            false => Err(Failure::usage(format!("the hook {} is not there", script.display()))),
        });
    }
    Some(HookFiles { job_started: hooks.job_started, job_completed: hooks.job_completed })
}

/// Checks that all settings may reach a job.
pub(super) fn settings(table: &mut Table<'_, '_>) {
    let settings = table.pool.settings.iter();
    let refused: Vec<String> = settings
        .filter(|(name, value)| !variables::is_for_guest(name, value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in refused {
        let key = reader::join(&table.key("settings"), &name);
        let message = if secret::looks_like_one(&table.pool.settings[&name]) {
            "a secret must not be in this file; give it to jobs by the forge's own secrets"
        } else {
            "this cannot be a setting: names begin with RUNNER_, and are neither settings of the host nor secrets"
        };
        table.findings.error(&key, message, None);
    }
}
